"""HTTP/1.1 over the control socket, for the command line: JSON in and out, and streams of events.

One connection per request. The gateway serves its whole API on the socket and asks for no key there: who can open the
socket is its owner.
"""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httptools
import trio

from hermes.agent.sse import SseOverflow, SseSplitter
from hermes.errors import ControlFailed, GatewayLeft, NoGateway

MAX_HEAD_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 67_108_864
MAX_EVENT_BYTES: Final = 16_777_216
NOBODY_SERVES: Final = "no gateway is running for this home; `hermes serve` starts one"
_CHUNK: Final = 65_536
_NOBODY: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK, errno.ENOTDIR})


class StreamEvent(NamedTuple):
    """One event of a stream: its name (empty if it has none) and its data."""

    name: str
    data: str


class _Response:
    """What the parser has found so far; its methods are httptools' callbacks."""

    def __init__(self) -> None:
        self.head_done = False
        self.done = False
        self.pieces: list[bytes] = []
        self.headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        self.done = True

    def take(self) -> bytes:
        """The part of the body that came since the last call."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


class _Exchange:
    """One request and its response on one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.response = _Response()
        self._parser = httptools.HttpResponseParser(self.response)

    @property
    def status(self) -> int:
        """The status code; valid once the head is there."""
        return int(self._parser.get_status_code())

    async def send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> None:
        """Send the request and read until the head of the response is there."""
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        lines = [f"{method} {path} HTTP/1.1", "Host: hermes", "Connection: close", f"Content-Length: {len(content)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        lines.extend(f"{name}: {value}" for name, value in headers.items())
        if any("\r" in line or "\n" in line or "\0" in line for line in lines):
            raise ValueError("a request line or header with a line break")
        await self._stream.send_all("\r\n".join((*lines, "", "")).encode("utf-8") + content)
        size = 0
        while not self.response.head_done:
            size += await self.receive()
            if size > MAX_HEAD_BYTES and not self.response.head_done:
                raise ControlFailed("the answer's head is too large")

    async def receive(self) -> int:
        """Read once; returns how many bytes came.

        Raises:
            ControlFailed: the answer was cut, or is not HTTP.
        """
        data = await self._stream.receive_some(_CHUNK)
        if not data:
            raise GatewayLeft("the gateway closed the connection in the middle of its answer")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            raise ControlFailed("what answers at the control socket does not speak HTTP") from None
        return len(data)

    async def body(self, most: int) -> bytes:
        """The whole body, of at most so many bytes."""
        parts: list[bytes] = []
        size = 0
        while True:
            parts.append(self.response.take())
            size += len(parts[-1])
            if size > most:
                raise ControlFailed(f"the answer is larger than {most} bytes")
            if self.response.done:
                return b"".join(parts)
            await self.receive()


class EventStream:
    """The events of one response, to be iterated over; it ends when the response does."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._splitter = SseSplitter(MAX_EVENT_BYTES)
        self._ready: list[StreamEvent] = []
        self._finished = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case."""
        return self._exchange.response.headers

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> StreamEvent:
        while not self._ready:
            if self._finished:
                raise StopAsyncIteration
            self._split()
            if not self._ready and not self._finished:
                await self._exchange.receive()
        return self._ready.pop(0)

    def _split(self) -> None:
        try:
            events = self._splitter.feed(self._exchange.response.take())
            if self._exchange.response.done:
                self._finished = True
                events += self._splitter.finish()
        except SseOverflow as overflow:
            raise ControlFailed(str(overflow)) from None
        self._ready.extend(
            StreamEvent(event.name.decode("utf-8", "replace"), event.data.decode("utf-8", "replace"))
            for event in events
        )


@asynccontextmanager
async def _open_exchange(socket: Path | None) -> AsyncIterator[_Exchange]:
    if socket is None:
        raise NoGateway(NOBODY_SERVES)
    try:
        stream = await trio.open_unix_socket(str(socket))
    except OSError as error:
        if error.errno in _NOBODY:
            raise NoGateway(NOBODY_SERVES) from None
        raise ControlFailed(f"the control socket cannot be reached: {error.strerror}") from None
    try:
        yield _Exchange(stream)
    except (trio.BrokenResourceError, ConnectionError):
        raise GatewayLeft("the gateway closed the connection") from None
    finally:
        stream.socket.close()


async def call(
    socket: Path | None,
    method: str,
    path: str,
    body: Any = None,
    *,
    timeout_s: float = 30.0,
    max_bytes: int = MAX_BODY_BYTES,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """One request to the gateway.

    Args:
        socket: its control socket, or None where there is none.
        method: the HTTP method.
        path: with the query, percent-encoded.
        body: what is sent as JSON; None sends nothing.
        timeout_s: for the whole exchange.
        max_bytes: bound on the answer.
        headers: sent along.

    Returns:
        What the answer's JSON holds; None for an empty one.

    Raises:
        NoGateway: nobody answers.
        ControlFailed: an answer of 400 and above, a cut answer, none in time, or one that is no JSON.
    """
    with trio.move_on_after(timeout_s):
        async with _open_exchange(socket) as exchange:
            await exchange.send(method, path, body, headers or {})
            content = await exchange.body(max_bytes)
            if exchange.status >= 400:
                raise _failure(exchange.status, content)
            return _decoded(content)
    raise ControlFailed(f"the gateway did not answer within {timeout_s:g} s")


@asynccontextmanager
async def open_stream(
    socket: Path | None,
    method: str,
    path: str,
    body: Any = None,
    *,
    first_byte_s: float = 60.0,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[EventStream]:
    """Ask for a stream of server-sent events.

    Args:
        socket: the control socket, or None where there is none.
        method: the HTTP method.
        path: with the query, percent-encoded.
        body: what is sent as JSON; None sends nothing.
        first_byte_s: until the answer's head is there; after that the stream may be silent for any time.
        headers: sent along.

    Raises:
        NoGateway: nobody answers.
        ControlFailed: an answer of 400 and above, or none in time; also while iterating, when it is cut.

    Lifetime:
        Leaving the block closes the connection, which the gateway takes as going away.
    """
    async with _open_exchange(socket) as exchange:
        with trio.move_on_after(first_byte_s) as waiting:
            await exchange.send(method, path, body, {"Accept": "text/event-stream", **(headers or {})})
        if waiting.cancelled_caught:
            raise ControlFailed(f"the gateway did not answer within {first_byte_s:g} s")
        if exchange.status >= 400:
            with trio.move_on_after(first_byte_s):
                raise _failure(exchange.status, await exchange.body(MAX_BODY_BYTES))
            raise ControlFailed("the gateway did not finish its answer", status=exchange.status)
        yield EventStream(exchange)


def _decoded(content: bytes) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ControlFailed("the gateway's answer is not JSON") from None


def _failure(status: int, content: bytes) -> ControlFailed:
    """The error in an OpenAI-shaped body, or the status alone."""
    try:
        error = _decoded(content)["error"]
        return ControlFailed(str(error["message"]), status=status, code=error.get("code"))
    except (ControlFailed, TypeError, KeyError, AttributeError):
        return ControlFailed(f"the gateway answered with status {status}", status=status)
