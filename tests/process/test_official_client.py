"""The official `openai` client against the running process, which asks a real HTTP model server in either protocol."""

from __future__ import annotations

from pathlib import Path

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from hermes.testing.fake_model import Status, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, write_config

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # openai stops reading at [DONE]
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.wall_clock_s(60)
@pytest.mark.parametrize("api", ["chat_completions", "responses"])
async def test_everything_the_client_can_ask(tmp_path: Path, api: str) -> None:
    home = tmp_path / "home"
    async with open_fake_model(default=Reply(text=("one ", "two ", "three"))) as upstream:
        model = {"default": "fake", "base_url": upstream.base_url, "api": api, "retry_budget": 1}
        write_config(home, {"model": model})
        async with open_gateway_process(home) as gateway, httpx2.AsyncClient(timeout=20, trust_env=False) as transport:
            key = (home / "api_key").read_text().strip()  # noqa: ASYNC240  # a test's own look
            client = AsyncOpenAI(api_key=key, base_url=f"{gateway.url}/v1", http_client=transport, max_retries=0)
            assert [each.id async for each in await client.models.list()] == ["hermes", "fake"]

            chat = await client.chat.completions.create(model="hermes", messages=HI)
            assert chat.choices[0].message.content == "one two three"
            assert chat.usage is not None
            assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (7, 3)

            words = ""
            async with await client.chat.completions.create(model="hermes", messages=HI, stream=True) as chunks:
                async for chunk in chunks:
                    words += chunk.choices[0].delta.content or ""
            assert words == "one two three"

            async with client.chat.completions.stream(model="hermes", messages=HI) as helped:
                async for _ in helped:
                    pass
                assert (await helped.get_final_completion()).choices[0].message.content == "one two three"

            response = await client.responses.create(model="hermes", input="hi")
            assert response.output_text == "one two three"
            assert (await client.responses.retrieve(response.id)).output_text == "one two three"
            async with client.responses.stream(
                model="hermes", input="more", previous_response_id=response.id
            ) as events:
                kinds = [event.type async for event in events]
                final = await events.get_final_response()
            assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
            assert (final.output_text, final.previous_response_id) == ("one two three", response.id)
            sent = upstream.requests[-1].body
            assert len([each for each in sent.get("messages") or sent["input"] if each["role"] == "user"]) == 2

            with pytest.raises(openai.NotFoundError) as unknown:
                await client.chat.completions.create(model="nobody", messages=HI)
            assert unknown.value.code == "model_not_found"
            upstream.script(Status(code=429, retry_after="7"))
            with pytest.raises(openai.RateLimitError) as limited:
                await client.chat.completions.create(model="hermes", messages=HI)
            assert limited.value.response.headers["retry-after"] == "7"
            with pytest.raises(openai.AuthenticationError):
                await client.with_options(api_key="wrong" * 5).models.list()
            assert not upstream.refused
            assert await gateway.terminate() == 0
