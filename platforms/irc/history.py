"""What was said while we were away, where the server keeps it (IRCv3, "chathistory", a draft). Elsewhere it is lost.

How far we have read is a moment by the server's clock, with the ids of what was said in that very millisecond.
"""

from __future__ import annotations

import logging

import msgspec

from hermes.events import InboundEvent
from platforms.irc.lines import Line
from platforms.irc.session import Session
from platforms.irc.translate import stamp
from platforms.irc.wire import Wire

log = logging.getLogger(__name__)

SEEN = "seen"  # the cursor's name
PAGE = 100
MAX_TARGETS = 100
MAX_IDS = 30
MILLISECOND = 0.001


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


async def missed(wire: Wire, session: Session, seen: Seen, now: float) -> list[InboundEvent]:
    """What was said since, oldest first; at most `backfill` messages.

    Raises:
        Unanswered: the server did not say it all.
    """
    begin = stamp(seen.at - MILLISECOND)
    budget = session.config.backfill
    told = await _ask(
        wire, ("TARGETS", f"timestamp={begin}", f"timestamp={stamp(now + 86_400)}", str(min(MAX_TARGETS, budget)))
    )
    targets = [line.param(1) for line in told if line.command == "CHATHISTORY" and line.param(0) == "TARGETS"]
    found: dict[str, InboundEvent] = {}
    for target in targets:
        if budget <= 0:
            log.warning(
                "more was said than %d messages while we were away; the rest is not read", session.config.backfill
            )
            break
        budget -= await _read(wire, session, target, begin, budget, found)
    return sorted((each for each in found.values() if not seen.has(each)), key=lambda event: event.at or 0.0)


async def _read(
    wire: Wire, session: Session, target: str, begin: str, budget: int, found: dict[str, InboundEvent]
) -> int:
    """Read one chat on, page by page; returns how many lines there were."""
    read = 0
    after = f"timestamp={begin}"
    while read < budget:
        page = min(PAGE, budget - read, int(session.server.tokens.get("CHATHISTORY", "0") or 0) or PAGE)
        lines = [
            line
            for line in await _ask(wire, ("AFTER", target, after, str(page)))
            if line.command in ("PRIVMSG", "NOTICE", "TAGMSG")
        ]
        read += len(lines)
        for line in lines:
            event = session.event(line, past=True)
            if event is not None and event.at is not None and line.tags.get("msgid"):
                found[event.key] = event
        last = lines[-1].tags.get("msgid") if lines else None
        if len(lines) < page or not last or after == f"msgid={last}":
            break
        after = f"msgid={last}"
    return read


async def _ask(wire: Wire, params: tuple[str, ...]) -> list[Line]:
    """One question; a refusal is an empty answer, with a line in the log."""
    answers = await wire.ask("CHATHISTORY", [params])
    for line in answers:
        if line.command == "FAIL":
            log.warning("the server does not tell what was said: %s", line.words)
            return []
    return answers
