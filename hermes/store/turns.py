"""Turns: taking rows up, and the one transaction that ends them. Plain functions inside a transaction of the writer.

A turn belongs to the process that began it (`boot_id`); every later write of it checks that it still runs there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from hermes.access import AccessPolicy, still_allowed
from hermes.events import StoredContent
from hermes.intake import HTTP, Failure, RowState, TurnEnd, decode_end, encode_end
from hermes.messages import Message, Text, decode_message
from hermes.session_keys import kind_of_chat
from hermes.store import addresses, context, inbox, live_parts, outbox, pairing, responses, sessions, steps
from hermes.store.outbox_upkeep import REMOVED
from hermes.store.rows import Claim, InboxRow, Next, RunRow, SessionRow, Settled
from hermes.store.steps import TurnGone

MAX_ATTEMPTS = 2  # starts that ended in the death of the process; the next one sets the row aside
RESUME_GAP = 1_000_000  # event numbers left out when a run is resumed
SHORT_HISTORY = 200  # messages that are read with a claim; more would keep other writers waiting
CLOCK_STEP_S = (
    1.0  # what was accepted further in the future was so by a clock that has been set back: it waits for nothing
)
MAX_TOGETHER = 64  # rows that one turn answers at most

# What waits in a mailbox; and, so that the statements which most turns have no need of are run for the others alone: whether a
# command for it waits, whether its conversation waits for results, and whether something was said in the chat without being meant
# for us.
_WAITING = (
    f"SELECT {inbox.COLUMNS}, EXISTS (SELECT 1 FROM inbox WHERE session_key = ? AND {inbox.WAITING}),"
    " EXISTS (SELECT 1 FROM sessions JOIN steps ON steps.session_id = sessions.id"
    " WHERE sessions.key = ? AND sessions.ended_at IS NULL AND steps.state = 'awaiting'),"
    " EXISTS (SELECT 1 FROM inbox AS said WHERE said.account = inbox.account AND said.chat = inbox.chat"
    " AND said.state = 'context' AND said.turn_id IS NULL)"
    f" FROM inbox WHERE session_key = ? AND {inbox.WAITING} ORDER BY seq LIMIT ?"
)
_ASKED = 3  # columns after the row's own
# Of a turn that runs in this session: whether it has steps in the journal, and whether something of its reply is being shown.
_STANDING = (
    "SELECT EXISTS (SELECT 1 FROM steps WHERE turn_id = turns.id),"
    f" EXISTS (SELECT 1 FROM outbox WHERE turn_id = turns.id AND {addresses.OPEN} AND state = 'live')"
    " FROM turns WHERE id = ? AND session_id = ? AND state = 'running'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeUp:
    """How a mailbox is looked at.

    Args:
        key: the mailbox.
        turn_id: the id a new turn will have.
        boot_id: the process that runs it.
        now: seconds since the epoch.
        left: attended events that nobody waits for any more.
        stale_after_s: rows of people that are older go to the model together.
        remembers: the session's agent has its history; without it a short one comes with the claim.
        access: account -> who may speak there now; None for one that is not configured (any more).
        prefix: account -> what people type there before the name of a command.
    """

    key: str
    turn_id: str
    boot_id: str
    now: float
    left: frozenset[str]
    stale_after_s: float
    remembers: bool = True
    access: Callable[[str], AccessPolicy | None] = lambda _account: None
    prefix: Callable[[str], str] = lambda _account: "/"


def take_up(con: sqlite3.Connection, look: TakeUp, session: SessionRow | None = None) -> Next:
    """Settle what needs no turn, and begin one for the oldest row that does; nothing while a command for this mailbox waits.

    Args:
        session: the conversation as it is now, if it is at hand.
    """
    found = con.execute(_WAITING, (inbox.COMMAND + look.key, look.key, look.key, MAX_TOGETHER + 1)).fetchall()
    if not found or found[0][-_ASKED]:
        return Next(claim=None, settled=(), more=False)  # whoever runs the command wakes the mailbox afterwards
    settled: list[Settled] = []
    waiting = [inbox.row(each[:-_ASKED]) for each in found]
    more = len(found) > MAX_TOGETHER
    session = session or sessions.get_open(con, look.key)
    if session is None:
        gone = Failure(status=404, code="session_not_found", message="the session was deleted before this was answered")
        settled += [
            inbox.settle(con, each, "refused", "session deleted", gone, look.key, look.now, look.prefix(each.account))
            for each in waiting
        ]
        return Next(claim=None, settled=tuple(settled), more=more)
    while waiting:
        first = waiting[0]
        refusal = _refusal(con, first, look, session)
        if refusal is None:
            break
        state, reason, failure = refusal
        prefix = look.prefix(first.account)
        settled.append(inbox.settle(con, first, state, reason, failure, session.id, look.now, prefix))
        waiting.pop(0)
    if not waiting:
        return Next(claim=None, settled=tuple(settled), more=more)
    together = _together(waiting, look)
    ready_at = max((each.ready_at for each in together if each.accepted_at <= look.now + CLOCK_STEP_S), default=0.0)
    if ready_at > look.now:
        return Next(claim=None, settled=tuple(settled), more=False, held_s=ready_at - look.now)
    awaits, overheard = found[0][-2], found[len(settled)][-1]
    claim = _begin(con, together, session, look, awaits=bool(awaits), overheard=bool(overheard))
    return Next(claim=claim, settled=tuple(settled), more=len(waiting) > len(together) or more)


def _refusal(
    con: sqlite3.Connection, event: InboxRow, look: TakeUp, session: SessionRow
) -> tuple[RowState, str, Failure] | None:
    """Why a row is not begun, as (state, reason, failure); None when it may be."""
    if event.event_id in look.left:
        failure = Failure(
            status=499, code="client_left", message="the caller left before its turn began", kind="interrupted"
        )
        return "interrupted", "the caller left", failure
    if event.attempts >= MAX_ATTEMPTS:
        failure = Failure(status=500, code="quarantined", message="interrupted three times, set aside")
        return "quarantined", "interrupted three times", failure
    if _is_removed(event, look):
        failure = Failure(status=410, code="account_removed", message="the account was removed")
        return "refused", REMOVED, failure
    if not _may_speak(con, event, look):
        failure = Failure(status=403, code="not_allowed", message="you may not talk to me any more")
        return "refused", "not allowed any more", failure
    if not event.readable:
        failure = Failure(status=500, code="unreadable", message="its stored content cannot be read, set aside")
        return "quarantined", "unreadable", failure
    results = [each.tool_call_id for each in event.payload.messages if each.role == "tool"]
    if results and not event.resume:
        called = {call.id for each in event.payload.messages for call in each.tool_calls}
        if session.has_prefix and not session.messages:
            called |= {call.id for call in sessions.history(con, session.id)[-1].tool_calls}
        unknown = set(results) - called - steps.awaited(con, session.id)
        if unknown:
            words = f"no call of this session waits for a result of {sorted(map(str, unknown))[0]!r}"
            return (
                "refused",
                "unknown call",
                Failure(status=400, code="unknown_tool_call", message=words, kind="invalid_request_error"),
            )
    return None


def _is_removed(event: InboxRow, look: TakeUp) -> bool:
    """Whether nobody could read an answer any more: the row came through an account that is not configured now."""
    return event.account != HTTP and event.mode != "job" and look.access(event.account) is None


def _may_speak(con: sqlite3.Connection, event: InboxRow, look: TakeUp) -> bool:
    """Whether a row's writer is still let in: it was judged when it came, and that may be long ago."""
    if event.account == HTTP or event.mode == "job" or (policy := look.access(event.account)) is None:
        return True
    person = event.principal.partition(":")[2]
    paired = not policy.names(person) and pairing.is_allowed(con, event.account, person)
    chat = addresses.listed_as(con, event.account, event.chat, policy.listed_chats)
    return still_allowed(policy, kind_of_chat(event.session_key), chat, person, paired=paired)


