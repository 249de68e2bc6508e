"""What the listener takes for a request, what it refuses and with which status, however the bytes were cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hermes.http.listener.body import ChunkedBody, FixedBody
from hermes.http.listener.limits import Limits
from hermes.http.listener.parser import Head, find_head, parse_head
from hermes.http.listener.refusal import Refused

LIMITS = Limits(max_head_bytes=600, max_url_bytes=100, max_headers=8, max_body_bytes=64, max_pipelined_bytes=600)
STATUSES = {400, 411, 413, 414, 417, 431, 501, 505}
PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Reading:
    """Requests understood so far, and how it ended."""

    requests: list[tuple[str, bytes, str, tuple[tuple[bytes, bytes], ...], bytes]] = field(default_factory=list)
    refused: int | None = None


def read(pieces: Iterable[bytes], limits: Limits = LIMITS) -> Reading:
    """Read requests as a connection does, one piece of input at a time."""
    reading = Reading()
    buffer, scanned = bytearray(), 0
    head: Head | None = None
    body: ChunkedBody | FixedBody | None = None
    content = b""
    try:
        for piece in pieces:
            buffer += piece
            while True:
                if head is None:
                    size = find_head(buffer, scanned, limits) if buffer else 0
                    scanned = 0 if size else len(buffer)
                    if not size:
                        break
                    head = parse_head(bytes(buffer[:size]), limits)
                    del buffer[:size]
                    length = head.content_length
                    body = ChunkedBody(limits.max_body_bytes) if length is None else FixedBody(length)
                    content = b""
                assert body is not None
                content += body.take(buffer)
                if not body.complete:
                    break
                reading.requests.append((head.method, head.raw_path, head.path, tuple(head.headers), content))
                head = None
    except Refused as refusal:
        reading.refused = refusal.status
    return reading


def status_of(data: bytes, limits: Limits = LIMITS) -> int | None:
    """The refusal of these bytes, the same for one piece and for single bytes."""
    whole = read([data], limits).refused
    assert read([data[at : at + 1] for at in range(len(data))], limits).refused == whole
    return whole


def request(line: bytes = b"GET / HTTP/1.1", *headers: bytes, host: bool = True) -> bytes:
    lines = [line, *([b"Host: a"] if host else []), *headers, b"", b""]
    return b"\r\n".join(lines)


REFUSED: list[tuple[str, bytes, int]] = [
    ("both lengths", request(b"POST / HTTP/1.1", b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400),
    ("both, other order", request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400),
    ("duplicate lengths", request(b"POST / HTTP/1.1", b"Content-Length: 3", b"Content-Length: 3"), 400),
    ("differing lengths", request(b"POST / HTTP/1.1", b"Content-Length: 3", b"Content-Length: 4"), 400),
    ("a list of lengths", request(b"POST / HTTP/1.1", b"Content-Length: 3, 3"), 400),
    ("a sign", request(b"POST / HTTP/1.1", b"Content-Length: +3"), 400),
    ("a minus", request(b"POST / HTTP/1.1", b"Content-Length: -3"), 400),
    ("hexadecimal", request(b"POST / HTTP/1.1", b"Content-Length: 0x3"), 400),
    ("underscore", request(b"POST / HTTP/1.1", b"Content-Length: 1_0"), 400),
    ("empty length", request(b"POST / HTTP/1.1", b"Content-Length:"), 400),
    ("overflow", request(b"POST / HTTP/1.1", b"Content-Length: " + b"9" * 40), 400),
    ("beyond 64 bits, nearly", request(b"POST / HTTP/1.1", b"Content-Length: 18446744073709551615"), 400),
    ("a body of unknown length on 1.0", request(b"POST / HTTP/1.0"), 411),
    ("50 GB", request(b"POST / HTTP/1.1", b"Content-Length: 50000000000"), 413),
    ("one too many", request(b"POST / HTTP/1.1", b"Content-Length: 65"), 413),
    ("obs-fold", request(b"GET / HTTP/1.1", b"X: a", b" b"), 400),
    ("obs-fold with tab", request(b"GET / HTTP/1.1", b"X: a", b"\tb"), 400),
    ("space first", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("one bare LF", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    ("bare CR", b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400),
    ("CR at the end of a value", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    ("LF first", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("NUL in a value", request(b"GET / HTTP/1.1", b"X: a\0b"), 400),
    ("NUL in a name", request(b"GET / HTTP/1.1", b"X\0: a"), 400),
    ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("control character", request(b"GET / HTTP/1.1", b"X: a\x01b"), 400),
    ("DEL", request(b"GET / HTTP/1.1", b"X: a\x7fb"), 400),
    ("space before the colon", request(b"GET / HTTP/1.1", b"X : a"), 400),
    ("space in a name", request(b"GET / HTTP/1.1", b"X Y: a"), 400),
    ("empty name", request(b"GET / HTTP/1.1", b": a"), 400),
    ("no colon", request(b"GET / HTTP/1.1", b"X"), 400),
    ("name in Latin-1", request(b"GET / HTTP/1.1", b"\xe9: a"), 400),
    ("chunked on 1.0", request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked"), 400),
    ("gzip, chunked", request(b"POST / HTTP/1.1", b"Transfer-Encoding: gzip, chunked"), 501),
    ("chunked, gzip", request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked, gzip"), 400),
    ("chunked twice", request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    ("xchunked", request(b"POST / HTTP/1.1", b"Transfer-Encoding: xchunked"), 400),
    ("vertical tab before chunked", request(b"POST / HTTP/1.1", b"Transfer-Encoding: \x0bchunked"), 400),
    ("quoted chunked", request(b"POST / HTTP/1.1", b'Transfer-Encoding: "chunked"'), 400),
    ("identity", request(b"POST / HTTP/1.1", b"Transfer-Encoding: identity"), 400),
    ("no Host", request(b"GET / HTTP/1.1", host=False), 400),
    ("two Hosts", request(b"GET / HTTP/1.1", b"Host: b"), 400),
    ("two Hosts on 1.0", request(b"GET / HTTP/1.0", b"Host: a"), 400),
    ("Host with a path", request(b"GET / HTTP/1.1", b"Host: a/b", host=False), 400),
    ("Host with user", request(b"GET / HTTP/1.1", b"Host: u@a", host=False), 400),
    ("HTTP/0.9", b"GET /\r\n", 400),
    ("HTTP/0.9 with Host", b"GET /\r\nHost: a\r\n\r\n", 400),
    ("HTTP/2.0", request(b"GET / HTTP/2.0"), 505),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/1.2", request(b"GET / HTTP/1.2"), 505),
    ("HTTP/1", request(b"GET / HTTP/1"), 400),
    ("http/1.1", request(b"GET / http/1.1"), 400),
    ("two spaces", request(b"GET  / HTTP/1.1"), 400),
    ("tab", request(b"GET\t/ HTTP/1.1"), 400),
    ("trailing space", request(b"GET / HTTP/1.1 "), 400),
    ("space in the target", request(b"GET /a b HTTP/1.1"), 400),
    ("non-ASCII target", request("GET /é HTTP/1.1".encode()), 400),
    ("fragment", request(b"GET /a#b HTTP/1.1"), 400),
    ("relative target", request(b"GET a HTTP/1.1"), 400),
    ("asterisk for GET", request(b"GET * HTTP/1.1"), 400),
    ("another scheme", request(b"GET ftp://a/ HTTP/1.1"), 400),
    ("user in the target", request(b"GET http://u@a/ HTTP/1.1"), 400),
    ("a long target", request(b"GET /" + b"a" * 100 + b" HTTP/1.1"), 414),
    ("an endless target", b"GET /" + b"a" * 300, 414),
    ("a long head", request(b"GET / HTTP/1.1", b"X: " + b"a" * 600), 431),
    ("an endless head", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 600, 431),
    ("many headers", request(b"GET / HTTP/1.1", *[b"X: a"] * 8), 431),
    ("another expectation", request(b"POST / HTTP/1.1", b"Expect: 200-maybe", b"Content-Length: 1"), 417),
    ("unknown method", request(b"FETCH / HTTP/1.1"), 501),
    ("lower-case method", request(b"get / HTTP/1.1"), 501),
    ("a method of RTSP", request(b"DESCRIBE / HTTP/1.1"), 501),
    ("CONNECT", request(b"CONNECT a:443 HTTP/1.1"), 501),
    ("TLS", bytes.fromhex("16030100c8010000c40303"), 400),
    ("an empty line too many", b"\r\n" + PLAIN, 400),
]


@pytest.mark.parametrize(("data", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(data: bytes, status: int) -> None:
    assert status_of(data) == status


ACCEPTED: list[tuple[str, bytes, dict[str, object]]] = [
    ("plain", PLAIN, {"method": "GET", "path": "/", "keep_alive": True, "content_length": 0, "version": "1.1"}),
    ("1.0", b"GET / HTTP/1.0\r\n\r\n", {"keep_alive": False, "version": "1.0"}),
    ("1.0, kept", b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", {"keep_alive": True}),
    ("close", request(b"GET / HTTP/1.1", b"Connection: Upgrade, Close"), {"keep_alive": False}),
    ("close wins", request(b"GET / HTTP/1.1", b"Connection: keep-alive", b"Connection: close"), {"keep_alive": False}),
    ("no length, no body", request(b"POST / HTTP/1.1"), {"content_length": 0}),
    ("query", request(b"GET /a?b=c?d HTTP/1.1"), {"raw_path": b"/a", "query": b"b=c?d"}),
    ("percent", request(b"GET /%C3%A9%2F HTTP/1.1"), {"raw_path": b"/%C3%A9%2F", "path": "/é/"}),
    ("broken percent", request(b"GET /%zz%ff HTTP/1.1"), {"path": "/%zz\ufffd"}),
    ("asterisk", request(b"OPTIONS * HTTP/1.1"), {"raw_path": b"*"}),
    (
        "absolute",
        request(b"GET http://b:80/c?d HTTP/1.1"),
        {"raw_path": b"/c", "query": b"d", "headers": [(b"host", b"b:80")]},
    ),
    ("absolute, no path", request(b"GET HTTPS://b?d HTTP/1.1"), {"raw_path": b"/", "query": b"d"}),
    ("length", request(b"POST / HTTP/1.1", b"content-length: \t64 "), {"content_length": 64}),
    ("leading zeros", request(b"POST / HTTP/1.1", b"content-length: 0064"), {"content_length": 64}),
    ("chunked", request(b"POST / HTTP/1.1", b"Transfer-Encoding: Chunked "), {"content_length": None}),
    (
        "expect",
        request(b"POST / HTTP/1.1", b"Expect: 100-Continue", b"Content-Length: 1"),
        {"expects_continue": True},
    ),
    ("expect, nothing to send", request(b"GET / HTTP/1.1", b"Expect: 100-continue"), {"expects_continue": False}),
    (
        "expect on 1.0",
        request(b"POST / HTTP/1.0", b"Expect: anything", b"Content-Length: 1"),
        {"expects_continue": False},
    ),
    (
        "upgrade is ignored",
        request(b"GET / HTTP/1.1", b"Connection: Upgrade", b"Upgrade: websocket"),
        {"keep_alive": True},
    ),
    (
        "bytes in a value",
        request(b"GET / HTTP/1.1", b"Authorization: Bearer \xc3\xa9 \xff\t"),
        {"headers": [(b"host", b"a"), (b"authorization", b"Bearer \xc3\xa9 \xff")]},
    ),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", {"headers": [(b"host", b"")]}),
    ("IPv6 Host", b"GET / HTTP/1.1\r\nHost: [::1]:8642\r\n\r\n", {"headers": [(b"host", b"[::1]:8642")]}),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(data: bytes, expected: dict[str, object]) -> None:
    assert find_head(bytearray(data), 0, LIMITS) == len(data)
    head = parse_head(data, LIMITS)
    assert {name: getattr(head, name) for name in expected} == expected
    assert status_of(data) is None


def test_the_head_may_have_exactly_the_size_of_the_limit() -> None:
    empty = request(b"GET / HTTP/1.1", b"X: ")
    data = request(b"GET / HTTP/1.1", b"X: " + b"a" * (LIMITS.max_head_bytes - len(empty)))
    assert len(data) == LIMITS.max_head_bytes
    assert status_of(data) is None
    assert status_of(data.replace(b"X: a", b"X: aa")) == 431


def test_the_target_may_have_exactly_the_size_of_the_limit() -> None:
    target = b"/" + b"a" * (LIMITS.max_url_bytes - 1)
    assert status_of(request(b"DELETE " + target + b" HTTP/1.1")) is None
    assert status_of(request(b"DELETE " + target + b"a HTTP/1.1")) == 414


def test_what_cannot_become_a_request_is_refused_before_its_end() -> None:
    assert read([b"GET / HTTP/1.1\r\nHost: a\n"]).refused == 400
    assert read([b"GET /\r\n"]).refused == 400
    assert read([b"PRI * HTTP/2.0\r\n"]).refused == 505
    assert read([b"\x16\x03\x01"]).refused == 400


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


tokens = st.sampled_from([b"X", b"Accept", b"X-Long-Name", b"cookie"])
values = st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if byte == 9 or 32 <= byte != 127))
headers = st.lists(st.tuples(tokens, values).map(lambda pair: pair[0] + b": " + pair[1]), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request with its body, framed either way."""
    line = (
        draw(st.sampled_from([b"GET /", b"POST /a?b=c", b"DELETE /%20", b"PUT http://b/c", b"OPTIONS *"]))
        + b" HTTP/1.1"
    )
    content = draw(st.binary(max_size=40))
    if not draw(st.booleans()):
        return request(line, *draw(headers), b"Content-Length: %d" % len(content)) + content
    body = b"".join(
        b"%X%b\r\n%b\r\n" % (len(piece), draw(st.sampled_from([b"", b";a=b", b" ; q", b';x="y"'])), piece)
        for piece in cut(content, draw(st.lists(st.integers(0, 40), max_size=3)))
        if piece
    )
    end = draw(st.sampled_from([b"0\r\n\r\n", b"000;x\r\n\r\n", b"0\r\nX-Trailer: a\r\n\r\n"]))
    return request(line, *draw(headers), b"Transfer-Encoding: chunked") + body + end


