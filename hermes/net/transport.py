"""An httpx2 transport over httpcore2's pool and our backend: keepalive, proxies, bounded bodies, and reaping."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httpcore2
import httpx2
import trio

from hermes.net.backend import NetBackend, SocksProxy
from hermes.net.inflating import Inflating

CLOSE_S = 2.0
MAX_ERROR_BODY_BYTES = 262_144

# httpcore2's exceptions as httpx2's; a test fails when a version adds one that is not here.
ERRORS: dict[type[Exception], type[httpx2.TransportError]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.ReadTimeout: httpx2.ReadTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.PoolTimeout: httpx2.PoolTimeout,
    httpcore2.TimeoutException: httpx2.TimeoutException,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.ReadError: httpx2.ReadError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.NetworkError: httpx2.NetworkError,
    httpcore2.LocalProtocolError: httpx2.LocalProtocolError,
    httpcore2.RemoteProtocolError: httpx2.RemoteProtocolError,
    httpcore2.ProtocolError: httpx2.ProtocolError,
    httpcore2.ProxyError: httpx2.ProxyError,
    httpcore2.UnsupportedProtocol: httpx2.UnsupportedProtocol,
}
_CAUGHT = tuple(ERRORS)

HttpResponse = httpx2.Response

# Everything that using a client may raise besides cancellation.
HTTP_ERRORS: tuple[type[Exception], ...] = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, ssl.SSLError)


def _translated(exc: Exception) -> Exception:
    for kind in type(exc).__mro__:
        if kind in ERRORS:
            return ERRORS[kind](str(exc))
    return exc


class _Body(httpx2.AsyncByteStream):
    """A response's body: decompressed, httpcore2's errors as httpx2's; the body of an error status is cut at a bound."""

    def __init__(self, content: AsyncIterable[bytes], limit: int | None) -> None:
        self._content: Any = content
        self._chunks: Any = None
        self._left = limit
        self.inflating: Inflating | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = self._content.__aiter__()
        return cast("AsyncIterator[bytes]", self)

    async def __anext__(self) -> bytes:
        if self._left is not None and self._left <= 0:
            raise StopAsyncIteration
        chunk = await (self._next() if self.inflating is None else self._inflated(self.inflating))
        if self._left is not None:
            self._left -= len(chunk)
        return chunk

    async def _next(self) -> bytes:
        try:
            return cast("bytes", await self._chunks.__anext__())
        except _CAUGHT as exc:
            raise _translated(exc) from exc

    async def _inflated(self, inflating: Inflating) -> bytes:
        """The next piece; many of them may come out of one that was received."""
        while True:
            await trio.lowlevel.checkpoint()
            try:
                piece = inflating.take()
            except ValueError as exc:
                raise httpx2.DecodingError(str(exc)) from None
            if piece:
                return piece
            inflating.feed(await self._next())

    async def aclose(self) -> None:
        if self._chunks is not None:
            await self._chunks.aclose()
        await self._content.aclose()


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
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            proxy=http,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=NetBackend(socks),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the response's body is read by whoever closes it."""
        url = request.url
        sent = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=cast("Any", request.stream),
            extensions=request.extensions,
        )
        try:
            answer = await self._pool.handle_async_request(sent)
        except _CAUGHT as exc:
            raise _translated(exc) from exc
        limit = MAX_ERROR_BODY_BYTES if answer.status >= 300 else None
        headers = answer.headers
        stream = _Body(cast("AsyncIterable[bytes]", answer.stream), limit)
        try:
            stream.inflating = _inflating(headers)
        except httpx2.DecodingError:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await stream.aclose()
            raise
        if stream.inflating is not None:  # it is undone here, so nobody else is to try
            headers = [(name, value) for name, value in headers if name.lower() != b"content-encoding"]
        return httpx2.Response(
            status_code=answer.status,
            headers=headers,
            stream=stream,
            extensions=answer.extensions,
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
