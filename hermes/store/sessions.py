"""Conversations and their messages: plain functions inside a transaction of the writer or on a reader."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from hermes.errors import RequestError
from hermes.messages import Message, Usage, decode_message, decode_messages, encode_message
from hermes.store.rows import SessionRow, StoredMessage

NOTHING_USED = Usage()
# Not `prefix IS NOT NULL`: SQLite 3.40 says 1 to that in a RETURNING of a table without row ids, also for NULL.
_COLUMNS = (
    "id, key, source, principal, title, model, instructions, parent_id, created_at, updated_at, ended_at, end_reason,"
    " expires_at, turns, next_message - 1, typeof(prefix) != 'null', input_tokens, output_tokens"
)


def _row(values: tuple[object, ...]) -> SessionRow:
    names = (
        "id", "key", "source", "principal", "title", "model", "instructions", "parent_id", "created_at", "updated_at",
        "ended_at", "end_reason", "expires_at", "turns", "messages", "has_prefix", "input_tokens", "output_tokens",
    )  # fmt: skip
    return SessionRow(**dict(zip(names, values, strict=True)))  # type: ignore[arg-type]


def not_found(session_id: str) -> RequestError:
    """The error for a conversation that does not exist."""
    return RequestError(404, f"there is no session {session_id!r}", code="session_not_found")


def get(con: sqlite3.Connection, session_id: str) -> SessionRow | None:
    """The conversation with this id."""
    found = con.execute(f"SELECT {_COLUMNS} FROM sessions WHERE id = ?", (session_id,)).fetchone()
    return None if found is None else _row(found)


def get_open(con: sqlite3.Connection, key: str) -> SessionRow | None:
    """The conversation that this key names now."""
    found = con.execute(f"SELECT {_COLUMNS} FROM sessions WHERE key = ? AND ended_at IS NULL", (key,)).fetchone()
    return None if found is None else _row(found)


def next_event(con: sqlite3.Connection, key: str, expires_at: float) -> tuple[SessionRow | None, int]:
    """The conversation that a key names now, and the place of its next event, which is taken by this; (None, 1) without one.

    Args:
        expires_at: for a conversation that is kept for a while only: it is used, so it is kept until then.
    """
    found = con.execute(
        f"UPDATE sessions SET next_event = next_event + 1 WHERE key = ? AND ended_at IS NULL RETURNING next_event - 1, {_COLUMNS}",
        (key,),
    ).fetchone()
    if found is None:
        return None, 1
    session = _row(found[1:])
    # Only where it expires: a statement that sets this writes four indexes, also to leave them as they are.
    if session.expires_at is not None:
        con.execute("UPDATE sessions SET expires_at = ? WHERE id = ?", (expires_at, session.id))
        session = msgspec.structs.replace(session, expires_at=expires_at)
    return session, int(found[0])


def is_at(con: sqlite3.Connection, session: SessionRow, messages: int) -> bool:
    """Whether a conversation holds exactly so many messages and nothing waits or runs in it."""
    if session.messages != messages:
        return False
    query = "SELECT 1 FROM inbox WHERE session_key = ? AND state IN ('pending', 'live') LIMIT 1"
    return con.execute(query, (session.key,)).fetchone() is None


def create(
    con: sqlite3.Connection,
    *,
    session_id: str,
    key: str,
    source: str,
    principal: str,
    now: float,
    title: str | None = None,
    model: str | None = None,
    instructions: str | None = None,
    prefix: bytes | None = None,
    parent_id: str | None = None,
    expires_at: float | None = None,
    next_event: int = 1,
) -> SessionRow:
    """Make a conversation. Raises RequestError 409 when the id or an open conversation of the key exists."""
    values = (
        session_id,
        key,
        source,
        principal,
        title,
        model,
        instructions,
        prefix,
        parent_id,
        now,
        now,
        expires_at,
        next_event,
    )
    try:
        made = con.execute(
            "INSERT INTO sessions (id, key, source, principal, title, model, instructions, prefix, parent_id, created_at,"
            f" updated_at, expires_at, next_event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
            values,
        ).fetchone()
    except sqlite3.IntegrityError as error:
        raise RequestError(409, f"a session {session_id!r} exists already", code="session_exists") from error
    return _row(made)


def listing(
    con: sqlite3.Connection, *, limit: int, offset: int, source: str | None, ephemeral: bool
) -> tuple[list[SessionRow], bool]:
    """The newest conversations, and whether there are more. Those that served one request alone only with `ephemeral`."""
    where, values = ["1"], list[object]()
    if source is not None:
        where.append("source = ?")
        values.append(source)
    if not ephemeral:
        where.append("expires_at IS NULL")
    found = con.execute(
        f"SELECT {_COLUMNS} FROM sessions WHERE {' AND '.join(where)} ORDER BY updated_at DESC LIMIT ? OFFSET ?",
        (*values, limit + 1, offset),
    ).fetchall()
    return [_row(each) for each in found[:limit]], len(found) > limit


def of_principal(con: sqlite3.Connection, principal: str) -> list[SessionRow]:
    """What somebody began and may go on with, the newest first, a thousand at most."""
    return _kept(con, "principal", principal)


def of_key(con: sqlite3.Connection, key: str) -> list[SessionRow]:
    """What a key named last, now and before, the newest first, a thousand at most."""
    return _kept(con, "key", key)


def _kept(con: sqlite3.Connection, column: str, value: str) -> list[SessionRow]:
    query = (
        f"SELECT {_COLUMNS} FROM sessions WHERE {column} = ? AND expires_at IS NULL ORDER BY updated_at DESC LIMIT 1000"
    )
    return [_row(each) for each in con.execute(query, (value,)).fetchall()]


def update(con: sqlite3.Connection, session_id: str, now: float, **changes: str | float | None) -> SessionRow:
    """Change title, model, instructions, or end it (end_reason). Raises RequestError 404."""
    allowed = {"title", "model", "instructions", "end_reason", "ended_at"}
    assert set(changes) <= allowed, changes
    names = ", ".join(f"{name} = ?" for name in changes)
    con.execute(f"UPDATE sessions SET {names}, updated_at = ? WHERE id = ?", (*changes.values(), now, session_id))
    row = get(con, session_id)
    if row is None:
        raise not_found(session_id)
    return row


def renew(con: sqlite3.Connection, key: str, new_id: str, reason: str, now: float) -> SessionRow | None:
    """End the conversation that a key names and begin an empty one in its place, which gets what waits in the mailbox.

    Returns: the one that ended; None if there was none, or it is empty: then it goes on.
    """
    old = get_open(con, key)
    if old is None or (not old.messages and not old.has_prefix):
        return None
    (following,) = con.execute("SELECT next_event FROM sessions WHERE id = ?", (old.id,)).fetchone()
    con.execute(
        "UPDATE sessions SET ended_at = ?, end_reason = ?, updated_at = ? WHERE id = ?", (now, reason, now, old.id)
    )
    create(
        con, session_id=new_id, key=key, source=old.source, principal=old.principal, now=now, parent_id=None,
        next_event=following,
    )  # fmt: skip
    return old


def delete(con: sqlite3.Connection, session_id: str) -> bool:
    """Remove a conversation with everything that belongs to it; rows of turns that run end with their turn."""
    row = get(con, session_id)
    if row is None:
        return False
    turns = "SELECT id FROM turns WHERE session_id = ?"
    con.execute(f"DELETE FROM calls WHERE turn_id IN ({turns})", (session_id,))
    con.execute("DELETE FROM steps WHERE session_id = ?", (session_id,))
    con.execute("DELETE FROM messages WHERE session_id = ?", (session_id,))
    con.execute(
        f"DELETE FROM run_events WHERE event_id IN (SELECT event_id FROM turns WHERE id IN ({turns}))", (session_id,)
    )
    con.execute("DELETE FROM responses WHERE session_id = ?", (session_id,))
    con.execute(
        "UPDATE inbox SET payload = NULL WHERE finished_at IS NOT NULL"
        " AND event_id IN (SELECT event_id FROM turns WHERE session_id = ?)",
        (session_id,),
    )
    con.execute("DELETE FROM turns WHERE session_id = ? AND state != 'running'", (session_id,))
    con.execute(
        "UPDATE turns SET session_id = '' WHERE session_id = ?", (session_id,)
    )  # it ends, and adds to no session
    con.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
    return True


def append(
    con: sqlite3.Connection,
    session_id: str,
    turn_id: str,
    messages: Sequence[Message],
    now: float,
    *,
    turns: int = 0,
    usage: Usage = NOTHING_USED,
) -> int:
    """Add messages to the history, in order, and count what was used. Returns how many the conversation now has (0: deleted)."""
    found = con.execute(
        "UPDATE sessions SET next_message = next_message + ?, turns = turns + ?, input_tokens = input_tokens + ?,"
        " output_tokens = output_tokens + ?, updated_at = ? WHERE id = ? RETURNING next_message - 1",
        (len(messages), turns, usage.input_tokens, usage.output_tokens, now, session_id),
    ).fetchone()
    if found is None:
        return 0
    last = int(found[0])
    for seq, message in enumerate(messages, last - len(messages) + 1):
        con.execute(
            "INSERT INTO messages (session_id, seq, turn_id, body, created_at) VALUES (?, ?, ?, ?, ?)",
            (session_id, seq, turn_id, encode_message(message), now),
        )
    return last


def history(con: sqlite3.Connection, session_id: str) -> list[Message]:
    """Everything a model may see: the client's own history that began it, then the stored messages."""
    found = con.execute("SELECT prefix FROM sessions WHERE id = ?", (session_id,)).fetchone()
    prefix = decode_messages(found[0]) if found is not None and found[0] is not None else ()
    bodies = con.execute("SELECT body FROM messages WHERE session_id = ? ORDER BY seq", (session_id,))
    return [*prefix, *(decode_message(body) for (body,) in bodies)]


