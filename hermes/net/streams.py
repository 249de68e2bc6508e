"""TCP streams for platforms: direct or through a proxy, with or without TLS; every failure in words, no socket left behind."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from hermes.errors import Unreachable
from hermes.net.backend import NetBackend
from hermes.net.network import Network
from hermes.net.socks import SocksError
from hermes.net.transport import proxy_parts
from hermes.platform import StreamFactory

MAX_PROXY_HEAD_BYTES = 16_384


class _ProxyRefused(Exception):
    """An HTTP proxy did not open the tunnel; the words say why."""


def make_stream_factory(network: Network) -> StreamFactory:
    """Streams over the gateway's TLS context, as `Host.tcp`."""

    @asynccontextmanager
    async def open_stream(
        host: str, port: int, *, tls: bool, proxy: str | None = None, open_timeout_s: float = 20.0
    ) -> AsyncIterator[trio.abc.Stream]:
        stream = await connect(network, host, port, tls=tls, proxy=proxy, within_s=open_timeout_s)
        try:
            yield stream
        finally:
            with trio.CancelScope(
                shield=True
            ):  # it takes no time, and what was achieved inside is not to end as cancelled
                await trio.aclose_forcefully(stream)

    return open_stream


async def connect(
    network: Network, host: str, port: int, *, tls: bool, proxy: str | None, within_s: float
) -> trio.abc.Stream:
    """A connected stream that the caller owes a close.

    Args:
        network: whose TLS context is used.
        host: a name or an IP address.
        port: 1 to 65535.
        tls: TLS from the first byte.
        proxy: `http://`, `https://`, `socks5://` or `socks5h://` URL; None = direct.
        within_s: for everything: name, TCP, proxy, TLS.

    Raises:
        Unreachable: never with anything sent. Cancellation: no socket stays open.
    """
    where = f"{host}:{port}"
    try:
        with trio.fail_after(within_s):
            context = await network.tls()
            stream = await _reach(host, port, proxy, context)
            return await _secured(stream, host, context) if tls else stream
    except trio.TooSlowError:
        raise Unreachable(f"{where}: connecting took longer than {within_s:g} s", sent=False) from None
    except (SocksError, _ProxyRefused, ValueError) as exc:
        raise Unreachable(f"{where}, through the proxy: {exc}", sent=False) from exc
    except ssl.SSLError as exc:
        raise Unreachable(f"{where}: tls: {exc}", sent=False) from exc
    except (OSError, trio.BrokenResourceError) as exc:
        raise Unreachable(f"{where}: {_words(exc)}", sent=False) from exc


def _words(exc: Exception) -> str:
    """What happened, from the innermost that knows: trio wraps each attempt's error, and TLS its own."""
    cause: BaseException = exc.__cause__ or exc
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    if isinstance(cause, ssl.SSLError):
        return f"tls: {cause}"
    return str(cause) or "the connection broke"


async def _reach(host: str, port: int, proxy: str | None, context: ssl.SSLContext) -> trio.abc.Stream:
    """TCP to the host, or a tunnel to it."""
    socks, http = proxy_parts(proxy) if proxy else (None, None)
    if http is None:
        return await NetBackend(socks).dial(host, port)
    at = http.url.host.decode("ascii")
    default = 443 if http.url.scheme == b"https" else 80
    stream: trio.abc.Stream = await NetBackend().dial(at.strip("[]"), http.url.port or default)
    if http.url.scheme == b"https":
        stream = await _secured(stream, at, context)
    try:
        await _tunnel(stream, host, port, http.auth)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _tunnel(stream: trio.abc.Stream, host: str, port: int, auth: tuple[bytes, bytes] | None) -> None:
    """Ask an HTTP proxy for a tunnel (RFC 9110, section 9.3.6); what follows its answer is left unread."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if auth is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(b':'.join(auth)).decode()}")
    await stream.send_all("\r\n".join([*lines, "", ""]).encode("ascii", "strict"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # One byte at a time: the first byte after the head may be the other end's, which speaks first in some protocols.
        piece = await stream.receive_some(1)
        if not piece:
            raise _ProxyRefused("it closed the connection without opening a tunnel")
        head += piece
        if len(head) > MAX_PROXY_HEAD_BYTES:
            raise _ProxyRefused("its answer has no end")
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if not (status.startswith("HTTP/1.") and status[8:10] == " 2"):
        raise _ProxyRefused(f"it opened no tunnel: {status[:200]}")


async def _secured(stream: trio.abc.Stream, host: str, context: ssl.SSLContext) -> trio.abc.Stream:
    """The stream with TLS inside; closed if that fails."""
    try:
        secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured
