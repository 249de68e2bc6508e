"""The official `openai` client against our chat completions, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from hermes.messages import ToolCall
from hermes.testing.api import KEY, ApiUnderTest, open_api
from hermes.testing.door import Say, ScriptedDoor

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # openai stops reading at [DONE]


@asynccontextmanager
async def official(
    tmp_path: Path, door: ScriptedDoor | None = None, key: str = KEY
) -> AsyncIterator[tuple[ApiUnderTest, AsyncOpenAI]]:
    async with open_api(tmp_path, door) as api:
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as transport:
            client = AsyncOpenAI(api_key=key, base_url=f"{api.url}/v1", http_client=transport, max_retries=0)
            yield api, client


async def test_create(tmp_path: Path) -> None:
    async with official(tmp_path) as (_, client):
        answer = await client.chat.completions.create(
            model="hermes",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            temperature=0.1,
        )
        assert answer.choices[0].message.content == "echo: hi"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0
        assert answer.usage.prompt_tokens_details is not None
        again = await client.chat.completions.create(
            model="hermes",
            messages=[
                {"role": "user", "content": "hi"},
                answer.choices[0].message.model_dump(),  # type: ignore[list-item]
                {"role": "user", "content": "more"},
            ],
        )
        assert again.choices[0].message.content == "echo: more"


async def test_create_with_stream(tmp_path: Path) -> None:
    async with official(tmp_path) as (_, client):
        stream = await client.chat.completions.create(
            model="hermes",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "echo: hi"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].usage is not None
        assert len({chunk.id for chunk in chunks}) == 1


async def test_the_stream_helper_puts_everything_together(tmp_path: Path) -> None:
    call = ToolCall(id="call_1", name="weather", arguments='{"city":"Oslo"}')
    door = ScriptedDoor([Say(text="Let me see.", calls=[call])])
    async with official(tmp_path, door) as (_, client):
        async with client.chat.completions.stream(
            model="hermes",
            messages=[{"role": "user", "content": "weather?"}],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
        ) as stream:
            kinds = {event.type async for event in stream}
            final = await stream.get_final_completion()
        assert {"chunk", "content.delta", "content.done", "tool_calls.function.arguments.done"} <= kinds
        (made,) = final.choices[0].message.tool_calls or ()
        assert (made.id, made.function.name, made.function.arguments) == ("call_1", "weather", call.arguments)
        assert final.choices[0].message.content == "Let me see."
        assert final.choices[0].finish_reason == "tool_calls"


async def test_structured_output_is_parsed(tmp_path: Path) -> None:
    class City(BaseModel):
        name: str

    async with official(tmp_path, ScriptedDoor([Say(text='{"name":"Oslo"}')])) as (_, client):
        answer = await client.chat.completions.parse(
            model="hermes", messages=[{"role": "user", "content": "where?"}], response_format=City
        )
        assert answer.choices[0].message.parsed == City(name="Oslo")


async def test_models(tmp_path: Path) -> None:
    async with official(tmp_path) as (_, client):
        assert [model.id async for model in client.models.list()] == ["hermes", "demo"]
        assert (await client.models.retrieve("demo")).owned_by == "demo"
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("nothing/at/all")
        assert missing.value.code == "model_not_found"


async def test_errors_are_the_clients_own_classes(tmp_path: Path) -> None:
    async with official(tmp_path) as (_, client):
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.chat.completions.create(model="hermes", messages=[{"role": "user"}])  # type: ignore[list-item]
        assert (wrong.value.param, wrong.value.type) == ("messages[0].content", "invalid_request_error")
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="none", messages=[{"role": "user", "content": "hi"}])
    async with official(tmp_path, key="wrong") as (_, client):
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_an_error_inside_a_stream_is_raised(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="half", error=RuntimeError("a bug"))])
    async with official(tmp_path, door) as (_, client):
        stream = await client.chat.completions.create(
            model="hermes", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        with pytest.raises(openai.APIError) as broken:
            async with stream:
                async for _ in stream:
                    pass
        assert broken.value.code == "internal_error"
