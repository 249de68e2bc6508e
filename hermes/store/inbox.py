"""The inbox: what was accepted, and its one final state. Plain functions inside a transaction of the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from hermes.commands import as_typed
from hermes.errors import RequestError
from hermes.events import StoredContent, decode_reply, encode_reply
from hermes.intake import HTTP, Failure, Intake, Payload, RowState, TurnEnd, decode_end, decode_payload, encode_payload
from hermes.messages import encode_messages
from hermes.replies import failure_text
from hermes.store import outbox, sessions
from hermes.store.rows import Accepted, InboxRow, Settled

COLUMNS = (
    "id, event_id, account, chat, thread, reply, session_key, mode, source, principal, busy, may_change, accepted_at,"
    " attempts, resume, state, reason, turn_id, held_until, part_of, fetch_until, payload"
)
CONTINUES = "continues"  # what a text at its service's limit is part of
# SQLite uses the index of open rows only for a statement that repeats the index's own condition word for word.
OPEN = "state IN ('pending', 'live')"
WAITING = f"{OPEN} AND state = 'pending'"
RUNNING = f"{OPEN} AND state = 'live'"
COMMAND = "command "  # stands before the session's key in the mailbox's name of a command
_NAMES = tuple(COLUMNS.split(", "))
# Whether an event is known, and whether anything waits in its mailbox: for most it is neither, and no more need be asked.
_STANDING = (
    "SELECT EXISTS (SELECT 1 FROM inbox WHERE event_id = ? AND account = ? AND chat = ? AND kind = ?),"
    f" EXISTS (SELECT 1 FROM inbox WHERE session_key = ? AND {WAITING})"
)


def row(values: tuple[Any, ...]) -> InboxRow:
    """An inbox row from the columns of `COLUMNS`."""
    found = dict(zip(_NAMES, values, strict=True))
    found["may_change"], found["resume"] = bool(found["may_change"]), bool(found["resume"])
    try:
        found["reply"] = decode_reply(found["reply"]) if found["reply"] is not None else None
        payload = decode_payload(found["payload"])
    except msgspec.DecodeError:  # written by another version: the row is set aside, not the gateway
        payload, found["reply"] = None, None
    found["payload"] = payload or Payload(messages=())
    return InboxRow(**found, readable=payload is not None)


def count_open(con: sqlite3.Connection, key: str) -> int:
    """How many rows of a mailbox wait or are being answered."""
    (found,) = con.execute(f"SELECT count(*) FROM inbox WHERE session_key = ? AND {OPEN}", (key,)).fetchone()
    return int(found)


def accept(con: sqlite3.Connection, intake: Intake, now: float, ephemeral_s: float) -> Accepted:
    """Commit one event to its mailbox; a repeat, or a known idempotency key, points to the row that stands for it.

    Raises:
        RequestError: 404 the session must exist and does not; 409 the mailbox is full, or the key's turn changed
            something (or may have: its session was deleted) and must not run again; 422 the key was used with another body.
    """
    known = _by_key(con, intake)
    if known is not None:
        return known
    is_known, others_wait = con.execute(
        _STANDING, (intake.event_id, intake.account, intake.chat, intake.kind, intake.session_key)
    ).fetchone()
    if is_known and (known := _repeated(con, intake)) is not None:
        return known
    session, seq = sessions.next_event(con, intake.session_key, now + ephemeral_s)
    if intake.existing:
        if session is None or session.id != (intake.session_id or session.id):
            raise sessions.not_found(intake.session_id or intake.session_key)
        if intake.after is not None and not sessions.is_at(con, session, intake.after):
            raise RequestError(409, "the session has gone on since", code="session_moved")
    begun = session is None
    if session is None:
        session = sessions.create(
            con,
            session_id=intake.session_id or intake.session_key,
            key=intake.session_key,
            source=intake.source,
            principal=intake.principal,
            now=now,
            prefix=encode_messages(intake.prefix) if intake.prefix else None,
            expires_at=now + ephemeral_s if intake.ephemeral else None,
            next_event=2,
        )
    elif intake.max_queued is not None:
        query = f"SELECT count(*) FROM inbox WHERE session_key = ? AND {WAITING}"
        if con.execute(query, (intake.session_key,)).fetchone()[0] >= intake.max_queued:
            raise RequestError(
                409, f"{intake.max_queued} requests wait for this session already", code="session_busy", retry_after_s=5
            )
    part_of, held_until = _joined(con, intake, now, bool(others_wait)) if intake.account != HTTP else (None, None)
    con.execute(
        "INSERT INTO inbox (account, chat, thread, reply, event_id, kind, session_key, seq, mode, source, principal, busy,"
        " may_change, payload, accepted_at, part_of, held_until, fetch_until)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            intake.account, intake.chat, intake.thread, encode_reply(intake.reply) if intake.reply else None,
            intake.event_id, intake.kind, intake.session_key, seq, intake.mode, intake.source,
            intake.principal, intake.busy, intake.may_change, encode_payload(intake.payload), now, part_of, held_until,
            now + intake.fetch_s if intake.fetch_s else None,
        ),
    )  # fmt: skip
    if intake.idempotency is not None:
        key = intake.idempotency
        con.execute(
            "INSERT OR REPLACE INTO idempotency (principal, route, key, fingerprint, event_id, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (intake.principal, key.route, key.key, key.fingerprint, intake.event_id, now),
        )
    return Accepted(event_id=intake.event_id, session_id=session.id, fresh=True, session=session, begun=begun)


def _joined(con: sqlite3.Connection, intake: Intake, now: float, others_wait: bool) -> tuple[str | None, float | None]:
    """What a new row is a part of, and until when it waits for more; the parts before it wait as long as it does."""
    held_until = now + intake.merge_window_s if intake.part_of is not None else None
    group = _awaiting(con, intake, now) if others_wait else None
    if group is None:
        return _own(intake), held_until
    con.execute(
        f"UPDATE inbox SET held_until = ? WHERE session_key = ? AND {WAITING} AND part_of = ?",
        (held_until, intake.session_key, group),
    )
    return group, held_until


def is_awaited(con: sqlite3.Connection, intake: Intake, now: float) -> bool:
    """Whether what waits last in its mailbox waits for this event, as a part of the same message."""
    return _awaiting(con, intake, now) is not None


def _awaiting(con: sqlite3.Connection, intake: Intake, now: float) -> str | None:
    """The parts that wait for this one, by their common name."""
    last = con.execute(
        f"SELECT part_of, held_until, principal FROM inbox WHERE session_key = ? AND {WAITING} ORDER BY seq DESC LIMIT 1",
        (intake.session_key,),
    ).fetchone()
    if last is None or last[1] is None or last[1] <= now or last[2] != intake.principal:
        return None
    goes_on = str(last[0]).startswith(CONTINUES)
    return str(last[0]) if goes_on or last[0] == intake.part_of else None


def _own(intake: Intake) -> str | None:
    """The name of a new group of parts: unlike any other where the service gives none."""
    return f"{CONTINUES} {intake.event_id}" if intake.part_of == CONTINUES else intake.part_of


def _by_key(con: sqlite3.Connection, intake: Intake) -> Accepted | None:
    """The row that the client's idempotency key stands for; None when the key is new or free again."""
    if intake.idempotency is None:
        return None
    found = con.execute(
        "SELECT k.fingerprint, k.event_id, i.state, coalesce(s.id, i.session_key), t.changed, t.outcome,"
        " i.turn_id IS NOT NULL AND t.id IS NULL FROM idempotency k"
        " JOIN inbox i ON i.event_id = k.event_id LEFT JOIN turns t ON t.id = i.turn_id"
        " LEFT JOIN sessions s ON s.key = i.session_key AND s.ended_at IS NULL"
        " WHERE k.principal = ? AND k.route = ? AND k.key = ?",
        (intake.principal, intake.idempotency.route, intake.idempotency.key),
    ).fetchone()
    if found is None:
        return None
    fingerprint, event_id, state, session_id, changed, outcome, gone = found
    if fingerprint != intake.idempotency.fingerprint:
        raise RequestError(
            422, "this Idempotency-Key was used with another request body", code="idempotency_key_reused"
        )
    end = decode_end(outcome) if outcome is not None else None
    if state in ("pending", "live"):
        return Accepted(event_id=event_id, session_id=session_id, fresh=False)
    if end is not None and end.state == "done":
        return Accepted(event_id=event_id, session_id=end.session_id, fresh=False, end=end)
    if gone:
        raise RequestError(
            409,
            "the request of this Idempotency-Key was answered in a session that has been deleted; it is not run again",
            code="idempotency_outcome_unknown",
        )
    if changed:
        raise RequestError(
            409,
            "the request of this Idempotency-Key did not end well after a tool with side effects had started;"
            " it is not run again",
            code="idempotency_outcome_unknown",
        )
    return None