def _rights(event: InboxRow, look: TakeUp) -> bool:
    """Whether tools with side effects are offered: what was granted when it came, and has not been taken back."""
    if event.account == HTTP or (policy := look.access(event.account)) is None:
        return event.may_change
    return event.may_change and policy.may_change_id(event.principal.partition(":")[2])


def _together(waiting: list[InboxRow], look: TakeUp) -> list[InboxRow]:
    """The rows one turn answers: one, the parts of one message, or a burst of a person's (restarted, or old and unanswered)."""
    first = waiting[0]
    same = [first]
    if first.part_of is not None:
        same = [each for each in waiting[:MAX_TOGETHER] if each.part_of == first.part_of]
        if same != waiting[: len(same)]:  # something else came in between
            same = waiting[: next(n for n, each in enumerate(waiting) if each.part_of != first.part_of)]
    if first.busy == "queue" or first.mode != "detached":
        return same
    for event in waiting[len(same) : MAX_TOGETHER]:
        stale = look.now - first.accepted_at > look.stale_after_s and look.now - event.accepted_at > look.stale_after_s
        alike = event.principal == first.principal and event.mode == first.mode and event.busy != "queue"
        if not alike or event.attempts or not (first.reason == "restarted" or stale):
            break
        same.append(event)
    return same


