"""`Platform.receive`: connections to the gateway one after the other, and what happens there into the inbox.

A connection that the service asks us to leave is followed by the next at once; one that failed is for the core to judge.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import trio

from hermes.errors import PlatformProtocolError, PlatformRefused, PlatformUnavailable, Unreachable
from hermes.events import InboundEvent
from hermes.platform import Host, Inbox
from platforms.discord import backfill, budget
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

log = logging.getLogger(__name__)

SHORT_S, MAX_SHORT = 60.0, 3  # beyond that a request to reconnect is an outage like any other
MARK_EVERY_S = 30.0  # how often the sequence is committed while nothing else is


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
        self._missed = bool(cursors.get(MISSED))
        self._followed = cursors.get(FOLLOWED) or b""  # as it was committed
        account.happenings.followed = Followed(self._followed)
        self._marked = 0.0
        self.heard = 0.0  # when anything happened last, by trio's clock

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
            if not ending.keep:
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
            ending = await connection.run(
                self._happened,
                identify=self._identify,
                alive=lambda within_s: self._inbox.alive("heartbeat", next_within_s=within_s),
                beside=lambda nursery: self._beside(nursery, connection),
            )
            return ending, connection.lived

    def _beside(self, nursery: trio.Nursery, connection: Connection) -> None:
        self._account.happenings.nursery = nursery
        self._account.happenings.inbox = self._inbox
        nursery.start_soon(watch_flow, self._account.rest, self._account.config.quiet_s, self, connection)

    async def _identify(self) -> None:
        await budget.spend(self._account.host.memory, self._account.host.clock)

    def flows(self, within_s: float) -> None:
        """Events come in, as far as anybody can tell; said again within so many seconds."""
        self._inbox.alive("event", next_within_s=within_s)

    async def _happened(self, connection: Connection, what: Event | Began | Resumed) -> None:
        self.heard = trio.current_time()
        if isinstance(what, Began):
            self._missed = self._missed or len(self.newest) > 0
            await self._commit(connection, what.session.sequence, session=what.session)
            await self._catch_up()
        elif isinstance(what, Resumed):
            await self._commit(connection, what.sequence)
            await self._catch_up()
        else:
            happenings = self._account.happenings
            found = await happenings.translate(what)
            if found.message is not None and not self._missed:
                # While older messages are still to be read, the newest one says nothing about those before it.
                self.newest.note(found.message.channel_id, found.message.id)
            if found.event is not None:
                await self._commit(connection, what.sequence, found.event)
            elif trio.current_time() - self._marked > MARK_EVERY_S:
                await self._commit(connection, what.sequence)
            if found.interaction is not None:
                await happenings.defer(found.interaction)

    async def _commit(
        self, connection: Connection, sequence: int, *events: InboundEvent, session: Session | None = None
    ) -> None:
        """Events and how far we have read, in one transaction; only then is the sequence number ours to name."""
        after = committed(connection.state, sequence)
        missed = ((MISSED, b"1"),) if self._missed else ()
        followed = self._account.happenings.followed.write()
        also = (*missed, (FOLLOWED, followed)) if followed != self._followed else missed
        await self._inbox.deliver(*events, cursors=values(session or after.session, self.newest, also))
        self._followed = followed
        connection.state = committed(connection.state, sequence)
        self._session = connection.state.session
        self._marked = trio.current_time()

    async def _forget_session(self) -> None:
        self._session = None
        self._missed = self._missed or len(self.newest) > 0
        missed = b"1" if self._missed else b""
        await self._inbox.deliver(cursors={SESSION: write_session(None), MISSED: missed})

    async def _catch_up(self) -> None:
        """Read what no resume has brought."""
        if not self._missed:
            return
        account = self._account

        async def deliver(*events: InboundEvent) -> None:
            followed = account.happenings.followed.write()
            await self._inbox.deliver(*events, cursors={NEWEST: self.newest.write(), FOLLOWED: followed})
            self._followed = followed

        pages = await backfill.read_missed(
            account.rest, account.happenings, self.newest, deliver, pages=account.config.backfill_pages
        )
        self._missed = False
        await self._inbox.deliver(cursors={MISSED: b""})
        log.info("read %d pages of messages from before the session", pages)
        self.heard = trio.current_time()
