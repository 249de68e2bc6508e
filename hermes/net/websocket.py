"""WebSockets for platforms, and the only file of the product that knows trio-websocket.

What it adds to that library: the socket has an owner from its first instant, so that a handshake that is cancelled leaves
nothing; a peer that leaves during the handshake is noticed at once; the reader lives until we have closed, so that the
closing handshake can finish while everything around is cancelled; closing ends within a bound; errors are ours.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from hermes.errors import Unreachable, WebSocketClosed
from hermes.net.network import Network
from hermes.net.streams import connect
from hermes.nurseries import open_background_nursery
from hermes.platform import EMPTY, WebSocket, WebSocketFactory

log = logging.getLogger(__name__)

CLOSE_S = 2.0
MAX_HANDSHAKE_BYTES = 262_144
QUEUED_MESSAGES = 4  # received and not yet taken; the peer waits beyond that
RECEIVE_BYTES = 65_536
MAX_REASON_BYTES = 123  # RFC 6455, section 5.5: a control frame carries 125 bytes, two of them the code


def make_websocket_factory(network: Network, *, close_s: float = CLOSE_S) -> WebSocketFactory:
    """WebSockets over the gateway's TLS context, as `Host.websocket`.

    Args:
        network: the gateway's.
        close_s: how long the closing handshake may take.
    """

    @asynccontextmanager
    async def open_websocket(
        url: str,
        *,
        headers: Mapping[str, str] = EMPTY,
        proxy: str | None = None,
        max_message_bytes: int = 16_777_216,
        open_timeout_s: float = 20.0,
    ) -> AsyncIterator[WebSocket]:
        host, port, tls, shown, resource = _parts(url)
        begun = trio.current_time()
        stream = await connect(network, host, port, tls=tls, proxy=proxy, within_s=open_timeout_s)
        try:
            async with open_background_nursery() as nursery:
                reading = _Reading(nursery)
                try:
                    bounded = _Bounded(stream)
                    connection = await _handshake(
                        reading, bounded, shown, resource, headers, max_message_bytes,
                        within_s=max(0.0, open_timeout_s - (trio.current_time() - begun)),
                    )  # fmt: skip
                    bounded.left = None
                    socket = _Socket(connection, close_s)
                    try:
                        yield socket
                    finally:
                        await socket.close()  # noqa: ASYNC102  # shielded and bounded inside
                finally:
                    reading.scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    return open_websocket


def _parts(url: str) -> tuple[str, int, bool, str, str]:
    """Host, port, whether TLS, the Host header and the resource of a URL. Raises Unreachable."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise Unreachable("this is no URL of a WebSocket (ws:// or wss:// and a host)", sent=False)
    tls = parts.scheme == "wss"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = host if port is None else f"{host}:{port}"
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.hostname, port or (443 if tls else 80), tls, shown, resource


async def _handshake(
    reading: _Reading,
    stream: _Bounded,
    host: str,
    resource: str,
    headers: Mapping[str, str],
    max_message_bytes: int,
    *,
    within_s: float,
) -> WebSocketConnection:
    connection: WebSocketConnection | None = None
    with trio.move_on_after(within_s), reading.opening:
        connection = await wrap_client_stream(
            cast("trio.Nursery", reading),
            cast("trio.SocketStream", stream),
            host,
            resource,
            extra_headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
            message_queue_size=QUEUED_MESSAGES,
            max_message_size=max_message_bytes,
            receive_buffer_size=RECEIVE_BYTES,
        )
    if connection is not None:
        return connection
    rejected = reading.failure
    if isinstance(rejected, ConnectionRejected):
        body = (rejected.body or b"")[:300].decode("utf-8", "replace").strip()
        said = f": {body}" if body else ""
        raise Unreachable(f"{host} answered the WebSocket handshake with HTTP {rejected.status_code}{said}", sent=False)
    if stream.left is not None and stream.left <= 0:
        raise Unreachable(f"{host} answered the WebSocket handshake with too much", sent=False)
    if not reading.opening.cancel_called:
        raise Unreachable(f"{host} did not answer the WebSocket handshake in time", sent=False)
    raise Unreachable(f"{host} ended the connection during the WebSocket handshake", sent=False) from rejected


class _Reading:
    """Stands where trio-websocket wants a nursery: runs its reader out of reach of every cancellation but `scope`'s.

    Without that, cancelling whoever uses the socket would end the reader first, and nobody would see the peer's close.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.scope = trio.CancelScope(shield=True)
        self.opening = trio.CancelScope()
        self.failure: Exception | None = None

    def start_soon(self, reader: Callable[[], Awaitable[Any]]) -> None:
        self._nursery.start_soon(self._run, reader, name="WebSocket reader")

    async def _run(self, reader: Callable[[], Awaitable[Any]]) -> None:
        try:
            with self.scope:
                await reader()
        except (HandshakeError, ConnectionClosed, ProtocolError) as exc:
            self.failure = exc
        finally:
            self.opening.cancel()  # a peer that left will not finish the handshake; later it cancels nothing


class _Bounded(trio.abc.Stream):
    """A stream of which at most `left` bytes are read; then it looks ended. None lifts that."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.left: int | None = MAX_HANDSHAKE_BYTES

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.left is None:
            return await self._inner.receive_some(max_bytes)
        if self.left <= 0:
            await trio.lowlevel.checkpoint()
            return b""
        data = await self._inner.receive_some(max_bytes)
        if self.left is not None:  # lifted meanwhile
            self.left -= len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._inner)


class _Socket:
    """A WebSocket as `hermes.platform` has it."""

    def __init__(self, connection: WebSocketConnection, close_s: float) -> None:
        self._connection = connection
        self._close_s = close_s
        self._closed: WebSocketClosed | None = None
        self._sending = 0  # stays above 0 when a send is cancelled: a frame may have left in part

    async def send(self, message: str | bytes) -> None:
        if self._closed is not None or self._connection.closed is not None:
            await trio.lowlevel.checkpoint()
            raise self._ended()
        self._sending += 1
        try:
            await self._connection.send_message(message)
        except (ConnectionClosed, ProtocolError) as exc:
            self._sending -= 1
            raise self._ended() from exc
        self._sending -= 1

    async def receive(self) -> str | bytes:
        if self._closed is not None:
            await trio.lowlevel.checkpoint()
            raise self._ended()
        try:
            return await self._connection.get_message()
        except ConnectionClosed as exc:
            raise self._ended() from exc

    async def ping(self) -> None:
        if self._closed is not None or self._connection.closed is not None:
            await trio.lowlevel.checkpoint()
            raise self._ended()
        try:
            await self._connection.ping()
        except (ConnectionClosed, ProtocolError) as exc:
            raise self._ended() from exc

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closed is not None:
            return
        self._closed = self._ended(code, reason)
        if self._sending:
            return  # a close frame would land inside the frame that was cut; leaving closes the connection
        cut = reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._close_s) as scope:
            try:
                await self._connection.aclose(code, cut or None)
            except (ProtocolError, ConnectionClosed, OSError, trio.BrokenResourceError) as exc:
                log.debug("closing a WebSocket failed: %s", exc)
        if scope.cancelled_caught:
            log.debug("closing a WebSocket took longer than %g s and was cut", self._close_s)

    def _ended(self, code: int = 1006, reason: str = "") -> WebSocketClosed:
        """What ended it: our close, or the peer's, or neither."""
        if self._closed is not None:
            return WebSocketClosed(self._closed.code, self._closed.reason)
        found = self._connection.closed
        if found is None:
            return WebSocketClosed(code, reason)
        return WebSocketClosed(found.code, found.reason or "")
