"""The pure parts of `/v1/responses`: any body is read or refused, any turn becomes a stream that the official client takes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from hermes.agent.validate import HistoryGuard
from hermes.errors import RequestError
from hermes.http.api.fields import Fields
from hermes.http.api.responses_input import check_new, continue_with, read_input, split_history
from hermes.http.api.responses_object import finished, skeleton
from hermes.http.api.responses_request import read_create
from hermes.http.api.responses_stream import ResponseEvents
from hermes.intake import (
    CallEvent,
    Ended,
    ReasoningEvent,
    StepEvent,
    TextEvent,
    ToolFinished,
    ToolStarted,
    TurnEnd,
    TurnEvent,
)
from hermes.messages import Entry, Message, Reasoning, Text, ToolCall, tool_result

BASE = skeleton("resp_1", {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, model="m", created_at=1.5)

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, width=16) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
IDS = st.sampled_from(["a", "b", "c"])
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "input_image", "refusal", "x"])},
    optional={"text": st.text(max_size=5) | SCALARS, "image_url": SCALARS, "refusal": st.text(max_size=3)},
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "item_reference"]),
        "role": st.sampled_from(["user", "assistant", "system", "developer", "x"]),
        "content": st.text(max_size=5) | st.lists(PARTS, max_size=2) | JSON,
        "call_id": IDS, "name": IDS, "arguments": st.just("{}") | SCALARS, "output": st.text(max_size=5) | JSON,
        "summary": st.lists(PARTS, max_size=2),
    },
)  # fmt: skip
NAMES = [
    "model",
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "metadata",
    "conversation",
    "temperature",
    "stream",
]
BODIES = st.fixed_dictionaries(
    {"input": st.text(max_size=5) | st.lists(ITEMS, max_size=5) | JSON}, optional=dict.fromkeys(NAMES, JSON)
)


@given(BODIES)
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        asked = read_create(Fields(body))
        check_new(asked.input.messages)
    except RequestError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert (refused.status, bool(refused.param)) == (400, True)
        return
    prefix, new = split_history(asked.input.messages)
    assert prefix + new == asked.input.messages
    assert all(each.role != "assistant" for each in new)
    HistoryGuard(map(Entry, (*prefix, *new))).check_sendable()


@given(st.lists(ITEMS, min_size=1, max_size=6), st.frozensets(IDS), st.booleans())
def test_what_goes_on_is_a_history_that_providers_take(items: list[Any], awaited: frozenset[str], forked: bool) -> None:
    calls = tuple(ToolCall(each, each, "{}") for each in sorted(awaited))
    waiting = Message(role="assistant", parts=(Text("wait"),), tool_calls=calls)
    try:
        read = read_input(Fields({"input": items}))
        added = continue_with(read.messages, awaited, waiting if forked else None)
    except RequestError as error:
        refused = error.status
    else:
        refused = 0
    if refused:
        assert refused == 400
        return
    if forked and calls:
        history = [Message(role="user", parts=(Text("x"),)), *added]
    else:  # what the store does: the waiting step is closed with what was supplied, the rest follows
        given_results = {each.tool_call_id: each for each in added if each.role == "tool"}
        results = [given_results.get(call.id) or tool_result(call, "not provided") for call in calls]
        rest = [each for each in added if each.tool_call_id not in awaited]
        history = [Message(role="user", parts=(Text("x"),)), waiting, *results, *rest]
    HistoryGuard(map(Entry, history)).check_sendable()


TEXTS = st.lists(st.text(min_size=1, max_size=3), max_size=3)


@st.composite
def turns(draw: st.DrawFn) -> tuple[list[TurnEvent], TurnEnd]:
    """What a turn tells and how it ends: steps with our own tools, the last one in words or with the client's calls."""
    events: list[TurnEvent] = []
    transcript: list[Message] = []
    steps = draw(st.integers(1, 3))
    message = Message(role="assistant")
    for step in range(1, steps + 1):
        if step > 1:
            events.append(StepEvent(step))
        thoughts, words = draw(TEXTS), draw(TEXTS)
        names = draw(st.lists(st.sampled_from(["ours", "theirs"]), min_size=step < steps, max_size=3))
        if step < steps:
            names = ["ours"] * len(names)
        elif "theirs" not in names:
            names = []  # else there would be another step
        calls = tuple(ToolCall(f"c{step}{at}", name, '{"a":1}') for at, name in enumerate(names))
        told: list[TurnEvent] = [ReasoningEvent(each) for each in thoughts] + [TextEvent(each) for each in words]
        told = draw(st.permutations(told)) if draw(st.booleans()) else told
        events += told
        thoughts = [each.text for each in told if isinstance(each, ReasoningEvent)]
        words = [each.text for each in told if isinstance(each, TextEvent)]
        for at, call in enumerate(calls):
            events += [CallEvent(at, call.id, call.name, '{"a"'), CallEvent(at, arguments=":1}")]
        parts = (*([Reasoning("".join(thoughts))] if thoughts else []), *([Text("".join(words))] if words else []))
        message = Message(role="assistant", parts=parts, tool_calls=calls)
        ours = [call for call in calls if call.name == "ours"]
        for call in ours:
            events += [ToolStarted(call.id, call.name, "{}"), ToolFinished(call.id, call.name, True, 0.1, "ok")]
        if step < steps:
            transcript += [message, *(tool_result(call, "ok") for call in ours)]
    theirs = tuple(call for call in message.tool_calls if call.name == "theirs")
    last = Message(role="assistant", parts=message.parts, tool_calls=theirs)
    if not theirs:
        transcript.append(last)
    finish = "tool_calls" if theirs else draw(st.sampled_from(["stop", "length"]))
    end = TurnEnd(
        event_id="resp_1",
        session_id="s",
        state="done",
        message=last,
        finish_reason=finish,
        transcript=tuple(transcript),
    )
    return [*events, Ended(end)], end


