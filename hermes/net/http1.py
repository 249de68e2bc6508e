"""HTTP/1.1 over one connection of httpcore2's pool, parsed by httptools.

httpcore2's own connection does the same on h11, with three locks, seven coroutines and nine turns of the loop for each
request: with its parser that was a fifth of what answering a message cost. Its pool decides as before who gets which
connection; behind an HTTP proxy its connections are used.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from enum import Enum
from types import AsyncGeneratorType
from typing import Any

import httpcore2
import httptools
import trio

from hermes.net.tunnels import Tunnelled

CLOSE_S = 2.0
READ_BYTES = 65_536
MAX_HEAD_BYTES = 102_400  # of a head, and of what is between two pieces of a body
_LARGE_BYTES = 65_536  # a body of more than this is not copied to leave together with its head
# RFC 9112, sections 3 and 5: one line for the request, one for each header, none of them broken.
_HEAD = re.compile(rb"[A-Z]+ [^\x00-\x20\x7f]+ HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00\r\n]*\r\n)*\r\n")


# What servers write although they should not, and every other client understands: lines that end with LF alone, folded
# ones, spaces after a chunk's size, a length beside the chunks (RFC 9112, sections 2.2, 5.2, 7.1 and 6.3).
_LENIENT = {
    "lenient_headers": True,
    "lenient_chunked_length": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}


class _State(Enum):
    NEW = 1
    ACTIVE = 2
    IDLE = 3
    CLOSED = 4


class _Incoming:
    """One response as it comes: what httptools says of it.

    Args:
        bodiless: it answers a HEAD, so nothing follows its head.
        last: whatever it says itself, its connection is used no more after it.
    """

    def __init__(self, *, bodiless: bool, last: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_LENIENT)
        self._bodiless = bodiless
        self._last = last
        self._framings = 0
        self._barren = 0  # bytes that brought nothing of the body
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.head_done = False
        self.done = False
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """Take what was received; b"" at the end of the stream. Raises httpcore2.RemoteProtocolError."""
        if not data:
            self._end()
            return
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            if not self.done:
                raise httpcore2.RemoteProtocolError(f"that is no HTTP response: {error}") from None
        if self.pieces or self.done:
            self._barren = 0
        elif self._barren > MAX_HEAD_BYTES:  # the parser keeps the line of a head or a trailer until it ends
            raise httpcore2.RemoteProtocolError(f"more than {MAX_HEAD_BYTES} bytes are no part of the response's body")

    def _end(self) -> None:
        if not self.head_done:
            raise httpcore2.RemoteProtocolError("Server disconnected without sending a response.")
        if self._framings:
            raise httpcore2.RemoteProtocolError("the server closed the connection in the middle of its answer")
        self.done = True  # the end of the stream is the end of the body (RFC 9112, section 6.3)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.done:  # more than was asked for
            self.reusable = False

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            return  # a trailer
        self.headers.append((name, value.rstrip(b" \t")))
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framings += 1

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.done or (100 <= status < 200 and status != 101):
            return
        self.status = status
        self.head_done = True
        self._barren = 0
        if self._bodiless:
            self._complete()

    def on_body(self, data: bytes) -> None:
        if self.done:  # a HEAD's answer has none
            self.reusable = False
        else:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            if not self.done:
                self._complete()
        else:  # an interim response (RFC 9110, section 15.2): the one that is meant follows
            self.headers, self.reason, self._framings = [], b"", 0

    def _complete(self) -> None:
        self.done = True
        # Where two lengths are said, what follows may be anybody's (RFC 9112, section 6.3).
        self.reusable = self._framings < 2 and self._parser.should_keep_alive() and not self._last


class _Body:
    """The body of a response, read as it is asked for."""

    def __init__(self, connection: Http1Connection, incoming: _Incoming, timeout: float | None) -> None:
        self._connection = connection
        self._incoming = incoming
        self._timeout = timeout
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        incoming = self._incoming
        while not incoming.pieces:
            if incoming.done:
                raise StopAsyncIteration
            await self._connection.receive(incoming, self._timeout)
        data = incoming.pieces[0] if len(incoming.pieces) == 1 else b"".join(incoming.pieces)
        incoming.pieces.clear()
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._connection.over(self._incoming)


class Http1Connection(httpcore2.AsyncConnectionInterface):
    """A connection for one request at a time. Made and closed by the pool.

    Args:
        origin: where it goes.
        tls: used for an `https` origin.
        keep_s: how long it may be idle; None = for ever.
        backend: how the network is reached.

    Cancellation: of a request or the reading of its response: this connection is closed, no other.
    """

    def __init__(
        self,
        origin: httpcore2.Origin,
        tls: ssl.SSLContext,
        keep_s: float | None,
        backend: httpcore2.AsyncNetworkBackend,
    ) -> None:
        self._origin = origin
        self._tls = tls
        self._keep_s = keep_s
        self._backend = backend
        self._stream: httpcore2.AsyncNetworkStream | None = None
        self._state = _State.NEW
        self._expires_at: float | None = None

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request and read the head of its response."""
        if self._state not in (_State.NEW, _State.IDLE):
            raise httpcore2.ConnectionNotAvailable
        self._state, self._expires_at = _State.ACTIVE, None
        timeouts = request.extensions.get("timeout", {})
        try:
            head, framing = _head(request), _Framing(request.headers)
            if self._stream is None:
                self._stream = await self._connect(timeouts.get("connect"))
            cut = await self._send(self._stream, head, framing, request.stream, timeouts.get("write"))
            incoming = _Incoming(bodiless=request.method == b"HEAD", last=cut)
            while not incoming.head_done:
                await self.receive(incoming, timeouts.get("read"))
            if incoming.status == 101:
                raise httpcore2.RemoteProtocolError("the server changes the protocol, which nobody asked for")
        except BaseException:
            await self._close()  # noqa: ASYNC102  # shielded and bounded inside
            raise
        return httpcore2.Response(
            incoming.status,
            headers=incoming.headers,
            content=_Body(self, incoming, timeouts.get("read")),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": incoming.reason,
                "network_stream": self._stream,
            },
        )

    async def _connect(self, timeout: float | None) -> httpcore2.AsyncNetworkStream:
        host = self._origin.host.decode("ascii")
        stream = await self._backend.connect_tcp(host, self._origin.port, timeout=timeout)
        if self._origin.scheme not in (b"https", b"wss"):
            return stream
        self._tls.set_alpn_protocols(["http/1.1"])
        return await stream.start_tls(self._tls, server_hostname=host, timeout=timeout)  # closes it if that fails

    async def _send(
        self, stream: httpcore2.AsyncNetworkStream, head: bytes, framing: _Framing, body: Any, timeout: float | None
    ) -> bool:
        """Send head and body; the first piece of the body leaves with the head. Returns: whether it was cut off."""
        pieces: AsyncIterator[bytes] = body.__aiter__()
        try:
            if isinstance(pieces, AsyncGeneratorType):
                async with aclosing(pieces):
                    await self._send_pieces(stream, head, pieces, framing, timeout)
            else:
                await self._send_pieces(stream, head, pieces, framing, timeout)
        except httpcore2.WriteError:  # the server may have answered before it closed
            return True
        return False

    async def _send_pieces(
        self,
        stream: httpcore2.AsyncNetworkStream,
        head: bytes,
        pieces: AsyncIterator[bytes],
        framing: _Framing,
        timeout: float | None,
    ) -> None:
        waiting = head
        async for piece in pieces:
            data = framing.framed(piece)
            if waiting and len(data) > _LARGE_BYTES:
                await stream.write(waiting, timeout)
                waiting = b""
            if data:
                await stream.write(waiting + data if waiting else data, timeout)
                waiting = b""
        waiting += framing.end()
        if waiting:
            await stream.write(waiting, timeout)

    async def receive(self, incoming: _Incoming, timeout: float | None) -> None:
        """Read once. When that fails or is cancelled, the connection is closed."""
        if self._stream is None:  # the pool was closed meanwhile
            raise httpcore2.ReadError("the connection is closed")
        try:
            incoming.feed(await self._stream.read(READ_BYTES, timeout))
        except BaseException:
            await self._close()  # noqa: ASYNC102  # shielded and bounded inside
            raise

    async def over(self, incoming: _Incoming) -> None:
        """The response is read no further: keep the connection if nothing is left of it, else close it."""
        if self._state is _State.ACTIVE and incoming.reusable and not incoming.pieces:
            self._state = _State.IDLE
            self._expires_at = None if self._keep_s is None else time.monotonic() + self._keep_s
        else:
            await self._close()

    async def _close(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):  # closing a socket takes no time
            await self.aclose()

    async def aclose(self) -> None:
        """Close it, whatever it does."""
        self._state = _State.CLOSED
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    # What the pool asks.

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        return origin == self._origin

    def is_connected(self) -> bool:
        return self._stream is not None

    def is_available(self) -> bool:
        return self._state is _State.IDLE

    def is_idle(self) -> bool:
        return self._state is _State.IDLE

    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    def has_expired(self) -> bool:
        """Whether it has been idle for long enough, or the server has closed it."""
        if self._state is not _State.IDLE or self._stream is None:
            return False
        expired = self._expires_at is not None and time.monotonic() > self._expires_at
        return expired or bool(self._stream.get_extra_info("is_readable"))

    def info(self) -> str:
        return f"{self._origin!s}, HTTP/1.1, {self._state.name}"


