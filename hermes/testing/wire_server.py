"""A bare HTTP/1.1 server for fakes: it reads requests, and answers whole, in part, late, never, or not in HTTP at all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import trio

MAX_HEAD_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request as it came: `path` decoded and without its query; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WireAnswer:
    """An answer, and how much of it is sent.

    Args:
        cut_after: close the connection after so many bytes; None = the whole answer, and the connection stays.
        hang: send nothing until the client leaves.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    cut_after: int | None = None
    hang: bool = False


Handler = Callable[[WireRequest], Awaitable[WireAnswer]]


def json_answer(value: object, status: int = 200, **more: Any) -> WireAnswer:
    """A value as a whole JSON answer."""
    return WireAnswer(status=status, body=json.dumps(value).encode(), **more)


@asynccontextmanager
async def open_wire_server(handler: Handler, *, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve on a port of the loopback while inside; yields the port. A handler is cancelled when its client leaves."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        await nursery.start(trio.serve_listeners, lambda stream: _serve(stream, handler), [listener])
        try:
            yield listener.socket.getsockname()[1]
        finally:
            nursery.cancel_scope.cancel()


async def _serve(stream: trio.SocketStream, handler: Handler) -> None:
    buffer = bytearray()
    try:
        async with stream:
            while (request := await _read(stream, buffer)) is not None:
                answer = await _while_there(stream, buffer, handler, request)
                if answer is None or not await _send(stream, answer):
                    return
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client left


async def _read(stream: trio.SocketStream, buffer: bytearray) -> WireRequest | None:
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if len(buffer) > MAX_HEAD_BYTES or not await _more(stream, buffer):
            return None
    first, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = bytearray()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await _line(stream, buffer) or b"0", 16):
            body += await _exactly(stream, buffer, size)
            await _line(stream, buffer)
        await _line(stream, buffer)
    else:
        body += await _exactly(stream, buffer, int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return WireRequest(
        method=method, path=unquote(parts.path), query=dict(parse_qsl(parts.query)), headers=headers, body=bytes(body)
    )


async def _more(stream: trio.SocketStream, buffer: bytearray) -> bool:
    data = await stream.receive_some(65_536)
    buffer += data
    return bool(data)


async def _line(stream: trio.SocketStream, buffer: bytearray) -> bytes:
    while (end := buffer.find(b"\r\n")) < 0:
        if not await _more(stream, buffer):
            raise trio.BrokenResourceError
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line


async def _exactly(stream: trio.SocketStream, buffer: bytearray, size: int) -> bytes:
    while len(buffer) < size:
        if not await _more(stream, buffer):
            raise trio.BrokenResourceError
    found = bytes(buffer[:size])
    del buffer[:size]
    return found


async def _while_there(
    stream: trio.SocketStream, buffer: bytearray, handler: Handler, request: WireRequest
) -> WireAnswer | None:
    """What the handler answers; None if the client left before it did."""
    answer: WireAnswer | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            try:
                while await _more(stream, buffer):
                    pass
            except trio.BrokenResourceError:
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        answer = await handler(request)
        if answer.hang:
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    return answer if answer is None or not answer.hang else None


async def _send(stream: trio.SocketStream, answer: WireAnswer) -> bool:
    """Send an answer; False: the connection is to be closed."""
    lines = [f"HTTP/1.1 {answer.status} Scripted", f"content-length: {len(answer.body)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode() + answer.body
    await stream.send_all(data if answer.cut_after is None else data[: answer.cut_after])
    return answer.cut_after is None
