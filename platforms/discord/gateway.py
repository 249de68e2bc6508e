"""One connection to the gateway: frames in, payloads out, heartbeats beside them, and how it ended.

The protocol decides in `protocol`; here is only what takes time.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import msgspec
import trio

from hermes.decode import without_halves
from hermes.errors import PlatformProtocolError, PlatformRefused, WebSocketClosed
from hermes.platform import Host, WebSocket, open_background_nursery
from platforms.discord.closing import (
    DIRECT_MESSAGES,
    GUILD_MESSAGES,
    GUILDS,
    KEEPS_SESSION,
    MESSAGE_CONTENT,
    Ending,
    meaning,
)
from platforms.discord.config import DiscordConfig
from platforms.discord.inflate import Inflater, TooLarge
from platforms.discord.protocol import (
    IDENTIFY,
    RESUME,
    Action,
    Alive,
    Beat,
    Began,
    End,
    Event,
    Identify,
    Resumed,
    Send,
    Session,
    State,
    beat,
    opened,
    step,
)
from platforms.discord.wire import Frame, decode_frame

MAX_FRAME_BYTES = 16_777_216

_ESCAPED = (b"\\ud", b"\\uD")  # how a surrogate begins, whole or half
Handler = Callable[["Connection", Event | Began | Resumed], Awaitable[None]]


def intents(config: DiscordConfig) -> int:
    """What we ask to be told."""
    return GUILDS | GUILD_MESSAGES | DIRECT_MESSAGES | (MESSAGE_CONTENT if config.message_content else 0)


def gateway_url(config: DiscordConfig, url: str) -> str:
    """Where to connect.

    Raises:
        PlatformRefused: the token would go there without encryption although the API is encrypted.
    """
    parts = urlsplit(url)
    if parts.scheme != "wss" and not (parts.scheme == "ws" and config.base_url.startswith("http://")):
        raise PlatformRefused(f"Discord named a gateway that is not encrypted: {parts.scheme}://{parts.netloc}")
    return f"{url.rstrip('/')}/?v=10&encoding=json" + ("&compress=zlib-stream" if config.compress else "")


def _mended(message: str | bytes) -> str | bytes:
    """A frame that no half of a character makes unreadable."""
    data = message.encode() if isinstance(message, str) else message
    return without_halves(data) if any(each in data for each in _ESCAPED) else message


@asynccontextmanager
async def open_gateway(
    host: Host, config: DiscordConfig, url: str, session: Session | None
) -> AsyncIterator[Connection]:
    """A connection that will resume this session, or begin one.

    Lifetime: leaving closes it with a code that keeps the session, so that it can be resumed, after a restart too.

    Raises:
        Unreachable: it could not be opened.
    """
    async with host.websocket(
        gateway_url(config, url),
        proxy=config.proxy,
        max_message_bytes=MAX_FRAME_BYTES,
        open_timeout_s=config.timeout_s,
    ) as socket:
        try:
            yield Connection(socket, config, session)
        finally:
            await socket.close(KEEPS_SESSION)  # noqa: ASYNC102  # shielded and bounded inside


class Connection:
    """See `open_gateway()`.

    Args:
        socket: open.
        config: of the account.
        session: to be resumed.
    """

    def __init__(self, socket: WebSocket, config: DiscordConfig, session: Session | None) -> None:
        self.state: State = opened(session)
        self.lived = False  # it has begun or resumed a session
        self._socket = socket
        self._config = config
        self._inflater = Inflater(MAX_FRAME_BYTES) if config.compress else None
        self._reading = trio.CancelScope()
        self._ending: Ending | None = None
        self._busy = False

    def end(self, ending: Ending) -> None:
        """Leave it, from a task beside the reader."""
        if self._ending is None:
            self._ending = ending
        self._reading.cancel()

    async def run(
        self,
        handler: Handler,
        *,
        identify: Callable[[], Awaitable[None]],
        alive: Callable[[float], None],
        beside: Callable[[trio.Nursery], None],
    ) -> Ending:
        """Do as the protocol says until the connection ends.

        Args:
            handler: what happened; the next frame is read when it returns.
            identify: counts an identify, or raises.
            alive: a heartbeat was acknowledged, or the first is awaited; the next sign comes within so many seconds.
            beside: starts what else lives as long as the connection.

        Returns:
            how it ended. What `handler` and `identify` raise comes out bare.
        """
        try:
            async with open_background_nursery() as nursery:
                beside(nursery)
                every_s = 60.0
                with self._reading:
                    while True:
                        frame = await self._frame()
                        if frame is None:
                            return Ending(words="the gateway did not answer in time")
                        self.state, actions = step(self.state, frame)
                        for action in actions:
                            if isinstance(action, End):
                                return action.ending
                            if isinstance(action, Beat):
                                every_s = action.every_s
                                alive(2 * every_s + 10)
                                nursery.start_soon(self._beat, every_s)
                            elif isinstance(action, Alive):
                                alive(2 * every_s + 10)
                            else:
                                await self._act(action, handler, identify)
        except WebSocketClosed as closed:
            if self._ending is None:
                return meaning(closed.code, closed.reason, intents(self._config))
        return self._ending or Ending(words="the connection was left")

    async def _act(self, action: Action, handler: Handler, identify: Callable[[], Awaitable[None]]) -> None:
        if isinstance(action, Identify):
            await identify()
            await self._send({"op": IDENTIFY, "d": self._identity()})
        elif isinstance(action, Send):
            payload = action.payload
            data = payload["d"]
            if payload["op"] == RESUME and isinstance(data, dict):
                payload = {**payload, "d": {"token": self._config.token.reveal(), **data}}
            await self._send(payload)
        elif isinstance(action, Event | Began | Resumed):
            self.lived = self.lived or not isinstance(action, Event)
            self._busy = True
            try:
                await handler(self, action)
            finally:
                self._busy = False

    def _identity(self) -> dict[str, object]:
        return {
            "token": self._config.token.reveal(),
            "intents": intents(self._config),
            "properties": {"os": "linux", "browser": "hermes", "device": "hermes"},
            "large_threshold": 50,
        }

    async def _send(self, payload: dict[str, object]) -> None:
        await self._socket.send(msgspec.json.encode(payload).decode())

    async def _frame(self) -> Frame | None:
        """The next frame; None if the service keeps us waiting before the session lives.

        Raises:
            PlatformProtocolError: what came is none.
        """
        patience_s = float("inf") if self.state.phase == "live" else self._config.timeout_s
        with trio.move_on_after(patience_s):
            while True:
                received = await self._socket.receive()
                try:
                    if isinstance(received, bytes) and self._inflater is not None:
                        message: str | bytes | None = self._inflater.feed(received)
                    else:
                        message = received
                    if message is not None:
                        return decode_frame(_mended(message))
                except (TooLarge, msgspec.DecodeError) as exc:
                    sample = received[:200] if isinstance(received, str) else received[:60].hex()
                    raise PlatformProtocolError(f"this is no frame of the gateway: {exc}", sample=sample) from None
        return None

    async def _beat(self, every_s: float) -> None:
        """Heartbeats; the first after a random part of the interval, so that not all bots beat at once."""
        await trio.sleep(every_s * random.random())
        while True:
            # While the reader is at work on an event it cannot have read an acknowledgement.
            if self._busy:
                self.state = replace(self.state, unanswered=False)
            self.state, actions = beat(self.state)
            for action in actions:
                if isinstance(action, End):
                    self.end(action.ending)
                    return
                if isinstance(action, Send):
                    sent = False
                    with trio.move_on_after(every_s):
                        try:
                            await self._send(action.payload)
                        except WebSocketClosed:
                            return  # the reader sees it too, and why
                        sent = True
                    if not sent:
                        self.end(Ending(words="the gateway takes nothing from us any more"))
                        return
            await trio.sleep(every_s)
