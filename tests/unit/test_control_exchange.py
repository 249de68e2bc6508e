"""The control socket's client against a small fake: framing, errors, streams, cut answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hermes.control_client import StreamEvent, call, open_stream
from hermes.errors import ControlFailed, NoGateway


class Fake:
    """Answers every connection with the same bytes, in pieces, and keeps what it was sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.requests: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some(65536)
            head, _, body = received.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += await stream.receive_some(65536)
            self.requests.append(head + b"\r\n\r\n" + body)
            for piece in self.pieces:
                await stream.send_all(piece)
            await stream.send_eof()
            assert await stream.receive_some(1) == b""


@asynccontextmanager
async def answering(tmp_path: Path, *pieces: bytes) -> AsyncIterator[tuple[Path, Fake]]:
    fake = Fake(*pieces)
    path = tmp_path / "s"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(8)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, fake.serve, [trio.SocketListener(sock)])
        yield path, fake
        nursery.cancel_scope.cancel()


def framed(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_json_goes_and_comes(tmp_path: Path) -> None:
    async with answering(tmp_path, framed('{"é": 1}'.encode())) as (path, fake):
        assert await call(path, "POST", "/control/stop", {"reason": "ü"}) == {"é": 1}
    head, _, body = fake.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /control/stop HTTP/1.1\r\nHost: hermes\r\n")
    assert json.loads(body) == {"reason": "ü"}


async def test_an_answer_in_chunks_and_single_bytes(tmp_path: Path) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    async with answering(tmp_path, *(bytes([byte]) for byte in whole)) as (path, _):
        assert await call(path, "GET", "/x") == [1, 2]


async def test_no_content_is_none(tmp_path: Path) -> None:
    async with answering(tmp_path, b"HTTP/1.1 204 No Content\r\n\r\n") as (path, _):
        assert await call(path, "DELETE", "/x") is None


async def test_an_error_keeps_its_words(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": "no such session", "type": "t", "code": "not_found", "param": None}})
    async with answering(tmp_path, framed(body.encode(), "404 Not Found")) as (path, _):
        with pytest.raises(ControlFailed, match="no such session") as caught:
            await call(path, "GET", "/x")
    assert (caught.value.status, caught.value.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (framed(b"nothing", "500 Oops"), "status 500"),
        (framed(b'{"error": 3}', "400 Bad"), "status 400"),
        (framed(b"not json"), "not JSON"),
        (framed(b"[" * 100_000), "not JSON"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "in the middle"),
        (b"", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "head is too large"),
        (framed(b"x" * 2000), "larger than 1000"),
    ],
)
async def test_answers_that_are_none(tmp_path: Path, answer: bytes, words: str) -> None:
    async with answering(tmp_path, answer) as (path, _):
        with pytest.raises(ControlFailed, match=words):
            await call(path, "GET", "/x", max_bytes=1000 if "larger" in words else 1_000_000)


async def test_silence_has_a_deadline(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(str(path))
        sock.listen(1)
        with pytest.raises(ControlFailed, match=r"within 0\.01 s"):
            await call(path, "GET", "/x", timeout_s=0.01)


async def test_nobody_there(tmp_path: Path) -> None:
    for path in (None, tmp_path / "absent", tmp_path / "file" / "s"):
        (tmp_path / "file").touch()
        with pytest.raises(NoGateway):
            await call(path, "GET", "/x")
    dead = tmp_path / "dead"
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(str(dead))
    with pytest.raises(NoGateway):
        await call(dead, "GET", "/x")


async def test_no_line_break_gets_into_the_request(tmp_path: Path) -> None:
    async with answering(tmp_path) as (path, fake):
        with pytest.raises(ValueError, match="line break"):
            await call(path, "GET", "/x\r\nEvil: 1")
    assert fake.requests == []


async def test_a_stream_of_events(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Hermes-Session-Id: s1\r\n\r\n"
    events = b": hi\n\nevent: delta\ndata: a\n\ndata: b\ndata: c\n\n"
    pieces = [b"%x\r\n%s\r\n" % (1, bytes([byte])) for byte in events]
    async with answering(tmp_path, head, *pieces, b"0\r\n\r\n") as (path, _):
        async with open_stream(path, "POST", "/chat", {"x": 1}) as stream:
            assert stream.headers["x-hermes-session-id"] == "s1"
            assert [event async for event in stream] == [StreamEvent("delta", "a"), StreamEvent("", "b\nc")]


async def test_a_cut_stream_says_so(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n"
    async with answering(tmp_path, head) as (path, _):
        async with open_stream(path, "GET", "/x") as stream:
            assert (await anext(stream)).data == "a"
            with pytest.raises(ControlFailed, match="in the middle"):
                await anext(stream)


async def test_a_refused_stream_is_an_error(tmp_path: Path) -> None:
    async with answering(tmp_path, framed(b'{"error": {"message": "busy"}}', "429 Slow")) as (path, _):
        with pytest.raises(ControlFailed, match="busy"):
            async with open_stream(path, "GET", "/x"):
                raise AssertionError("entered")
