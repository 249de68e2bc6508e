"""The pure parts of the API: fields and bodies, chunks of a stream, and when a stream says that it lives."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from hermes.errors import RequestError
from hermes.feed import Feed
from hermes.http.api.answers import Answer, failure_answer
from hermes.http.api.chat_answer import ChunkWriter
from hermes.http.api.fields import MAX_DEPTH, Fields
from hermes.http.api.request import _values, decode_object
from hermes.http.api.stream import KEEPALIVE, Batch, stream_feed
from hermes.intake import CallEvent, Ended, Failure, ReasoningEvent, StepEvent, TextEvent, TurnEnd
from hermes.messages import Message, Text, ToolCall, assistant

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.text(st.sampled_from('ab",{}[]\\\n '), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\,{[', max_size=3), inner, max_size=4),
    max_leaves=20,
)


def structure(value: Any) -> int:
    """Commas and opening brackets of a value, without those inside of strings."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(structure, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(structure, value))
    return 0


@given(JSON)
def test_values_are_counted_outside_of_strings(value: Any) -> None:
    assert _values(json.dumps(value).encode()) == structure(value)


@given(st.binary(max_size=40).map(lambda each: each.replace(b"\xff", b'"').replace(b"\xfe", b"\\")))
def test_counting_ends_and_a_refusal_is_a_400_whatever_the_bytes(body: bytes) -> None:
    assert _values(body) <= len(body)


def test_values_beyond_the_bound_are_neither_counted_nor_collected() -> None:
    body = b'{"x":[' + b"1," * 1_000_000 + b"1]}"
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="more than 100000 values"):
            decode_object(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body)
    status = 200
    try:
        decode_object(body)
    except RequestError as error:
        status = error.status
    assert status in (200, 400)


def test_what_is_kept_as_it_is_has_a_bound_of_depth() -> None:
    fit: Any = 1
    for _ in range(MAX_DEPTH):
        fit = [fit]
    assert Fields({"a": fit}).value("a") == fit
    with pytest.raises(RequestError, match="nested deeper"):
        Fields({"a": [fit]}).value("a")
    with pytest.raises(RequestError, match="nested deeper"):
        Fields({"a": {"b": [fit]}}, "x").opaque("a")


def test_unknown_fields_are_counted_at_every_depth_that_was_read() -> None:
    body = Fields({"a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": 1}], "g": {"h": 1}, "i": 0})
    inner = body.object("a")
    assert inner is not None
    inner.integer("b", 0, 9)
    for each in body.objects("d") or ():
        each.known("e")
    body.opaque("g")
    assert body.unknown() == 3  # c, f, i


def end_of(message: Message | None = None, **changes: Any) -> TurnEnd:
    return TurnEnd(**{"event_id": "evt_1", "session_id": "s", "state": "done", "message": message, **changes})


def writer() -> ChunkWriter:
    return ChunkWriter("evt_1", 'a "model"', 12.5, frozenset({"theirs"}), include_usage=False)


def chunks_of(frames: bytes) -> list[Any]:
    return [json.loads(each[6:]) for each in frames.decode().split("\n\n") if each not in ("", "data: [DONE]")]


def numbered(events: list[Any]) -> Batch:
    return list(enumerate(events, 1))


EVENTS = st.lists(
    st.builds(TextEvent, st.text(max_size=5)) | st.builds(ReasoningEvent, st.text(min_size=1, max_size=5)), max_size=12
)


@given(EVENTS, st.integers(0, 12))
def test_words_and_thoughts_arrive_whole_however_they_are_batched(events: list[Any], cut: int) -> None:
    words = "".join(event.text for event in events if isinstance(event, TextEvent))
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningEvent))
    chunks = writer()
    frames = chunks.opening() + chunks.render(numbered(events[:cut])) + chunks.render(numbered(events[cut:]))
    frames += chunks.render([(99, Ended(end_of(assistant(words))))])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(frames)]
    assert "".join(delta.get("content") or "" for delta in deltas) == words
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == thoughts
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks_of(frames)} == {
        ("chatcmpl-evt_1", 'a "model"', 12)
    }
    assert frames.endswith(b"data: [DONE]\n\n")


