"""The outbox: what is to be shown at an Address, part by part, and its one final state. Plain functions inside a transaction.

A part is `live` (a reply that is being written), `pending`, `sending` or `ambiguous` (an attempt of it may be shown), and ends
`sent`, `rejected(reason)` or `held(reason)`. At one address at most one part is `sending`, in the order of `seq`; a `live` one
keeps nobody waiting, for it has its place in the chat already.

`attempts` counts those whose outcome is not known; what failed for certain is not counted. `doubtful` says what an earlier
attempt may have left: see DOUBT and the names beside it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from hermes.events import (
    Address,
    Receipt,
    ReplyRef,
    StoredContent,
    decode_content,
    decode_receipt,
    decode_reply,
    encode_content,
    encode_receipt,
    encode_reply,
)
from hermes.store import addresses
from hermes.store.addresses import MAX_REASON, OPEN, at

Method = Literal["send", "edit"]

SURE: Final = 0  # nothing of it can be shown
DOUBT: Final = 1  # an earlier attempt may be shown
DRAFT: Final = 2  # an earlier attempt may be shown, as it was when the reply was still being written
APPROVED: Final = 3  # an earlier attempt may be shown, and a person wants it sent again

DEDUPLICATED_S = 300.0  # for so long after an attempt a service drops another one with its key
MAX_BUGS = 3
MAX_SKIPPED = 100  # parts that one look may end without sending
LEFT_OVER = "left over"  # the reason of a row whose text went into the parts before it
SHORTENED = StoredContent(text="…")  # what is shown in its place: a message cannot be taken back everywhere
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGIT_OF = (_DIGITS * 8).encode()[
    :256
]  # of any byte; four digits come a little more often: 62 random bits in twelve of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What `add` did.

    Args:
        address: where the parts are sent: a chat that moved is followed.
        keys: their names, in order.
        gone: why they were rejected at once; None if they wait.
    """

    address: Address
    keys: tuple[str, ...]
    gone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that was claimed, to be sent or edited now.

    Args:
        receipt: of what is shown of it; then it is edited.
        marked: an earlier attempt may be shown, and nothing will drop this one: it says so.
        then_edit: what the service may return for this key shows an older text, which is edited afterwards.
        since: the service is asked first whether it shows the attempts from this time on; None: it is not.
        hold: if nobody can tell, it is held instead of being sent with its mark.
    """

    id: int
    key: str
    address: Address
    content: StoredContent
    reply: ReplyRef | None
    receipt: Receipt | None
    attempts: int
    marked: bool
    then_edit: bool
    since: float | None = None
    hold: bool = False

    @property
    def method(self) -> Method:
        """The kind of request."""
        return "send" if self.receipt is None else "edit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an attempt ended.

    Args:
        part: what was attempted.
        how: `sent`; `rejected`: never; `gone`: nobody is there; `moved` to the chat `moved_to`; `again`: for certain not
            shown, and worth another attempt; `uncertain`: it may be shown; `bug`: like that, by a fault of a plugin.
        reason: why, at most 500 characters of it are kept.
        receipt: of what is shown.
        moved_to: the chat's new id.
    """

    part: Part
    how: Literal["sent", "rejected", "gone", "moved", "again", "uncertain", "bug"]
    reason: str = ""
    receipt: Receipt | None = None
    moved_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a lane looks for its next part.

    Args:
        boot_id: the process that sends.
        now: seconds since the epoch.
        expire_s: older parts are held.
        hold: doubtful parts are held, where the service does not drop repeats.
        deduplicates, edits: what the service can do.
        methods: what may be requested now; without any, nothing is claimed.
        finds: the service can be asked what it shows, before anything doubtful is sent again or held.
    """

    boot_id: str
    now: float
    expire_s: float
    hold: bool
    deduplicates: bool
    edits: bool
    methods: frozenset[Method]
    finds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What a look gave.

    Args:
        part: the next one, claimed; None if there is none, or it must wait.
        blocked: the method that it waits for.
        moved: addresses to which parts went, or may have gone.
        held: reasons of parts that were set aside on the way.
        last: behind the part that was claimed nothing waits.
    """

    part: Part | None = None
    blocked: Method | None = None
    moved: tuple[Address, ...] = ()
    held: tuple[str, ...] = ()
    last: bool = False


def new_key(now: float, number: int) -> str:
    """A name for a part: its time, its number at its address, randomness; 23 of `[a-z0-9]`, in order of time."""
    return _base36(int(now * 1000), 9) + _base36(number, 2) + os.urandom(12).translate(_DIGIT_OF).decode()


def _key_of(name: str, number: int) -> str:
    """The key of the n-th part of what has a name of its own, of the same form as others."""
    return _base36(int.from_bytes(hashlib.sha256(name.encode()).digest()[:13]), 20) + _base36(number, 3)