def messages(
    con: sqlite3.Connection, session_id: str, *, after: int | None = None, limit: int = 1000
) -> list[StoredMessage]:
    """Messages after a place (None: from the beginning), in order.

    Messages of a client's own history have places of 0 and below, no turn, and the session's time.
    """
    found: list[StoredMessage] = []
    if after is None or after < 0:
        found = _prefix(con, session_id, after)[:limit]
    rows = con.execute(
        "SELECT seq, turn_id, created_at, body FROM messages WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (session_id, max(0, after or 0), limit - len(found)),
    )
    found += [
        StoredMessage(seq=seq, turn_id=turn_id, created_at=created_at, message=decode_message(body))
        for seq, turn_id, created_at, body in rows
    ]
    return found


def _prefix(con: sqlite3.Connection, session_id: str, after: int | None) -> list[StoredMessage]:
    row = con.execute("SELECT prefix, created_at FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if row is None or row[0] is None:
        return []
    prefix = decode_messages(row[0])
    first = 1 - len(prefix)
    return [
        StoredMessage(seq=seq, turn_id="", created_at=row[1], message=message)
        for seq, message in enumerate(prefix, first)
        if after is None or seq > after
    ]


def _whole_steps(con: sqlite3.Connection, session_id: str, upto: int) -> int:
    """The place itself, or the one before the step whose results come after it."""
    query = "SELECT body FROM messages WHERE session_id = ? AND seq = ?"
    while upto > 0:
        found = con.execute(query, (session_id, upto + 1)).fetchone()
        if found is None or decode_message(found[0]).role != "tool":
            break
        upto -= 1
    return upto


def fork(
    con: sqlite3.Connection,
    session_id: str,
    new_id: str,
    now: float,
    *,
    title: str | None,
    upto: int | None,
    expires_at: float | None = None,
) -> SessionRow:
    """Copy a conversation up to a place (all of it by default) into a new one; a step that the place would cut is left out.

    Raises:
        RequestError: 404, 409.
    """
    source = get(con, session_id)
    if source is None:
        raise not_found(session_id)
    (prefix,) = con.execute("SELECT prefix FROM sessions WHERE id = ?", (session_id,)).fetchone()
    create(
        con, session_id=new_id, key=new_id, source=source.source, principal=source.principal, now=now,
        title=title if title is not None else source.title, model=source.model, instructions=source.instructions,
        prefix=prefix, parent_id=session_id, expires_at=expires_at,
    )  # fmt: skip
    last = source.messages if upto is None else _whole_steps(con, session_id, min(upto, source.messages))
    con.execute(
        "INSERT INTO messages (session_id, seq, turn_id, body, created_at)"
        " SELECT ?, seq, turn_id, body, created_at FROM messages WHERE session_id = ? AND seq <= ?",
        (new_id, session_id, last),
    )
    con.execute("UPDATE sessions SET next_message = ? WHERE id = ?", (last + 1, new_id))
    row = get(con, new_id)
    assert row is not None
    return row
