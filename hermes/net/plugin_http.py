"""HTTP for platforms: `HttpFactory` of the contract, over the gateway's network.

An error says one thing more than httpx2's: whether anything of the request may have left. It never says more of the URL than
its host, since a service may have its token in there.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import MappingProxyType, TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import trio

from hermes import __version__
from hermes.errors import PlatformProtocolError, SendRejected, Unreachable
from hermes.events import OutboundFile
from hermes.net.bodies import SentBody, SentPieces
from hermes.net.client import NetClient
from hermes.net.errors import HTTP_ERRORS
from hermes.net.network import Network, close_quietly
from hermes.platform import ByteStream, HttpAnswer, HttpClient, HttpFactory, UploadPart

CONNECT_S = 15.0
IDLE_S = 20.0  # an idle connection is kept so long
PIECE = 65_536  # bytes of a file that are read and sent at once
# What each request says unless its platform says otherwise: by its name in lower case.
ALWAYS = {
    b"accept": (b"Accept", b"*/*"),
    b"accept-encoding": (b"Accept-Encoding", b"gzip, deflate"),
    b"user-agent": (b"User-Agent", f"hermes/{__version__}".encode()),
}
# A bound on TCP and TLS alone; every other deadline is a cancel scope's.
TIMEOUT = {"timeout": {"connect": CONNECT_S}}
NOTHING: Mapping[str, str] = MappingProxyType({})


class _Exchange:
    """One request and its answer: what goes wrong inside comes out as the contract names it."""

    __slots__ = ("_host", "body")

    def __init__(self, host: str) -> None:
        self._host = host
        self.body: SentBody | SentPieces | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        begun = self.body is not None and self.body.begun
        if isinstance(error, trio.TooSlowError):
            raise Unreachable(f"{self._host} did not answer in time", sent=begun) from None
        if isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
            raise PlatformProtocolError("that is no URL to ask") from None
        if isinstance(error, httpx2.DecodingError):
            raise PlatformProtocolError(f"{self._host} sent a body that cannot be decoded") from None
        if isinstance(error, HTTP_ERRORS):
            why = type(error).__name__ if begun else str(error) or type(error).__name__
            raise Unreachable(f"{self._host} cannot be reached: {why[:200]}", sent=begun) from None


class _Pieces:
    """The body of a streamed answer, with a deadline for each piece."""

    def __init__(self, pieces: AsyncIterator[bytes], timeout_s: float, exchange: _Exchange) -> None:
        self._pieces = pieces
        self._timeout_s = timeout_s
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self._exchange, trio.fail_after(self._timeout_s):
            return await self._pieces.__anext__()


class _Client:
    """An `HttpClient`; see `hermes.platform`."""

    def __init__(self, client: NetClient) -> None:
        self._client = client

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = NOTHING,
        content: bytes | None = None,
        parts: tuple[UploadPart, ...] = (),
        timeout_s: float,
        max_bytes: int = 16_777_216,
    ) -> HttpAnswer:
        """Send a request and read its whole answer, whatever its status."""
        exchange = _Exchange(_host(url))
        with exchange, trio.fail_after(timeout_s):
            if not parts:
                return await self._ask(exchange, method, url, headers, content, max_bytes)
            async with AsyncExitStack() as stack:
                length, kind, pieces = await _multipart(parts, stack)
                headers = {**headers, "content-type": kind, "content-length": str(length)}
                return await self._ask(exchange, method, url, headers, pieces, max_bytes)

    async def _ask(
        self,
        exchange: _Exchange,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None,
        max_bytes: int,
    ) -> HttpAnswer:
        answer = await self._open(exchange, method, url, headers, content)
        try:
            return _answer(answer, await _whole(answer.stream, max_bytes))
        finally:
            await close_quietly("an HTTP answer", answer.aclose)  # noqa: ASYNC102  # shielded and bounded inside

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, headers: Mapping[str, str] = NOTHING, timeout_s: float
    ) -> AsyncIterator[tuple[HttpAnswer, ByteStream]]:
        """Send a request and read its answer as it comes."""
        exchange = _Exchange(_host(url))
        with exchange, trio.fail_after(timeout_s):
            answer = await self._open(exchange, method, url, headers, None)
        try:
            async with aclosing(answer.aiter_bytes()) as pieces:
                yield _answer(answer, b""), _Pieces(pieces, timeout_s, exchange)
        finally:
            await close_quietly("an HTTP answer", answer.aclose)  # noqa: ASYNC102  # shielded and bounded inside

    async def _open(
        self,
        exchange: _Exchange,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None,
    ) -> httpx2.Response:
        parsed = self._client.parsed(url)
        if not parsed.raw_host:
            raise httpx2.UnsupportedProtocol("a URL without a host")
        method = method.upper()
        lines = {b"host": (b"Host", parsed.netloc), **ALWAYS}
        if isinstance(content, bytes):
            lines[b"content-length"] = b"Content-Length", b"%d" % len(content)
        elif method in ("POST", "PUT", "PATCH"):
            lines[b"content-length"] = b"Content-Length", b"0"
        for name, value in headers.items():  # written as they are given: not every server takes x-name for X-Name
            raw = name.encode("ascii")
            lines[raw.lower()] = raw, value.encode("ascii")
        if b"transfer-encoding" in lines:
            lines.pop(b"content-length", None)
        body = SentBody(content or b"") if content is None or isinstance(content, bytes) else SentPieces(content)
        exchange.body = body
        request = httpx2.Request(method, parsed, headers=list(lines.values()), stream=body, extensions=TIMEOUT)
        return await self._client.send(request, stream=True)


def _answer(answer: httpx2.Response, body: bytes) -> HttpAnswer:
    headers = dict[str, str]()
    for raw_name, raw_value in answer.headers.raw:
        name, value = _text(raw_name).lower(), _text(raw_value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return HttpAnswer(status=answer.status_code, headers=MappingProxyType(headers), body=body)


def _text(raw: bytes) -> str:
    """A header's text: ASCII by the standard, UTF-8 as some write it, and else any byte its own character."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


async def _whole(body: Any, max_bytes: int) -> bytes:
    read, length = list[bytes](), 0
    async for piece in body:
        read.append(piece)
        length += len(piece)
        if length > max_bytes:
            raise PlatformProtocolError(f"an answer has more than {max_bytes} bytes")
    return b"".join(read)


async def _multipart(parts: tuple[UploadPart, ...], stack: AsyncExitStack) -> tuple[int, str, AsyncIterator[bytes]]:
    """A multipart/form-data body (RFC 7578): its length, its media type, and its bytes; files are read as they are sent.

    Its files are open when it returns, and are closed by the stack.

    Raises:
        SendRejected: a file cannot be read, or does not have the bytes that it should.
    """
    boundary = secrets.token_hex(16)
    heads = [_head(boundary, part) for part in parts]
    tail = f"--{boundary}--\r\n".encode()
    contents = [
        part.content if isinstance(part.content, bytes) else await _opened(part.content, stack) for part in parts
    ]
    sizes = [len(part.content) if isinstance(part.content, bytes) else part.content.size_bytes for part in parts]
    length = sum(map(len, heads)) + sum(sizes) + 2 * len(parts) + len(tail)

    async def body() -> AsyncGenerator[bytes, None]:
        for head, content, size in zip(heads, contents, sizes, strict=True):
            yield head
            if isinstance(content, bytes):
                yield content
            else:
                left = size
                while left and (piece := await _read(content, min(PIECE, left))):
                    left -= len(piece)
                    yield piece
            yield b"\r\n"
        yield tail

    pieces = await stack.enter_async_context(aclosing(body()))
    return length, f"multipart/form-data; boundary={boundary}", pieces


async def _opened(file: OutboundFile, stack: AsyncExitStack) -> Any:
    try:
        found = await stack.enter_async_context(await trio.open_file(file.path, "rb"))
        size = await found.seek(0, os.SEEK_END)
        await found.seek(0)
    except OSError as error:
        raise SendRejected(f"the file cannot be read: {error.strerror or type(error).__name__}") from None
    if size != file.size_bytes:
        raise SendRejected(f"the file has {size} bytes, not {file.size_bytes}")
    return found


async def _read(file: Any, size: int) -> bytes:
    try:
        return bytes(await file.read(size))
    except OSError as error:  # a body that was begun and not ended is no request
        raise SendRejected(f"the file cannot be read: {error.strerror or type(error).__name__}") from None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the service"
    except ValueError:
        return "the service"


def _head(boundary: str, part: UploadPart) -> bytes:
    lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{_quoted(part.name)}"']
    if part.file_name is not None:
        lines[1] += f'; filename="{_quoted(part.file_name)}"'
    if part.media_type is not None:
        lines.append(f"Content-Type: {' '.join(part.media_type.split())}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode(errors="replace")  # a file's name may be no Unicode


def _quoted(name: str) -> str:
    """A name inside quotes, as browsers write it (WHATWG HTML, multipart/form-data encoding)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def make_http_factory(network: Network) -> HttpFactory:
    """HTTP clients for platforms.

    Args:
        network: whose TLS context is used, and whose reaper looks after idle sockets.
    """

    @asynccontextmanager
    async def open_client(*, proxy: str | None = None, max_connections: int = 20) -> AsyncIterator[HttpClient]:
        limits = httpx2.Limits(
            max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=IDLE_S
        )
        async with network.http_client(proxy=proxy, limits=limits) as client:
            yield _Client(client)

    return open_client
