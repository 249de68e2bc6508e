"""What a messaging service brought, judged and kept in one transaction: events in their order, and how far the account has read.

Each event becomes exactly one thing: nothing (counted), a code for a stranger, context of its chat, a command to be run, or a row
of a session's mailbox. A repeat is absorbed whatever it was.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hermes import commands
from hermes.access import AccessPolicy, judge
from hermes.attached import Senses, is_sound, use_of
from hermes.events import Address, InboundEvent, StoredContent, event_key
from hermes.ids import new_id
from hermes.inbound import to_payload
from hermes.intake import Busy, Intake, Payload, encode_payload
from hermes.messages import user
from hermes.session_keys import escaped, is_shared, session_key
from hermes.store import addresses, context, cursors, inbox, outbox, pairing, sessions
from hermes.store.rows import SessionRow

KEPT_FOR_MAIL_S = 86_400.0
RENAMED = 100  # mailboxes of one chat that are woken because it moved; a sweep finds the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The account that received.

    Args:
        account, platform: its id, and of which service.
        access: who may speak there.
        busy: what a new message does to a turn that runs.
        merge_window_s: how long more parts of one message are waited for.
        fetch_s: how long a message waits for its files; 0 = none is fetched.
        hear_s: how much longer for one that is to be transcribed.
        senses: what can be done with files.
        pairing_text: from a code to what the stranger reads.
        reset: from when a conversation last went on, and now, to what is said because it begins anew; None while it goes on.
    """

    account: str
    platform: str
    access: AccessPolicy
    busy: Busy
    pairing_text: Callable[[str], str]
    merge_window_s: float = 1.0
    reset: Callable[[float, float], str | None] = lambda _last_at, _now: None
    fetch_s: float = 0.0
    hear_s: float = 0.0
    senses: Senses = field(default_factory=Senses)


@dataclass(slots=True)
class Delivered:
    """What a delivery made.

    Args:
        rows: of mailboxes, in their order.
        commands: whether a command is to be run.
        files: whether there is something to fetch.
        addresses: where something is to be sent.
        counts: what became of how many events.
        session: the conversation of the last row, as it is now, if it is at hand.
        renamed: mailboxes in which something waits, as they were called and as they are, because a chat moved.
    """

    rows: list[Intake] = field(default_factory=list)
    commands: bool = False
    files: bool = False
    addresses: list[Address] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    session: SessionRow | None = None
    renamed: list[tuple[str, str]] = field(default_factory=list)


def deliver(
    con: sqlite3.Connection, place: Place, events: Sequence[InboundEvent], to: Mapping[str, bytes], now: float
) -> Delivered:
    """Keep events and move cursors.

    Args:
        place: the account.
        events: oldest first; each was checked by `hermes.inbound.check_event`.
        to: cursors, by name.
    """
    done = Delivered()
    for event in events:
        done.counts[_keep(con, place, event, done, now)] += 1
    cursors.move(con, place.account, to, now)
    return done


