"""What was said in a chat without being meant for us: kept for the next turn there, the last few alone."""

from __future__ import annotations

import sqlite3

import msgspec

from hermes.intake import Intake, Payload, decode_payload, encode_payload
from hermes.messages import Message

UNREAD = "state = 'context' AND turn_id IS NULL"  # word for word the condition of the index


def keep(con: sqlite3.Connection, intake: Intake, most: int, now: float) -> None:
    """Keep a message as context of its chat, and forget all but the last of them; a repeat is absorbed.

    Args:
        most: messages to keep in a chat.
    """
    con.execute(
        "INSERT OR IGNORE INTO inbox (account, chat, thread, event_id, kind, session_key, seq, mode, source, principal, busy,"
        " may_change, payload, accepted_at, state, finished_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, 0, ?, ?, 'context', ?)",
        (
            intake.account, intake.chat, intake.thread, intake.event_id, intake.kind, intake.session_key, intake.mode,
            intake.source, intake.principal, intake.busy, encode_payload(intake.payload), now, now,
        ),
    )  # fmt: skip
    con.execute(
        f"DELETE FROM inbox WHERE account = ? AND chat = ? AND {UNREAD} AND id <="
        f" (SELECT id FROM inbox WHERE account = ? AND chat = ? AND {UNREAD} ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (intake.account, intake.chat, intake.account, intake.chat, most),
    )


def take(con: sqlite3.Connection, account: str, chat: str, thread: str | None, turn_id: str) -> list[Message]:
    """What was said there since the last turn; it belongs to this turn from now on."""
    found = con.execute(
        f"SELECT id, payload FROM inbox WHERE account = ? AND chat = ? AND {UNREAD} AND thread IS ? ORDER BY id",
        (account, chat, thread),
    ).fetchall()
    con.executemany("UPDATE inbox SET turn_id = ? WHERE id = ?", [(turn_id, row) for row, _ in found])
    return [message for _, payload in found for message in _messages(payload)]


def _messages(payload: bytes) -> tuple[Message, ...]:
    try:
        known: Payload = decode_payload(payload)
    except msgspec.DecodeError:  # written by another version
        return ()
    return known.messages