def _head(request: httpcore2.Request) -> bytes:
    """The head of a request. Raises httpcore2.LocalProtocolError for what would be another request than was meant."""
    lines = [b"%b %b HTTP/1.1" % (request.method, request.url.target)]
    lines.extend([name + b": " + value for name, value in request.headers])
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if _HEAD.fullmatch(head) is None or head.count(b"\n") != len(lines) + 1:
        raise httpcore2.LocalProtocolError("a method, target or header that HTTP does not allow")
    return head


class _Framing:
    """How the pieces of a request's body are told apart from what follows (RFC 9112, section 6).

    Raises:
        httpcore2.LocalProtocolError: that is no length.
    """

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._chunked = False
        self._left = 0
        for name, value in headers:
            lower = name.lower()
            if lower == b"transfer-encoding":
                self._chunked = True
            elif lower == b"content-length":
                if not value.isdigit():
                    raise httpcore2.LocalProtocolError("a length that HTTP does not allow")
                self._left = int(value)

    def framed(self, piece: bytes) -> bytes:
        """A piece as it is sent. Raises httpcore2.LocalProtocolError for more than was announced."""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        self._left -= len(piece)
        if self._left < 0:
            raise httpcore2.LocalProtocolError("the body is longer than its Content-Length")
        return piece

    def end(self) -> bytes:
        """What ends the body. Raises httpcore2.LocalProtocolError for less than was announced."""
        if self._chunked:
            return b"0\r\n\r\n"
        if self._left:
            raise httpcore2.LocalProtocolError("the body is shorter than its Content-Length")
        return b""


class Http1Pool(httpcore2.AsyncConnectionPool):
    """httpcore2's pool with our connections, except through an HTTP proxy.

    Args:
        tls: for `https`.
        proxy: an HTTP proxy, or None.
        backend: how the network is reached.
        keep_s: how long a connection may be idle; None = for ever.
        limits: `max_connections` and `max_keepalive_connections`.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        proxy: httpcore2.Proxy | None,
        backend: httpcore2.AsyncNetworkBackend,
        keep_s: float | None,
        **limits: int | None,
    ) -> None:
        super().__init__(
            ssl_context=tls, proxy=proxy, network_backend=backend, keepalive_expiry=keep_s, **limits  # type: ignore[arg-type]
        )  # fmt: skip
        self._make = None if proxy is not None else (tls, keep_s, backend)

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """A connection that is not connected yet."""
        if self._make is None:
            connection = super().create_connection(origin)
            return connection if origin.scheme == b"http" else Tunnelled(connection)
        return Http1Connection(origin, *self._make)

    async def _close_connections(self, closing: list[httpcore2.AsyncConnectionInterface]) -> None:
        if closing:  # twice for each request there is none, and a shield for nothing costs as much as sending it
            await super()._close_connections(closing)
