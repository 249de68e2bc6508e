"""`PlatformSpec.open`: a connection that is registered and in its channels; receiving comes and goes inside it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import NoReturn

import trio

from hermes.errors import PlatformUnavailable, SendRejected
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    Content,
    Host,
    Inbox,
    Platform,
    Receipt,
    ReplyRef,
)
from platforms.irc.config import CAPABILITIES, IrcConfig
from platforms.irc.flood import Bucket
from platforms.irc.lines import Line, build
from platforms.irc.receiving import Receiving
from platforms.irc.registering import Registering
from platforms.irc.sending import Sending
from platforms.irc.session import Session
from platforms.irc.wire import Unanswered, Wire

log = logging.getLogger(__name__)

REGISTERING_LINES = 30  # servers count what comes before the welcome by itself, and bear a few more
LABELS = frozenset(("labeled-response", "batch", "message-tags"))
QUIT_S = 2.0  # for the server to hear that we go


@asynccontextmanager
async def open_irc(config: IrcConfig, host: Host) -> AsyncIterator[Platform]:
    """One nick, welcome on its server and in its channels as far as they let it in.

    Lifetime: the connection, with the tasks that read and write it. Exit says goodbye, within a bound.

    Raises:
        PlatformRefused: a password, the nick or we ourselves are not wanted.
        PlatformUnavailable: there is no welcome to be had now.
    """
    nonce = secrets.token_hex(6)
    async with open_wire(config, host) as (wire, registered):
        session = Session(config, host, registered, nonce, wire.put)
        wire.bucket = Bucket(config.flood_burst, config.flood_interval_s, trio.current_time())
        wire.labels = session.capabilities >= LABELS
        wire.fold, wire.me = session.server.fold, session.server.fold(session.nick)

        def take(line: Line) -> None:
            session.take(line)
            wire.labels = session.capabilities >= LABELS  # which a server may take back
            wire.me = session.server.fold(session.nick)

        for line in registered.said:
            take(line)
        wire.handler = take
        await _enter(wire, session)
        log.info(
            "on %s as %s%s", config.server, session.nick, f" (account {session.account})" if session.account else ""
        )
        yield Irc(wire, session, host, Sending(wire, session, nonce))


@asynccontextmanager
async def open_wire(config: IrcConfig, host: Host) -> AsyncIterator[tuple[Wire, Registering]]:
    """A connection and its registration, done. Raises as `open_irc`."""
    async with host.tcp(config.server, config.port, tls=config.tls, proxy=config.proxy, open_timeout_s=20.0) as stream:
        wire = Wire(stream, config.server, Bucket(REGISTERING_LINES, 1.0, trio.current_time()), config.timeout_s)
        try:
            async with trio.open_nursery() as nursery:
                # Shielded, since whoever is cancelled says goodbye through them.
                both = [trio.CancelScope(shield=True) for _ in range(2)]
                for work, scope in zip((wire.read, wire.write), both, strict=True):
                    nursery.start_soon(_within, scope, work, name=f"IRC: {work.__name__}s")
                try:
                    yield wire, await _register(wire, config)
                finally:
                    await _goodbye(wire)  # noqa: ASYNC102  # shielded and bounded inside
                    for scope in both:
                        scope.cancel("the connection is left")
        except ExceptionGroup as group:  # the tasks beside raise nothing, so that it is what was raised in the block
            if len(group.exceptions) == 1:
                raise group.exceptions[0]  # noqa: ASYNC123, B904  # it is no consequence of the group
            raise


async def _within(scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()


async def _register(wire: Wire, config: IrcConfig) -> Registering:
    registering = Registering(config, config.server)
    settled = trio.Event()

    def take(line: Line) -> None:
        wire.put(*registering.take(line))
        if registering.done or registering.failed is not None:
            settled.set()

    wire.handler = take
    wire.put(*registering.begin())
    async with trio.open_nursery() as nursery:

        async def until_over() -> None:
            await wire.ended.wait()
            settled.set()

        nursery.start_soon(until_over)
        with trio.move_on_after(config.timeout_s):
            await settled.wait()
        nursery.cancel_scope.cancel()
    if registering.failed is not None:
        raise registering.failed
    if wire.over is not None:
        raise wire.over
    if not registering.done:
        raise PlatformUnavailable(f"{config.server} did not welcome us in {config.timeout_s:g} s")
    return registering


async def _enter(wire: Wire, session: Session) -> None:
    """Join the channels, and say what we are. Whoever does not let us in is tried again while we receive."""
    tokens = session.server.tokens
    if len(tokens.get("BOT", "")) == 1:
        wire.put(build("MODE", session.nick, f"+{tokens['BOT']}"))  # IRCv3, "Bot Mode"
    wire.put(*session.rooms.due(trio.current_time()))
    try:
        await wire.ask("PING", [])
    except Unanswered as unanswered:
        raise unanswered.why from None


async def _goodbye(wire: Wire) -> None:
    """Say that we go, and wait a little for the server to hear it."""
    if wire.over is not None:
        return
    with trio.move_on_after(QUIT_S, shield=True):
        wire.leave(build("QUIT", "Hermes is going"))
        await wire.ended.wait()


class Irc:
    """A `Platform`; see `open_irc()`."""

    def __init__(self, wire: Wire, session: Session, host: Host, sending: Sending) -> None:
        self._wire = wire
        self._session = session
        self._host = host
        self._sending = sending

    @property
    def capabilities(self) -> Capabilities:
        """What IRC can show, as far as it is to be used."""
        return CAPABILITIES if self._session.config.formatting else replace(CAPABILITIES, dialect="plain")

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Deliver what is said, until cancelled."""
        await Receiving(self._wire, self._session, self._host, inbox, cursors).run()

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:  # noqa: ARG002  # no server drops repeats
        """Show one part."""
        return await self._sending.send(to, content, reply)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:  # noqa: ARG002  # the contract's
        """Raises SendRejected: what was said on IRC stays."""
        raise SendRejected("what was said on IRC cannot be changed")

    async def signal(self, to: Address, activity: Activity) -> None:
        """Nothing: each sign would be a line of the few that may be sent."""

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:  # noqa: ARG002
        """Raises SendRejected: IRC carries no files."""
        raise SendRejected("IRC carries no files")
