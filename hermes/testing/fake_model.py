"""A model server for tests: real HTTP on the loopback, both protocols, strict about histories, with faults on request.

In a test: `async with open_fake_model() as upstream:` and then `upstream.script(Reply(text="hi"), Status(code=503))`;
each request takes the next step, and `upstream.default` when none is left. As a process, `python -m
hermes.testing.fake_model --port 0` prints its port, and answers without delay from prepared bytes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import trio

from hermes.testing.fake_wire import (
    Refused,
    Reply,
    chat_document,
    chat_events,
    check_chat,
    check_responses,
    responses_document,
    responses_events,
)

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 268_435_456
KEPT_REQUESTS = 10_000
THREE_WORDS = Reply(text=("one ", "two ", "three"))
LATE = Reply(text="late")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Answer with an HTTP status and an OpenAI-shaped error."""

    code: int
    retry_after: str | None = None
    message: str = "scripted failure"
    error_code: str | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept the request and never answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Send this many events of the reply, then nothing more."""

    after_events: int
    reply: Reply = THREE_WORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Close the connection after this many bytes of the reply's body."""

    after_bytes: int
    reply: Reply = THREE_WORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Answer 200 with these bytes."""

    body: bytes = b"<html><body>Welcome to the hotel's wireless network</body></html>"
    content_type: str = "text/html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Wait before the answer, and between its events."""

    first_s: float = 0.0
    between_s: float = 0.0
    reply: Reply = THREE_WORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Wait for an event of the test before the answer."""

    event: trio.Event
    reply: Reply = LATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Send these bytes as the whole HTTP answer, in these pieces, then close."""

    pieces: tuple[bytes, ...]


