"""The fake model server, verified by the official SDK as its client: what it says is what the real services say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest

from hermes.net import open_network
from hermes.testing.fake_model import FakeModel, Garbage, Status, open_fake_model
from hermes.testing.fake_wire import Reply

SCRIPT = Reply(text=("Hel", "lo"), calls=[("weather", '{"city":"Oslo"}')], reasoning="hm", item="sealed")
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
USER: Any = {"role": "user", "content": "hi"}


def calling(arguments: str) -> Any:
    return {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}


@asynccontextmanager
async def sdk(**switches: Any) -> AsyncIterator[tuple[FakeModel, openai.AsyncOpenAI]]:
    async with open_fake_model(**switches) as upstream, open_network() as network, network.http_client() as http:
        yield (
            upstream,
            openai.AsyncOpenAI(api_key="k", base_url=upstream.base_url, http_client=http, timeout=20, max_retries=0),
        )


async def test_chat_completions_typed() -> None:
    async with sdk(default=SCRIPT) as (_, client):
        done = await client.chat.completions.create(model="m", messages=[USER], tools=[TOOL])
    choice = done.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello", "tool_calls")
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"city":"Oslo"}'  # type: ignore[union-attr]
    assert done.usage is not None
    assert done.usage.total_tokens == 10


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK's own stream object leaves generators behind on trio
async def test_chat_completions_stream_through_the_sdks_accumulator() -> None:
    async with sdk(default=SCRIPT) as (_, client):
        async with client.chat.completions.stream(
            model="m", messages=[USER], stream_options={"include_usage": True}
        ) as stream:
            done = await stream.get_final_completion()
    assert done.choices[0].message.content == "Hello"
    assert done.choices[0].message.tool_calls[0].function.name == "weather"  # type: ignore[index]
    assert done.usage is not None


async def test_responses_typed() -> None:
    async with sdk(default=SCRIPT) as (_, client):
        done = await client.responses.create(model="m", input="hi")
    assert done.output_text == "Hello"
    assert [item.type for item in done.output] == ["reasoning", "message", "function_call"]
    assert done.usage is not None
    assert done.usage.output_tokens == 3


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_responses_stream_through_the_sdks_accumulator() -> None:
    async with sdk(default=SCRIPT) as (_, client):
        async with client.responses.stream(model="m", input="hi") as stream:
            kinds = [event.type async for event in stream]
            done = await stream.get_final_response()
    assert done.output_text == "Hello"
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.done" in kinds


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "tool", "tool_call_id": "x", "content": "y"}], [USER, USER], [USER, {"role": "system", "content": "late"}],
     [USER, {"role": "assistant", "content": None}], [{"role": "robot", "content": "x"}], [{"role": "user"}],
     [USER, {"role": "assistant", "tool_calls": [calling("{")]}], [USER, {"role": "assistant", "tool_calls": [calling("{}")]}, USER]],
)  # fmt: skip
async def test_a_history_that_breaks_a_rule_is_a_bad_request(messages: Any) -> None:
    async with sdk() as (upstream, client):
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="m", messages=messages)
        assert len(upstream.refused) == 1


async def test_duplicate_tools_and_unpaired_items_are_bad_requests() -> None:
    async with sdk() as (_, client):
        with pytest.raises(openai.BadRequestError, match="not unique"):
            await client.chat.completions.create(model="m", messages=[USER], tools=[TOOL, TOOL])
        for items in ([{"type": "function_call_output", "call_id": "a", "output": "x"}],
                      [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}],
                      [{"type": "reasoning", "id": "rs", "summary": []}]):  # fmt: skip
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(model="m", input=items)  # type: ignore[arg-type]


async def test_statuses_and_garbage_arrive_as_the_sdks_errors() -> None:
    async with sdk() as (upstream, client):
        upstream.script(Status(code=429, retry_after="3"), Status(code=529), Garbage())
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="m", messages=[USER])
        assert limited.value.response.headers["retry-after"] == "3"
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="m", messages=[USER])
        assert isinstance(await client.chat.completions.create(model="m", messages=[USER]), str)
        assert (await client.models.list()).data == []


@pytest.mark.parametrize("arguments", [[], ["--strict"]])
def test_as_a_process_it_prints_its_port_and_serves_both_protocols(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "hermes.testing.fake_model", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
            with httpx2.Client(trust_env=False) as http:
                for path, body in (("/chat/completions", {"messages": [USER]}), ("/responses", {"input": "hi"})):
                    whole = http.post(base + path, json={"model": "m", **body})
                    streamed = http.post(base + path, json={"model": "m", "stream": True, **body})
                    assert whole.json()["usage"]
                    assert streamed.headers["content-type"] == "text/event-stream"
                    assert streamed.text.endswith("\n\n")
        finally:
            process.kill()