@settings(deadline=None)
@given(turns(), st.data())
def test_any_turn_is_a_stream_that_the_official_client_takes(
    told: tuple[list[TurnEvent], TurnEnd], data: st.DataObject
) -> None:
    events, end = told
    batches = [[(number, event)] for number, event in enumerate(events, 1)]
    if data.draw(st.booleans()):
        batches = [[each for batch in batches for each in batch]]
    shown = shown_by(ResponseEvents(BASE, {"theirs"}), batches)
    again = shown_by(ResponseEvents(BASE, {"theirs"}, whole=True), [[(1, Ended(end))]])
    final = finished(BASE, end)
    for frames in (shown, again):
        assert [each["sequence_number"] for each in frames] == list(range(len(frames)))
        assert [each["type"] for each in frames[:2]] == ["response.created", "response.in_progress"]
        assert frames[-1] == {**frames[-1], "type": f"response.{final['status']}", "response": final}
        added = [each["output_index"] for each in frames if each["type"] == "response.output_item.added"]
        assert added == list(range(len(added)))
        assert sorted(each["output_index"] for each in frames if each["type"] == "response.output_item.done") == added
        state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
        for each in frames:
            state.handle_event(construct_type_unchecked(type_=ResponseStreamEvent, value=each))
    done = {each["item"]["id"]: each["item"] for each in again if each["type"] == "response.output_item.done"}
    assert done == {item["id"]: item for item in final["output"]}
    live = {each["item"]["id"]: each["item"] for each in shown if each["type"] == "response.output_item.done"}
    for id_, item in live.items():
        if item["type"] != "reasoning":  # thoughts between words are in the finished response alone
            assert item == done[id_]


def shown_by(events: ResponseEvents, batches: list[list[tuple[int, TurnEvent]]]) -> list[dict[str, Any]]:
    text = b"".join(events.render(batch) for batch in batches).decode()
    frames = [block.split("\n") for block in text.split("\n\n") if block]
    found = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [each["type"] for each in found]
    return found