def _keep(con: sqlite3.Connection, place: Place, event: InboundEvent, done: Delivered, now: float) -> str:
    if event.kind == "moved":
        done.addresses += addresses.move(con, place.account, event.address.chat, event.text, now)
        done.renamed += _rename(con, place.account, event.address.chat, event.text)
        done.session = None
        return "moved"
    chat = event.address.chat
    listed = (
        chat if event.chat_kind == "dm" else addresses.listed_as(con, place.account, chat, place.access.listed_chats)
    )
    if listed != chat:
        addresses.is_meant(con, place.account, listed, now)
    person = event.sender.id
    paired = not place.access.names(person) and pairing.is_allowed(con, place.account, person)
    verdict = judge(place.access, event, paired=paired, chat=listed)
    if verdict.kind == "ignore":
        return "ignored"
    if verdict.kind == "pair":
        return _pair(con, place, event, done, now)
    there = now if event.at is None else event.at
    addresses.address_is_back(con, event.address, 0.0 if event.kind == "button" else there)  # what it is at may be old
    if verdict.kind == "context" and not _goes_on(con, place, event, now):
        if event.kind == "message" and place.access.context_messages:
            context.keep(con, _intake(place, event, named=True), place.access.context_messages, now)
        return "context"
    if event.kind == "edited":
        return _edit(con, place, event, done, now)
    command = commands.parse(event.text)
    if event.kind == "button" and command is None:
        return "lapsed"  # whatever asked for it has ended
    if command is not None and not _says(place, event, command):
        done.commands = _keep_command(con, place, event, now) or done.commands
        return "command"
    intake = _intake(place, event)
    accepted = inbox.accept(con, intake, now, KEPT_FOR_MAIL_S)
    if not accepted.fresh:
        return "repeated"
    done.session = accepted.session
    if accepted.session is not None and not accepted.begun:
        said = place.reset(accepted.session.updated_at, now)
        if said is not None:
            _begin_anew(con, event, intake, said, done, now)
    done.rows.append(intake)
    done.files = done.files or intake.fetch_s > 0
    return "accepted"


def _goes_on(con: sqlite3.Connection, place: Place, event: InboundEvent, now: float) -> bool:
    """Whether an event is one more part of a message that speaks to us: in a group the first part alone names us."""
    if event.kind != "message" or commands.parse(event.text) is not None:
        return False
    return inbox.is_awaited(con, _intake(place, event), now)


def _says(place: Place, event: InboundEvent, command: commands.Command) -> bool:
    """Whether a command is a message of its writer, who may say so; one that may not reads why, as of any other command."""
    may = command.name in commands.SAYS and place.access.may_use(event.sender.id, command.name) == "yes"
    return may and bool(command.arguments)


def _begin_anew(
    con: sqlite3.Connection, event: InboundEvent, intake: Intake, said: str, done: Delivered, now: float
) -> None:
    """Let a message begin a new conversation, unless the one before is being answered or waits."""
    if inbox.count_open(con, intake.session_key) > 1:
        return
    if sessions.renew(con, intake.session_key, new_id("sess"), "reset", now) is None:
        return
    done.session = None
    outbox.add(con, event.address, [StoredContent(text=said)], reply=None, source="notice", turn_id=None, now=now)
    done.addresses.append(event.address)


def _intake(place: Place, event: InboundEvent, *, named: bool | None = None) -> Intake:
    command = commands.parse(event.text)
    busy = place.busy
    if command is not None and command.name in commands.SAYS:
        event = msgspec.structs.replace(event, text=command.arguments)
        busy = "queue" if command.name == "queue" else "steer"
    payload = to_payload(
        event, named=is_shared(place.access, event) if named is None else named, hears=place.senses.hears
    )
    may_change = place.access.may_change(event.sender)
    return Intake(
        session_key=session_key(place.access, event),
        session_id=new_id("sess"),
        event_id=event.key,
        mode="attended" if event.attended else "detached",
        principal=f"{place.account}:{event.sender.id}",
        source=place.platform,
        payload=payload,
        account=place.account,
        chat=event.address.chat,
        thread=event.address.thread,
        reply=event.reply if _tied(event) else None,
        kind=event.kind,
        busy=busy,
        part_of=event.album or (inbox.CONTINUES if event.continues else None),
        merge_window_s=place.merge_window_s,
        fetch_s=_wait_s(place, payload, may_change=may_change),
        may_change=may_change,
    )


def _wait_s(place: Place, payload: Payload, *, may_change: bool) -> float:
    """How long a message waits for its files; 0 if none is to be fetched."""
    files = payload.attachments
    if place.fetch_s <= 0 or not any(use_of(each, place.senses, may_change=may_change) for each in files):
        return 0.0
    return place.fetch_s + (place.hear_s if place.senses.hears and any(map(is_sound, files)) else 0.0)


