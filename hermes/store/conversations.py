"""What commands do to conversations, each exactly once. Plain functions inside a transaction of the writer.

A command's row may be run again after a death of the process. What came of it is therefore kept in the row, in the transaction
that did it, and a second run reads it there. Rows of a mailbox wait while a command for it does (`hermes.store.turns.take_up`),
so what is done here never meets a turn that begins meanwhile.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

import msgspec

from hermes.commands import MAX_TITLE
from hermes.events import Address, StoredContent
from hermes.ids import new_id
from hermes.intake import Busy, Intake, Payload
from hermes.messages import decode_message, user
from hermes.session_keys import is_personal, owns
from hermes.store import cursors, inbox, outbox, sessions, steps
from hermes.store.rows import InboxRow, SessionRow

MAX_EXCHANGES = 20
MOST_OWN = 1000  # conversations that are looked at for a name
_NUMBERED = re.compile(r" \([0-9]{1,3}\)\Z")  # four digits are a year
HOME = "home address"  # of an account's memory
BACK = "restarted from"  # likewise

What = Literal["done", "nothing", "busy", "unknown", "same", "elsewhere"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command did.

    Args:
        what: `done`; `nothing` = there was nothing to do it with; `busy` = a turn runs, or a message waits that came before;
            `unknown` = no such conversation of this person; `same` = it is this one; `elsewhere` = it goes on at another place.
        title: of the conversation that it is about.
        text: words of a person that it is about.
        number: of exchanges.
    """

    what: What
    title: str | None = None
    text: str = ""
    number: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Outcome).decode


def once(con: sqlite3.Connection, command: InboxRow, act: Callable[[], Outcome]) -> Outcome:
    """Do what a command says, or tell what it did when it was run before."""
    found = con.execute("SELECT reason FROM inbox WHERE id = ?", (command.id,)).fetchone()
    if found is not None and found[0] is not None:
        return _decode(found[0])
    outcome = act()
    con.execute("UPDATE inbox SET reason = ? WHERE id = ?", (_encode(outcome).decode(), command.id))
    return outcome


def begin_anew(
    con: sqlite3.Connection, command: InboxRow, key: str, made_id: str, title: str | None, now: float
) -> Outcome:
    """End the conversation that a key names and begin an empty one, which gets what waits; `nothing` if it is empty already."""

    def act() -> Outcome:
        ended = sessions.renew(con, key, made_id, "new", now)
        if title is not None:
            _open(con, command, key, made_id, now)
            con.execute("UPDATE sessions SET title = ? WHERE key = ? AND ended_at IS NULL", (title, key))
        return Outcome(what="nothing" if ended is None else "done", title=title)

    return once(con, command, act)


def set_title(
    con: sqlite3.Connection, command: InboxRow, key: str, made_id: str, title: str | None, now: float
) -> Outcome:
    """Name the conversation that a key names; it is begun if there is none. Without a title, tell the one it has."""
    session = sessions.get_open(con, key)
    if title is None:
        return Outcome(what="nothing" if session is None else "done", title=session.title if session else None)

    def act() -> Outcome:
        sessions.update(con, _open(con, command, key, made_id, now).id, now, title=title)
        return Outcome(what="done", title=title)

    return once(con, command, act)


def _open(con: sqlite3.Connection, command: InboxRow, key: str, made_id: str, now: float) -> SessionRow:
    return sessions.get_open(con, key) or sessions.create(
        con, session_id=made_id, key=key, source=command.source, principal=command.principal, now=now
    )


def own(con: sqlite3.Connection, key: str, principal: str, limit: int) -> list[SessionRow]:
    """The conversations of whoever speaks, the newest first, as `hermes.session_keys.owns` says."""
    found = sessions.of_principal(con, principal) if is_personal(key) else sessions.of_key(con, key)
    return [each for each in found if owns(key, principal, each.key, each.principal)][:limit]


def resume(con: sqlite3.Connection, command: InboxRow, key: str, session_id: str, now: float) -> Outcome:
    """Make another conversation of whoever speaks the one that a key names; what waits goes there. The one before is kept."""

    def act() -> Outcome:
        session = sessions.get(con, session_id)
        if session is None or session.expires_at is not None:
            return Outcome(what="unknown")
        if not owns(key, command.principal, session.key, session.principal):
            return Outcome(what="unknown")
        if session.ended_at is None:
            return Outcome(what="same" if session.key == key else "elsewhere", title=session.title)
        following = _put_away(con, key, "resume", now)
        con.execute(
            "UPDATE sessions SET key = ?, ended_at = NULL, end_reason = NULL, updated_at = ?,"
            " next_event = max(next_event, ?) WHERE id = ?",
            (key, now, following, session_id),
        )
        return Outcome(what="done", title=session.title)

    return once(con, command, act)