def _is_known(con: sqlite3.Connection, name: str) -> bool:
    return con.execute("SELECT 1 FROM outbox WHERE key = ?", (_key_of(name, 0),)).fetchone() is not None


def _base36(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        digits = _DIGITS[number % 36] + digits
        number //= 36
    return digits


def add(
    con: sqlite3.Connection,
    address: Address,
    parts: Sequence[StoredContent],
    *,
    reply: ReplyRef | None,
    source: str,
    turn_id: str | None,
    now: float,
    once: str | None = None,
) -> Added:
    """Have parts shown at an address, one after the other; in the transaction that makes them so.

    Args:
        parts: each as it will be sent: rendered and short enough.
        reply: what the first of them answers.
        source: who wants it: `turn`, `command`, `send`, `notice`, `tool`.
        turn_id: whose reply they are.
        once: a name for these parts; the second time nothing is done, and no keys are returned.

    Where nobody is any more they are rejected at once.
    """
    if not parts or (once is not None and _is_known(con, once)):
        return Added(address=address, keys=())
    place = addresses.reserve(con, address, len(parts), now)
    state = "pending" if place.gone is None else "rejected"
    keys = tuple(
        new_key(now, place.first + number) if once is None else _key_of(once, number) for number in range(len(parts))
    )
    con.executemany(
        "INSERT INTO outbox (key, account, chat, thread, seq, source, turn_id, content, reply, state, reason, created_at,"
        " finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                key, *at(place.address), place.first + number, source, turn_id, encode_content(content),
                stored_reply(reply, number), state, place.gone, now, None if place.gone is None else now,
            )
            for number, (key, content) in enumerate(zip(keys, parts, strict=True))
        ],
    )  # fmt: skip
    return Added(address=place.address, keys=keys, gone=place.gone)


def reply_for(reply: ReplyRef | None, number: int) -> ReplyRef | None:
    """What the n-th part of a reply answers: only the first points at a message; a right to answer holds for all."""
    if reply is None or number == 0:
        return reply
    return ReplyRef(token=reply.token, until=reply.until) if reply.token is not None else None


def stored_reply(reply: ReplyRef | None, number: int = 0) -> bytes | None:
    """The same as a row holds it."""
    found = reply_for(reply, number)
    return None if found is None else encode_reply(found)


def advance(con: sqlite3.Connection, address: Address, look: Look, ended: Ended | None) -> Advance:
    """Write how the last attempt ended, and claim the next part, in one transaction."""
    moved: Sequence[Address] = settle(con, ended, look.boot_id, look.now) if ended is not None else ()
    held: list[str] = []
    for _ in range(MAX_SKIPPED if look.methods else 0):
        found = con.execute(
            "SELECT id, key, content, reply, state, doubtful, receipt, attempts, tried_at, created_at FROM outbox"
            f" WHERE account = ? AND chat = ? AND thread = ? AND {OPEN} AND state != 'live' ORDER BY seq LIMIT 2",
            at(address),
        ).fetchall()
        if not found:
            moved = (*moved, *addresses.followed(con, address))
            break
        if found[0][4] == "sending":
            break
        part = _part(address, found[0], look)
        if isinstance(part, str):
            held.append(part)
            end(con, found[0][0], "held", part, look.now)
        elif part.method not in look.methods:
            return Advance(blocked=part.method, moved=tuple(moved), held=tuple(held))
        else:
            con.execute(
                "UPDATE outbox SET state = 'sending', boot_id = ?, attempts = attempts + 1, receipt = ?, tried_at ="
                " CASE WHEN doubtful = 0 OR tried_at IS NULL THEN ? ELSE tried_at END WHERE id = ?",
                (look.boot_id, _receipt(part.receipt), look.now, part.id),
            )
            return Advance(part=part, moved=tuple(moved), held=tuple(held), last=len(found) == 1)
    return Advance(moved=tuple(moved), held=tuple(held))


def _part(address: Address, values: tuple[object, ...], look: Look) -> Part | str:
    """A row as a part to attempt, or why it is held."""
    row, key, content, reply, _, doubtful, receipt, attempts, tried_at, created_at = values
    if created_at <= look.now - look.expire_s:  # type: ignore[operator]
        return "expired"
    try:
        stored = decode_content(content)  # type: ignore[arg-type]
        shown = decode_receipt(receipt) if receipt is not None and look.edits else None  # type: ignore[arg-type]
        answers = decode_reply(reply) if reply is not None else None  # type: ignore[arg-type]
    except msgspec.DecodeError:
        return "unreadable: written by another version"
    if answers is not None and answers.until is not None and answers.until <= look.now:  # the right to answer is void
        answers = ReplyRef(message_id=answers.message_id) if answers.message_id is not None else None
    dropped = look.deduplicates and tried_at is not None and 0 <= look.now - tried_at < DEDUPLICATED_S  # type: ignore[operator]
    marked = doubtful != SURE and not dropped
    asked = marked and shown is None and look.finds
    hold = marked and look.hold and doubtful == DOUBT  # where a draft may be shown, this content is not
    if hold and not asked:
        return "uncertain: it may have been shown"
    return Part(
        id=row, key=key, address=address, content=stored, reply=answers, receipt=shown,  # type: ignore[arg-type]
        attempts=attempts + 1, marked=marked, then_edit=doubtful == DRAFT and (dropped or asked) and look.edits,  # type: ignore[operator]
        since=tried_at if asked else None, hold=hold,  # type: ignore[arg-type]
    )  # fmt: skip


