"""The bytes of a response: how its end is marked, and what an application cannot do to the connection."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.http.listener.refusal import Refused, refusal_bytes
from hermes.http.listener.response import DateLine, Response, ResponseError, State

Headers = list[tuple[bytes, bytes]]


def new(*, head_only: bool = False, version: str = "1.1") -> Response:
    return Response(head_only=head_only, version=version, date_line=b"date: now\r\n")


def written(response: Response, status: int, headers: Headers, *pieces: bytes, keep_alive: bool = True) -> bytes:
    response.start(status, headers)
    parts = [response.body(piece, more=True, keep_alive=keep_alive) for piece in pieces[:-1]]
    return b"".join([*parts, response.body(pieces[-1], more=False, keep_alive=keep_alive)])


def test_a_whole_response_gets_its_length() -> None:
    response = new()
    assert written(response, 200, [(b"x", b"y")], b"hello") == (
        b"HTTP/1.1 200 OK\r\nx: y\r\ndate: now\r\ncontent-length: 5\r\n\r\nhello"
    )
    assert response.keep_alive
    assert response.state is State.COMPLETE


def test_pieces_are_chunks_and_go_out_one_by_one() -> None:
    response = new()
    response.start(200, [])
    assert response.body(b"", more=True, keep_alive=True).endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    assert response.body(b"hello", more=True, keep_alive=True) == b"5\r\nhello\r\n"
    assert response.body(b"", more=True, keep_alive=True) == b""
    assert response.body(b"x" * 17, more=False, keep_alive=True) == b"11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"


def test_1_0_without_a_length_ends_with_the_connection() -> None:
    response = new(version="1.0")
    assert written(response, 200, [], b"a", b"b") == b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nab"
    assert response.ends_by_close
    assert not response.keep_alive


def test_1_0_that_asks_for_it_is_told_that_the_connection_lives_on() -> None:
    response = new(version="1.0")
    assert b"\r\nconnection: keep-alive\r\n" in written(response, 200, [], b"a")
    assert response.keep_alive


@pytest.mark.parametrize(
    ("status", "headers", "head_only", "expected"),
    [
        (204, [], False, b""),
        (204, [(b"content-length", b"5")], False, b""),
        (304, [(b"content-length", b"5")], False, b"content-length: 5\r\n"),
        (200, [(b"content-length", b"5")], True, b"content-length: 5\r\n"),
        (200, [], True, b""),
    ],
)
def test_without_a_body(status: int, headers: Headers, head_only: bool, expected: bytes) -> None:
    response = new(head_only=head_only)
    head, _, body = written(response, status, headers, b"hello").partition(b"\r\n\r\n")
    assert body == b""
    assert (head + b"\r\n").split(b"\r\n", 1)[1].replace(b"date: now\r\n", b"") == expected
    assert response.keep_alive


def test_a_streamed_head_only_response_has_no_chunks() -> None:
    assert written(new(head_only=True), 200, [], b"a", b"b", b"").endswith(b"\r\n\r\n")


def test_the_applications_framing_headers_are_ignored_and_its_close_is_obeyed() -> None:
    response = new()
    headers = [(b"Transfer-Encoding", b"gzip"), (b"Connection", b"Close"), (b"Date", b"never"), (b"Keep-Alive", b"9")]
    assert written(response, 299, headers, b"a") == (
        b"HTTP/1.1 299 \r\ndate: now\r\ncontent-length: 1\r\nconnection: close\r\n\r\na"
    )
    assert not response.keep_alive


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\ny: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\rb")],
        [(b"x\r\ny", b"b")],
        [(b"x", b"a\0")],
        [(b"content-length", b"+5")],
        [(b"content-length", b"5"), (b"Content-Length", b"5")],
    ],
)
def test_a_head_that_would_not_be_one_is_not_written(headers: Headers) -> None:
    response = new()
    with pytest.raises(ResponseError):
        response.start(200, headers)
    assert response.state is State.NEW


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_only_final_statuses(status: int) -> None:
    with pytest.raises(ResponseError):
        new().start(status, [])


def test_order_is_enforced() -> None:
    response = new()
    with pytest.raises(ResponseError):
        response.body(b"", more=False, keep_alive=True)
    response.start(200, [])
    with pytest.raises(ResponseError):
        response.start(200, [])
    response.body(b"", more=False, keep_alive=True)
    with pytest.raises(ResponseError):
        response.body(b"", more=False, keep_alive=True)


@given(length=st.integers(0, 30), pieces=st.lists(st.binary(max_size=12), min_size=1, max_size=5))
def test_never_more_and_never_quietly_less_than_content_length_says(length: int, pieces: list[bytes]) -> None:
    response = new()
    response.start(200, [(b"content-length", b"%d" % length)])
    out = b""
    try:
        for number, piece in enumerate(pieces, 1):
            out += response.body(piece, more=number < len(pieces), keep_alive=True)
    except ResponseError:
        assert response.state is not State.COMPLETE
        assert sum(map(len, pieces)) != length
    else:
        assert sum(map(len, pieces)) == length
    assert len(out.partition(b"\r\n\r\n")[2]) <= length


def test_the_date_is_formatted_once_a_second() -> None:
    now = 784111777.0
    line = DateLine(lambda: now)
    first = line()
    assert first == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    now += 0.5
    assert line() is first
    now += 0.5
    assert line() == b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"


def test_a_refusal_is_a_small_json_answer_that_closes() -> None:
    answer = refusal_bytes(Refused(503, "Full.", retry_after_s=1), b"date: now\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"date: now",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
        b"retry-after: 1",
    ]
    assert json.loads(body)["error"]["message"] == "Full."
    assert refusal_bytes(Refused(503, "Full.", retry_after_s=1), b"date: now\r\n", head_only=True) == head + b"\r\n\r\n"
