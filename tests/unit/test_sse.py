"""The event-stream splitter: the same events however the bytes arrive, and bounds on what it keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.agent.sse import Event, SseOverflow, SseSplitter


def split(*chunks: bytes, bound: int = 10_000) -> list[Event]:
    splitter = SseSplitter(bound)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events + splitter.finish()


def test_events_with_names_comments_and_several_lines() -> None:
    stream = b": keep-alive\n\nevent: a\ndata: one\ndata: two\nid: 7\nretry: 3\n\ndata:three\n\n"
    assert split(stream) == [Event(b"a", b"one\ntwo"), Event(b"", b"three")]


def test_one_space_after_the_colon_belongs_to_the_syntax_the_next_to_the_data() -> None:
    assert split(b"data:  x\n\ndata\n\n") == [Event(b"", b" x"), Event(b"", b"")]


def test_a_byte_order_mark_is_skipped_and_the_last_blank_line_may_be_missing() -> None:
    assert split(b"\xef\xbb\xbfdata: a\n\ndata: [DONE]") == [Event(b"", b"a"), Event(b"", b"[DONE]")]


def test_an_event_name_without_data_says_nothing_and_does_not_stick() -> None:
    assert split(b"event: lost\n\ndata: x\n\n") == [Event(b"", b"x")]


line = st.sampled_from(
    [b"data: x", b"data: {}", b"data:", b"event: e", b": c", b"", b"id: 1", b"data: \xc3\xa9", b"odd"]
)
ending = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(line, ending), max_size=20), st.data())
def test_any_chunking_gives_the_same_events(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(text + end for text, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(*chunks) == split(stream)
    assert split(*(bytes([byte]) for byte in stream)) == split(stream)


@given(st.lists(st.binary(min_size=1, max_size=30).filter(lambda b: not set(b) & {10, 13}), min_size=1, max_size=8))
def test_what_was_written_comes_out(payloads: list[bytes]) -> None:
    stream = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    assert [event.data for event in split(stream)] == payloads


@given(st.binary(max_size=400))
def test_any_bytes_are_split_without_an_error(data: bytes) -> None:
    assert isinstance(split(data), list)


@pytest.mark.parametrize(
    "chunks", [[b"data: " + b"x" * 200], [b"x" * 60, b"y" * 60], [b"data: " + b"x" * 60 + b"\n"] * 3]
)
def test_a_line_or_an_event_over_the_bound_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(SseOverflow):
        split(*chunks, bound=100)


def test_a_long_line_in_many_small_pieces_costs_no_more_than_its_length() -> None:
    splitter = SseSplitter(1_000_000)
    for _ in range(50_000):
        assert splitter.feed(b"0123456789") == []
    assert splitter._tail_bytes == 500_000