def settle(con: sqlite3.Connection, ended: Ended, boot_id: str, now: float) -> Sequence[Address]:
    """Write how an attempt ended. Returns the addresses to which parts went because a chat moved.

    A row that is not being sent by this process any more is left as it is.
    """
    part, how, reason = ended.part, ended.how, ended.reason
    if how == "sent":
        _sent(con, ended, boot_id, now)
        return ()
    found = con.execute(
        "SELECT doubtful FROM outbox WHERE id = ? AND state = 'sending' AND boot_id = ?", (part.id, boot_id)
    ).fetchall()
    if not found:
        return ()
    doubtful: int = found[0][0]
    edited = part.receipt is not None
    if how == "moved" and (ended.moved_to in (None, part.address.chat) or part.attempts > addresses.MAX_MOVES):
        how = "gone"
    if how == "bug" and part.attempts >= MAX_BUGS:
        end(con, part.id, "held", f"bug: {reason}", now)
    elif how == "rejected" and edited:  # what was there is not there any more, or may not be changed: it is sent anew
        _rejected_edit(con, part, reason, now)
    elif how == "rejected" and part.marked:  # the mark itself may be why
        end(con, part.id, "held", f"uncertain: it may have been shown, and: {reason}", now)
    elif how in ("rejected", "gone"):
        end(con, part.id, "rejected", reason or how, now)
        if how == "gone":
            addresses.gone(con, part.address, reason or how, now)
    elif how in ("again", "moved") or edited:  # an edit may be repeated
        _back(con, part.id, doubtful, reason, spent=how != "again")
        if how == "moved":
            assert ended.moved_to is not None
            return addresses.move(con, part.address.account, part.address.chat, ended.moved_to, now)
    else:
        _back(con, part.id, DRAFT if doubtful == DRAFT else DOUBT, reason, spent=True)
    return ()


def _sent(con: sqlite3.Connection, ended: Ended, boot_id: str, now: float) -> None:
    """One statement, for most attempts end so; a row that this process does not send any more is left as it is by it."""
    if ended.part.then_edit:
        con.execute(
            "UPDATE outbox SET state = 'pending', doubtful = 0, receipt = ?, attempts = 0, boot_id = NULL"
            " WHERE id = ? AND state = 'sending' AND boot_id = ?",
            (_receipt(ended.receipt), ended.part.id, boot_id),
        )
        return
    con.execute(
        "UPDATE outbox SET state = 'sent', reason = NULL, receipt = ?, finished_at = ?"
        " WHERE id = ? AND state = 'sending' AND boot_id = ?",
        (_receipt(ended.receipt), now, ended.part.id, boot_id),
    )


def _rejected_edit(con: sqlite3.Connection, part: Part, reason: str, now: float) -> None:
    ((left_over,),) = con.execute("SELECT source = ? FROM outbox WHERE id = ?", (LEFT_OVER, part.id)).fetchall()
    if left_over:
        end(con, part.id, "rejected", f"could not be shortened: {reason}", now)
        return
    con.execute("UPDATE outbox SET receipt = NULL WHERE id = ?", (part.id,))
    _back(con, part.id, SURE, reason, spent=False)


def end(con: sqlite3.Connection, row: int, state: Literal["rejected", "held"], reason: str, now: float) -> None:
    """End a part that was not sent."""
    con.execute(
        "UPDATE outbox SET state = ?, reason = ?, finished_at = ? WHERE id = ?", (state, reason[:MAX_REASON], now, row)
    )


def _back(con: sqlite3.Connection, row: int, doubtful: int, reason: str, *, spent: bool) -> None:
    """Have a part wait again; what is in doubt stays so, whatever came of a later attempt."""
    con.execute(
        "UPDATE outbox SET state = ?, doubtful = ?, reason = ?, attempts = max(0, attempts - ?), boot_id = NULL WHERE id = ?",
        ("pending" if doubtful == SURE else "ambiguous", doubtful, reason[:MAX_REASON] or None, int(not spent), row),
    )


def _receipt(receipt: Receipt | None) -> bytes | None:
    return None if receipt is None else encode_receipt(receipt)
