"""Remembered `/v1/responses` objects: written with the end of their turn, bounded by age."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from hermes.intake import ResponseRecord, TurnEnd, decode_end, encode_end
from hermes.store.rows import InboxRow

_record = msgspec.json.Decoder(ResponseRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """A response as remembered.

    Args:
        id: what `previous_response_id` names.
        session_id, session_key: the conversation and its mailbox.
        upto: the place in it that a continuation starts from.
        record: what the request asked, as far as the object echoes it.
        end: how its turn ended.
    """

    id: str
    principal: str
    session_id: str
    session_key: str
    event_id: str
    upto: int
    record: ResponseRecord
    end: TurnEnd


def keep(con: sqlite3.Connection, event: InboxRow, session_id: str, end: TurnEnd, now: float) -> None:
    """Remember the response that this row asked for. A conversation deleted meanwhile keeps nothing."""
    record = event.payload.response
    found = con.execute("SELECT next_message - 1 FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if record is None or found is None:
        return
    con.execute(
        "INSERT OR REPLACE INTO responses (id, principal, session_id, event_id, upto, record, outcome, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.id, event.principal, session_id, event.event_id, found[0],
            msgspec.json.encode(record), encode_end(end), now,
        ),
    )  # fmt: skip


def get(con: sqlite3.Connection, response_id: str, principal: str) -> StoredResponse | None:
    """The response of this id, if this principal made it."""
    found = con.execute(
        "SELECT r.id, r.principal, r.session_id, s.key, r.event_id, r.upto, r.record, r.outcome FROM responses r"
        " JOIN sessions s ON s.id = r.session_id WHERE r.id = ? AND r.principal = ?",
        (response_id, principal),
    ).fetchone()
    if found is None:
        return None
    id_, principal_, session_id, session_key, event_id, upto, record, outcome = found
    return StoredResponse(
        id=id_, principal=principal_, session_id=session_id, session_key=session_key, event_id=event_id, upto=upto,
        record=_record.decode(record), end=decode_end(outcome),
    )  # fmt: skip


def delete(con: sqlite3.Connection, response_id: str, principal: str) -> bool:
    """Forget a response; the conversation stays. False if there was none."""
    return bool(con.execute("DELETE FROM responses WHERE id = ? AND principal = ?", (response_id, principal)).rowcount)
