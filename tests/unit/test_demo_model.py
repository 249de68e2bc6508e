"""The built-in demo model: honest in every reply, streaming, and able to call tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from hermes.agent import demo
from hermes.agent.calls import CallDelta, CallOptions, Delta, ModelRequest, TextDelta, ToolDefinition
from hermes.agent.wire import Decoded
from hermes.messages import Entry, Message, Text, assistant, tool_result, user


def tool(name: str, **properties: Any) -> ToolDefinition:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ToolDefinition(name=name, description="", parameters=schema)


TOOLS = (
    tool("terminal", command={"type": "string"}),
    tool("search_files", pattern={"type": "string"}),
    tool("read_file", path={"type": "string"}),
)


async def ask(
    *messages: Message, tools: tuple[ToolDefinition, ...] = TOOLS, **options: Any
) -> tuple[Decoded, list[Delta]]:
    deltas: list[Delta] = []
    request = ModelRequest(
        system="be kind", history=[Entry(m) for m in messages], tools=tools, options=CallOptions(**options)
    )
    return await demo.answer(request, deltas.append), deltas


@pytest.mark.parametrize("said", ["hello", "What is 2+2?", "", "x" * 10_000])
async def test_every_reply_says_what_it_is_and_how_to_get_a_real_model(said: str) -> None:
    reply, deltas = await ask(user(said))
    for needed in ("demo model", "OPENAI_API_KEY", "OPENAI_BASE_URL", ".env", "config.yaml", "`model:`"):
        assert needed in reply.message.text
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == reply.message.text
    assert len(deltas) > 20
    assert reply.finish_reason == "stop"


async def test_the_same_question_gets_the_same_answer_and_its_words_are_counted() -> None:
    first, second = await ask(user("one two three")), await ask(user("one two three"))
    assert first == second
    assert first[0].usage is not None
    assert first[0].usage.input_tokens == 5
    assert first[0].usage.output_tokens == len(first[0].message.text.split())


@pytest.mark.parametrize(
    ("said", "name", "arguments"),
    [("run: echo hi", "terminal", {"command": "echo hi"}), ("list files", "search_files", {"pattern": "*"}),
     ("Search for 'two words'", "search_files", {"pattern": "two words"}), ("read README.md", "read_file", {"path": "README.md"})],
)  # fmt: skip
async def test_it_calls_the_tool_that_was_asked_for_and_reports_its_result(
    said: str, name: str, arguments: dict[str, str]
) -> None:
    reply, deltas = await ask(user(said))
    (call,) = reply.message.tool_calls
    assert (call.name, json.loads(call.arguments), reply.finish_reason) == (name, arguments, "tool_calls")
    assert deltas == [CallDelta(0, call.id, call.name, call.arguments)]
    report, _ = await ask(user(said), reply.message, tool_result(call, "42 files"))
    assert "42 files" in report.message.text
    assert "demo model" in report.message.text
    assert not report.message.tool_calls


async def test_a_tool_that_is_not_offered_is_not_called() -> None:
    for tools, options in (((), {}), (TOOLS[1:], {}), (TOOLS, {"tool_choice": "none"})):
        reply, _ = await ask(user("run: echo hi"), tools=tools, **options)
        assert not reply.message.tool_calls
        assert "You wrote: run: echo hi" in reply.message.text


async def test_a_demanded_function_gets_arguments_that_fit_its_schema() -> None:
    weather = tool(
        "weather", city={"type": "string"}, days={"type": "integer", "minimum": 2}, unit={"enum": ["C", "F"]},
        exact={"type": "boolean"}, near={"type": "array", "items": {"type": "number"}, "minItems": 1},
        where={"type": "object", "properties": {"x": {"type": ["null", "string"]}}, "required": ["x"]}, any={"anyOf": [{"const": 3}]},
    )  # fmt: skip
    for choice in ({"type": "function", "function": {"name": "weather"}}, "required"):
        reply, _ = await ask(user("Oslo"), tools=(weather,), tool_choice=choice)
        assert json.loads(reply.message.tool_calls[0].arguments) == {
            "city": "Oslo", "days": 2, "unit": "C", "exact": False, "near": [0], "where": {"x": None}, "any": 3,
        }  # fmt: skip


async def test_ids_are_unique_in_a_conversation_and_a_second_request_is_served() -> None:
    first, _ = await ask(user("run: a"))
    call = first.message.tool_calls[0]
    second, _ = await ask(user("run: a"), first.message, tool_result(call, "x"), assistant("so"), user("run: b"))
    assert second.message.tool_calls[0].id != call.id


async def test_it_can_be_cancelled_between_two_words() -> None:
    said: list[Delta] = []
    with trio.CancelScope() as scope:

        def stop(delta: Delta) -> None:
            said.append(delta)
            if len(said) == 3:
                scope.cancel()

        await demo.answer(ModelRequest(system="", history=[Entry(user("x"))]), stop)
    assert len(said) == 3
    assert scope.cancelled_caught


async def test_odd_schemas_and_histories_do_not_break_it() -> None:
    odd = ToolDefinition(
        name="odd", description="", parameters={"type": "object", "required": ["x"], "properties": {"x": True}}
    )
    reply, _ = await ask(user("y"), tools=(odd,), tool_choice="required")
    assert json.loads(reply.message.tool_calls[0].arguments) == {"x": "y"}
    pictures, _ = await ask(Message(role="user", parts=(Text(""),)))
    assert "no words" in pictures.message.text