Step = Reply | Status | Hang | Stall | Cut | Garbage | Slow | Gate | Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A request that was received."""

    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass(slots=True, eq=False)
class FakeModel:
    """The server's switches and what it saw. Made by `open_fake_model()`.

    Args:
        port: where it listens on 127.0.0.1.
        default: the step for requests beyond the script.
        strict: whether a history that a strict provider refuses is answered with 400.
        whole: answer `stream: true` with one JSON document, as servers do that cannot stream.
        fin_idle_s: close connections that were idle for so long.
        hears: the step for recordings beyond the script `hearing`; `heard` is what came, its form as `body`.
    """

    port: int = 0
    default: Step = field(default_factory=lambda: Reply(text="Hello there."))
    strict: bool = True
    whole: bool = False
    fin_idle_s: float = math.inf
    requests: deque[Recorded] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    steps: deque[Step] = field(default_factory=deque)
    hears: Step = field(default_factory=lambda: Reply(text="so it was said"))
    hearing: deque[Step] = field(default_factory=deque)
    heard: deque[Recorded] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    open_connections: int = 0
    accepted: int = 0
    answering: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """What to configure as `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *steps: Step) -> None:
        """What the next requests are answered, in order."""
        self.steps.extend(steps)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        self.open_connections += 1
        self.accepted += 1
        try:
            async with stream:
                await self._connection(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client left
        finally:
            self.open_connections -= 1

    async def _connection(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while True:
            with trio.move_on_after(self.fin_idle_s):
                while (end := buffer.find(b"\r\n\r\n")) < 0:
                    data = await stream.receive_some(65_536)
                    if not data or len(buffer) > MAX_HEAD_BYTES:
                        return
                    buffer += data
            if end < 0:
                return
            method, path, headers = _head(bytes(buffer[:end]))
            length = int(headers.get("content-length", "0"))
            if length > MAX_BODY_BYTES:
                return
            del buffer[: end + 4]
            while len(buffer) < length:
                data = await stream.receive_some(262_144)
                if not data:
                    return
                buffer += data
            body = bytes(buffer[:length])
            del buffer[:length]
            self.answering += 1
            try:
                if not await self._answer(stream, method, path, headers, body):
                    return
            finally:
                self.answering -= 1

    async def _answer(
        self, stream: trio.SocketStream, method: str, path: str, headers: dict[str, str], raw: bytes
    ) -> bool:
        """Answer one request; False: the connection is to be closed."""
        if method == "GET" and path.endswith("/models"):
            await stream.send_all(_whole(200, b'{"object":"list","data":[]}'))
            return True
        if path.endswith("/audio/transcriptions"):
            return await self._transcribe(stream, path, headers, raw)
        responses = path.endswith("/responses")
        try:
            body = json.loads(raw)
            self.requests.append(Recorded(path=path, headers=headers, body=body, raw=raw))
            if self.strict:
                (check_responses if responses else check_chat)(body)
        except (Refused, ValueError, KeyError, TypeError, AttributeError) as exc:
            self.refused.append(f"{type(exc).__name__}: {exc}")
            error = {"message": str(exc), "type": "invalid_request_error", "param": None, "code": None}
            await stream.send_all(_whole(400, json.dumps({"error": error}).encode()))
            return True
        step = self.steps.popleft() if self.steps else self.default
        reply = await _reply_of(stream, step)
        if isinstance(reply, bool):
            return reply
        events = self._events(reply, body, responses=responses)
        if events is None:
            document = json.dumps(responses_document(reply, body["model"])).encode() if responses else None
            await stream.send_all(_whole(200, document or chat_document(reply, body["model"])))
            return True
        return await _send_events(stream, events, step)

    async def _transcribe(self, stream: trio.SocketStream, path: str, headers: dict[str, str], raw: bytes) -> bool:
        """Put a recording in words, as the script of `hearing` says."""
        try:
            fields = _form(headers.get("content-type", ""), raw)
            self.heard.append(Recorded(path=path, headers=headers, body=fields, raw=raw))
            if not isinstance(fields["file"], tuple) or not fields["file"][0] or not fields["model"]:
                raise Refused("a file with a name and a model are needed")
        except (Refused, ValueError, KeyError) as exc:
            self.refused.append(f"{type(exc).__name__}: {exc}")
            await stream.send_all(_status(Status(code=400, message=str(exc))))
            return True
        step = self.hearing.popleft() if self.hearing else self.hears
        reply = await _reply_of(stream, step)
        if isinstance(reply, bool):
            return reply
        await stream.send_all(_whole(200, json.dumps({"text": "".join(reply.pieces)}).encode()))
        return True

    def _events(self, reply: Reply, body: dict[str, Any], *, responses: bool) -> Iterator[bytes] | None:
        if not body.get("stream") or self.whole:
            return None
        if responses:
            return responses_events(reply, body["model"])
        return chat_events(
            reply, body["model"], include_usage=bool((body.get("stream_options") or {}).get("include_usage"))
        )


async def _reply_of(stream: trio.SocketStream, step: Step) -> Reply | bool:
    """What a step says, once it is time; if it does otherwise, that is done, and whether the connection may stay."""
    match step:
        case Reply():
            return step
        case Hang():
            await stream.receive_some(1)  # returns when the client leaves
            return False
        case Status():
            await stream.send_all(_status(step))
            return True
        case Garbage():
            await stream.send_all(_whole(200, step.body, step.content_type))
            return True
        case Raw():
            for piece in step.pieces:
                await stream.send_all(piece)
            return False
        case Gate():
            await step.event.wait()
        case Slow():
            await trio.sleep(step.first_s)
    return step.reply


def _head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    return method, path, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _form(content_type: str, raw: bytes) -> dict[str, Any]:
    """The fields of a multipart/form-data body: words, or (file name, media type, bytes). Raises ValueError."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + raw)
    if message.get_content_type() != "multipart/form-data" or message.defects:
        raise ValueError("the body is no form")
    found: dict[str, Any] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        data: Any = part.get_payload(decode=True)
        found[name] = (
            data.decode() if part.get_filename() is None else (part.get_filename(), part.get_content_type(), data)
        )
    return found


def _whole(status: int, body: bytes, content_type: str = "application/json", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def _status(step: Status) -> bytes:
    error = {"message": step.message, "type": "scripted", "param": None, "code": step.error_code}
    body = step.body if step.body is not None else json.dumps({"error": error}).encode()
    extra = f"retry-after: {step.retry_after}\r\n" if step.retry_after is not None else ""
    return _whole(step.code, body, extra=extra)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _send_events(stream: trio.SocketStream, events: Iterator[bytes], step: Step) -> bool:
    """Send a stream, with the fault that the step asks for; False: the connection is to be closed."""
    if isinstance(step, Cut):
        await stream.send_all(STREAM_HEAD + _chunk(b"".join(events))[: step.after_bytes])
        return False
    if not isinstance(step, (Stall, Slow)):
        await stream.send_all(STREAM_HEAD + b"".join(map(_chunk, events)) + b"0\r\n\r\n")
        return True
    await stream.send_all(STREAM_HEAD)
    for index, event in enumerate(events):
        if isinstance(step, Stall) and index >= step.after_events:
            await stream.receive_some(1)  # returns when the client leaves
            return False
        if isinstance(step, Slow) and index:
            await trio.sleep(step.between_s)
        await stream.send_all(_chunk(event))
    await stream.send_all(b"0\r\n\r\n")
    return True


@asynccontextmanager
async def open_fake_model(port: int = 0, **switches: Any) -> AsyncIterator[FakeModel]:
    """A fake model server on 127.0.0.1 for the body; `switches` are fields of `FakeModel`.

    Lifetime: leaving closes the port and every connection, also those that hang.
    """
    model = FakeModel(**switches)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    model.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, model.serve, listeners)
        try:
            yield model
        finally:
            nursery.cancel_scope.cancel()


class _Canned:
    """The process for benchmarks: every request gets the same prepared bytes, and none is looked into."""

    def __init__(self, pieces: int, delay_s: float) -> None:
        reply = Reply(text=tuple(f"word{index} " for index in range(pieces)))
        self.delay_s = delay_s
        self.events = [_chunk(event) for event in chat_events(reply, "fake", include_usage=True)]
        self.chat_stream = STREAM_HEAD + b"".join(self.events) + b"0\r\n\r\n"
        self.chat_whole = _whole(200, chat_document(reply, "fake"))
        self.responses_stream = STREAM_HEAD + b"".join(map(_chunk, responses_events(reply, "fake"))) + b"0\r\n\r\n"
        self.responses_whole = _whole(200, json.dumps(responses_document(reply, "fake")).encode())

    async def serve(self, stream: trio.SocketStream) -> None:
        buffer = b""
        async with stream:
            while True:
                try:
                    data = await stream.receive_some(262_144)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                if not data:
                    return
                buffer += data
                while (rest := self._request(buffer)) is not None:
                    request, buffer = buffer[: len(buffer) - len(rest)], rest
                    try:
                        await self._send(stream, request)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return

    @staticmethod
    def _request(buffer: bytes) -> bytes | None:
        """What follows the first whole request in the buffer; None: it is not whole yet."""
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        _, found, length = buffer[:end].lower().partition(b"\r\ncontent-length:")
        size = int(length.partition(b"\r\n")[0]) if found else 0
        return buffer[end + 4 + size :] if len(buffer) >= end + 4 + size else None

    async def _send(self, stream: trio.SocketStream, request: bytes) -> None:
        line = request[: request.find(b"\r\n")]
        streams = b'"stream":true' in request or b'"stream": true' in request
        if b"/responses" in line:
            await stream.send_all(self.responses_stream if streams else self.responses_whole)
        elif not streams:
            await stream.send_all(self.chat_whole)
        elif not self.delay_s:
            await stream.send_all(self.chat_stream)
        else:
            await stream.send_all(STREAM_HEAD)
            for event in self.events:
                await stream.send_all(event)
                await trio.sleep(self.delay_s)
            await stream.send_all(b"0\r\n\r\n")


async def _process(arguments: argparse.Namespace) -> None:
    listeners = await trio.open_tcp_listeners(arguments.port, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)  # noqa: T201 - this is how the parent learns the port
    serve = FakeModel().serve if arguments.strict else _Canned(arguments.pieces, arguments.delay_s).serve
    await trio.serve_listeners(serve, listeners)


def main() -> None:
    """Run as a process; prints the port and serves until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m hermes.testing.fake_model")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pieces", type=int, default=3, help="words in the reply, each an event of its own")
    parser.add_argument("--delay-s", type=float, default=0.0, help="wait between the events of a stream")
    parser.add_argument("--strict", action="store_true", help="parse and check each request; slower")
    trio.run(_process, parser.parse_args())


if __name__ == "__main__":
    main()
