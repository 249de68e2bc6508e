"""A small HTTP/1.1 server for fakes of messaging services: requests whole, answers as scripted, faults on request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl, unquote

import trio

from hermes.nurseries import open_background_nursery

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 67_108_864


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, whole; `headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        """The body as JSON, also inside a form; None without one. Raises ValueError."""
        data = self.form().get("payload_json", b"") if self.is_form else self.body
        return json.loads(data) if data else None

    @property
    def is_form(self) -> bool:
        """Whether the body is a multipart form."""
        return self.headers.get("content-type", "").startswith("multipart/form-data")

    def form(self) -> dict[str, bytes]:
        """The parts of a multipart form by name."""
        return {name: data for name, _, data in self.parts()}

    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """Name, file name and content of each part of a multipart form."""
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + self.body)
        return [
            (
                str(part.get_param("name", "", "content-disposition")),
                part.get_filename(),
                bytes(part.get_payload(decode=True) or b""),
            )
            for part in message.get_payload()
            if not isinstance(part, str)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A complete answer. With `cut` only so many bytes of it are sent; `hang` sends nothing, ever."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    cut: int | None = None
    hang: bool = False

    def wire(self) -> bytes:
        """Its bytes."""
        lines = [f"HTTP/1.1 {self.status} Fake", *(f"{name}: {value}" for name, value in self.headers.items())]
        if self.status != 204:
            lines += [f"content-type: {self.media_type}", f"content-length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def answer_json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answered:
    """An answer that is JSON."""
    return Answered(status=status, body=json.dumps(document).encode(), headers=headers or {})


async def _serve(stream: trio.SocketStream, handle: Callable[[Asked], Awaitable[Answered]]) -> None:
    buffer = bytearray()

    async def more() -> bool:
        data = await stream.receive_some(262_144)
        buffer.extend(data)
        return bool(data) and len(buffer) <= MAX_BODY_BYTES

    async def until(mark: bytes) -> bytes | None:
        while (end := buffer.find(mark)) < 0:
            if not await more():
                return None
        found = bytes(buffer[:end])
        del buffer[: end + len(mark)]
        return found

    async def exactly(count: int) -> bytes | None:
        while len(buffer) < count:
            if not await more():
                return None
        found = bytes(buffer[:count])
        del buffer[:count]
        return found

    while (head := await until(b"\r\n\r\n")) is not None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await until(b"\r\n") or b"0").split(b";")[0], 16):
                body += (await exactly(size + 2) or b"")[:-2]
            await until(b"\r\n")
        else:
            whole = await exactly(int(headers.get("content-length", "0")))
            if whole is None:
                return
            body = whole
        path, _, query = target.partition("?")
        asked = Asked(method=method, path=unquote(path), query=dict(parse_qsl(query)), headers=headers, body=body)
        answer = await handle(asked)
        if answer.hang:
            await stream.receive_some(1)  # returns when the client leaves
            return
        data = answer.wire()
        await stream.send_all(data if answer.cut is None else data[: answer.cut])
        if answer.cut is not None:
            return


@asynccontextmanager
async def open_http_server(handle: Callable[[Asked], Awaitable[Answered]]) -> AsyncIterator[int]:
    """A server on 127.0.0.1 for the body; yields its port.

    Args:
        handle: answers a request.

    Lifetime: leaving ends every connection without ceremony.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def connected(stream: trio.SocketStream) -> None:
        try:
            await _serve(stream, handle)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client left
        finally:
            await trio.aclose_forcefully(stream)

    async with open_background_nursery() as nursery:
        await nursery.start(trio.serve_listeners, connected, listeners)
        yield listeners[0].socket.getsockname()[1]