def _begin(
    con: sqlite3.Connection, rows: list[InboxRow], session: SessionRow, look: TakeUp, *, awaits: bool, overheard: bool
) -> Claim:
    first_event = _first_event(con, rows[-1])
    rows = [
        msgspec.structs.replace(
            each, resume=each.resume and _was_begun(con, each, session), may_change=_rights(each, look)
        )
        for each in rows
    ]
    first = rows[0]
    con.execute(
        "INSERT INTO turns (id, session_id, event_id, mode, state, boot_id, started_at) VALUES (?, ?, ?, ?, 'running', ?, ?)",
        (look.turn_id, session.id, rows[-1].event_id, first.mode, look.boot_id, look.now),
    )
    con.executemany(
        "UPDATE inbox SET state = 'live', attempts = attempts + 1, turn_id = ?, fetch_until = NULL WHERE id = ?",
        [(look.turn_id, each.id) for each in rows],
    )
    new = [message for each in rows if not each.resume for message in _content(each, look)]
    if overheard and first.address is not None and not first.resume:
        new = context.take(con, first.account, first.chat, first.thread, look.turn_id) + new
    appended = steps.close_awaiting(con, session.id, new) if awaits and not first.resume else []
    if session.has_prefix and not session.messages and not first.resume:
        appended += steps.unanswered(sessions.history(con, session.id), new)
    answered = {message.tool_call_id for message in appended if message.role == "tool"}
    appended += [message for message in new if message.role != "tool" or message.tool_call_id not in answered]
    base = sessions.append(con, session.id, look.turn_id, appended, look.now, turns=1)
    short = not look.remembers and base <= SHORT_HISTORY
    return Claim(
        turn_id=look.turn_id, rows=tuple(rows), session=session, appended=tuple(appended), resumed=first.resume, base=base,
        started_at=look.now, first_event=first_event,
        history=tuple(sessions.history(con, session.id)) if short else None,
    )  # fmt: skip


def _was_begun(con: sqlite3.Connection, event: InboxRow, session: SessionRow) -> bool:
    """Whether a row was begun in this conversation; what it said went with one that was deleted since."""
    found = con.execute("SELECT 1 FROM turns WHERE id = ? AND session_id = ?", (event.turn_id, session.id)).fetchone()
    return found is not None


def _first_event(con: sqlite3.Connection, event: InboxRow) -> int:
    """Where the numbers of a row's events begin: after a death, well above what may have been seen and was not stored."""
    if not event.resume:
        return 1
    (last,) = con.execute(
        "SELECT coalesce(max(number), 0) FROM run_events WHERE event_id = ?", (event.event_id,)
    ).fetchone()
    return int(last) + RESUME_GAP


