"""The contract of tools: hermes.toolset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hermes.context import TurnContext
from hermes.errors import ConfigError, ToolDenied, ToolError, ToolTimeout
from hermes.testing.tools import call_tool, turn_context
from hermes.toolset import Tool, clean, combine, cut, resolve, run_tool, tool

CONTEXT = turn_context(Path("/nowhere"))


@tool(read_only=True)
async def echo(context: TurnContext, text: str, times: int = 1) -> str:
    """Say it again."""
    await trio.lowlevel.checkpoint()
    return f"{context.turn_id}: {text * times}"


@tool(read_only=False)
async def change(context: TurnContext) -> str:
    """Change something."""
    await trio.lowlevel.checkpoint()
    return "changed"


def failing(error: BaseException) -> Tool:
    @tool(read_only=True)
    async def fail(context: TurnContext) -> str:
        """Fail."""
        await trio.lowlevel.checkpoint()
        raise error

    return fail


def raw(name: str, result: Any = "") -> Tool:
    async def run(context: TurnContext, arguments: Any) -> str:
        await trio.lowlevel.checkpoint()
        return result  # type: ignore[no-any-return]

    return Tool(name=name, description="", parameters={"type": "object"}, read_only=True, run=run)


async def test_a_function_becomes_a_tool_and_is_run_with_what_the_model_wrote() -> None:
    outcome = await run_tool(echo, CONTEXT, '{"text": "ab", "times": 2}')
    assert (outcome.text, outcome.ok, outcome.error) == ("turn-1: abab", True, None)


def test_the_definition_is_made_once_and_shares_the_schema() -> None:
    assert echo.definition is echo.definition
    assert echo.definition.parameters is echo.parameters
    assert (echo.definition.name, echo.definition.description) == ("echo", "Say it again.")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 65, "a\n"])
def test_a_name_that_providers_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        raw(name)


def test_a_schema_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="type object"):
        Tool(name="a", description="", parameters={"type": "string"}, read_only=True, run=raw("b").run)


def test_only_async_functions_are_tools() -> None:
    with pytest.raises(TypeError, match="async"):

        @tool(read_only=True)
        def plain(context: TurnContext) -> str:  # type: ignore[arg-type]
            """Do."""
            return ""


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ToolError("no such file"), "failed", "error: no such file"),
        (ToolDenied("not yours"), "denied", "error: not yours"),
        (ToolTimeout("too long"), "timeout", "error: too long"),
        (ExceptionGroup("g", [ToolDenied("inside a nursery")]), "denied", "error: inside a nursery"),
        (ZeroDivisionError("secret detail"), "internal", "internal error: ZeroDivisionError"),
        (ExceptionGroup("g", [ToolError("a"), KeyError("b")]), "internal", "internal error: KeyError"),
        (RecursionError(), "internal", "internal error: RecursionError"),
    ],
)
async def test_every_failure_is_a_text_for_the_model(error: Exception, kind: str, text: str) -> None:
    outcome = await run_tool(failing(error), CONTEXT, "")
    assert (outcome.ok, outcome.error, outcome.text) == (False, kind, text)
    assert outcome.exception is (error if kind == "internal" else None)


async def test_a_result_that_is_no_text_is_a_bug_of_the_tool() -> None:
    outcome = await run_tool(raw("a", result=None), CONTEXT, "{}")
    assert (outcome.error, outcome.text) == ("internal", "internal error: TypeError")


@pytest.mark.parametrize("text", ['{"text": ', "[]", '{"text": 1}', '{"text": "a", "b": 1}', '{"text": "\\ud800"}'])
async def test_nothing_is_run_when_the_arguments_are_wrong(text: str) -> None:
    outcome = await run_tool(echo, CONTEXT, text)
    assert (outcome.ok, outcome.error) == (False, "arguments")
    assert "nothing was run" in outcome.text


async def test_a_caller_who_may_not_change_anything_cannot_even_by_mistake() -> None:
    outcome = await run_tool(change, turn_context(Path("/nowhere"), may_change=False), "{}")
    assert (outcome.ok, outcome.error) == (False, "denied")
    assert (await call_tool((echo, change), CONTEXT, "change")).text == "changed"


async def test_a_cancel_passes_through() -> None:
    @tool(read_only=True)
    async def wait(context: TurnContext) -> str:
        """Wait."""
        await trio.sleep_forever()
        return ""

    outcome = None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.testing.wait_all_tasks_blocked)
            scope.cancel()
            outcome = await run_tool(wait, CONTEXT, "{}")
    assert outcome is None
    assert scope.cancelled_caught


async def test_a_result_is_bounded_and_fit_for_every_store() -> None:
    outcome = await run_tool(raw("a", "x" * 200_000), CONTEXT, "{}")
    assert len(outcome.text) <= 100_000
    assert "characters left out" in outcome.text
    assert (await run_tool(raw("a", "a\0b\ud800c"), CONTEXT, "{}")).text == "a\N{REPLACEMENT CHARACTER}b?c"


@given(st.text(st.characters(), max_size=400), st.integers(100, 300))
def test_cutting_keeps_both_ends_within_the_limit(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short) <= max(limit, min(len(text), limit))
    if len(text) <= limit:
        assert short == text
    else:
        head, _, rest = short.partition("\n[... ")
        left_out, _, tail = rest.partition(" characters left out ...]\n")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + int(left_out) + len(tail) == len(text)
    clean(text, limit).encode()


def test_a_name_is_never_there_twice() -> None:
    first, second, other = raw("a"), raw("a"), raw("b")
    with pytest.raises(ConfigError, match="two tools are named a"):
        combine((first,), (second, other))
    skipped: list[Tool] = []
    assert combine((first,), (second, other), on_conflict=skipped.append) == (first, other)
    assert skipped[0] is second


def test_who_may_not_change_anything_is_offered_what_only_reads() -> None:
    assert resolve((echo, change), may_change=True) == (echo, change)
    assert resolve((echo, change), may_change=False) == (echo,)