def branch(
    con: sqlite3.Connection, command: InboxRow, key: str, made_id: str, title: str | None, now: float
) -> Outcome:
    """Go on in a copy of the conversation that a key names; what was said so far stays as it is in the one that was copied.

    Without a title the copy is numbered: two of one name could not be told apart, nor gone on with by it.
    """

    def act() -> Outcome:
        session = sessions.get_open(con, key)
        if session is None or _is_empty(session):
            return Outcome(what="nothing")
        if _is_busy(con, command, key):
            return Outcome(what="busy")
        named = title
        if named is None and session.title is not None:
            mine = own(con, key, command.principal, MOST_OWN)
            named = copy_title(session.title, {each.title for each in mine if each.title is not None})
        made = sessions.fork(con, session.id, made_id, now, title=named, upto=None)
        following = _put_away(con, key, "branch", now)
        con.execute("UPDATE sessions SET key = ?, next_event = ? WHERE id = ?", (key, following, made_id))
        return Outcome(what="done", title=made.title)

    return once(con, command, act)


def copy_title(title: str, taken: Collection[str]) -> str:
    """The name of a copy: the same with the next number that no other has, `Rome (2)`, within the bound of a title. Pure.

    Args:
        title: of what is copied.
        taken: names that there are, compared as /resume compares them.
    """
    used = {each.casefold() for each in taken}
    base = _NUMBERED.sub("", title) or title
    for number in itertools.count(2):
        ending = f" ({number})"
        found = base[: MAX_TITLE - len(ending)] + ending
        if found.casefold() not in used:
            break
    return found


def _is_empty(session: SessionRow) -> bool:
    return not session.messages and not session.has_prefix


def _put_away(con: sqlite3.Connection, key: str, reason: str, now: float) -> int:
    """End the conversation that a key names; an empty one is not kept. Returns the place of the mailbox's next event."""
    session = sessions.get_open(con, key)
    if session is None:
        return 1
    (following,) = con.execute("SELECT next_event FROM sessions WHERE id = ?", (session.id,)).fetchone()
    if _is_empty(session) and session.title is None:
        sessions.delete(con, session.id)
    else:
        sessions.update(con, session.id, now, ended_at=now, end_reason=reason)
    return int(following)


def _is_busy(con: sqlite3.Connection, command: InboxRow, key: str) -> bool:
    """Whether a turn of the mailbox runs, or a message waits there that came before the command."""
    query = f"SELECT 1 FROM inbox WHERE session_key = ? AND {inbox.OPEN} AND (state = 'live' OR id < ?) LIMIT 1"
    return con.execute(query, (key, command.id)).fetchone() is not None


def exchange_start(newest_first: Iterable[tuple[int, str, str]]) -> int | None:
    """Where the last exchange of a conversation begins: what a person said, up to all that was answered to it. Pure.

    Args:
        newest_first: of each message its place, its turn, and whose it is (`user`, `assistant`, `tool`).

    Messages of one turn belong together, what was said into it included; so do those of turns that went on with it after a
    death of the process, and messages to which there was no answer yet when the next one came.
    """
    start: int | None = None
    turn = role = ""
    for place, of_turn, whose in newest_first:
        if role == "user" and whose != "user" and of_turn != turn:
            break
        start, turn, role = place, of_turn, whose
    return start


def _drop_exchange(con: sqlite3.Connection, session: SessionRow) -> tuple[list[bytes], set[str]]:
    """Take the last exchange out of the history. Returns its messages and its turns, nothing if there is none."""
    newest = con.execute(
        "SELECT seq, turn_id, body FROM messages WHERE session_id = ? ORDER BY seq DESC", (session.id,)
    )
    start = exchange_start((seq, turn_id, decode_message(body).role) for seq, turn_id, body in newest)
    newest.close()
    if start is None:
        return [], set()
    found = con.execute(
        "SELECT turn_id, body FROM messages WHERE session_id = ? AND seq >= ? ORDER BY seq", (session.id, start)
    ).fetchall()
    con.execute("DELETE FROM messages WHERE session_id = ? AND seq >= ?", (session.id, start))
    con.execute("UPDATE sessions SET next_message = ? WHERE id = ?", (start, session.id))
    steps.close_awaiting(con, session.id, ())  # a step that waits for its client goes with what it belongs to
    return [body for _, body in found], {turn_id for turn_id, _ in found}


