"""The chat_completions protocol: what is sent, and replies from streams as real and odd servers write them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.agent.calls import CallDelta, CallOptions, Delta, ModelRequest, ReasoningDelta, TextDelta, ToolDefinition
from hermes.agent.sse import SseSplitter
from hermes.agent.wire import Decoded, NotProtocol, ReplyBuilder, ReplyTooLarge, StreamCut, UpstreamError
from hermes.agent.wire_chat import ChatDecoder, encode_request
from hermes.messages import Audio, Entry, Image, Message, Reasoning, Text, ToolCall, Usage, assistant, tool_result, user
from hermes.settings import Endpoint
from hermes.testing.fake_wire import Reply, chat_document, chat_events, check_chat

HERE = "chat_completions https://h/v1 m"
LOCAL = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")


def decoder(max_bytes: int = 100_000, taken: tuple[str, ...] = ()) -> tuple[ChatDecoder, list[Delta]]:
    deltas: list[Delta] = []
    ids = (f"made_{number}" for number in itertools.count())
    return ChatDecoder(ReplyBuilder(deltas.append, max_bytes, lambda: set(taken), lambda: next(ids)), HERE), deltas


def decode(events: list[Any] | bytes, **options: Any) -> tuple[Decoded, list[Delta]]:
    """Events as JSON values (or a whole stream's bytes) -> the reply and its deltas."""
    chat, deltas = decoder(**options)
    stream = events if isinstance(events, bytes) else b"".join(b"data: %b\n\n" % json.dumps(e).encode() for e in events)
    splitter = SseSplitter(1_000_000)
    for event in splitter.feed(stream) + splitter.finish():
        chat.feed(event)
    return chat.result(), deltas


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def part(
    index: int | None = None, call_id: str | None = None, name: str | None = None, args: Any = None
) -> dict[str, Any]:
    call: dict[str, Any] = {"function": {}}
    if index is not None:
        call["index"] = index
    if call_id is not None:
        call["id"] = call_id
    if name is not None:
        call["function"]["name"] = name
    if args is not None:
        call["function"]["arguments"] = args
    return chunk({"tool_calls": [call]})


END = chunk(finish="tool_calls")


# --- replies


def test_text_reasoning_usage_and_model() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2},
             "completion_tokens_details": {"reasoning_tokens": 1}}  # fmt: skip
    reply, deltas = decode(
        [chunk({"role": "assistant", "content": ""}), chunk({"reasoning_content": "hm"}), chunk({"content": "Hel"}),
         chunk({"content": "lo"}), chunk(finish="stop"), {"model": "m-1", "choices": [], "usage": usage}]
    )  # fmt: skip
    assert deltas == [ReasoningDelta("hm"), TextDelta("Hel"), TextDelta("lo")]
    assert reply.message == Message(role="assistant", parts=(Reasoning(text="hm"), Text("Hello")))
    assert (reply.finish_reason, reply.model) == ("stop", "m-1")
    assert reply.usage == Usage(input_tokens=5, output_tokens=4, cached_tokens=2, reasoning_tokens=1)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    st.lists(texts, max_size=4),
    st.lists(st.tuples(st.sampled_from(["f", "g_2"]), st.dictionaries(texts, texts, max_size=2)), max_size=3),
    st.text("ab\n", max_size=5),
)
def test_what_a_server_streams_comes_back_whole(
    pieces: list[str], calls: list[tuple[str, dict[str, str]]], reasoning: str
) -> None:
    script = Reply(text=pieces, calls=[(name, json.dumps(value)) for name, value in calls], reasoning=reasoning)
    reply, deltas = decode(b"".join(chat_events(script, "m", include_usage=True)))
    assert reply.message.text == "".join(pieces) == "".join(d.text for d in deltas if isinstance(d, TextDelta))
    assert [(call.name, json.loads(call.arguments)) for call in reply.message.tool_calls] == calls
    assert reply.finish_reason == ("tool_calls" if calls else "stop")
    assert reply.usage == Usage(input_tokens=7, output_tokens=3)
    chat, _ = decoder()
    chat.whole(chat_document(script, "m"))
    assert chat.result().message == reply.message
    assert chat.complete