def _tied(event: InboundEvent) -> bool:
    """Whether the answer points to the message: where several speak, and where the service asks for it."""
    return event.chat_kind != "dm" or (event.reply is not None and event.reply.token is not None)


def _rename(con: sqlite3.Connection, account: str, chat: str, to: str) -> list[tuple[str, str]]:
    """Let the open conversations of a chat go on under its new id, with what is accepted for them, in a turn or not.

    Returns: the mailboxes in which something waits, as (former key, key), as many as are to be woken for it.
    """
    old, new = (f"{escaped(account)}:group:{escaped(each)}" for each in (chat, to))
    for table, condition in (("sessions", "ended_at IS NULL"), ("inbox", inbox.OPEN)):
        column = "key" if table == "sessions" else "session_key"
        con.execute(
            f"UPDATE OR IGNORE {table} SET {column} = ? || substr({column}, ?)"
            f" WHERE {condition} AND ({column} = ? OR substr({column}, 1, ?) = ?)",
            (new, len(old) + 1, old, len(old) + 1, old + ":"),
        )
    waiting = con.execute(
        f"SELECT DISTINCT session_key FROM inbox WHERE {inbox.WAITING} AND (session_key = ? OR substr(session_key, 1, ?) = ?)"
        " LIMIT ?",
        (new, len(new) + 1, new + ":", RENAMED),
    ).fetchall()
    return [(old + key[len(new) :], key) for (key,) in waiting]


def _pair(con: sqlite3.Connection, place: Place, event: InboundEvent, done: Delivered, now: float) -> str:
    if event.kind == "edited":
        return "ignored"
    code = pairing.offer(con, place.account, event.sender.id, now)
    if code is None:
        return "strangers"
    content = StoredContent(text=place.pairing_text(code))
    outbox.add(con, event.address, [content], reply=event.reply, source="notice", turn_id=None, now=now)
    done.addresses.append(event.address)
    return "paired"


def _keep_command(con: sqlite3.Connection, place: Place, event: InboundEvent, now: float) -> bool:
    """Keep a command to be run in its order; False for a repeat. It is in no mailbox, for it waits for nobody's turn."""
    made = con.execute(
        "INSERT OR IGNORE INTO inbox (account, chat, thread, reply, event_id, kind, session_key, seq, mode, source, principal,"
        " busy, may_change, payload, accepted_at) VALUES (?, ?, ?, ?, ?, 'command', ?, 0, 'detached', ?, ?, 'queue', ?, ?, ?)",
        (
            place.account, event.address.chat, event.address.thread,
            outbox.stored_reply(event.reply) if _tied(event) else None, event.key,
            inbox.COMMAND + session_key(place.access, event), place.platform, f"{place.account}:{event.sender.id}",
            event.sender.id in place.access.admins, encode_payload(Payload(messages=(user(event.text),))), now,
        ),
    ).rowcount  # fmt: skip
    return made > 0


def _edit(con: sqlite3.Connection, place: Place, event: InboundEvent, done: Delivered, now: float) -> str:
    """A message that waits says now what its writer wants it to say; one that was read stays as it was."""
    key = event_key(place.account, event.address.chat, "message", event.edits or "")
    payload = to_payload(event, named=is_shared(place.access, event), hears=place.senses.hears)
    wait_s = _wait_s(place, payload, may_change=place.access.may_change(event.sender))
    fetch_until = now + wait_s if wait_s else None
    changed = con.execute(
        "UPDATE inbox SET payload = ?, fetch_until = ? WHERE event_id = ? AND account = ? AND chat = ? AND kind = 'message'"
        f" AND {inbox.WAITING} AND attempts = 0 AND principal = ?",
        (
            encode_payload(payload),
            fetch_until,
            key,
            place.account,
            event.address.chat,
            f"{place.account}:{event.sender.id}",
        ),
    ).rowcount
    done.files = done.files or (changed > 0 and fetch_until is not None)
    return "edited" if changed else "ignored"