def undo(con: sqlite3.Connection, command: InboxRow, key: str, number: int, now: float) -> Outcome:
    """Take the last exchanges out of the history, at most `MAX_EXCHANGES`. Nothing that tools did is taken back."""

    def act() -> Outcome:
        session = sessions.get_open(con, key)
        if session is None:
            return Outcome(what="nothing")
        if _is_busy(con, command, key):
            return Outcome(what="busy")
        dropped, first = 0, ""
        while dropped < min(number, MAX_EXCHANGES):
            bodies, _ = _drop_exchange(con, session)
            if not bodies:
                break
            dropped, first = dropped + 1, _first_words(bodies)
        con.execute("UPDATE sessions SET updated_at = ? WHERE id = ?", (now, session.id))
        return Outcome(what="done" if dropped else "nothing", number=dropped, text=first)

    return once(con, command, act)


def retry(con: sqlite3.Connection, command: InboxRow, key: str, may_change: bool, now: float) -> Outcome:
    """Take the last exchange out of the history and put what the person said in it into the mailbox again.

    Args:
        may_change: whether who retries may use tools with side effects; they are offered only if the first time they were, too,
            so that nobody lends rights to words of somebody else.
    """

    def act() -> Outcome:
        session = sessions.get_open(con, key)
        if session is None:
            return Outcome(what="nothing")
        if _is_busy(con, command, key):
            return Outcome(what="busy")
        bodies, dropped = _drop_exchange(con, session)
        said = tuple(message for message in map(decode_message, bodies) if message.role == "user")
        if not said:
            return Outcome(what="nothing")
        intake = Intake(
            session_key=key, event_id=f"{command.event_id}/again", mode="detached", principal=command.principal,
            source=command.source, payload=Payload(messages=said), account=command.account, chat=command.chat,
            thread=command.thread, reply=command.reply, may_change=may_change and _might_change(con, dropped),
        )  # fmt: skip
        inbox.accept(con, intake, now, 0.0)
        return Outcome(what="done", text=_first_words(bodies))

    return once(con, command, act)


def _might_change(con: sqlite3.Connection, turns: set[str]) -> bool:
    """Whether everybody whose words these turns answered was offered tools with side effects; not if that is not known."""
    marks = ", ".join("?" * len(turns))
    found = con.execute(
        f"SELECT coalesce(i.may_change, 0) FROM turns t LEFT JOIN inbox i ON i.event_id = t.event_id WHERE t.id IN ({marks})",
        tuple(turns),
    ).fetchall()
    return len(found) == len(turns) and all(allowed for (allowed,) in found)


def _first_words(bodies: Iterable[bytes]) -> str:
    return next((each.text[:200] for each in map(decode_message, bodies) if each.role == "user"), "")


def resubmit(
    con: sqlite3.Connection, command: InboxRow, key: str, text: str, busy: Busy, may_change: bool, now: float
) -> None:
    """End a command whose words are a message of the person, and put that into the mailbox."""
    intake = Intake(
        session_key=key, event_id=f"{command.event_id}/said", mode="detached", principal=command.principal,
        session_id=new_id("sess"), source=command.source, payload=Payload(messages=(user(text),)), account=command.account,
        chat=command.chat, thread=command.thread, reply=command.reply, busy=busy, may_change=may_change,
    )  # fmt: skip
    inbox.accept(con, intake, now, 0.0)
    inbox.finish_command(con, command, (), now)


def finish_restart(con: sqlite3.Connection, command: InboxRow, reply: Sequence[StoredContent], now: float) -> None:
    """End a command that restarts the gateway, with its answer; where it was typed, `say_back` is said at the next start."""
    inbox.finish_command(con, command, reply, now)
    if command.address is not None:
        cursors.keep(con, command.account, BACK, msgspec.json.encode(command.address), now)


def say_back(con: sqlite3.Connection, words: Callable[[Address], Sequence[StoredContent]], now: float) -> list[Address]:
    """Say once, where it was restarted from, that the gateway is back. Returns where something is to be sent."""
    kept = con.execute("DELETE FROM account_memory WHERE key = ? RETURNING value", (BACK,)).fetchall()
    told = [address for (value,) in kept if (address := _address(value)) is not None]
    return [outbox.add(con, to, words(to), reply=None, source="command", turn_id=None, now=now).address for to in told]


def set_home(con: sqlite3.Connection, command: InboxRow, now: float) -> Outcome:
    """Remember where the command was typed as the place for what nobody asked for at a place of its own."""
    if command.address is None:
        return Outcome(what="nothing")
    cursors.keep(con, command.account, HOME, msgspec.json.encode(command.address), now)
    return Outcome(what="done")


def home(con: sqlite3.Connection, account: str) -> Address | None:
    """The place that `set_home` remembered."""
    kept = cursors.recall(con, account, HOME)
    return None if kept is None else _address(kept)


def _address(kept: bytes) -> Address | None:
    try:
        return msgspec.json.decode(kept, type=Address)
    except msgspec.DecodeError:  # written by another version
        return None