places = st.lists(st.integers(0, 2000), max_size=12)


@given(data=st.lists(requests(), min_size=1, max_size=3).map(b"".join), cuts=places)
@settings(deadline=None, max_examples=300)
def test_valid_requests_are_read_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = read([data])
    assert whole.refused is None
    assert whole.requests
    assert read(cut(data, cuts)) == whole


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with a few bytes put in, taken out or changed."""
    data = bytearray(draw(requests()))
    spoilers = st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"\t", b"a" * 120, b"0", b"F", b"\xff", b"\r\n\r\n"]
    )
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(spoilers)
    return bytes(data)


@given(
    data=st.one_of(damaged(), st.binary(max_size=400), st.binary(max_size=60).map(lambda raw: PLAIN[:-2] + raw)),
    cuts=places,
)
@example(data=b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r" * 20 + b"a" * 700, cuts=[3, 31])
@example(data=b"GET /" + b"a" * 140 + b"\n" + b"a" * 700, cuts=[140, 146])
@settings(deadline=None, max_examples=600)
def test_whatever_comes_ends_in_requests_or_a_known_status_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    whole = read([data])
    assert whole.refused is None or whole.refused in STATUSES
    assert read(cut(data, cuts)) == whole
    assert read([data[at : at + 1] for at in range(len(data))]) == whole
