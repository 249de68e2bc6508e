"""A WebSocket server for fakes: real sockets on the loopback, and no connection outlives its peer or the server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, wrap_server_stream
from wsproto.utilities import ProtocolError

from hermes.nurseries import open_background_nursery

Handler = Callable[[WebSocketRequest], Awaitable[None]]

CLOSE_S = 1.0
ENDED = (ConnectionClosed, ProtocolError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class _Reader:
    """Stands where trio-websocket wants a nursery: ends the whole connection when its reader ends during the handshake."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.opening = trio.CancelScope()

    def start_soon(self, reader: Callable[[], Awaitable[Any]]) -> None:
        self._nursery.start_soon(self._run, reader)

    async def _run(self, reader: Callable[[], Awaitable[Any]]) -> None:
        try:
            await reader()
        except ENDED:
            pass
        finally:
            self.opening.cancel()


async def _serve(handler: Handler, stream: trio.abc.Stream) -> None:
    try:
        async with trio.open_nursery() as nursery:
            reader = _Reader(nursery)
            request: WebSocketRequest | None = None
            with reader.opening:
                request = await wrap_server_stream(cast("trio.Nursery", reader), stream, receive_buffer_size=65_536)
            if request is not None:
                with suppress(*ENDED):
                    await handler(request)
                with trio.move_on_after(CLOSE_S):
                    with suppress(*ENDED):
                        await request._connection.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_websocket_server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on 127.0.0.1 for the body; yields its port.

    Args:
        handler: called for each handshake; accepts or rejects the request, and may let trio-websocket's
            `ConnectionClosed` pass. A connection that it leaves open is closed with 1000.
        tls: serve `wss` with this context.

    Lifetime: leaving ends every connection without ceremony.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listeners[0].socket.getsockname()[1]

    async def connected(stream: trio.SocketStream) -> None:
        if tls is None:
            await _serve(handler, stream)
            return
        secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            await secured.do_handshake()
        except ENDED:
            await trio.aclose_forcefully(stream)
            return
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        await _serve(handler, secured)

    async with open_background_nursery() as nursery:
        await nursery.start(trio.serve_listeners, connected, listeners)
        yield port
