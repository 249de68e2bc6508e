"""`Platform.receive`: connections to the gateway one after the other, and what happens there into the inbox.

A connection that the service asks us to leave is followed by the next at once; one that failed is for the core to judge.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import trio

from hermes.errors import HermesError, PlatformProtocolError, PlatformRefused, PlatformUnavailable, Unreachable
from hermes.events import InboundEvent
from hermes.platform import Host, Inbox
from platforms.discord import budget
from platforms.discord.backfill import Backfill, Read
from platforms.discord.closing import Ending
from platforms.discord.config import DiscordConfig
from platforms.discord.cursors import (
    FOLLOWED,
    MISSED,
    NEWEST,
    SESSION,
    Followed,
    Newest,
    read_session,
    values,
    write_session,
)
from platforms.discord.flow import watch_flow
from platforms.discord.gateway import Connection, open_gateway
from platforms.discord.happenings import Happenings
from platforms.discord.protocol import Began, Event, Resumed, Session, committed
from platforms.discord.rest import Rest
from platforms.discord.wire import Message

log = logging.getLogger(__name__)

SHORT_S, MAX_SHORT = 60.0, 3  # beyond that a request to reconnect is an outage like any other
MAX_VAIN, VAIN_KEY = 5, "resumes in vain"  # so often in a row a session is not resumed; then a new one is begun
MARK_EVERY_S = 30.0  # how often the sequence is committed while nothing else is
ORDER_S = 1.2  # a message waits so long for what was missed before it; commands behind it have three seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What `open` has learnt and made: all that receiving needs."""

    host: Host
    config: DiscordConfig
    rest: Rest
    me: str
    gateway: str
    happenings: Happenings


