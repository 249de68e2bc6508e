"""Bodies: how they end, what is refused, and that nothing behind them is touched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.http.listener.body import MAX_OVERHEAD, MAX_SIZE_LINE, MAX_TRAILERS, ChunkedBody, FixedBody
from hermes.http.listener.refusal import Refused


def take_all(body: ChunkedBody | FixedBody, data: bytes) -> tuple[bytes, bytes]:
    """The decoded body and what is left behind it."""
    buffer = bytearray(data)
    return body.take(buffer), bytes(buffer)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_fixed_body_takes_its_bytes_and_no_other(length: int) -> None:
    body = FixedBody(length)
    assert take_all(body, b"hello, world") == (b"hello, world"[:length], b"hello, world"[length:])
    assert body.complete
    assert body.received == length


def test_a_fixed_body_waits_for_the_rest() -> None:
    body = FixedBody(4)
    assert take_all(body, b"abc") == (b"abc", b"")
    assert not body.complete
    assert take_all(body, b"defg") == (b"d", b"efg")
    assert body.complete


def test_a_chunked_body_leaves_the_next_request_alone() -> None:
    body = ChunkedBody(100)
    assert take_all(body, b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: u\r\n\r\nGET /") == (b"abc0123456789", b"GET /")
    assert body.complete
    assert body.received == 13


REFUSED: list[tuple[str, bytes, int]] = [
    ("no size", b"\r\n", 400),
    ("a sign", b"+3\r\nabc\r\n", 400),
    ("0x", b"0x3\r\nabc\r\n", 400),
    ("underscore", b"1_0\r\n", 400),
    ("space first", b" 3\r\n", 400),
    ("sixteen digits", b"0000000000000003\r\nabc\r\n", 400),
    ("overflow", b"f" * 17 + b"\r\n", 400),
    ("bare LF after the size", b"3\nabc\r\n0\r\n\r\n", 400),
    ("bare CR in the extension", b"3;\rx\r\nabc\r\n", 400),
    ("NUL in the extension", b"3;\0\r\nabc\r\n", 400),
    ("chunk longer than said", b"3\r\nabcd\r\n", 400),
    ("bare LF after the data", b"3\r\nabc\n0\r\n\r\n", 400),
    ("an extension that is too long", b"3;" + b"x" * MAX_SIZE_LINE + b"\r\nabc\r\n", 400),
    ("an endless extension", b"3;" + b"x" * MAX_SIZE_LINE, 400),
    ("too much in one chunk", b"65\r\n", 413),
    ("too much in all", b"64\r\n" + b"x" * 100 + b"\r\n1\r\n", 413),
    ("50 GB", b"BA43B7400\r\n", 413),
    ("a trailer without a name", b"0\r\n: x\r\n\r\n", 400),
    ("a folded trailer", b"0\r\nX: y\r\n z\r\n\r\n", 400),
    ("bare LF in the trailers", b"0\r\nX: y\n\r\n", 400),
    ("endless trailers", b"0\r\n" + b"X: y\r\n" * MAX_TRAILERS, 431),
    ("an endless trailer", b"0\r\nX: " + b"y" * MAX_TRAILERS, 431),
]


@pytest.mark.parametrize(("data", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_malformed_chunked_body_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as whole:
        ChunkedBody(100).take(bytearray(data))
    assert whole.value.status == status
    body, buffer = ChunkedBody(100), bytearray()
    with pytest.raises(Refused) as bytewise:
        for at in range(len(data)):
            buffer += data[at : at + 1]
            body.take(buffer)
    assert bytewise.value.status == status


def test_a_body_that_is_mostly_extensions_is_refused() -> None:
    chunk = b"1;" + b"x" * 200 + b"\r\na\r\n"
    with pytest.raises(Refused) as refused:
        ChunkedBody(1_000_000).take(bytearray(chunk * (MAX_OVERHEAD // 100)))
    assert refused.value.status == 400


def test_a_body_of_single_bytes_is_accepted() -> None:
    body = ChunkedBody(1_000_000)
    assert body.take(bytearray(b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")) == b"a" * 50_000
    assert body.complete


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=6),
    behind=st.binary(max_size=10),
    steps=st.lists(st.integers(1, 30), min_size=1),
)
@settings(deadline=None)
def test_a_chunked_body_is_decoded_the_same_however_it_is_cut(
    pieces: list[bytes], behind: bytes, steps: list[int]
) -> None:
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    body, buffer, content, at = ChunkedBody(1000), bytearray(), b"", 0
    while not body.complete:
        step = steps[at % len(steps)]
        buffer += encoded[:step]
        encoded = encoded[step:]
        content += body.take(buffer)
        at += 1
    buffer += encoded + behind
    assert content == b"".join(pieces)
    assert bytes(buffer) == behind
