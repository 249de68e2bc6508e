"""`Platform.receive`: what was said while we were away, then what is said; and what keeps us named, joined and alive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NoReturn

import trio

from hermes.errors import ConnectionEnded, PlatformError, PlatformRefused
from hermes.events import InboundEvent
from hermes.platform import Host, Inbox
from platforms.irc.history import SEEN, Seen, is_kept, missed, read_seen, write_seen
from platforms.irc.lines import build
from platforms.irc.session import Session
from platforms.irc.translate import moment
from platforms.irc.wire import Unanswered, Wire

log = logging.getLogger(__name__)

BATCH = 100
WELCOME_S = 60.0  # what comes beside the welcome is no older; what says that it is, was played back
ASK_AGAIN_S = 30.0  # at first, then after twice as long each time
MAX_ASKS = 10  # after which what the server cannot tell is given up: some four hours


class Receiving:
    """One run of `receive`.

    Args:
        wire, session: the connection.
        host: ours.
        inbox: for this run.
        cursors: what was committed last.
    """

    def __init__(self, wire: Wire, session: Session, host: Host, inbox: Inbox, cursors: Mapping[str, bytes]) -> None:
        self._wire = wire
        self._session = session
        self._host = host
        self._inbox = inbox
        self._seen = read_seen(cursors.get(SEEN))
        self._kept = is_kept(session) and session.config.backfill > 0
        self._asks = 0
        self._ask_at = float("inf")  # when to ask again for what could not be told; until then the cursor stays

    async def run(self) -> NoReturn:
        """Receive until cancelled; raises as `Platform.receive`."""
        config = self._session.config
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._stay_alive)
            nursery.start_soon(self._stay_joined, config.rejoin_s)
            nursery.start_soon(self._stay_named, config.renick_s)
            await self._catch_up()
            await self._deliver()
        raise AssertionError("nobody cancels this nursery but who cancels the run")

    async def _watch(self) -> NoReturn:
        await self._wire.ended.wait()
        assert self._wire.over is not None
        raise self._over(self._wire.over)

    def _over(self, why: PlatformError) -> PlatformError:
        """Everything goes over this one connection, so that nothing less than another will do."""
        if isinstance(why, ConnectionEnded | PlatformRefused):
            return why
        return ConnectionEnded(str(why))

    # What is said.

    async def _catch_up(self) -> None:
        """Deliver what was said while nobody was here."""
        if not self._kept:
            return
        now = moment(self._wire.stamped) or self._host.clock()  # its clock counts, where it shows it
        if self._seen is None:
            waiting = (event.at for event in self._session.arrived if event.at is not None)
            self._seen = Seen(max(now - WELCOME_S, min((now, *waiting))))  # whatever was said before is the past
            await self._inbox.deliver(cursors={SEEN: write_seen(self._seen)})
            return
        try:
            events, all_told = await missed(self._wire, self._session, self._seen, max(now, self._host.clock()))
        except Unanswered as unanswered:
            raise self._over(unanswered.why) from None
        self._asks = 0 if all_told else self._asks + 1
        self._ask_at = float("inf")
        if self._asks >= MAX_ASKS:
            log.error("the server does not tell what was said while we were away, and is not asked any more")
        elif self._asks:
            self._ask_at = trio.current_time() + ASK_AGAIN_S * 2 ** (self._asks - 1)
        if events:
            log.info("%d messages were said while we were away", len(events))
        for start in range(0, len(events), BATCH):
            await self._commit(events[start : start + BATCH])

    async def _deliver(self) -> None:
        session = self._session
        while True:
            while session.arrived:
                batch = [session.arrived[at] for at in range(min(BATCH, len(session.arrived)))]
                lost = session.lost
                await self._commit(batch)
                for _ in range(max(0, len(batch) - (session.lost - lost))):  # what had no room went at the same end
                    session.arrived.popleft()
            session.news = trio.Event()
            with trio.move_on_at(self._ask_at):
                await session.news.wait()
            if trio.current_time() >= self._ask_at:
                await self._catch_up()

    async def _commit(self, events: list[InboundEvent]) -> None:
        seen = self._seen
        if seen is None or self._ask_at < float("inf"):
            await self._inbox.deliver(*events)
            return
        for event in events:
            seen = seen.after(event)
        await self._inbox.deliver(*events, cursors={SEEN: write_seen(seen)})
        self._seen = seen

    # What keeps us here.

    async def _stay_alive(self) -> NoReturn:
        """Ask the server whether it is there. Its answer comes the way that messages come, so it proves that they would."""
        every_s = self._session.config.ping_s
        while True:
            self._inbox.alive("server", next_within_s=2 * every_s + 2 * self._session.config.timeout_s)
            await trio.sleep(every_s)
            try:
                await self._wire.ask("PING", [], first=True)  # a part of many lines may take minutes
            except Unanswered as unanswered:
                raise self._over(unanswered.why) from None

    async def _stay_joined(self, every_s: float) -> NoReturn:
        while True:
            await trio.sleep(every_s)
            self._wire.put(*self._session.rooms.due(trio.current_time()))

    async def _stay_named(self, every_s: float) -> NoReturn:
        """Get our nick back from whoever has it: mostly an older connection of ours that the server has not missed yet."""
        session = self._session
        if not session.is_named and session.config.regain != "off" and session.account:
            ask = f"{session.config.regain.upper()} {session.config.nick}"
            self._wire.put(build("PRIVMSG", "NickServ", ask))
        while True:
            if not session.is_named:
                self._wire.put(build("NICK", session.config.nick))
            await trio.sleep(every_s)
