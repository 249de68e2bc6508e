"""An httpx2 transport over httpcore2's pool and our backend: keepalive, proxies, bounded bodies, and reaping."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Callable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httpcore2
import httpx2
import trio

from hermes.net.backend import NetBackend, SocksProxy
from hermes.net.bodies import AnswerBody
from hermes.net.errors import CAUGHT, translated
from hermes.net.http1 import Http1Pool
from hermes.net.inflating import Inflating

CLOSE_S = 2.0
MAX_ERROR_BODY_BYTES = 262_144

HttpResponse = httpx2.Response


def proxy_parts(proxy: str) -> tuple[SocksProxy | None, httpcore2.Proxy | None]:
    """What a proxy URL means: a SOCKS5 server for our backend, or an HTTP proxy for the pool."""
    parts = urlsplit(proxy)
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    if not parts.hostname:
        raise ValueError("a proxy URL needs a host")
    if parts.scheme in ("socks5", "socks5h"):
        return SocksProxy(parts.hostname, parts.port or 1080, auth, resolve_here=parts.scheme == "socks5"), None
    if parts.scheme not in ("http", "https"):
        raise ValueError("a proxy URL begins with http://, https://, socks5:// or socks5h://")
    port = parts.port or (443 if parts.scheme == "https" else 8080)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return None, httpcore2.Proxy(url=f"{parts.scheme}://{host}:{port}/", auth=auth)


def check_urls(base_url: str, proxy: str | None) -> None:
    """Raise ValueError, without any secret in its text, if these cannot be dialled."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a base URL begins with http:// or https:// and has a host")
    _ = parts.port  # raises ValueError for what is no port
    if proxy:
        proxy_parts(proxy)


def _inflating(headers: list[tuple[bytes, bytes]]) -> Inflating | None:
    """What undoes a response's Content-Encoding; None if it has none."""
    codings = [value.strip().lower() for name, value in headers if name.lower() == b"content-encoding"]
    coding = b", ".join(codings).decode("latin-1")
    if coding in ("", "identity"):
        return None
    try:
        return Inflating(coding)
    except ValueError as exc:
        raise httpx2.DecodingError(str(exc)) from None


class NetTransport(httpx2.AsyncBaseTransport):
    """One connection pool, as httpx2 wants it.

    Lifetime: owned by the `AsyncClient` it is given to; closing that closes every connection.
    Cancellation: a cancelled request closes its own connection and no other.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        proxy: str | None,
        limits: httpx2.Limits,
        closed: Callable[[NetTransport], None],
    ) -> None:
        socks, http = proxy_parts(proxy) if proxy else (None, None)
        if http is not None and http.url.scheme == b"https":
            http = httpcore2.Proxy(url=http.url, auth=http.auth, headers=http.headers, ssl_context=tls)
        self._closed = closed
        self._pool = Http1Pool(
            tls,
            http,
            NetBackend(socks),
            limits.keepalive_expiry,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the response's body is read by whoever closes it.

        Raises:
            httpx2.TransportError: no answer came. httpx2.DecodingError: its body is compressed in a way nobody asked for.

        Cancellation: closes this request's connection and no other.
        """
        url = request.url
        sent = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            content=cast("Any", request.stream),
            extensions=request.extensions,
        )
        sent.headers = request.headers.raw  # past a check of each one's type (0.02 ms)
        try:
            answer = await self._pool.handle_async_request(sent)
        except CAUGHT as exc:
            raise translated(exc) from exc
        headers = answer.headers
        limit = MAX_ERROR_BODY_BYTES if answer.status >= 300 else None
        stream = AnswerBody(cast("AsyncIterable[bytes]", answer.stream), limit)
        try:
            stream.inflating = _inflating(headers)
        except httpx2.DecodingError:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await stream.aclose()
            raise
        if stream.inflating is not None:  # it is undone here, so nobody else is to try
            headers = [(name, value) for name, value in headers if name.lower() != b"content-encoding"]
        return httpx2.Response(
            answer.status, headers=headers, stream=stream, extensions=cast("dict[str, Any]", answer.extensions)
        )

    @property
    def connections(self) -> int:
        """Sockets that this pool holds, idle ones included."""
        return sum(not connection.is_closed() for connection in self._pool.connections)

    async def reap(self) -> int:
        """Close idle connections that the peer has closed or that were kept long enough; the number closed.

        httpcore2 looks only when a request passes, so without this a quiet pool keeps sockets in CLOSE_WAIT. A request
        that was just given such a connection finds it closed and takes another one: that is httpcore2's own path.
        """
        reaped = 0
        for connection in self._pool.connections:
            if connection.is_idle() and not connection.is_closed() and connection.has_expired():
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                    await connection.aclose()
                reaped += 1
        return reaped

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed(self)
        await self._pool.aclose()