def test_interleaved_calls_keep_their_arguments_apart() -> None:
    reply, deltas = decode(
        [part(0, "a", "f", ""), part(1, "b", "g", ""), part(0, args='{"x"'), part(1, args='{"y"'), part(0, args=":1}"),
         part(1, args=":2}"), END]
    )  # fmt: skip
    assert reply.message.tool_calls == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"y":2}'))
    assert deltas[0] == CallDelta(0, "a", "f", '{"x"')
    assert deltas[3] == CallDelta(1, arguments=":2}")


def test_a_name_in_pieces_is_passed_on_once_and_whole() -> None:
    reply, deltas = decode([part(0, "a", "get_"), part(0, name="weather"), part(0, args="{}"), END])
    assert reply.message.tool_calls == (ToolCall("a", "get_weather", "{}"),)
    assert deltas == [CallDelta(0, "a", "get_weather", "{}")]


def test_a_name_that_is_repeated_in_each_piece_is_not_doubled() -> None:
    reply, _ = decode([part(0, "a", "f", "{"), part(0, "a", "f", "}"), END])
    assert reply.message.tool_calls == (ToolCall("a", "f", "{}"),)


def test_missing_ids_are_made_and_duplicate_ids_made_unique() -> None:
    reply, _ = decode([part(0, None, "f", "{}"), part(1, "x", "g", "{}"), part(2, "x", "h", "{}"), END])
    assert [call.id for call in reply.message.tool_calls] == ["made_0", "x", "made_1"]


def test_an_id_that_the_conversation_has_used_is_not_used_again() -> None:
    reply, deltas = decode([part(0, "call_0", "f", "{}"), END], taken=("call_0",))
    assert reply.message.tool_calls[0].id == "made_0"
    assert deltas == [CallDelta(0, "made_0", "f", "{}")]


def test_missing_index_and_the_same_index_for_each_call() -> None:
    without, _ = decode([part(None, "a", "f", "{"), part(None, None, None, "}"), part(None, "b", "g", "{}"), END])
    zeros, _ = decode([part(0, "a", "f", "{}"), part(0, "b", "g", "{}"), END])
    expected = (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
    assert without.message.tool_calls == zeros.message.tool_calls == expected


def test_a_call_without_arguments_gets_an_empty_object_and_is_announced() -> None:
    reply, deltas = decode([part(0, "a", "f"), END])
    assert reply.message.tool_calls == (ToolCall("a", "f", "{}"),)
    assert deltas == [CallDelta(0, "a", "f", "")]


def test_arguments_as_an_object_instead_of_text() -> None:
    reply, _ = decode([part(0, "a", "f", {"x": 1}), END])
    assert json.loads(reply.message.tool_calls[0].arguments) == {"x": 1}


@pytest.mark.parametrize(
    ("sent", "calls", "expected"),
    [("stop", True, "tool_calls"), ("tool_calls", False, "stop"), ("length", True, "length"), ("length", False, "length"),
     ("content_filter", False, "content_filter"), ("function_call", True, "tool_calls"), ("eos", False, "stop")],
)  # fmt: skip
def test_finish_reasons(sent: str, calls: bool, expected: str) -> None:
    reply, _ = decode([*([part(0, "a", "f", '{"x":')] if calls else []), chunk({"content": "x"}, sent)])
    assert reply.finish_reason == expected
    if sent == "length" and calls:
        assert reply.message.tool_calls == (ToolCall("a", "f", '{"x":'),)  # as received; the loop will not run it


def test_refusals_are_kept_as_words_and_marked() -> None:
    reply, deltas = decode([chunk({"refusal": "I can't"}), chunk({"refusal": " do that"}), chunk(finish="stop")])
    assert (reply.message.text, reply.message.note) == ("I can't do that", "refusal")
    assert len(deltas) == 2


def test_reasoning_details_are_put_together_and_bound_to_their_endpoint() -> None:
    details = [
        {"type": "reasoning.text", "index": 0, "text": "a", "format": "x"},
        {"type": "reasoning.text", "index": 0, "text": "b"},
        {"type": "reasoning.encrypted", "index": 1, "data": "zz"},
        {"type": "reasoning.text", "index": 0, "signature": "s"},
    ]
    reply, _ = decode(
        [*(chunk({"reasoning": d.get("text"), "reasoning_details": [d]}) for d in details), chunk(finish="stop")]
    )
    (thought,) = reply.message.parts
    assert isinstance(thought, Reasoning)
    assert (thought.text, thought.endpoint) == ("ab", HERE)
    assert json.loads(bytes(thought.item or b""))[:2] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "format": "x"},
        {"type": "reasoning.encrypted", "index": 1, "data": "zz"},
    ]


