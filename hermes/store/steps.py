"""The step journal: an assistant message with its calls and their results becomes history as a whole, or is closed as it stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from hermes.errors import HermesError
from hermes.messages import Message, Text, decode_message, encode_message
from hermes.store import sessions

NOT_STARTED = "not started: {reason}"
UNKNOWN = "interrupted, outcome unknown: {reason}"
NOT_PROVIDED = "not provided: the conversation went on without a result"


class TurnGone(HermesError):
    """The turn is not this process's to write any more: it was ended elsewhere, or its session was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalCall:
    """A call as the journal holds it when its step opens.

    Args:
        call_id, name: of the model's call, in its order.
        client: the client runs it.
        changes: it may have side effects.
        started: it runs as soon as this is committed, so that a cut leaves its outcome unknown.
        result: known already (an unknown tool, broken arguments).
    """

    call_id: str
    name: str
    client: bool
    changes: bool
    started: bool
    result: Message | None = None


def open_step(
    con: sqlite3.Connection,
    *,
    turn_id: str,
    session_id: str,
    number: int,
    message: Message,
    calls: Sequence[JournalCall],
    now: float,
) -> tuple[Message, ...]:
    """Commit an assistant message as received and a row per call. Returns the whole step if every call has its result.

    Raises:
        TurnGone: the session was deleted while the turn ran.
    """
    if not belongs(con, turn_id, session_id):
        raise TurnGone(f"the session of turn {turn_id} was deleted")
    con.execute(
        "INSERT INTO steps (turn_id, number, session_id, state, message, opened_at) VALUES (?, ?, ?, 'open', ?, ?)",
        (turn_id, number, session_id, encode_message(message), now),
    )
    con.executemany(
        "INSERT INTO calls (turn_id, number, position, call_id, name, client, changes, state, result)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                turn_id, number, position, call.call_id, call.name, call.client, call.changes,
                "done" if call.result else "started" if call.started else "waiting",
                encode_message(call.result) if call.result else None,
            )
            for position, call in enumerate(calls)
        ],
    )  # fmt: skip
    if any(call.changes and call.started for call in calls):
        con.execute("UPDATE turns SET changed = 1 WHERE id = ?", (turn_id,))
    return _close_if_whole(con, turn_id, number, session_id, now)


def start_call(con: sqlite3.Connection, turn_id: str, number: int, position: int) -> None:
    """Commit that a call with side effects begins now. Raises TurnGone: it may not."""
    begun = con.execute(
        "UPDATE calls SET state = 'started' WHERE turn_id = ? AND number = ? AND position = ?",
        (turn_id, number, position),
    ).rowcount
    if not begun:
        raise TurnGone(f"the session of turn {turn_id} was deleted")
    con.execute("UPDATE turns SET changed = 1 WHERE id = ?", (turn_id,))


def finish_call(
    con: sqlite3.Connection, turn_id: str, session_id: str, number: int, position: int, result: Message, now: float
) -> tuple[Message, ...]:
    """Commit a call's result. Returns the whole step, now part of the history, if it was the last one missing.

    Raises:
        TurnGone: the session was deleted while the call ran.
    """
    ended = con.execute(
        "UPDATE calls SET state = 'done', result = ? WHERE turn_id = ? AND number = ? AND position = ?",
        (encode_message(result), turn_id, number, position),
    ).rowcount
    if not ended:
        raise TurnGone(f"the session of turn {turn_id} was deleted")
    return _close_if_whole(con, turn_id, number, session_id, now)


def belongs(con: sqlite3.Connection, turn_id: str, session_id: str) -> bool:
    """Whether a turn still runs in this session; not after the session was deleted, even if its id names a new one."""
    query = "SELECT 1 FROM turns WHERE id = ? AND session_id = ? AND state = 'running'"
    return con.execute(query, (turn_id, session_id)).fetchone() is not None


def await_client(con: sqlite3.Connection, turn_id: str, number: int) -> None:
    """Leave a step open until the session's next request brings the results of the client's own calls."""
    con.execute("UPDATE steps SET state = 'awaiting' WHERE turn_id = ? AND number = ?", (turn_id, number))


