"""Our HTTP/1.1 connection against httpcore2's own: what is sent, what is understood, what is refused, what is kept."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, NamedTuple

import h11
import httpcore2
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from hermes.net.http1 import MAX_HEAD_BYTES, Http1Connection

TLS = ssl.create_default_context()
URL = httpcore2.URL(b"http://host.example/path?q=1")


class Scripted(httpcore2.AsyncNetworkStream):
    """A network stream that says what it was told to say, in these pieces, and then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.written: list[bytes] = []
        self.closed = False
        self.fails: type[Exception] | None = None
        self.error_when_closed = False
        self.named: list[str | None] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self.closed and self.error_when_closed:
            raise httpcore2.ReadError("closed")
        assert not self.closed
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        assert not self.closed
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails("broken")
        self.written.append(buffer)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        assert ssl_context is TLS
        await trio.lowlevel.checkpoint()
        self.named.append(server_hostname)
        return self

    async def aclose(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> Any:
        return bool(self.pieces) if info == "is_readable" else None


class Backend(httpcore2.AsyncNetworkBackend):
    """Leads to one scripted stream."""

    def __init__(self, stream: Scripted) -> None:
        self.stream = stream

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        return self.stream


def ours(stream: Scripted) -> Http1Connection:
    return Http1Connection(URL.origin, TLS, 5.0, Backend(stream))


def theirs(stream: Scripted) -> httpcore2.AsyncHTTP11Connection:
    return httpcore2.AsyncHTTP11Connection(URL.origin, stream, keepalive_expiry=5.0)


class Outcome(NamedTuple):
    """What a request came to: a response, read whole, or the exception."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    error: type[Exception] | None
    kept: bool


async def outcome(connection: Any, stream: Scripted, method: str = "GET", content: Any = None) -> Outcome:
    headers = [(b"Host", b"host.example")]
    if isinstance(content, bytes):
        headers.append((b"Content-Length", b"%d" % len(content)))
    elif content is not None:
        headers.append((b"Transfer-Encoding", b"chunked"))
    request = httpcore2.Request(method, URL, headers=headers, content=content)
    try:
        response = await connection.handle_async_request(request)
    except Exception as error:
        assert stream.closed
        return Outcome(0, [], b"", type(error), kept=False)
    body, found = b"", None
    try:
        async for piece in response.stream:
            body += piece
    except Exception as error:
        found = type(error)
    await response.stream.aclose()
    assert stream.closed is not connection.is_idle()
    return Outcome(response.status, response.headers, body, found, kept=connection.is_idle())


# --- what is sent


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("method", "content"),
    [("GET", None), ("POST", b""), ("POST", b"x" * 10), ("PUT", b"y" * 200_000), ("POST", (b"one", b"", b"two"))],
    ids=["nothing", "empty", "small", "large", "pieces"],
)
async def test_the_same_bytes_are_sent(method: str, content: Any) -> None:
    sent = []
    for connect in (ours, theirs):
        stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        found = await outcome(
            connect(stream), stream, method, pieces_of(*content) if isinstance(content, tuple) else content
        )
        assert found.kept
        sent.append(b"".join(stream.written))
    assert sent[0] == sent[1]


@pytest.mark.parametrize(("scheme", "port", "secured"), [("https", 443, True), ("wss", 443, True), ("http", 80, False)])
async def test_what_is_to_be_secret_goes_through_tls(scheme: str, port: int, *, secured: bool) -> None:
    origin = httpcore2.URL(f"{scheme}://host.example/").origin
    assert origin.port == port
    stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    await outcome(Http1Connection(origin, TLS, 5.0, Backend(stream)), stream)
    assert stream.named == (["host.example"] if secured else [])


async def test_a_small_request_is_one_write_and_a_large_body_is_not_copied() -> None:
    for size, writes in ((10, 1), (200_000, 2)):
        stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        await outcome(ours(stream), stream, "POST", b"x" * size)
        assert len(stream.written) == writes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"X", b"a\r\nEvil: b"),
        (b"X", b"a\nb"),
        (b"X", b"nul\x00"),
        (b"X Y", b"a"),
        (b"X:", b"a"),
        (b"", b"a"),
        (b"X\r\n", b"a"),
    ],
)
async def test_a_header_that_would_be_two_is_not_sent(name: bytes, value: bytes) -> None:
    for connect in (ours, theirs):
        stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        request = httpcore2.Request("GET", URL, headers=[(b"Host", b"h"), (name, value)])
        connection: Any = connect(stream)
        with pytest.raises(httpcore2.LocalProtocolError):
            await connection.handle_async_request(request)
        assert not stream.written
        assert connection.is_closed()


@pytest.mark.parametrize("length", [b"2", b"5"], ids=["more than announced", "less than announced"])
async def test_a_body_that_is_not_as_long_as_announced_ends_the_connection(length: bytes) -> None:
    for connect in (ours, theirs):
        stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        request = httpcore2.Request("POST", URL, headers=[(b"Host", b"h"), (b"Content-Length", length)], content=b"abc")
        connection: Any = connect(stream)
        with pytest.raises(httpcore2.LocalProtocolError if connect is ours else h11.LocalProtocolError):
            await connection.handle_async_request(request)
        assert stream.closed


async def test_a_server_that_answers_before_it_has_read_is_heard() -> None:
    for connect in (ours, theirs):
        stream = Scripted([b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"])
        stream.fails = httpcore2.WriteError
        found = await outcome(connect(stream), stream, "POST", b"x" * 100)
        assert (found.status, found.body, found.kept) == (413, b"no", False)


async def test_a_connection_on_which_a_request_was_left_unfinished_is_not_kept() -> None:
    for connect in (ours, theirs):
        stream = Scripted([b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"])
        stream.fails = httpcore2.WriteError
        found = await outcome(connect(stream), stream, "POST", b"x" * 100)
        assert (found.status, found.body, found.kept) == (401, b"no", False)


# --- what is understood

TOKENS = st.from_regex(rb"X-[A-Za-z0-9]{1,8}", fullmatch=True)
VALUES = st.from_regex(rb"([!-~]([ -~]{0,20}[!-~])?)?", fullmatch=True)
INTERIM = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A response that HTTP allows; and whether the connection has to end for it to end."""
    status = draw(
        st.sampled_from([b"200 OK", b"201 Made", b"204 No Content", b"304 Not Modified", b"404 Not Found", b"500 "])
    )
    lines = [draw(TOKENS) + b": " + draw(VALUES) for _ in range(draw(st.integers(0, 4)))]
    if draw(st.booleans()):
        lines.append(b"Connection: " + draw(st.sampled_from([b"close", b"keep-alive"])))
    body = draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
        parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n"
        body += draw(st.sampled_from([b"", b"X-Trailer: t\r\n"])) + b"\r\n"
    if status[:3] in (b"204", b"304"):
        body, framing = b"", "none"
    if lines:
        lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop())
    return draw(INTERIM) + b"HTTP/1.1 " + status + b"\r\n" + b"".join(
        line + b"\r\n" for line in lines
    ) + b"\r\n" + body, framing == "end"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(cuts)]