def test_content_in_parts_with_thoughts_among_them() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hi"}, 7]
    reply, deltas = decode([chunk({"content": parts}), chunk(finish="stop")])
    assert deltas == [ReasoningDelta("hm"), TextDelta("Hi")]
    assert reply.message.text == "Hi"


def test_other_choices_are_ignored() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]}
    reply, _ = decode([chunk({"content": "yes"}), second, chunk(finish="stop")])
    assert reply.message.text == "yes"


def test_the_end_mark_without_a_finish_reason_is_an_end_and_a_finish_reason_without_the_mark_too() -> None:
    assert decode(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]')[0].finish_reason == "stop"
    assert decode([chunk({"content": "x"}, "stop")])[0].message.text == "x"


def test_a_stream_that_ends_early_is_cut() -> None:
    with pytest.raises(StreamCut):
        decode([chunk({"content": "x"})])
    with pytest.raises(StreamCut):
        decode([])


@pytest.mark.parametrize(
    "data",
    [b"hello", b'"text"', b"[1]", b"{", b'{"choices": 3}', b'{"choices":[{"delta":{"content":5}}]}', b"[" * 100_000],
)
def test_what_is_not_the_protocol_says_so_with_a_sample(data: bytes) -> None:
    with pytest.raises(NotProtocol) as caught:
        decode(b"data: " + data + b"\n\n")
    assert caught.value.sample == data[:500].decode()


def test_a_stream_of_nothing_but_the_end_mark_is_no_reply() -> None:
    with pytest.raises(NotProtocol):
        decode(b"data: [DONE]\n\n")


def test_broken_text_encodings_are_repaired() -> None:
    lone = b'data: {"choices":[{"delta":{"content":"a\\ud83d"},"finish_reason":"stop"}]}\n\n'
    invalid = b'data: {"choices":[{"delta":{"content":"a\xff"},"finish_reason":"stop"}]}\n\n'
    assert decode(lone)[0].message.text == "a?"
    assert decode(invalid)[0].message.text == "a\ufffd"


@given(st.binary(max_size=200))
def test_any_event_is_a_reply_or_one_of_the_known_failures(data: bytes) -> None:
    with contextlib.suppress(NotProtocol, StreamCut, UpstreamError):
        decode(b"data: " + data + b"\n\n")


shapes = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "stop", "function"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "index",
                         "id", "usage", "error", "finish_reason", "reasoning_details", "prompt_tokens_details"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(shapes, max_size=4))