def awaited(con: sqlite3.Connection, session_id: str) -> set[str]:
    """Ids of the client's calls that the session waits for."""
    found = con.execute(
        "SELECT c.call_id FROM steps s JOIN calls c ON c.turn_id = s.turn_id AND c.number = s.number"
        " WHERE s.session_id = ? AND s.state = 'awaiting' AND c.client",
        (session_id,),
    )
    return {call_id for (call_id,) in found}


def close_awaiting(con: sqlite3.Connection, session_id: str, supplied: Sequence[Message]) -> list[Message]:
    """The step that waits for its client, completed with what was supplied; removed from the journal, not yet in the history."""
    found = con.execute(
        "SELECT turn_id, number, message FROM steps WHERE session_id = ? AND state = 'awaiting' ORDER BY opened_at",
        (session_id,),
    ).fetchall()
    results = {message.tool_call_id: message for message in supplied if message.role == "tool"}
    messages: list[Message] = []
    for turn_id, number, body in found:
        messages.append(decode_message(body))
        for call_id, name, client, result in _calls(con, turn_id, number):
            if client and call_id in results:
                messages.append(results[call_id])
            elif result is not None:
                messages.append(decode_message(result))
            else:
                messages.append(_note(call_id, name, NOT_PROVIDED))
        _forget(con, turn_id, number)
    return messages


def unanswered(history: Sequence[Message], supplied: Sequence[Message]) -> list[Message]:
    """What stands in for results of the history's last calls that are not supplied.

    A client's own history may end with calls whose results came with a request that never began; the next one need not
    bring them again, and without any the conversation could not be sent to a provider ever after.
    """
    results = {message.tool_call_id for message in supplied if message.role == "tool"}
    calls = history[-1].tool_calls if history else ()
    return [_note(call.id, call.name, NOT_PROVIDED) for call in calls if call.id not in results]


def close_open(con: sqlite3.Connection, turn_id: str, reason: str, now: float) -> tuple[Message, ...]:
    """Close a turn's open step as it stands and add it to the history: nothing of it will ever run again."""
    found = con.execute(
        "SELECT number, message, session_id FROM steps WHERE turn_id = ? AND state = 'open' ORDER BY number", (turn_id,)
    ).fetchall()
    closed: list[Message] = []
    for number, body, session_id in found:
        step = [decode_message(body)]
        states = con.execute(
            "SELECT call_id, name, state, changes, result FROM calls WHERE turn_id = ? AND number = ? ORDER BY position",
            (turn_id, number),
        )
        for call_id, name, state, _changes, result in states:
            if result is not None:
                step.append(decode_message(result))
            else:
                words = UNKNOWN if state == "started" else NOT_STARTED
                step.append(_note(call_id, name, words.format(reason=reason)))
        _forget(con, turn_id, number)
        sessions.append(con, session_id, turn_id, step, now)
        closed += step
    return tuple(closed)


def _close_if_whole(
    con: sqlite3.Connection, turn_id: str, number: int, session_id: str, now: float
) -> tuple[Message, ...]:
    missing = "SELECT 1 FROM calls WHERE turn_id = ? AND number = ? AND state != 'done' LIMIT 1"
    if con.execute(missing, (turn_id, number)).fetchone() is not None:
        return ()  # asked without the results: read at each of many, they would be read many times over
    results = [result for *_, result in _calls(con, turn_id, number) if result is not None]
    (body,) = con.execute("SELECT message FROM steps WHERE turn_id = ? AND number = ?", (turn_id, number)).fetchone()
    step = (decode_message(body), *(decode_message(result) for result in results))
    _forget(con, turn_id, number)
    sessions.append(con, session_id, turn_id, step, now)
    return step


def _calls(con: sqlite3.Connection, turn_id: str, number: int) -> list[tuple[str, str, int, bytes | None]]:
    return con.execute(
        "SELECT call_id, name, client, result FROM calls WHERE turn_id = ? AND number = ? ORDER BY position",
        (turn_id, number),
    ).fetchall()


def _forget(con: sqlite3.Connection, turn_id: str, number: int) -> None:
    con.execute("DELETE FROM calls WHERE turn_id = ? AND number = ?", (turn_id, number))
    con.execute("DELETE FROM steps WHERE turn_id = ? AND number = ?", (turn_id, number))


def _note(call_id: str, name: str, words: str) -> Message:
    return Message(role="tool", parts=(Text(words),), tool_call_id=call_id, name=name, note="not run")