def _repeated(con: sqlite3.Connection, intake: Intake) -> Accepted | None:
    """The row of an event that was accepted before; None when it is new. A repeat makes no session and needs no room."""
    found = con.execute(
        "SELECT coalesce(s.id, i.session_key), i.finished_at IS NOT NULL, t.outcome FROM inbox i"
        " LEFT JOIN turns t ON t.id = i.turn_id LEFT JOIN sessions s ON s.key = i.session_key AND s.ended_at IS NULL"
        " WHERE i.event_id = ? AND i.account = ? AND i.chat = ? AND i.kind = ?",
        (intake.event_id, intake.account, intake.chat, intake.kind),
    ).fetchone()
    if found is None:
        return None
    session_id, finished, outcome = found
    end = decode_end(outcome) if finished and outcome is not None else None
    return Accepted(event_id=intake.event_id, session_id=session_id, fresh=False, end=end)


def settle(
    con: sqlite3.Connection,
    event: InboxRow,
    state: RowState,
    reason: str,
    failure: Failure,
    session_id: str,
    now: float,
    prefix: str = "/",
) -> Settled:
    """End a row without running it; commands that its notice names begin with `prefix`."""
    con.execute("UPDATE inbox SET state = ?, reason = ?, finished_at = ? WHERE id = ?", (state, reason, now, event.id))
    end = TurnEnd(
        event_id=event.event_id, session_id=session_id, state="interrupted" if state in ("interrupted", "stopped") else "failed",
        created_at=event.accepted_at, failure=failure,
    )  # fmt: skip
    words = failure_text(failure) if event.address is not None and state not in ("stopped", "superseded") else ""
    if words and event.address is not None:
        outbox.add(
            con,
            event.address,
            [StoredContent(text=as_typed(words, prefix), failed=True)],
            reply=event.reply,
            source="notice",
            turn_id=None,
            now=now,
        )
    return Settled(event_id=event.event_id, end=end, told=event.address if words else None)


