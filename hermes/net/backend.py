"""How httpcore2 reaches the network: TCP with keepalive, TLS, and SOCKS5, on trio.

Nothing stays open when a step fails or is cancelled.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import httpcore2
import trio

from hermes.net.socks import SocksError, socks5_connect

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 4

_END_OF_HEAD = b"\r\n\r\n"
_LARGE_BYTES = 65_536


def keepalive_options() -> list[tuple[int, int, int]]:
    """The socket options that make the kernel find a peer that vanished, after about 70 seconds of silence."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # macOS names the idle time TCP_KEEPALIVE; an option that a platform does not have is left out.
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class SocksProxy(NamedTuple):
    """A SOCKS5 proxy: where it listens, and the user name and password it wants."""

    host: str
    port: int
    auth: tuple[bytes, bytes] | None
    resolve_here: bool


class NetStream(httpcore2.AsyncNetworkStream):
    """A connected byte stream. Its errors are httpcore2's; its deadlines come from the caller's cancel scope.

    A request's head waits for what comes next, its body or the reading of an answer, and leaves together with it: one
    system call and one packet instead of two. `hermes.net.bodies` relies on it.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._head = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes`, b"" at the end."""
        if self._head:
            await self._flush(timeout)
        try:
            if timeout is None:
                return bytes(await self._stream.receive_some(max_bytes))
            with trio.fail_after(timeout):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError as exc:
            raise httpcore2.ReadTimeout(str(exc)) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpcore2.ReadError(str(exc)) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`; a request's head with what is written or read next."""
        if not buffer:
            return
        if not self._head and buffer.endswith(_END_OF_HEAD):
            self._head = buffer
            return
        head, self._head = self._head, b""
        if head and len(buffer) > _LARGE_BYTES:  # a large body is not copied for that
            await self._send(head, timeout)
            head = b""
        await self._send(head + buffer if head else buffer, timeout)

    async def _flush(self, timeout: float | None) -> None:
        head, self._head = self._head, b""
        # As httpcore2 does with a request that cannot be written: the peer may have answered before it closed.
        with suppress(httpcore2.WriteError):
            await self._send(head, timeout)

    async def _send(self, buffer: bytes, timeout: float | None) -> None:
        try:
            if timeout is None:
                await self._stream.send_all(buffer)
            else:
                with trio.fail_after(timeout):
                    await self._stream.send_all(buffer)
        except trio.TooSlowError as exc:
            raise httpcore2.WriteTimeout(str(exc)) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpcore2.WriteError(str(exc)) from exc

    async def aclose(self) -> None:
        """Close the socket, at once: an HTTPS connection needs no farewell (RFC 9112, section 9.8)."""
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """This stream with TLS inside. On any failure, cancellation included, the socket is closed."""
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                try:
                    secured = trio.SSLStream(
                        self._stream, ssl_context=ssl_context, server_hostname=server_hostname, https_compatible=True
                    )
                    await secured.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(self._stream)
                    raise
        except trio.TooSlowError as exc:
            raise httpcore2.ConnectTimeout("the TLS handshake took too long") from exc
        except (trio.BrokenResourceError, OSError, ValueError) as exc:  # a ValueError of a name that is none
            raise httpcore2.ConnectError(str(exc.__cause__ or exc)) from exc
        return NetStream(secured)

    def _socket(self) -> trio.socket.SocketType:
        stream: Any = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        sock: trio.socket.SocketType = stream.socket
        return sock

    def get_extra_info(self, info: str) -> Any:
        """What httpcore2 asks about a stream; None for what it does not know."""
        if info == "is_readable":
            return self._socket().is_readable()
        if info == "ssl_object":
            return self._stream._ssl_object if isinstance(self._stream, trio.SSLStream) else None
        if info == "socket":
            return self._socket()
        if info == "client_addr":
            return self._socket().getsockname()
        if info == "server_addr":
            return self._socket().getpeername()
        return None


class NetBackend(httpcore2.AsyncNetworkBackend):
    """Dials TCP, directly or through a SOCKS5 proxy, with keepalive on."""

    def __init__(self, socks: SocksProxy | None = None) -> None:
        self._socks = socks
        self._options = keepalive_options()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - ours are set on every connection
    ) -> httpcore2.AsyncNetworkStream:
        """A stream to `host`; the proxy's handshake is part of `timeout`."""
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return NetStream(await self.dial(host, port, local_address))
        except trio.TooSlowError as exc:
            raise httpcore2.ConnectTimeout("connecting took too long") from exc
        except SocksError as exc:
            raise httpcore2.ProxyError(str(exc)) from exc
        except (OSError, trio.BrokenResourceError, UnicodeError) as exc:  # a UnicodeError of a name that is none
            raise httpcore2.ConnectError(str(exc)) from exc

    async def dial(self, host: str, port: int, local_address: str | None = None) -> trio.SocketStream:
        """A connected socket with keepalive on. Raises OSError, SocksError, trio.BrokenResourceError."""
        socks = self._socks
        if socks is not None and socks.resolve_here:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            host = str(found[0][4][0])
        at = (host, port) if socks is None else (socks.host, socks.port)
        stream = await trio.open_tcp_stream(*at, local_address=local_address)
        try:
            self._configure(stream)
            if socks is not None:
                await socks5_connect(stream, host, port, socks.auth)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    def _configure(self, stream: trio.SocketStream) -> None:
        for level, name, value in self._options:
            stream.setsockopt(level, name, value)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await trio.sleep(seconds)