def _content(event: InboxRow, look: TakeUp) -> list[Message]:
    """A row's messages; when they are old, each says when it was written."""
    if event.busy == "queue" or look.now - event.accepted_at <= look.stale_after_s:
        return list(event.payload.messages)
    when = datetime.fromtimestamp(event.accepted_at, UTC).strftime("[written %Y-%m-%d %H:%M UTC] ")
    return [msgspec.structs.replace(each, parts=(Text(when), *each.parts)) for each in event.payload.messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a turn is to be ended.

    Args:
        claim: what was taken up.
        end: what is stored and told; its `transcript` is filled in here.
        messages: what is added to the history (after an open step is closed).
        rows: what becomes of the inbox rows: `answered`, `interrupted`, `superseded`, `stopped`, or `pending` to be resumed
            (`restarted`: together with what came since).
        reason: why, for every state but `answered`.
        step_reason: how calls without a result are described when a step is still open.
        run_events: (number, body) to keep for a detached run.
        await_step: number of the step that stays open until its client supplies the results.
        reply: what the person who wrote reads of it, in parts; empty where somebody fetches the end.
    """

    claim: Claim
    end: TurnEnd
    messages: Sequence[Message]
    rows: str
    reason: str | None = None
    step_reason: str = ""
    run_events: Sequence[tuple[int, bytes]] = ()
    await_step: int | None = None
    reply: Sequence[StoredContent] = ()


def finish(con: sqlite3.Connection, how: Finish, boot_id: str, now: float) -> tuple[TurnEnd, tuple[Message, ...]]:
    """End a turn: messages, turn state, inbox rows, response and run events in this one transaction.

    Returns the end as stored, and what was added to the history by closing an open step and by `how.messages`.

    Raises:
        TurnGone: the turn does not run in this process any more.
    """
    claim = how.claim
    standing = con.execute(_STANDING, (claim.turn_id, claim.session.id)).fetchone()
    there = standing is not None
    journal, live = standing if there else (True, True)
    added, transcript = _add(con, how, now, bool(journal)) if there else (tuple(how.messages), how.messages)
    said = tuple(message for message in transcript if message.role in ("assistant", "tool"))
    end = msgspec.structs.replace(how.end, transcript=said)
    ended = con.execute(
        "UPDATE turns SET state = ?, ended_at = ?, outcome = ? WHERE id = ? AND state = 'running' AND boot_id = ?",
        (end.state, now, encode_end(end), claim.turn_id, boot_id),
    ).rowcount
    if not ended:
        raise TurnGone(f"turn {claim.turn_id} is not running here")
    _end_rows(con, how, now)
    response = claim.rows[-1].payload.response
    if response is not None and end.state == "done" and there:
        responses.keep(con, claim.rows[-1], claim.session.id, end, now)
    keep_events(con, claim.rows[-1].event_id, how.run_events)
    _say(con, how, now, bool(live))
    return end, added


def _say(con: sqlite3.Connection, how: Finish, now: float, live: bool) -> None:
    """Have the reply shown where it was asked for; what is shown of it already is made to agree.

    Args:
        live: something of it may be shown.
    """
    claim = how.claim
    row = claim.rows[-1]
    if row.address is None:
        return
    if how.reply and not live and claim.resumes is None:
        outbox.add(con, row.address, how.reply, reply=row.reply, source="turn", turn_id=claim.turn_id, now=now)
    elif how.reply:
        live_parts.finish_live(
            con, row.address, how.reply, reply=row.reply, source="turn", turn_id=claim.turn_id, now=now,
            resumes=claim.resumes,
        )  # fmt: skip
    elif live and (
        how.rows != "pending" or how.reason == "restarted"
    ):  # what is resumed at the next start is ended by its recovery
        live_parts.end_live(con, claim.turn_id, now)


def _add(
    con: sqlite3.Connection, how: Finish, now: float, journal: bool
) -> tuple[tuple[Message, ...], Sequence[Message]]:
    """Close what is open and add what was said last. Returns what entered the history by this, and by the whole turn.

    Args:
        journal: the turn has steps that are not in the history.
    """
    claim = how.claim
    if how.await_step is not None:
        steps.await_client(con, claim.turn_id, how.await_step)
    reason = how.step_reason or how.reason or "the turn ended"
    closed = steps.close_open(con, claim.turn_id, reason, now) if journal else ()
    last = sessions.append(con, claim.session.id, claim.turn_id, how.messages, now, usage=how.end.usage)
    added = (*closed, *how.messages)
    if last - len(added) == claim.base:
        return added, added
    found = con.execute(
        "SELECT body FROM messages WHERE session_id = ? AND seq > ? ORDER BY seq", (claim.session.id, claim.base)
    )
    return added, [decode_message(body) for (body,) in found]


def _end_rows(con: sqlite3.Connection, how: Finish, now: float) -> None:
    """Give each row its state: the last one the turn's, those before it `merged` into the turn."""
    if how.rows == "pending":  # resumed later; a committed end forgives the attempts before it
        con.executemany(
            "UPDATE inbox SET state = 'pending', attempts = 0, resume = 1, reason = ? WHERE id = ?",
            [(how.reason, each.id) for each in how.claim.rows],
        )
        return
    last = how.claim.rows[-1].id
    con.executemany(
        "UPDATE inbox SET state = ?, reason = ?, finished_at = ? WHERE id = ?",
        [
            (how.rows if each.id == last or how.rows != "answered" else "merged", how.reason, now, each.id)
            for each in how.claim.rows
        ],
    )


def steer(con: sqlite3.Connection, claim: Claim, now: float) -> tuple[Message, ...]:
    """Take what was said to steer a running turn into its history; those rows are merged into the turn."""
    found = con.execute(
        f"SELECT {inbox.COLUMNS} FROM inbox WHERE session_key = ? AND {inbox.WAITING} ORDER BY seq LIMIT ?",
        (claim.rows[0].session_key, MAX_TOGETHER),
    ).fetchall()
    taken: list[InboxRow] = []
    for event in map(inbox.row, found):
        if event.busy != "steer" or event.mode != "detached" or event.ready_at > now:
            break
        taken.append(event)
    messages = tuple(message for each in taken for message in each.payload.messages)
    if taken and not steps.belongs(con, claim.turn_id, claim.session.id):
        raise TurnGone(f"the session of turn {claim.turn_id} was deleted")
    if taken:
        sessions.append(con, claim.session.id, claim.turn_id, messages, now)
        con.executemany(
            "UPDATE inbox SET state = 'merged', turn_id = ?, finished_at = ? WHERE id = ?",
            [(claim.turn_id, now, each.id) for each in taken],
        )
    return messages


def keep_events(con: sqlite3.Connection, event_id: str, events: Sequence[tuple[int, bytes]]) -> None:
    """Remember events of a run, by their numbers."""
    if events:
        con.executemany(
            "INSERT OR REPLACE INTO run_events (event_id, number, body) VALUES (?, ?, ?)",
            [(event_id, number, body) for number, body in events],
        )


def run(con: sqlite3.Connection, event_id: str) -> RunRow | None:
    """A detached run by its event id."""
    found = con.execute(
        "SELECT i.event_id, i.session_key, i.state, i.reason, i.accepted_at, t.state, t.started_at, t.ended_at, t.outcome,"
        " coalesce(nullif(t.session_id, ''), s.id, i.session_key) FROM inbox i LEFT JOIN turns t ON t.id = i.turn_id"
        " LEFT JOIN sessions s ON s.key = i.session_key AND s.ended_at IS NULL WHERE i.event_id = ? AND i.source = 'runs'",
        (event_id,),
    ).fetchone()
    if found is None:
        return None
    return RunRow(
        event_id=found[0], session_key=found[1], session_id=found[9], state=found[2], reason=found[3],
        accepted_at=found[4], turn_state=found[5], started_at=found[6], ended_at=found[7],
        end=decode_end(found[8]) if found[8] is not None else None,
    )  # fmt: skip


def open_runs(con: sqlite3.Connection) -> int:
    """How many detached runs wait or run."""
    found = con.execute("SELECT count(*) FROM inbox WHERE state IN ('pending', 'live') AND source = 'runs'").fetchone()
    return int(found[0])


def run_events(con: sqlite3.Connection, event_id: str, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Stored events of a run, after a number."""
    return con.execute(
        "SELECT number, body FROM run_events WHERE event_id = ? AND number > ? ORDER BY number LIMIT ?",
        (event_id, after, limit),
    ).fetchall()
