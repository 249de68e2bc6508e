"""The responses protocol: what is sent, and replies from its typed events."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.agent.calls import CallDelta, CallOptions, Delta, ModelRequest, ReasoningDelta, TextDelta, ToolDefinition
from hermes.agent.sse import SseSplitter
from hermes.agent.wire import Decoded, NotProtocol, ReplyBuilder, ReplyTooLarge, StreamCut, Unsupported, UpstreamError
from hermes.agent.wire_responses import ResponsesDecoder, encode_request
from hermes.messages import Audio, Entry, Image, Message, Reasoning, Text, ToolCall, Usage, assistant, tool_result, user
from hermes.settings import Endpoint
from hermes.testing.fake_wire import Reply, check_responses, responses_document, responses_events

HERE = "responses https://h/v1 m"
SAME = Endpoint(model="m", base_url="https://h/v1", api="responses")
OTHER = Endpoint(model="m", base_url="https://other/v1", api="responses")


def decoder(max_bytes: int = 100_000) -> tuple[ResponsesDecoder, list[Delta]]:
    deltas: list[Delta] = []
    ids = (f"made_{number}" for number in itertools.count())
    return ResponsesDecoder(ReplyBuilder(deltas.append, max_bytes, set, lambda: next(ids)), HERE), deltas


def decode(events: list[Any] | bytes, max_bytes: int = 100_000) -> tuple[Decoded, list[Delta]]:
    one, deltas = decoder(max_bytes)
    stream = events if isinstance(events, bytes) else b"".join(b"data: %b\n\n" % json.dumps(e).encode() for e in events)
    splitter = SseSplitter(1_000_000)
    for event in splitter.feed(stream) + splitter.finish():
        one.feed(event)
    return one.result(), deltas


def stream_of(reply: Reply) -> bytes:
    return b"".join(responses_events(reply, "m-1"))


BOOM = {"status": "failed", "error": {"code": "server_error", "message": "boom"}}
COMPLETED = {"type": "response.completed", "response": {"status": "completed", "model": "m-1"}}


def test_text_reasoning_items_calls_and_usage() -> None:
    script = Reply(text=("Hel", "lo"), calls=[("f", '{"x":1}')], reasoning="hm", item="sealed")
    reply, deltas = decode(stream_of(script))
    thought, words = reply.message.parts
    assert isinstance(thought, Reasoning)
    assert (thought.text, thought.endpoint, words) == ("hm", HERE, Text("Hello"))
    assert json.loads(bytes(thought.item or b""))["encrypted_content"] == "sealed"
    assert reply.message.tool_calls == (ToolCall("call_fake_0", "f", '{"x":1}'),)
    assert deltas[:3] == [ReasoningDelta("hm"), TextDelta("Hel"), TextDelta("lo")]
    assert deltas[3] == CallDelta(0, "call_fake_0", "f", '{"x')
    assert (reply.finish_reason, reply.model) == ("tool_calls", "m-1")
    assert reply.usage == Usage(input_tokens=7, output_tokens=3)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    st.lists(texts, max_size=4),
    st.lists(st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(texts, texts, max_size=2)), max_size=3),
    st.sampled_from(["", "why"]),
)
def test_a_stream_and_a_document_give_the_same_reply(
    pieces: list[str], calls: list[tuple[str, dict[str, str]]], reasoning: str
) -> None:
    script = Reply(text=pieces, calls=[(name, json.dumps(value)) for name, value in calls], reasoning=reasoning)
    reply, deltas = decode(stream_of(script))
    assert reply.message.text == "".join(pieces) == "".join(d.text for d in deltas if isinstance(d, TextDelta))
    assert [(call.name, json.loads(call.arguments)) for call in reply.message.tool_calls] == calls
    one, _ = decoder()
    one.whole(json.dumps(responses_document(script, "m-1")).encode())
    assert one.result() == reply


def test_items_that_came_without_deltas_are_complete_all_the_same() -> None:
    message = {
        "type": "message",
        "content": [{"type": "output_text", "text": "hi"}, {"type": "refusal", "refusal": "no"}],
    }
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x":1}'}
    events = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate([message, call])
    ]
    reply, deltas = decode([*events, COMPLETED])
    assert (reply.message.text, reply.message.note) == ("hino", "refusal")
    assert reply.message.tool_calls == (ToolCall("c", "f", '{"x":1}'),)
    assert len(deltas) == 3


def test_parts_of_a_summary_are_set_apart() -> None:
    delta = {"type": "response.reasoning_summary_text.delta", "output_index": 0}
    reply, _ = decode(
        [{**delta, "summary_index": 0, "delta": "one"}, {**delta, "summary_index": 1, "delta": "two"}, COMPLETED]
    )
    assert reply.message.parts == (Reasoning(text="one\n\ntwo"),)


def test_a_refusal_is_kept_as_words_and_marked() -> None:
    reply, _ = decode([{"type": "response.refusal.delta", "output_index": 0, "delta": "I can't"}, COMPLETED])
    assert (reply.message.text, reply.message.note) == ("I can't", "refusal")


@pytest.mark.parametrize(
    ("finish", "expected"), [("length", "length"), ("content_filter", "content_filter"), (None, "tool_calls")]
)
def test_finish_reasons(finish: str | None, expected: str) -> None:
    reply, _ = decode(stream_of(Reply(text="x", calls=[("f", '{"x":')], finish=finish)))
    assert reply.finish_reason == expected
    assert reply.message.tool_calls[0].arguments == '{"x":'


def test_a_stream_without_its_last_event_is_cut() -> None:
    with pytest.raises(StreamCut):
        decode(stream_of(Reply(text="x")).rpartition(b"event: ")[0])


@pytest.mark.parametrize(
    ("event", "code"),
    [({"type": "response.failed", "response": BOOM}, "server_error"),
     ({"type": "error", "code": "rate_limit_exceeded", "message": "boom"}, "rate_limit_exceeded"),
     ({"type": "error", "error": {"type": "overloaded", "message": "boom"}}, "overloaded"),
     ({"type": "response.completed", "response": BOOM}, "server_error")],
)  # fmt: skip
def test_failures_in_the_stream(event: dict[str, Any], code: str) -> None:
    with pytest.raises(UpstreamError, match="boom") as caught:
        decode([event])
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_any_event_is_a_reply_or_one_of_the_known_failures(data: bytes) -> None:
    with contextlib.suppress(NotProtocol, StreamCut, UpstreamError):
        decode(b"data: " + data + b"\n\n")


kinds = st.sampled_from(
    ["response.output_text.delta", "response.function_call_arguments.delta", "response.output_item.added", "error",
     "response.output_item.done", "response.completed", "response.reasoning_text.delta", "response.failed", "new.event"]
)  # fmt: skip
shapes = st.recursive(
    st.none() | st.integers(-1, 2) | st.sampled_from(["", "message", "function_call", "reasoning"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["type", "content", "summary", "text", "status", "usage", "output_tokens_details",
                                       "incomplete_details", "error", "call_id", "encrypted_content"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": kinds}, optional={"delta": shapes, "item": shapes, "response": shapes, "output_index": shapes}
        ),
        max_size=4,
    )
)
def test_any_json_is_a_reply_or_one_of_the_known_failures(values: list[Any]) -> None:
    with contextlib.suppress(NotProtocol, StreamCut, UpstreamError):
        decode(values)


def test_a_reply_over_the_bound_is_refused() -> None:
    for script in (
        Reply(text="x" * 200),
        Reply(reasoning="x" * 200),
        Reply(calls=[("f", "x" * 200)]),
        Reply(item="x" * 200),
    ):
        with pytest.raises(ReplyTooLarge):
            decode(stream_of(script), max_bytes=100)


# --- requests


def body_of(request: ModelRequest, endpoint: Endpoint = SAME) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_request(request, endpoint))
    return body


def test_every_kind_of_message() -> None:
    call = ToolCall("c", "f g", '{"broken"')
    history = [
        Message(role="user", parts=(Text("look"), Image("https://x/y"), Audio("QQ", "wav"))),
        Message(role="assistant", parts=(Text("ok"),), tool_calls=(call,)), tool_result(call, "42"), assistant(""), user("bye"),
    ]  # fmt: skip
    body = body_of(ModelRequest(system="be kind", history=[Entry(m) for m in history]))
    assert body == {
        "model": "m", "stream": True, "store": False, "instructions": "be kind", "input": [
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "https://x/y", "detail": "auto"},
                {"type": "input_audio", "input_audio": {"data": "QQ", "format": "wav"}}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok", "annotations": []}]},
            {"type": "function_call", "call_id": "c", "name": "f_g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "bye"}]},
        ],
    }  # fmt: skip
    check_responses(body)


def test_options_are_translated() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    options = CallOptions(
        temperature=0.5, top_p=0.9, max_output_tokens=12, tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=True, response_format=schema, reasoning_effort="low", frequency_penalty=0.0, extra={"top_k": 1},
    )  # fmt: skip
    tool = ToolDefinition(name="f", description="d", parameters={"type": "object"})
    body = body_of(ModelRequest(system="", history=[Entry(user("x"))], tools=(tool,), options=options))
    del body["input"]
    assert body == {
        "model": "m", "stream": True, "store": False, "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 12,
        "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "parallel_tool_calls": True,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        "tool_choice": {"type": "function", "name": "f"},
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}],
    }  # fmt: skip


@pytest.mark.parametrize("options", [CallOptions(stop=("x",)), CallOptions(seed=1), CallOptions(presence_penalty=0.5)])
def test_what_the_protocol_cannot_say_is_refused_and_not_dropped(options: CallOptions) -> None:
    with pytest.raises(Unsupported):
        encode_request(ModelRequest(system="", history=[Entry(user("x"))], options=options), SAME)


def test_reasoning_goes_back_to_the_endpoint_that_made_it_and_to_no_other() -> None:
    reply, _ = decode(stream_of(Reply(text="a", reasoning="hm", item="sealed")))
    request = ModelRequest(system="", history=[Entry(user("x")), Entry(reply.message), Entry(user("y"))])
    for _ in range(2):  # the second time from the cache
        there, elsewhere = body_of(request)["input"], body_of(request, OTHER)["input"]
        assert there[1] == {
            "id": "rs_fake",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "sealed",
        }
        assert [item["type"] for item in elsewhere] == ["message"] * 3
    check_responses(body_of(request))


def test_a_reasoning_item_that_the_provider_did_not_seal_is_not_sent_back() -> None:
    reply, _ = decode(stream_of(Reply(text="a", reasoning="hm")))
    assert reply.message.parts == (Reasoning(text="hm"), Text("a"))


@pytest.mark.parametrize(
    "response",
    [{"usage": {"input_tokens": "7", "output_tokens": -1}}, {"usage": {"input_tokens_details": "x", "output_tokens_details": 5}},
     {"usage": 5}, {"incomplete_details": "x"}],
)  # fmt: skip
def test_an_end_of_odd_shapes_is_an_end(response: dict[str, Any]) -> None:
    reply, _ = decode([{"type": "response.output_text.delta", "delta": "x"}, {**COMPLETED, "response": response}])
    assert reply.message.text == "x"
    assert reply.usage in (None, Usage())


def test_more_tokens_than_there_can_be_are_cut() -> None:
    usage = {"input_tokens": 10**30, "output_tokens": 1e308, "input_tokens_details": {"cached_tokens": 2**70}}
    reply, _ = decode([{"type": "response.completed", "response": {"usage": usage}}])
    assert reply.usage == Usage(input_tokens=2**40, output_tokens=2**40, cached_tokens=2**40)


@pytest.mark.parametrize("kind", ["message", "reasoning"])
def test_an_item_without_an_array_inside_is_an_empty_one(kind: str) -> None:
    item = {"type": kind, "content": 5, "summary": 5}
    reply, _ = decode([{"type": "response.output_item.done", "output_index": 0, "item": item}, COMPLETED])
    assert reply.message.text == ""


def test_names_and_ids_count_against_the_bound() -> None:
    for item in ({"call_id": "c", "name": "n" * 500}, {"call_id": "i" * 500, "name": "n"}):
        with pytest.raises(ReplyTooLarge):
            decode(
                [{"type": "response.output_item.added", "output_index": n, "item": {"type": "function_call", **item}}
                 for n in range(300)]
            )  # fmt: skip
