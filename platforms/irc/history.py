"""What was said while we were away, where the server keeps it (IRCv3, "chathistory", a draft). Elsewhere it is lost.

How far we have read is a moment by the server's clock, with the ids of what was said in that very millisecond.
"""

from __future__ import annotations

import logging

import msgspec

from hermes.events import InboundEvent
from platforms.irc.lines import Line
from platforms.irc.session import Session
from platforms.irc.translate import moment, stamp
from platforms.irc.wire import Wire

log = logging.getLogger(__name__)

SEEN = "seen"  # the cursor's name
PAGE = 100
MAX_TARGETS = 100
MAX_IDS = 30
MILLISECOND = 0.001
NOT_NOW = frozenset(("MESSAGE_ERROR", "TEMPORARILY_UNAVAILABLE", "RATE_LIMITED", "TOO_FAST"))  # codes of a FAIL


class Seen(msgspec.Struct, frozen=True):
    """How far we have read: the time of the newest message, and the ids of those with that time."""

    at: float
    ids: tuple[str, ...] = ()

    def after(self, event: InboundEvent) -> Seen:
        """The same with one message more."""
        if event.at is None or event.at < self.at - MILLISECOND / 2:
            return self
        if event.at > self.at + MILLISECOND / 2:
            return Seen(event.at, (event.id[:100],))
        return Seen(self.at, (*self.ids, event.id[:100])[-MAX_IDS:])

    def has(self, event: InboundEvent) -> bool:
        """It was read before."""
        return event.id[:100] in self.ids


class NotNow(Exception):
    """The server cannot tell now what was said, but may later."""


_decode = msgspec.json.Decoder(Seen).decode


def read_seen(cursor: bytes | None) -> Seen | None:
    """The cursor's value; None if there is none that can be read."""
    try:
        return _decode(cursor) if cursor else None
    except msgspec.DecodeError:
        return None


def write_seen(seen: Seen) -> bytes:
    """A value for the cursor."""
    return msgspec.json.encode(seen)


def is_kept(session: Session) -> bool:
    """Whether the server keeps what is said, with ids and times."""
    return {"draft/chathistory", "batch", "message-tags", "server-time"} <= session.capabilities


async def missed(wire: Wire, session: Session, seen: Seen, now: float) -> tuple[list[InboundEvent], bool]:
    """What was said since, oldest first, at most `backfill` messages; and whether the server could tell all.

    Raises:
        Unanswered: the connection ended, or the server said nothing.
    """
    begin, end = stamp(seen.at - MILLISECOND), stamp(now + 86_400)
    budget, all_told = session.config.backfill, True
    found: dict[str, InboundEvent] = {}
    try:
        targets = await _targets(wire, session, begin, end)
    except NotNow:
        return [], False
    for target, newest_at in targets.items():
        try:
            budget -= await _read(wire, session, target, begin, newest_at, budget, found)
        except NotNow:
            all_told = False
        if budget <= 0:
            log.warning("%d messages that were said while we were away are read, and no more", session.config.backfill)
            break
    return sorted((each for each in found.values() if not seen.has(each)), key=lambda event: event.at or 0.0), all_told


def _page(session: Session, most: int) -> int:
    """How many lines may be asked for at once."""
    told = session.server.tokens.get("CHATHISTORY", "")
    return min(most, int(told) if told.isascii() and told.isdecimal() and int(told) else most)


async def _targets(wire: Wire, session: Session, begin: str, end: str) -> dict[str, float | None]:
    """The chats in which something was said, those with the oldest news first, and when the newest was."""
    found: dict[str, float | None] = {}
    page = _page(session, MAX_TARGETS)
    while len(found) < session.config.backfill:
        told = [
            (line.param(1), moment(line.param(2)))
            for line in await _ask(wire, ("TARGETS", f"timestamp={begin}", f"timestamp={end}", str(page)))
            if line.command == "CHATHISTORY" and line.param(0) == "TARGETS"
        ]
        more = {target: at for target, at in told if target not in found}
        found |= more
        last = max((at for at in more.values() if at is not None), default=None)
        if len(told) < page or last is None:
            break
        begin = stamp(last - MILLISECOND)
    return found


async def _read(
    wire: Wire,
    session: Session,
    target: str,
    begin: str,
    newest_at: float | None,
    budget: int,
    found: dict[str, InboundEvent],
) -> int:
    """Read one chat on, page by page; returns how many lines there were.

    A page may hold less than was asked for though more follows: servers count what they leave out of it, such as who came and went.
    """
    read = 0
    after = f"timestamp={begin}"
    while read < budget:
        lines = [
            line
            for line in await _ask(wire, ("AFTER", target, after, str(_page(session, min(PAGE, budget - read)))))
            if line.command in ("PRIVMSG", "NOTICE", "TAGMSG")
        ]
        read += len(lines)
        for line in lines:
            event = session.event(line, past=True)
            if event is not None and event.at is not None and line.tags.get("msgid"):
                found[event.key] = event
        last = lines[-1].tags.get("msgid") if lines else None
        if not last or after == f"msgid={last}":
            break
        after = f"msgid={last}"
        told_to = moment(lines[-1].tags.get("time", ""))
        if newest_at is not None and told_to is not None and told_to >= newest_at - MILLISECOND / 2:
            break
    return read


async def _ask(wire: Wire, params: tuple[str, ...]) -> list[Line]:
    """One question; a refusal for good is an empty answer, with a line in the log.

    Raises:
        NotNow: it is to be asked again.
    """
    answers = await wire.ask("CHATHISTORY", [params])
    for line in answers:
        if line.command in ("FAIL", "263"):
            log.warning("the server does not tell what was said: %s", line.words)
            if line.command == "263" or line.param(1) in NOT_NOW:
                raise NotNow(line.words)
            return []
    return answers
