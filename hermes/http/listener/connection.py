"""The life of one connection: a task that reads, a task that serves one request after the other.

The reader reads for the whole life of the connection, so that a client that leaves is noticed at once; what it reads
goes into one bounded buffer, from which bodies and then the next request are taken. Nothing else reads the stream, so
no byte can get lost between two requests.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

from hermes.http.listener.exchange import ClientLeft, Exchange, is_departure
from hermes.http.listener.parser import Head, find_head, parse_head
from hermes.http.listener.refusal import Refused, refusal_bytes
from hermes.http.listener.response import ResponseError
from hermes.http.listener.transport import BROKEN, PIECE, Transport

if TYPE_CHECKING:
    from hermes.http.listener.server import Server

SENDS_BETWEEN_CHECKPOINTS = 16


class Connection:
    """One connection.

    Args:
        server: whose connection it is.
        transport: its stream; closed when `run` ends.

    Attributes:
        buffer: input that nobody has taken yet, at most `max_pipelined_bytes`.
        gone: the client has ended its side, broke the connection, or does not take what it is sent.
        closing: no further request is waited for.
    """

    __slots__ = (
        "_discarded",
        "_discarding",
        "_exchange",
        "_forgave",
        "_news",
        "_room",
        "_scanned",
        "_sends",
        "_served",
        "_writing",
        "buffer",
        "closing",
        "gone",
        "limits",
        "server",
        "transport",
    )

    def __init__(self, server: Server, transport: Transport) -> None:
        self.server = server
        self.limits = server.limits
        self.transport = transport
        self.buffer = bytearray()
        self.gone = False
        self._scanned = 0  # bytes of `buffer` in which no head's end was found
        self._news = trio.Event()
        self._room: trio.Event | None = None
        self._forgave = False
        self._exchange: Exchange | None = None
        self.closing = False
        self._discarding = False
        self._discarded = 0
        self._writing = False
        self._sends = 0
        self._served = 0

    async def run(self) -> None:
        """Serve until either side is done.

        Lifetime: whatever ends it, the stream is closed and the application has ended when this returns.
        Cancellation: at once; a request that has no byte of its response yet is told 503, if that goes without a wait.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                with contextlib.suppress(ClientLeft):
                    await self._serve()
                nursery.cancel_scope.cancel(reason="the connection is done")
        finally:
            await self.transport.aclose()

    # What the exchange and the server use.

    async def news(self) -> None:
        """Wait until something has changed: input, departure, the end of a response, the wish to close."""
        await self._news.wait()

    def announce(self) -> None:
        """Wake whoever waits for news."""
        self._news.set()
        self._news = trio.Event()

    def make_room(self) -> None:
        """Something was taken from the buffer: the reader may go on."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def write(self, data: bytes) -> None:
        """Hand bytes to the kernel, waiting for a client that takes them slowly.

        Raises:
            ClientLeft: it is gone, or took nothing for `send_timeout_s`.
            RuntimeError: another task is writing, or a write was interrupted and the stream is spoilt.
        """
        if self._writing:
            raise RuntimeError("another write is under way on this connection, or was interrupted")
        if self.gone:
            raise ClientLeft("the client has left")
        try:
            sent = self.transport.send_nowait(data)
        except BROKEN as error:
            self.leave()
            raise ClientLeft("the connection broke") from error
        if sent < len(data):
            await self._write_slowly(memoryview(data)[sent:])
            return
        self._sends += 1
        if self._sends % SENDS_BETWEEN_CHECKPOINTS == 0:  # an application that only sends must not starve the others
            await trio.lowlevel.checkpoint()

    def leave(self) -> None:
        """The client is gone: whatever is being done for it is cancelled."""
        if self.gone:
            return
        self.gone = True
        exchange = self._exchange
        if exchange is not None and not exchange.delivered:
            self.server.count.abandoned += 1
            exchange.scope.cancel(reason="the client left")
        self.announce()
        self.make_room()

    def close_when_idle(self) -> None:
        """Wait for no further request; one that has begun to arrive is still served."""
        self.closing = True
        self.announce()

    # Reading.

    async def _read(self) -> None:
        with contextlib.suppress(*BROKEN):
            while True:
                room = self.limits.max_pipelined_bytes - len(self.buffer)
                if room <= 0:
                    self._room = trio.Event()
                    await self._room.wait()
                    continue
                data = await self.transport.receive_some(min(room, PIECE))
                if not data:
                    break
                if self._discarding:
                    self._discarded += len(data)
                    if self._discarded > self.limits.max_linger_bytes:
                        break
                else:
                    self.buffer += data
                    self.announce()
        self.leave()

    def _take_head(self) -> Head | None:
        buffer = self.buffer
        if not self._forgave and buffer.startswith(b"\r"):  # RFC 9112, 2.2: one empty line before a request is forgiven
            if len(buffer) == 1:
                return None
            if buffer.startswith(b"\r\n"):
                del buffer[:2]
                self._forgave = True
        size = find_head(buffer, self._scanned, self.limits)
        if not size:
            self._scanned = len(buffer)
            return None
        head = bytes(buffer[:size])
        del buffer[:size]
        self._scanned = 0
        self._forgave = False
        self.make_room()
        return parse_head(head, self.limits)

    async def _next_head(self) -> Head | None:
        """Wait for a request; None if there will be no other.

        Raises:
            Refused: what came is no request, or came too slowly.
        """
        if self.buffer and not self.gone and (head := self._take_head()):
            await trio.lowlevel.checkpoint()  # pipelined requests must not starve the other connections
            return head
        limits = self.limits
        begun = bool(self.buffer)
        timeout = limits.idle_timeout_s if self._served and not begun else limits.header_timeout_s
        with trio.CancelScope(deadline=trio.current_time() + timeout) as wait:
            while True:
                if begun:
                    await self.news()
                else:
                    await self._first_byte()
                if self.gone or not (begun or self.buffer):
                    return None
                if head := self._take_head():
                    return head
                if not begun:
                    begun = True
                    wait.deadline = trio.current_time() + limits.header_timeout_s
        if begun:
            raise Refused(408, "The request's head came too slowly.")
        return None

    async def _first_byte(self) -> None:
        """Wait for the next request to begin; meanwhile the connection is idle and may be closed by the server."""
        idle = self.server.idle
        idle[self] = None
        try:
            while not (self.buffer or self.gone or self.closing or self.server.draining):
                await self.news()
        finally:
            del idle[self]

    # Serving.

    async def _serve(self) -> None:
        while True:
            try:
                head = await self._next_head()
            except Refused as refusal:
                await self._answer(refusal)
                return
            if head is None:
                return
            if not await self._exchange_with(head):
                return

    async def _exchange_with(self, head: Head) -> bool:
        """Serve one request; whether another may follow."""
        exchange = self._exchange = Exchange(self, head)
        self._served += 1
        self.server.count.requests += 1
        failed = False
        try:
            with exchange.scope:
                await self.server.app(exchange.asgi_scope(), exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001  # the boundary of an HTTP request: one bad handler, one bad answer
            failed = True
            if not (self.gone and is_departure(error)):
                self.server.on_error(error)
        except BaseException:
            self._cut_short(exchange)
            raise
        finally:
            self._exchange = None
        response = exchange.response
        if exchange.delivered:
            self.server.count.answered(response.status)
            return await self._after(exchange)
        if self.gone:
            return False
        if not exchange.untouched or self._writing:
            return self._tear(exchange, failed)
        if exchange.refusal is None and not failed:
            self.server.on_error(ResponseError("the application returned without a complete response"))
        refusal = exchange.refusal or Refused(500, "The server failed to answer this request.")
        await self._answer(refusal, head_only=head.method == "HEAD")
        return False

    async def _after(self, exchange: Exchange) -> bool:
        """Bring the connection to where the next request begins, or to its close."""
        if exchange.response.keep_alive and not exchange.body.complete:
            await self._discard_rest(exchange)
        if self.gone:
            return False
        if exchange.response.keep_alive and exchange.body.complete:
            return not (self.closing or self.server.draining) or bool(self.buffer)
        if self.buffer or not exchange.body.complete:
            await self._linger()
        return False

    async def _discard_rest(self, exchange: Exchange) -> None:
        """Read away the rest of a body that the application did not want (short: the response's head was sent so)."""
        with trio.move_on_after(self.limits.body_timeout_s):
            while not self.gone:
                exchange.body.take(self.buffer)
                self.make_room()
                if exchange.body.complete:
                    return
                await self.news()

    def _tear(self, exchange: Exchange, failed: bool) -> bool:
        """End a response in the middle so that the client cannot take what it has for the whole."""
        if not failed and exchange.refusal is None:
            self.server.on_error(ResponseError("the application returned without a complete response"))
        self.server.count.torn += 1
        if exchange.response.ends_by_close:
            self.transport.reset_on_close()
        return False

    def _cut_short(self, exchange: Exchange) -> None:
        """The server itself is being ended: say so, if that needs no wait."""
        if exchange.delivered or self.gone:
            return
        self.server.count.cut += 1
        if exchange.untouched and not self._writing:
            refusal = Refused(503, "The server is shutting down.", retry_after_s=1)
            with contextlib.suppress(*BROKEN):
                if self.transport.send_nowait(refusal_bytes(refusal, self.server.date_line())):
                    self.server.count.refused_with(refusal.status)
        elif exchange.response.ends_by_close:
            self.transport.reset_on_close()

    async def _answer(self, refusal: Refused, *, head_only: bool = False) -> None:
        self.server.count.refused_with(refusal.status)
        await self.write(refusal_bytes(refusal, self.server.date_line(), head_only=head_only))
        await self._linger()

    async def _linger(self) -> None:
        """Wait a little for the client to close, reading away what it still sends.

        A close with input unread makes the kernel send a reset, which can overtake the answer (RFC 9112, 9.6).
        """
        self._discarding = True
        self.buffer.clear()
        self.make_room()
        with contextlib.suppress(*BROKEN), trio.move_on_after(self.limits.linger_s):
            await self.transport.send_eof()
            while not self.gone:
                await self.news()

    async def _write_slowly(self, rest: memoryview) -> None:
        """Write what the kernel has no room for; interrupted, the connection is spoilt for every other write."""
        self._writing = True
        while rest:
            with trio.CancelScope(deadline=trio.current_time() + self.limits.send_timeout_s) as wait:
                try:
                    sent = await self.transport.send_some(rest)
                except BROKEN as error:
                    self.leave()
                    raise ClientLeft("the connection broke") from error
            if wait.cancelled_caught:
                self.leave()
                raise ClientLeft("the client takes nothing")
            rest = rest[sent:]
        self._writing = False