def test_calls_are_numbered_anew_over_steps_and_ours_left_out() -> None:
    chunks = writer()
    events = [
        CallEvent(0, "o", "ours"), CallEvent(0, arguments="{}"), StepEvent(2),
        CallEvent(0, "o2", "ours"), CallEvent(1, "t1", "theirs", "{"), CallEvent(1, arguments="}"),
        CallEvent(2, "t2", "theirs"),
    ]  # fmt: skip
    calls = (ToolCall("t1", "theirs", "{}"), ToolCall("t2", "theirs", ""), ToolCall("t3", "theirs", "[]"))
    end = end_of(Message(role="assistant", tool_calls=calls), finish_reason="tool_calls")
    frames = chunks.render(numbered(events)) + chunks.render([(9, Ended(end))])
    pieces = [piece for chunk in chunks_of(frames) for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(piece["index"], piece.get("id"), piece["function"]["arguments"]) for piece in pieces] == [
        (0, "t1", "{"), (0, None, "}"), (1, "t2", ""), (2, "t3", "[]")
    ]  # fmt: skip
    assert chunks_of(frames)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_turn_that_was_stopped_is_a_conflict() -> None:
    stopped = Failure(status=499, code="stopped", message="m", kind="interrupted")
    assert failure_answer(stopped).status == 409


class Client:
    """Stands for the request: keeps what is written, and takes its time over a write when it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.slow_s = 0.0
        self.status = 0

    async def start(self, status: int, headers: object) -> None:
        self.status = status

    async def write(self, data: bytes, *, more: bool = True) -> None:
        if self.slow_s:
            await trio.sleep(self.slow_s)
        self.written.append(data)

    async def answer(self, answer: Answer) -> None:
        self.status = answer.status


def render(batch: Batch) -> bytes:
    return b"".join(event.text.encode() if isinstance(event, TextEvent) else b"" for _, event in batch)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_silence_is_broken_and_a_slow_write_is_not_cut(clock: MockClock) -> None:
    feed = Feed("evt_1", "s", "attended")
    client = Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: stream_feed(client, feed, render, keepalive_s=10))  # type: ignore[arg-type]
        await trio.sleep(9)
        assert client.status == 0
        feed.push(StepEvent(2))  # nothing to show: the silence goes on from here
        await trio.sleep(9)
        assert client.status == 0
        await trio.sleep(2)
        assert (client.status, client.written) == (200, [KEEPALIVE])
        client.slow_s = 35  # longer than three times the silence
        feed.push(TextEvent("a"))
        await trio.sleep(20)
        feed.push(TextEvent("b"))
        feed.push(TextEvent("c"))
        await trio.sleep(100)
        assert client.written[1:3] == [b"a", b"bc"]
        assert set(client.written[3:]) <= {KEEPALIVE}
        feed.push(Ended(end_of()))


async def test_an_event_at_the_very_moment_of_the_silence_is_told_once(clock: MockClock) -> None:
    feed = Feed("evt_1", "s", "attended")
    client = Client()
    client.slow_s = 1

    async def speak() -> None:
        for number in range(20):
            await trio.sleep(10)
            feed.push(TextEvent(f"{number} "))
            await trio.sleep(1)
        feed.push(Ended(end_of()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        nursery.start_soon(lambda: stream_feed(client, feed, render, keepalive_s=10))  # type: ignore[arg-type]
    words = b"".join(each for each in client.written if each != KEEPALIVE)
    assert words.decode().split() == [str(number) for number in range(20)]


@pytest.mark.parametrize("shown", [False, True])
async def test_a_turn_that_fails_has_a_status_only_before_anything_was_shown(shown: bool) -> None:
    feed = Feed("evt_1", "s", "attended")
    client = Client()
    failure = Failure(status=502, code="c", message="m")
    if shown:
        feed.push(StepEvent(2))

    def refuse(end: TurnEnd) -> Answer | None:
        assert end.failure is not None
        return failure_answer(end.failure)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: stream_feed(client, feed, render, keepalive_s=10, refuse=refuse)  # type: ignore[arg-type]
        )
        if shown:
            feed.push(TextEvent("half"))
            await trio.testing.wait_all_tasks_blocked()
        feed.push(Ended(end_of(state="failed", failure=failure)))
    assert client.status == (200 if shown else 502)
    assert client.written == ([b"half", b""] if shown else [])


def test_text_that_came_whole_is_said_at_the_end() -> None:
    frames = writer().render([(1, Ended(end_of(Message(role="assistant", parts=(Text("all of it"),)))))])
    assert chunks_of(frames)[0]["choices"][0]["delta"] == {"content": "all of it"}