class Receiving:
    """One run of `receive`.

    Args:
        account: what is open.
        inbox: for this run.
        cursors: what was committed last.
    """

    def __init__(self, account: Account, inbox: Inbox, cursors: Mapping[str, bytes]) -> None:
        self._account = account
        self._inbox = inbox
        self._session = read_session(cursors.get(SESSION))
        self.newest = Newest(cursors.get(NEWEST))
        self._backfill = Backfill(account.rest, account.happenings, account.config.backfill_pages)
        self._ahead: dict[str, str] = {}  # what was heard where what was missed before is still to be read
        self._missed = False
        if cursors.get(MISSED):
            self._is_behind()
        self._order = trio.Lock()  # of commits: events and histories have no order among each other, and cursors do
        self._patience_s = 0.0
        self._broke: HermesError | None = None  # what ended the reading of histories
        self._followed = cursors.get(FOLLOWED) or b""  # as it was committed
        account.happenings.followed = Followed(self._followed)
        self._marked = 0.0
        self._watched: Connection | None = None
        self.heard = 0.0  # when anything happened last, by trio's clock
        self.last: str | None = None  # the channel that this connection heard last

    async def run(self) -> NoReturn:
        """Receive until cancelled; raises as `Platform.receive`."""
        invalid = False  # the one before could not be resumed
        short = 0  # how many connections in a row we were soon asked to leave
        while True:
            resumed = self._session is not None
            begun = trio.current_time()
            garbage: PlatformProtocolError | None = None
            try:
                ending, lived = await self._connection()
            except PlatformProtocolError as exc:
                garbage = exc
            if garbage is not None:
                if resumed:  # it may be what the service keeps for us: resumed, it would come again and again
                    await self._forget_session()
                raise garbage
            if not ending.keep or (resumed and not lived and await self._in_vain() >= MAX_VAIN):
                await self._forget_session()
            if ending.refused:
                raise PlatformRefused(ending.words)
            if ending.pause:
                await trio.sleep(1 + 4 * random.random())
            short = short + 1 if trio.current_time() - begun < SHORT_S else 0
            again = (ending.asked and lived and short <= MAX_SHORT) or (not ending.keep and resumed and not invalid)
            if ending.silent is not None or not again:
                raise PlatformUnavailable(ending.words, silent=ending.silent)
            invalid = not lived
            log.info("%s; connecting again", ending.words)

    async def _in_vain(self, *, over: bool = False) -> int:
        """Count that the session was not resumed; `over`: that it lives. A row: each attempt may be another generation's."""
        memory = self._account.host.memory
        kept = await memory.get(VAIN_KEY)
        vain = 0 if over else int(kept or b"0") + 1
        if vain or kept:
            await memory.put(VAIN_KEY, b"%d" % vain if vain else None)
        return vain

    async def _connection(self) -> tuple[Ending, bool]:
        """One connection, to where the session is, or to the usual place if nobody is there."""
        session = self._session
        if session is not None:
            try:
                return await self._converse(session.url)
            except Unreachable as exc:
                log.info("the session's own gateway cannot be reached (%s); trying the usual one", exc)
        return await self._converse(self._account.gateway)

    async def _converse(self, url: str) -> tuple[Ending, bool]:
        account = self._account
        async with open_gateway(account.host, account.config, url, self._session) as connection:
            self.heard = trio.current_time()
            self.last = None
            self._patience_s = 0.0  # what is brought again comes before anything is read
            ending = await connection.run(
                self._happened,
                identify=self._identify,
                alive=lambda within_s: self._inbox.alive("heartbeat", next_within_s=within_s),
                beside=self._beside,
            )
            if self._broke is not None:
                raise self._broke
            return ending, connection.lived

    def _beside(self, nursery: trio.Nursery) -> None:
        self._account.happenings.nursery = nursery
        self._account.happenings.inbox = self._inbox

    async def _identify(self) -> None:
        await budget.spend(self._account.host.memory, self._account.host.clock)

    def flows(self, within_s: float) -> None:
        """Events come in, as far as anybody can tell; said again within so many seconds."""
        self._inbox.alive("event", next_within_s=within_s)

    def known(self, channel: str) -> int:
        """The newest message that is known of a channel."""
        return max(self.newest.of(channel), int(self._ahead.get(channel, 0)))

    async def _happened(self, connection: Connection, what: Event | Began | Resumed) -> None:
        self.heard = trio.current_time()
        if isinstance(what, Began):
            self._is_behind()
            await self._commit(connection, what.session.sequence, session=what.session)
            await self._in_vain(over=True)
            self._lives(connection)
        elif isinstance(what, Resumed):
            await self._commit(connection, what.sequence)
            await self._in_vain(over=True)
            self._lives(connection)
        else:
            happenings = self._account.happenings
            found = await happenings.translate(what)
            if found.message is not None:
                self.last = found.message.channel_id
            if found.event is not None:
                if found.message is not None:
                    await self._wait_for_older(found.message.channel_id)
                await self._commit(connection, what.sequence, found.event, message=found.message)
            elif found.message is not None:
                async with self._order:
                    self._note(found.message)
            if found.event is None and trio.current_time() - self._marked > MARK_EVERY_S:
                await self._commit(connection, what.sequence)
            if found.interaction is not None:
                await happenings.defer(found.interaction)

    def _lives(self, connection: Connection) -> None:
        """The session lives, and what it does not bring can be read."""
        nursery = self._account.happenings.nursery
        if nursery is not None and self._watched is not connection:
            self._watched = connection
            nursery.start_soon(watch_flow, self._account.rest, self._account.config.quiet_s, self, connection)
            nursery.start_soon(self._catch_up, connection)

    async def _wait_for_older(self, channel: str) -> None:
        """Give what was missed in a channel before a little time to be committed first."""
        before = trio.current_time()
        with trio.move_on_after(self._patience_s):
            await self._backfill.until_read(channel)
        self._patience_s -= min(self._patience_s, trio.current_time() - before)

    def _note(self, message: Message) -> None:
        """A message was heard. While what was missed before it is unread, it says nothing about that."""
        channel = message.channel_id
        if channel in self._backfill:
            self._ahead[channel] = max(self._ahead.get(channel, "0"), message.id, key=int)
        else:
            self.newest.note(channel, message.id, unread=self._backfill)

    async def _commit(
        self,
        connection: Connection,
        sequence: int,
        *events: InboundEvent,
        session: Session | None = None,
        message: Message | None = None,
    ) -> None:
        """Events and how far we have read, in one transaction; only then is the sequence number ours to name."""
        async with self._order:
            after = committed(connection.state, sequence)
            missed = ((MISSED, b"1"),) if self._missed else ()
            newest, ahead = self.newest.copy(), dict(self._ahead)
            if message is not None:
                self._note(message)
            try:
                await self._deliver(events, values(session or after.session, self.newest, missed))
            except BaseException:  # what was not committed must not be counted by whoever commits next
                self.newest, self._ahead = newest, ahead
                raise
            connection.state = committed(connection.state, sequence)
            self._session = connection.state.session
            self._marked = trio.current_time()

    async def _commit_read(self, events: list[InboundEvent], read: list[Read]) -> None:
        """What was missed, and where channels are read to."""
        async with self._order:
            self._settle()
            newest = self.newest.copy()
            for channel, message in read:
                self.newest.forget(channel)
                if message is not None:
                    self.newest.note(channel, str(message), unread=self._backfill)
            try:
                await self._deliver(events, {NEWEST: self.newest.write()})
            except BaseException:
                self.newest = newest
                raise

    def _settle(self) -> None:
        """Where nothing is left to be read, all that was heard is behind us."""
        for channel in [each for each in self._ahead if each not in self._backfill]:
            self.newest.note(channel, self._ahead.pop(channel), unread=self._backfill)

    async def _deliver(self, events: Iterable[InboundEvent], cursors: Mapping[str, bytes]) -> None:
        followed = self._account.happenings.followed.write()
        also = {FOLLOWED: followed} if followed != self._followed else {}
        await self._inbox.deliver(*events, cursors={**cursors, **also})
        self._followed = followed

    def _is_behind(self) -> None:
        """What was written since the newest messages that are known is to be read, if there are any."""
        self._missed = self._missed or len(self.newest) > 0
        self._backfill.begin(self.newest)

    async def _forget_session(self) -> None:
        self._session = None
        self._is_behind()
        missed = b"1" if self._missed else b""
        await self._inbox.deliver(cursors={SESSION: write_session(None), MISSED: missed})

    async def _catch_up(self, connection: Connection) -> None:
        """Read what no resume has brought, beside the events."""
        if not self._missed:
            return
        self._patience_s = ORDER_S
        try:
            await self._backfill.run(self._commit_read)
            async with self._order:
                self._settle()
                self._missed = False
                await self._deliver((), {NEWEST: self.newest.write(), MISSED: b""})
        except HermesError as exc:
            self._broke = exc
            connection.end(Ending(words="what was missed could not be read"))
            return
        log.info("what was missed before the session is read")
