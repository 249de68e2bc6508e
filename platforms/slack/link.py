"""One socket of Socket Mode: envelopes in, acknowledgements out, and how it ended.

Source: https://docs.slack.dev/apis/events-api/using-socket-mode. Slack renews its sockets every few hours and says so before it
closes one; until then, both the old and the new one bring envelopes.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import msgspec
import trio

from hermes.errors import PlatformUnavailable, WebSocketClosed
from hermes.platform import Host, WebSocket, open_background_nursery
from platforms.slack.config import SlackConfig
from platforms.slack.wire import Envelope, decode_envelope

MAX_FRAME_BYTES = 4_194_304
DRAIN_S = 10.0  # how long the one before the newest is read

Handler = Callable[[Envelope], Awaitable[None]]


class Link:
    """One socket, from its opening to its end. `run` is its task; the others look at it.

    Args:
        host, config: of the account.
        url: single-use, of `apps.connections.open`.
        handler: takes an envelope; it is acknowledged when that returns.
        unreadable: told of what is none.
        stir: called whenever something changed here.
        answered: called for each sign of life.

    Attributes:
        connected: the socket is open.
        greeted: Slack has said hello: envelopes come.
        asked: why Slack wants it replaced; empty if it does not.
        failure: what ended it.
        heard: when anything came last, by trio's clock.
    """

    def __init__(
        self,
        host: Host,
        config: SlackConfig,
        url: str,
        *,
        handler: Handler,
        unreadable: Callable[[str, object], None],
        stir: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self._host = host
        self._config = config
        self._url = url
        self._handler = handler
        self._unreadable = unreadable
        self._stir = stir
        self._answered = answered
        self._waiting = trio.CancelScope()
        self._until = math.inf
        self.connected = self.greeted = False
        self.retired = False
        self.asked = ""
        self.failure: Exception | None = None
        self.begun = self.heard = trio.current_time()

    def retire(self) -> None:
        """Another one is there: read what still comes for a while, then leave."""
        self.retired = True
        self._leave_at(trio.current_time() + DRAIN_S)

    def _leave_at(self, when: float) -> None:
        """Wait for nothing more from then on; what has come is finished."""
        self._until = self._waiting.deadline = when

    async def run(self) -> None:
        """Open it, and read until it ends. Raises what `handler` does; an end of the socket is in `failure`."""
        try:
            async with self._host.websocket(
                self._url,
                proxy=self._config.proxy,
                max_message_bytes=MAX_FRAME_BYTES,
                open_timeout_s=self._config.timeout_s,
            ) as socket:
                self.connected = True
                self._stir()
                async with open_background_nursery() as nursery:
                    nursery.start_soon(self._ask_for_signs, socket)
                    await self._read(socket)
        except PlatformUnavailable as error:  # also WebSocketClosed and Unreachable
            self.failure = self.failure or error
        finally:
            self._stir()

    async def _read(self, socket: WebSocket) -> None:
        while True:
            received: str | bytes | None = None
            with trio.CancelScope(deadline=self._until) as self._waiting:
                received = await socket.receive()
            if received is None:
                return
            self.heard = trio.current_time()
            try:
                envelope = decode_envelope(received)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                self._unreadable(f"a message of the socket is not as documented: {exc}", received)
                continue
            await self._take(socket, envelope)

    async def _take(self, socket: WebSocket, envelope: Envelope) -> None:
        if envelope.type == "hello":
            self.greeted = True
            self._answered()
            self._stir()
        elif envelope.type == "disconnect":
            self.asked = envelope.reason or "no reason"
            self._stir()
        elif envelope.envelope_id is not None:
            await self._handler(envelope)
            await socket.send(msgspec.json.encode({"envelope_id": envelope.envelope_id}).decode())

    async def _ask_for_signs(self, socket: WebSocket) -> None:
        """A peer that is gone without a word answers no ping."""
        while True:
            await trio.sleep(self._config.ping_s)
            answered = False
            try:
                with trio.move_on_after(self._config.ping_s):
                    await socket.ping()
                    answered = True
            except WebSocketClosed:
                return  # the reader sees it too, and why
            if not answered:
                self.failure = PlatformUnavailable("Slack's socket does not answer any more")
                self._leave_at(-math.inf)
                return
            if not self.retired:
                self._answered()
