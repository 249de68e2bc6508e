"""`Platform.receive`: one socket after the other, each opened before the one before is left, and their envelopes in the inbox.

An envelope is acknowledged when its event is committed. Slack brings again what was not, over whichever socket is there; the
event has the same id then, as it has when it comes over two sockets, and the inbox keeps it once. What was missed before is read
from histories beside that; how far a place is read is not moved beyond what is still to be read of it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn
from urllib.parse import urlsplit

import trio

from hermes.errors import HermesError, PlatformConflict, PlatformRefused, PlatformUnavailable
from hermes.events import InboundEvent
from hermes.platform import Host, Inbox, open_background_nursery
from platforms.slack.api import Failed, SlackApi, Token
from platforms.slack.backfill import Backfill
from platforms.slack.config import SlackConfig
from platforms.slack.cursors import Read, thread_key
from platforms.slack.happenings import Happenings
from platforms.slack.link import Link
from platforms.slack.wire import Envelope
from platforms.slack.workspaces import Workspaces

log = logging.getLogger(__name__)

SHORT_S, MAX_SHORT = 30.0, 3  # beyond that a request to reconnect is an outage like any other
TICKET_S = 20.0  # for how long the address of a socket is used
CROWDED_S = 60.0
AT_ONCE = 100  # events of a history, between which others may commit
PATIENCE_S = 1.2  # of a run, for histories: Slack wants an acknowledgement within three seconds; names take one at most


@dataclass(slots=True, kw_only=True)
class Account:
    """What `open` has learnt and made: all that receiving needs.

    Args:
        ticket: where a socket can be opened, and when that was asked; used once.
    """

    host: Host
    config: SlackConfig
    api: SlackApi
    spaces: Workspaces
    app_token: Token
    happenings: Happenings
    ticket: tuple[str, float] | None = field(default=None)


async def socket_address(api: SlackApi, config: SlackConfig, token: Token) -> str:
    """Where a socket can be opened, once, within half a minute.

    Raises:
        PlatformRefused: the token is not accepted, or may not; or the socket would not be encrypted although the API is.
        PlatformError: Slack did not say.
    """
    try:
        url = (await api.call("apps.connections.open", {}, token)).get("url")
    except Failed as failed:
        if failed.error in ("missing_scope", "no_permission", "not_allowed_token_type"):
            raise PlatformRefused(
                "`app_token` is no App-Level Token with the scope connections:write: make one under Basic Information"
            ) from None
        raise failed.meaning from None
    parts = urlsplit(url if isinstance(url, str) else "")
    if parts.scheme != "wss" and not (parts.scheme == "ws" and config.base_url.startswith("http://")):
        raise PlatformRefused(f"Slack named a socket that is not encrypted: {parts.scheme}://{parts.netloc}")
    return str(url)


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
        self._read = Read(cursors)
        self._committed = self._read.cursors()
        self._patience_s = PATIENCE_S
        self._backfill = Backfill(
            account.api, account.spaces, account.happenings, account.config.backfill_pages, self._read
        )
        self._order = trio.Lock()  # of commits: sockets have no order among each other, and cursors do
        self._stirred = trio.Event()
        self._broke: Exception | None = None
        self._lost = False  # something was noted that was not committed
        account.happenings.begin(inbox, self._follows)

    async def run(self) -> NoReturn:
        """Receive until cancelled; raises as `Platform.receive`."""
        async with open_background_nursery() as nursery:
            self._backfill.begin()
            link = await self._next(nursery)
            nursery.start_soon(self._keep, partial(self._backfill.run, self._deliver_read))
            short = 0
            while True:
                begun = trio.current_time()
                await self._until_to_renew(link)
                short = short + 1 if link.asked and trio.current_time() - begun < SHORT_S else 0
                if short > MAX_SHORT:
                    raise PlatformUnavailable("Slack ends each socket soon after its beginning")
                fresh = await self._next(nursery)
                if not link.asked:  # nothing came for long: perhaps because the socket was deaf
                    self._backfill.begin()
                    self._patience_s = PATIENCE_S
                link.retire()
                link = fresh

    async def _next(self, nursery: trio.Nursery) -> Link:
        """Another socket, to which Slack has said hello."""
        account = self._account
        try:
            address = await self._address()
        except HermesError:
            self._raise_what_broke()
            raise
        link = Link(
            account.host,
            account.config,
            address,
            handler=self._take,
            unreadable=account.happenings.unreadable,
            stir=self._stir,
            answered=self._answered,
        )
        nursery.start_soon(self._keep, link.run)
        while not link.connected and link.failure is None and self._broke is None:  # it may have to wait for its turn
            await self._until_stirred()
        with trio.move_on_after(account.config.timeout_s):
            while not link.greeted and link.failure is None and not link.asked and self._broke is None:
                await self._until_stirred()
        self._raise_what_broke()
        if link.failure is not None:
            raise link.failure
        self._judge(link.asked)
        if not link.greeted:
            raise PlatformUnavailable("Slack did not say hello on its socket in time")
        self._inbox.alive("event", next_within_s=2 * account.config.quiet_s + 60)
        return link

    async def _address(self) -> str:
        account = self._account
        ticket, account.ticket = account.ticket, None
        if ticket is not None and trio.current_time() - ticket[1] < TICKET_S:
            return ticket[0]
        return await socket_address(account.api, account.config, account.app_token)

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """The task of a socket, or of the histories; what it raises ends the run, raised by the task that receives."""
        try:
            await work()
        except HermesError as error:
            self._broke = self._broke or error
            self._stir()

    async def _until_to_renew(self, link: Link) -> None:
        """Wait until Slack asks for another socket, or nothing has come for long.

        Raises:
            PlatformError: the socket ended before that, or must not be replaced.
        """
        quiet_s = self._account.config.quiet_s
        while not link.asked:
            self._raise_what_broke()
            if link.failure is not None:
                raise link.failure
            left = link.heard + quiet_s - trio.current_time()
            if left <= 0:
                log.debug("no event for %g s: another socket shows whether they flow", quiet_s)
                return
            with trio.move_on_after(left):
                await self._until_stirred()
        self._raise_what_broke()
        self._judge(link.asked)

    def _judge(self, asked: str) -> None:
        """Raises what a request to leave means, if another socket would be of no use."""
        if asked == "link_disabled":
            raise PlatformRefused(
                "Socket Mode is switched off for this app: switch it on at https://api.slack.com/apps"
            )
        if asked == "too_many_websockets":
            raise PlatformConflict("ten programs receive with this app token already", retry_after_s=CROWDED_S)

    def _raise_what_broke(self) -> None:
        if self._broke is not None:
            raise self._broke

    def _stir(self) -> None:
        self._stirred.set()

    async def _until_stirred(self) -> None:
        self._stirred = trio.Event()
        await self._stirred.wait()

    def _answered(self) -> None:
        self._inbox.alive("heartbeat", next_within_s=3 * self._account.config.ping_s + 10)

    async def _take(self, envelope: Envelope) -> None:
        """An envelope; when this returns it may be acknowledged."""
        event = await self._account.happenings.translate(envelope)
        if event is None:
            return
        if event.kind == "message":  # what was missed there comes first; the rest is no reason to wait
            chat, thread = event.address.chat, event.address.thread
            await self._until_read(chat, *([thread_key(chat, thread)] if thread else ()))
        await (
            trio.lowlevel.checkpoint_if_cancelled()
        )  # what another has noted may be lost then: nothing is committed after that
        if self._order.locked():
            await self._order.acquire()
        else:  # at once: a message that comes alone waits for nobody
            self._order.acquire_nowait()
        try:
            for place in self._places(event):
                self._read.heard(place, event.id, unread=self._backfill.is_unread(place))
            await self._commit(event)
        finally:
            self._order.release()
        self._inbox.alive("event", next_within_s=2 * self._account.config.quiet_s + 60)

    async def _until_read(self, *places: str) -> None:
        """Wait for the histories of its places, but never so long that envelopes are acknowledged too late."""
        self._backfill.prefer(*places)
        if self._patience_s > 0 and any(map(self._backfill.is_unread, places)):
            begun = trio.current_time()
            with trio.move_on_after(self._patience_s):
                await self._backfill.until_read(*places)
            self._patience_s -= trio.current_time() - begun

    def _follows(self, chat: str, thread: str) -> bool:
        key = thread_key(chat, thread)
        return key in self._read.threads or self._backfill.is_unread(key)

    def _places(self, event: InboundEvent) -> Iterator[str]:
        """The channel and the thread that a message is in; a thread only if it is followed, as one is where somebody speaks to us."""
        place = event.address
        if event.kind != "message" or event.at is None:  # commands are in no history
            return
        if place.thread is None or place.thread == event.id:
            yield place.chat
        if place.thread is not None and (
            self._follows(place.chat, place.thread)
            or (event.to_us and self._account.config.follow_threads)
            or event.chat_kind == "dm"
        ):
            yield thread_key(place.chat, place.thread)

    async def _deliver_read(self, place: str, *events: InboundEvent) -> None:
        """The messages of a history, after which its place is read; others commit between slices of it."""
        slices = [events[begin : begin + AT_ONCE] for begin in range(0, len(events), AT_ONCE)] or [()]
        for number, some in enumerate(slices, 1):
            async with self._order:
                for event in some:
                    for where in self._places(event):
                        if where == place:
                            self._read.table(place).note(place, event.id)
                        else:  # a thread that began while nobody heard, perhaps with replies
                            self._read.go_back(where, event.id)
                            self._backfill.add(where, event.id)
                if number == len(slices):
                    self._read.caught_up(place)
                if some or self._read.cursors() != self._committed:
                    await self._commit(*some)

    async def _commit(self, *events: InboundEvent) -> None:
        """Events, and how far all is read. Raises what broke: nothing is committed any more that was noted with something lost."""
        self._raise_what_broke()
        if self._lost:  # by a bug, which ends the run once the socket that it passes is closed
            await trio.sleep_forever()
        cursors = self._read.cursors()
        self._lost = True
        try:
            await self._inbox.deliver(*events, cursors=cursors)
        except HermesError as error:
            self._broke = self._broke or error
            self._stir()
            raise
        self._lost = False
        self._committed = cursors