def run(connect: Any, pieces: list[bytes], method: str) -> Outcome:
    stream = Scripted(list(pieces))
    return trio.run(outcome, connect(stream), stream, method)


@given(responses(), st.lists(st.integers(0, 500), max_size=6))
def test_a_response_is_understood_alike_however_it_is_cut(response: tuple[bytes, bool], places: list[int]) -> None:
    data, to_the_end = response
    mine, reference = (run(connect, cut(data, places), "GET") for connect in (ours, theirs))
    assert mine == (reference._replace(kept=False) if to_the_end else reference)  # h11 keeps what its server has closed
    assert mine.error is None


@given(responses(), st.lists(st.integers(0, 500), max_size=3), st.integers(0, 300))
@example((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", False), [], 55)
def test_a_response_that_is_cut_off_is_an_error_for_both(
    response: tuple[bytes, bool], places: list[int], end: int
) -> None:
    whole, to_the_end = response
    data = whole[:end]
    mine, reference = (run(connect, cut(data, places), "GET") for connect in (ours, theirs))
    assert (mine.status, mine.body, mine.error) == (reference.status, reference.body, reference.error)
    assert mine.kept == (reference.kept and not to_the_end)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_what_has_no_body_ends_with_its_head(method: str) -> None:
    status = b"200 OK" if method == "HEAD" else b"304 Not Modified"
    stream = Scripted([b"HTTP/1.1 " + status + b"\r\nContent-Length: 10\r\n\r\n"])
    found = await outcome(ours(stream), stream, method)
    assert (found.body, found.error, found.kept) == (b"", None, True)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"]),
)
def test_garbage_is_an_error_of_http_and_nothing_else(data: bytes, begins: bytes) -> None:
    found = run(ours, [begins + data], "GET")
    assert found.error is None or issubclass(found.error, httpcore2.ProtocolError)


LENIENT = {
    "lines that end with LF": b"HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "a control character": b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    "space after a value": b"HTTP/1.1 200 OK\r\nX: a \t\r\nContent-Length: 2 \r\n\r\nok",
    "space after a chunk's size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n",
    "an upgrade that is offered": b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "no ASCII": "HTTP/1.1 200 Dépassé\r\nX: é\r\nContent-Length: 2\r\n\r\nok".encode(),
}


@pytest.mark.parametrize("data", LENIENT.values(), ids=LENIENT)
def test_what_servers_write_that_they_should_not_is_understood_alike(data: bytes) -> None:
    for pieces in ([data], [data[n : n + 1] for n in range(len(data))]):
        mine, reference = (run(connect, pieces, "GET") for connect in (ours, theirs))
        assert mine == reference
        assert (mine.body, mine.error, mine.kept) == (b"ok", None, True)


@pytest.mark.parametrize("chunked_first", [True, False])
def test_a_response_with_both_lengths_is_chunked_and_the_last_of_its_connection(chunked_first: bool) -> None:
    lines = [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n"]
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(lines if chunked_first else lines[::-1]) + b"\r\n2\r\nok\r\n0\r\n\r\n"
    mine, reference = (run(connect, [data], "GET") for connect in (ours, theirs))
    assert mine == reference._replace(kept=False)
    assert mine.body == b"ok"


async def test_the_body_that_a_head_must_not_have_is_not_taken_for_the_next_answer() -> None:
    stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nevil"])
    found = await outcome(ours(stream), stream, "HEAD")
    assert (found.status, found.body, found.kept) == (200, b"", False)


async def test_more_than_was_asked_for_is_not_taken_for_the_next_answer() -> None:
    for extra in (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"garbage"):
        stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + extra])
        found = await outcome(ours(stream), stream)
        assert (found.status, found.body, found.kept) == (200, b"ok", False)