def test_any_json_is_a_reply_or_one_of_the_known_failures(values: list[Any]) -> None:
    with contextlib.suppress(NotProtocol, StreamCut, UpstreamError):
        decode(values)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [({"message": "boom", "code": 502}, 502, ""), ({"message": "boom", "code": "429"}, 429, "429"),
     ({"message": "boom", "type": "overloaded_error"}, None, "overloaded_error"), ("boom", None, "")],
)  # fmt: skip
def test_an_error_object_in_the_stream(error: Any, status: int | None, code: str) -> None:
    with pytest.raises(UpstreamError, match="boom") as caught:
        decode([chunk({"content": "x"}), {"error": error}])
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_reply_over_the_bound_is_refused_whatever_it_consists_of() -> None:
    for event in (chunk({"content": "x" * 90}), chunk({"reasoning": "x" * 90}), part(0, "a", "f", "x" * 90),
                  chunk({"content": "é" * 45}), chunk({"reasoning_details": [{"type": "t", "data": "x" * 90}]})):  # fmt: skip
        with pytest.raises(ReplyTooLarge):
            decode([event, event], max_bytes=100)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [({"prompt_tokens": 10**30, "completion_tokens": 1e308}, (2**40, 2**40)), ({"prompt_tokens": -5, "completion_tokens": "7"}, (0, 0)),
     ({"prompt_tokens": 1.9, "prompt_tokens_details": "x", "completion_tokens_details": [1]}, (1, 0)),
     ({"prompt_tokens": None, "prompt_tokens_details": {"cached_tokens": {}}}, (0, 0))],
)  # fmt: skip
def test_usage_that_is_none_counts_as_nothing_and_too_much_is_cut(usage: Any, counted: tuple[int, int]) -> None:
    reply, _ = decode([chunk({"content": "x"}, "stop", usage=usage)])
    assert reply.usage == Usage(input_tokens=counted[0], output_tokens=counted[1])


@pytest.mark.parametrize(
    "more",
    [lambda n: part(0, "a", f"{n}" + "n" * 500), lambda n: part(n, f"{n}" + "i" * 500, "f"), lambda n: part(n, "", "f"),
     lambda n: chunk({"reasoning_details": [{"type": "t", "index": n, "x": [0] * 200}]}),
     lambda n: chunk({"reasoning_details": [{"type": "t", "index": n}]}),
     lambda n: chunk({"reasoning_details": [{"type": "t", "index": 0, f"k{n}": [0] * 200}]})],
)  # fmt: skip
def test_whatever_a_reply_is_made_of_counts_against_its_bound(more: Callable[[int], Any]) -> None:
    with pytest.raises(ReplyTooLarge):
        decode([more(n) for n in range(2000)])


def test_a_reply_has_no_more_than_a_thousand_calls() -> None:
    with pytest.raises(ReplyTooLarge, match="1000 calls"):
        decode([part(n, f"c{n}", "f", "{}") for n in range(1001)], max_bytes=10_000_000)


def test_a_reasoning_detail_in_many_fragments_costs_only_its_words() -> None:
    fragments = [chunk({"reasoning_details": [{"type": "t", "index": 0, "format": "f", "text": "ab"}]})] * 400
    reply, _ = decode([*fragments, chunk({"content": "x"}, "stop")], max_bytes=1000)
    assert isinstance(reply.message.parts[0], Reasoning)
    assert json.loads(bytes(reply.message.parts[0].item or b""))[0]["text"] == "ab" * 400


def test_an_id_that_no_client_could_send_back_is_replaced() -> None:
    reply, _ = decode([part(0, "i" * 257, "f", "{}"), part(1, "i" * 256, "f", "{}"), END])
    assert [call.id for call in reply.message.tool_calls] == ["made_0", "i" * 256]


# --- requests


def body_of(request: ModelRequest, endpoint: Endpoint = LOCAL) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_request(request, endpoint))
    return body


def test_every_kind_of_message() -> None:
    call = ToolCall("c", "f", '{"x":1}')
    history = [
        Message(role="user", name="Zoë!", parts=(
            Text("look"), Image("data:image/png;base64,AA"), Image("https://x/y", "low"), Audio("QQ", "wav"))),
        Message(role="assistant", parts=(Reasoning(text="secret thoughts"), Text("ok")), tool_calls=(call,)),
        tool_result(call, "42"), assistant("done"), user("bye"),
    ]  # fmt: skip
    body = body_of(ModelRequest(system="be kind", history=[Entry(m) for m in history]))
    assert body["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "name": "Zo__", "content": [
            {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "QQ", "format": "wav"}}]},
        {"role": "assistant", "content": "ok", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "assistant", "content": "done"}, {"role": "user", "content": "bye"},
    ]  # fmt: skip
    check_chat(body)
    assert "secret thoughts" not in json.dumps(body)