def stop(
    con: sqlite3.Connection, key: str, event_id: str, now: float, before: int | None = None
) -> tuple[tuple[Settled, ...], frozenset[str]]:
    """End every row that waits in a mailbox now: somebody said stop, and it holds for what was accepted before it.

    Args:
        before: the row that says stop; what was accepted after it goes on. None: nothing was.

    Returns the rows that ended, and the event ids of those in a turn now, which is to be ended by whoever runs it.
    """
    failure = Failure(status=499, code="stopped", message="stopped before it began", kind="interrupted")
    session = sessions.get_open(con, key)
    limit = before if before is not None else 1 << 62
    found = con.execute(
        f"SELECT {COLUMNS} FROM inbox WHERE session_key = ? AND {WAITING} AND id < ? ORDER BY seq", (key, limit)
    )
    waiting = [row(each) for each in found.fetchall()]
    session_id = session.id if session is not None else key
    live = con.execute(
        f"SELECT event_id FROM inbox WHERE session_key = ? AND {RUNNING} AND id < ?", (key, limit)
    ).fetchall()
    settled = tuple(settle(con, each, "stopped", event_id, failure, session_id, now) for each in waiting)
    return settled, frozenset(each for (each,) in live)


def stop_one(con: sqlite3.Connection, event_id: str, now: float) -> Settled | None:
    """End one row if it still waits. None when it runs, is done, or does not exist."""
    failure = Failure(status=499, code="stopped", message="stopped before it began", kind="interrupted")
    found = con.execute(f"SELECT {COLUMNS} FROM inbox WHERE event_id = ? AND state = 'pending'", (event_id,)).fetchone()
    if found is None:
        return None
    event = row(found)
    session = sessions.get_open(con, event.session_key)
    return settle(con, event, "stopped", "stop", failure, session.id if session else event.session_key, now)


def waiting_keys(con: sqlite3.Connection, limit: int) -> list[str]:
    """Mailboxes that hold rows nobody has begun, longest waiting first."""
    found = con.execute(
        f"SELECT session_key FROM inbox WHERE {WAITING} AND kind != 'command' GROUP BY session_key ORDER BY min(id) LIMIT ?",
        (limit,),
    )
    return [key for (key,) in found]


def waits(con: sqlite3.Connection, key: str) -> int:
    """How many rows wait in a mailbox."""
    found = con.execute(f"SELECT count(*) FROM inbox WHERE session_key = ? AND {WAITING}", (key,)).fetchone()
    return int(found[0])


def next_commands(con: sqlite3.Connection, limit: int) -> list[InboxRow]:
    """Commands that wait to be run, in the order in which they came."""
    found = con.execute(
        f"SELECT {COLUMNS} FROM inbox WHERE state = 'pending' AND kind = 'command' ORDER BY id LIMIT ?", (limit,)
    )
    return [row(each) for each in found.fetchall()]


def finish_command(
    con: sqlite3.Connection, event: InboxRow, reply: Sequence[StoredContent], now: float, refused: str | None = None
) -> None:
    """End a command: its row, and what is said to it.

    Args:
        refused: why it was not run.
    """
    state = "command" if refused is None else "refused"
    con.execute("UPDATE inbox SET state = ?, reason = ?, finished_at = ? WHERE id = ?", (state, refused, now, event.id))
    if event.address is not None:
        outbox.add(con, event.address, reply, reply=event.reply, source="command", turn_id=None, now=now)