async def test_a_head_without_an_end_is_bounded() -> None:
    lines = [b"HTTP/1.1 200 OK\r\n"] + [b"X-Long: " + b"a" * 1000 + b"\r\n"] * (MAX_HEAD_BYTES // 1000 + 200)
    stream = Scripted(lines)
    assert (await outcome(ours(stream), stream)).error is httpcore2.RemoteProtocolError
    assert stream.pieces


@pytest.mark.parametrize("begins", [b"0\r\nX-Long: ", b"1;", b"1;name=", b"0\r\nX: y\r\nX"])
async def test_what_is_between_the_pieces_of_a_body_is_bounded(begins: bytes) -> None:
    stream = Scripted([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + begins])
    stream.pieces.extend([b"a" * 1000] * (MAX_HEAD_BYTES // 1000 + 200))
    found = await outcome(ours(stream), stream)
    assert (found.body, found.error) == (b"ok", httpcore2.RemoteProtocolError)
    assert stream.pieces


async def test_a_long_body_in_small_chunks_is_not_bounded() -> None:
    chunk = b"1;name=value\r\nx\r\n"
    stream = Scripted([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
    stream.pieces.extend([chunk * 100] * 200 + [b"0\r\n\r\n"])
    found = await outcome(ours(stream), stream)
    assert (len(found.body), found.error, found.kept) == (20_000, None, True)


async def test_nobody_changes_the_protocol() -> None:
    stream = Scripted([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"])
    assert (await outcome(ours(stream), stream)).error is httpcore2.RemoteProtocolError


# --- what is kept, and what an ending leaves


async def test_a_connection_serves_one_request_after_the_other_and_only_one_at_a_time() -> None:
    stream = Scripted([])
    connection = ours(stream)
    for number in range(3):
        stream.pieces.append(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        assert (await outcome(connection, stream)).body == b"%d" % number
    request = httpcore2.Request("GET", URL, headers=[(b"Host", b"h")])
    stream.pieces.append(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    response = await connection.handle_async_request(request)
    with pytest.raises(httpcore2.ConnectionNotAvailable):
        await connection.handle_async_request(request)
    await response.stream.aclose()  # not read to its end
    assert connection.is_closed()
    assert stream.closed


async def test_an_idle_connection_has_expired_when_its_server_says_something() -> None:
    stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    connection = ours(stream)
    await outcome(connection, stream)
    assert not connection.has_expired()
    stream.pieces.append(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert connection.has_expired()


async def test_a_connection_that_was_closed_under_a_response_is_an_error_of_the_network() -> None:
    for connect in (ours, theirs):
        stream = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"body"])
        stream.error_when_closed = True
        connection: Any = connect(stream)
        response = await connection.handle_async_request(httpcore2.Request("GET", URL, headers=[(b"Host", b"h")]))
        await connection.aclose()  # as when the pool is closed
        with pytest.raises(httpcore2.ReadError):
            async for _ in response.stream:
                pass
        await response.stream.aclose()
        assert connection.is_closed()


async def test_an_ending_at_each_step_closes_the_connection() -> None:
    class Stop(trio.abc.Instrument):
        def __init__(self, scope: trio.CancelScope, after: int) -> None:
            self.scope, self.left, self.task = scope, after, trio.lowlevel.current_task()

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is self.task:
                self.left -= 1
                if self.left == 0:
                    self.scope.cancel()

    ended = 0
    for after in range(1, 12):
        stream = Scripted([b"HTTP/1.1 200 OK\r\n", b"Content-Length: 4\r\n\r\n", b"ab", b"cd"])
        connection = ours(stream)
        with trio.CancelScope() as scope:
            stop = Stop(scope, after)
            trio.lowlevel.add_instrument(stop)
            try:
                assert (await outcome(connection, stream, "POST", b"x")).body == b"abcd"
            finally:
                trio.lowlevel.remove_instrument(stop)
        if scope.cancelled_caught:
            ended += 1
            assert connection.is_closed()
            assert stream.closed or not stream.written
    assert 5 <= ended < 11