def test_names_and_arguments_that_a_strict_provider_would_refuse_for_ever_are_made_fit() -> None:
    calls = (
        ToolCall("1", "functions.search it", '{"broken": '),
        ToolCall("2", "", "[1]"),
        ToolCall("3", "x" * 90, "{}"),
    )
    history = [user("x"), Message(role="assistant", tool_calls=calls), *(tool_result(call, "no") for call in calls)]
    body = body_of(ModelRequest(system="", history=[Entry(m) for m in history]))
    check_chat(body)
    sent = [call["function"] for call in body["messages"][1]["tool_calls"]]
    assert sent[0] == {"name": "functions_search_it", "arguments": "{}"}
    assert [function["name"] for function in sent[1:]] == ["unnamed", "x" * 64]


def test_options_are_passed_on_and_reserved_fields_are_not_overwritten() -> None:
    options = CallOptions(
        temperature=0.5, top_p=0.9, max_output_tokens=12, stop=("a",), tool_choice="required", parallel_tool_calls=False,
        response_format={"type": "json_object"}, reasoning_effort="low", seed=1, frequency_penalty=0.1, presence_penalty=0.2,
        extra={"top_k": 3, "model": "other", "messages": [], "stream": False},
    )  # fmt: skip
    tool = ToolDefinition(name="f", description="d", parameters={"type": "object", "properties": {}}, strict=True)
    body = body_of(ModelRequest(system="", history=[Entry(user("x"))], tools=(tool,), options=options))
    assert body.pop("messages") == [{"role": "user", "content": "x"}]
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}
    assert body == {
        "model": "m", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "top_p": 0.9, "max_tokens": 12,
        "stop": ["a"], "tool_choice": "required", "parallel_tool_calls": False, "response_format": {"type": "json_object"},
        "reasoning_effort": "low", "seed": 1, "frequency_penalty": 0.1, "presence_penalty": 0.2, "top_k": 3,
        "tools": [{"type": "function", "function": function}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base_url", "name"),
    [("https://api.openai.com/v1", "max_completion_tokens"), ("https://x.openai.azure.com/openai/v1", "max_completion_tokens"),
     ("http://127.0.0.1:8080/v1", "max_tokens"), ("https://notopenai.com/v1", "max_tokens")],
)  # fmt: skip
def test_the_name_of_the_output_limit_follows_the_host(base_url: str, name: str) -> None:
    request = ModelRequest(system="", history=[Entry(user("x"))], options=CallOptions(max_output_tokens=5))
    assert body_of(request, Endpoint(model="m", base_url=base_url))[name] == 5


def test_tool_choice_without_tools_is_left_out() -> None:
    options = CallOptions(tool_choice="none", parallel_tool_calls=True)
    body = body_of(ModelRequest(system="", history=[Entry(user("x"))], options=options))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)


def test_messages_and_tools_are_encoded_once() -> None:
    entry, tool = Entry(user("x")), ToolDefinition(name="f", description="", parameters={"type": "object"})
    request = ModelRequest(system="", history=[entry], tools=(tool,))
    first = encode_request(request, LOCAL)
    entry.encoded["chat_completions"] = b'{"role":"user","content":"kept"}'
    tool.encoded["chat_completions"] = b'{"type":"function","function":{"name":"kept"}}'
    assert b"kept" not in first
    assert encode_request(request, LOCAL).count(b"kept") == 2


def test_reasoning_goes_back_to_the_endpoint_that_made_it_and_to_no_other() -> None:
    reply, _ = decode([chunk({"reasoning_details": [{"type": "t", "data": "zz"}]}), chunk({"content": "a"}, "stop")])
    history = [Entry(user("x")), Entry(reply.message), Entry(user("y"))]
    request = ModelRequest(system="", history=history)
    same = Endpoint(model="m", base_url="https://h/v1")
    for _ in range(2):  # the second time from the cache
        assert body_of(request, same)["messages"][1] == {
            "role": "assistant",
            "content": "a",
            "reasoning_details": [{"type": "t", "data": "zz"}],
        }
        assert body_of(request, LOCAL)["messages"][1] == {"role": "assistant", "content": "a"}
