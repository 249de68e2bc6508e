"""`/v1/responses` over real HTTP, asked by the official client where it matters what that takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import trio
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from hermes.agent.calls import ModelRequest
from hermes.errors import ModelRefused, ModelUnavailable
from hermes.messages import ToolCall
from hermes.testing.api import KEY, ApiUnderTest, open_api
from hermes.testing.door import Say, ScriptedDoor
from hermes.toolset import tool

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # openai stops at the last event

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
CALL = ToolCall("call_1", "weather", '{"city":"Bonn"}')
LOOK = ToolCall("call_2", "look", "{}")


@tool(read_only=True)
async def look(context: Any) -> str:
    """Look around."""
    return "all quiet"


@asynccontextmanager
async def official(
    home: Path, door: ScriptedDoor | None = None, **more: Any
) -> AsyncIterator[tuple[ApiUnderTest, AsyncOpenAI]]:
    async with open_api(home, door, tools=(look,), **more) as api:
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as transport:
            yield api, AsyncOpenAI(api_key=KEY, base_url=f"{api.url}/v1", http_client=transport, max_retries=0)


async def counts(api: ApiUnderTest) -> list[int]:
    tables = ("sessions", "inbox", "turns", "messages", "responses")
    return [(await api.spine.rows(f"SELECT count(*) FROM {name}"))[0][0] for name in tables]


def heard(door: ScriptedDoor) -> list[tuple[str, str]]:
    return [(each.role, each.text) for each in door.histories[-1]]


# -- one response ------------------------------------------------------------------------------------------------------


async def test_create_retrieve_delete(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="Hello.", reasoning="They greet.")])
    async with official(tmp_path, door) as (api, client):
        made = await client.responses.create(
            model="hermes", input="hi", instructions="Be brief.", temperature=0.5, top_p=0.9, max_output_tokens=100,
            metadata={"who": "me"}, reasoning={"effort": "low"}, parallel_tool_calls=False, truncation="auto", user="u",
        )  # fmt: skip
        assert (made.status, made.output_text, made.model) == ("completed", "Hello.", "hermes")
        assert [item.type for item in made.output] == ["reasoning", "message"]
        assert made.metadata == {"who": "me"}
        assert (made.temperature, made.top_p, made.max_output_tokens) == (0.5, 0.9, 100)
        assert made.usage is not None
        assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens > 0
        request = door.requests[0]
        assert "Be brief." in request.system
        assert (request.options.temperature, request.options.max_output_tokens) == (0.5, 100)
        assert request.options.reasoning_effort == "low"

        again = await client.responses.retrieve(made.id)
        assert again.model_dump(exclude_none=True) == made.model_dump(exclude_none=True)
        raw = await api.client.get(f"/v1/responses/{made.id}")
        assert raw.headers["x-hermes-session-id"].startswith("sess_")

        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError) as gone:
            await client.responses.retrieve(made.id)
        assert gone.value.code == "response_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(made.id)
        assert not api.errors


async def test_what_is_not_stored_cannot_be_found(tmp_path: Path) -> None:
    async with official(tmp_path) as (_, client):
        made = await client.responses.create(model="hermes", input="hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError) as refused:
            await client.responses.create(model="hermes", input="more", previous_response_id=made.id)
        assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_a_clients_history_is_the_sessions(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with official(tmp_path, door) as (api, client):
        made = await client.responses.create(
            model="hermes",
            input=[
                {"role": "developer", "content": "Speak plainly."},
                {"role": "user", "content": "one"},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
                {
                    "type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                    "content": [{"type": "output_text", "text": "two", "annotations": []}],
                },
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "rain"},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "three"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                    ],
                },
            ],
        )  # fmt: skip
        assert made.output_text == "echo: three"
        assert heard(door) == [("user", "one"), ("assistant", "two"), ("tool", "rain"), ("user", "three")]
        assert "Speak plainly." in door.requests[0].system
        stored = await api.spine.rows("SELECT prefix IS NOT NULL, next_message, expires_at IS NOT NULL FROM sessions")
        assert stored == [(1, 4, 1)]  # the history as one prefix, and what is new as messages


async def test_a_cut_reply_is_incomplete(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="Hel", finish_reason="length"), Say(text="Hel", finish_reason="length")])
    async with official(tmp_path, door) as (_, client):
        made = await client.responses.create(model="hermes", input="hi", max_output_tokens=16)
        assert made.status == "incomplete"
        assert made.incomplete_details is not None
        assert made.incomplete_details.reason == "max_output_tokens"
        async with client.responses.stream(model="hermes", input="hi") as stream:
            kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.incomplete"


async def test_structured_output(tmp_path: Path) -> None:
    class Weather(BaseModel):
        city: str

    door = ScriptedDoor([Say(text='{"city": "Bonn"}')])
    async with official(tmp_path, door) as (_, client):
        made = await client.responses.parse(model="hermes", input="where?", text_format=Weather)
        assert made.output_parsed == Weather(city="Bonn")
        shape = door.requests[0].options.response_format
        assert shape["type"] == "json_schema"
        assert shape["json_schema"]["name"] == "Weather"
        assert shape["json_schema"]["strict"] is True


# -- tools -------------------------------------------------------------------------------------------------------------


async def test_the_clients_calls_are_handed_out_and_answered(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="Let me see.", calls=[CALL]), Say(text="It rains.")])
    async with official(tmp_path, door) as (_, client):
        first = await client.responses.create(model="hermes", input="weather?", tools=[WEATHER], tool_choice="required")  # type: ignore[list-item]
        call = first.output[-1]
        assert call.type == "function_call"
        assert (call.call_id, call.name, call.arguments, call.status) == (
            "call_1",
            "weather",
            CALL.arguments,
            "completed",
        )
        second = await client.responses.create(
            model="hermes", previous_response_id=first.id, tools=[WEATHER],  # type: ignore[list-item]
            input=[call.model_dump(), {"type": "function_call_output", "call_id": "call_1", "output": "rain"}],  # type: ignore[list-item]
        )  # fmt: skip
        assert second.output_text == "It rains."
        assert heard(door) == [("user", "weather?"), ("assistant", "Let me see."), ("tool", "rain")]
        assert second.previous_response_id == first.id


async def test_our_own_tools_calls_are_not_shown(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="I look.", calls=[LOOK], streamed=True), Say(text="All quiet.")])
    async with official(tmp_path, door) as (_, client):
        made = await client.responses.create(model="hermes", input="look", tools=[WEATHER])  # type: ignore[list-item]
        assert [item.type for item in made.output] == ["message", "message"]
        assert made.output_text == "I look.All quiet."
        assert [each.role for each in door.histories[-1]] == ["user", "assistant", "tool"]


async def test_going_on_without_the_results_records_that(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(calls=[CALL]), Say(text="Fine.")])
    async with official(tmp_path, door) as (_, client):
        first = await client.responses.create(model="hermes", input="weather?", tools=[WEATHER])  # type: ignore[list-item]
        await client.responses.create(model="hermes", input="never mind", previous_response_id=first.id)
        roles = [role for role, _ in heard(door)]
        assert roles == ["user", "assistant", "tool", "user"]
        assert heard(door)[2][1].startswith("not provided")


async def test_results_nobody_asked_for_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    stray = {"type": "function_call_output", "call_id": "no_such", "output": "x"}
    async with official(tmp_path) as (api, client):
        made = await client.responses.create(model="hermes", input="hi")
        before = await counts(api)
        for more in ({}, {"previous_response_id": made.id}, {"conversation": "new"}):
            answer = await api.client.post("/v1/responses", json={"input": [stray], **more})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
        assert await counts(api) == before


# -- going on ----------------------------------------------------------------------------------------------------------


async def test_a_chain_lives_in_one_session(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with official(tmp_path, door) as (api, client):
        previous: Response | None = None
        for word in ("one", "two", "three"):
            previous = await client.responses.create(
                model="hermes", input=word, previous_response_id=previous.id if previous else None
            )
        assert heard(door) == [
            ("user", "one"), ("assistant", "echo: one"), ("user", "two"), ("assistant", "echo: two"), ("user", "three"),
        ]  # fmt: skip
        assert await api.spine.rows("SELECT count(*) FROM sessions") == [(1,)]


async def test_going_on_from_an_older_response_forks(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with official(tmp_path, door) as (api, client):
        first = await client.responses.create(
            model="hermes", input=[{"role": "developer", "content": "Be Bob."}, {"role": "user", "content": "one"}]
        )
        second = await client.responses.create(model="hermes", input="two", previous_response_id=first.id)
        assert "Be Bob." in door.requests[-1].system  # what a developer said holds for what goes on from it
        other = await client.responses.create(model="hermes", input="other", previous_response_id=first.id)
        assert heard(door) == [("user", "one"), ("assistant", "echo: one"), ("user", "other")]
        assert "Be Bob." in door.requests[-1].system
        await client.responses.create(model="hermes", input="three", previous_response_id=second.id)
        assert [text for _, text in heard(door)] == ["one", "echo: one", "two", "echo: two", "three"]
        await client.responses.create(model="hermes", input="more", previous_response_id=other.id)
        assert [text for _, text in heard(door)] == ["one", "echo: one", "other", "echo: other", "more"]
        rows = await api.spine.rows("SELECT expires_at IS NOT NULL, parent_id IS NOT NULL FROM sessions ORDER BY 2")
        assert rows == [(1, 0), (1, 1)]


async def test_branches_asked_for_at_once_do_not_see_each_other(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with official(tmp_path, door) as (_, client):
        first = await client.responses.create(model="hermes", input="root")
        answers: dict[str, str] = {}

        async def branch(word: str) -> None:
            made = await client.responses.create(model="hermes", input=word, previous_response_id=first.id)
            answers[word] = made.output_text

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(branch, f"b{number}")
        assert answers == {f"b{number}": f"echo: b{number}" for number in range(6)}
        for history in door.histories[1:]:
            assert [each.text for each in history][:2] == ["root", "echo: root"]
            assert len(history) == 3


async def test_an_older_response_that_awaited_its_client_can_be_answered_again(tmp_path: Path) -> None:
    def script(request: ModelRequest) -> Say:
        last = request.history[-1].message
        return Say(text=f"got {last.text}") if last.role == "tool" else Say(text="Wait.", calls=[CALL])

    door = ScriptedDoor(script)
    async with official(tmp_path, door) as (_, client):
        first = await client.responses.create(model="hermes", input="weather?", tools=[WEATHER])  # type: ignore[list-item]
        for output in ("rain", "sun"):
            made = await client.responses.create(
                model="hermes", previous_response_id=first.id,
                input=[{"type": "function_call_output", "call_id": "call_1", "output": output}],
            )  # fmt: skip
            assert made.output_text == f"got {output}"
            assert heard(door) == [("user", "weather?"), ("assistant", "Wait."), ("tool", output)]


async def test_a_failed_attempt_does_not_spoil_the_chain(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="one!"), Say(error=ModelUnavailable("down", status=503)), Say(text="two!")])
    async with official(tmp_path, door) as (_, client):
        first = await client.responses.create(model="hermes", input="one")
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="hermes", input="two", previous_response_id=first.id)
        again = await client.responses.create(model="hermes", input="two", previous_response_id=first.id)
        assert again.output_text == "two!"
        assert heard(door) == [("user", "one"), ("assistant", "one!"), ("user", "two")]


async def test_a_conversation_goes_on_under_its_name(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with official(tmp_path, door) as (api, client):
        first = await client.responses.create(model="hermes", input="one", conversation="trip")
        await client.responses.create(model="hermes", input="two", conversation={"id": "trip"})
        assert [text for _, text in heard(door)] == ["one", "echo: one", "two"]
        assert first.conversation is not None
        assert first.conversation.id == "trip"
        rows = await api.spine.rows("SELECT id, key, expires_at FROM sessions")
        assert len(rows) == 1
        assert rows[0][0].startswith("sess_")
        assert rows[0][1].endswith(":trip")
        assert rows[0][2] is None
        fork = await client.responses.create(model="hermes", input="three", previous_response_id=first.id)
        assert fork.output_text == "echo: three"
        assert [text for _, text in heard(door)] == ["one", "echo: one", "three"]


async def test_a_named_session_is_shared_with_the_other_routes(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with official(tmp_path, door) as (api, _):
        named = {"x-hermes-session-id": "desk"}
        await api.chat("one", headers=named)
        answer = await api.client.post("/v1/responses", json={"input": "two"}, headers=named)
        assert answer.headers["x-hermes-session-id"] == "desk"
        history = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "three"},
        ]
        await api.client.post("/v1/responses", json={"input": history}, headers=named)
        assert [text for _, text in heard(door)] == ["one", "echo: one", "two", "echo: two", "three"]


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_stream_events_of_the_sdk(tmp_path: Path) -> None:
    door = ScriptedDoor([
        Say(text="I look.", reasoning="hm", calls=[LOOK], streamed=True),
        Say(words=("It ", "is "), calls=[CALL], streamed=True),
    ])  # fmt: skip
    async with official(tmp_path, door) as (_, client):
        stream = await client.responses.create(model="hermes", input="hi", tools=[WEATHER], stream=True)  # type: ignore[list-item]
        events = [event async for event in stream]
        kinds = [event.type for event in events]
        assert kinds == [
            "response.created", "response.in_progress",
            "response.output_item.added", "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done", "response.reasoning_summary_part.done", "response.output_item.done",
            "response.output_item.added", "response.content_part.added", "response.output_text.delta",
            "response.output_text.done", "response.content_part.done", "response.output_item.done",
            "response.output_item.added", "response.content_part.added", "response.output_text.delta",
            "response.output_text.delta",
            "response.output_item.added", "response.function_call_arguments.delta", "response.function_call_arguments.delta",
            "response.output_text.done", "response.content_part.done", "response.output_item.done",
            "response.function_call_arguments.done", "response.output_item.done",
            "response.completed",
        ]  # fmt: skip
        assert [event.sequence_number for event in events] == list(range(len(events)))
        final = events[-1]
        assert final.type == "response.completed"
        done = [event.item for event in events if event.type == "response.output_item.done"]
        assert [item.model_dump() for item in done] == [item.model_dump() for item in final.response.output]
        kept = await client.responses.retrieve(final.response.id)
        assert kept.model_dump(exclude_none=True) == final.response.model_dump(exclude_none=True)


async def test_the_sdks_stream_helper_takes_it(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(words=("a", "b"), reasoning="r", calls=[CALL], streamed=True), Say(text="fine", calls=[])])
    async with official(tmp_path, door) as (_, client):
        async with client.responses.stream(model="hermes", input="hi", tools=[WEATHER]) as stream:  # type: ignore[list-item]
            snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert snapshots == ["a", "ab"]
        assert final.output_text == "ab"
        call = final.output[-1]
        assert call.type == "function_call"
        assert call.arguments == CALL.arguments


async def test_the_final_event_follows_the_commit(tmp_path: Path) -> None:
    async with official(tmp_path) as (api, client):
        stream = await client.responses.create(model="hermes", input="hi", stream=True)
        async for event in stream:
            if event.type == "response.completed":
                kept = await api.spine.store.responses.get(event.response.id, await principal(api))
                assert kept is not None
                assert kept.end.state == "done"


async def principal(api: ApiUnderTest) -> str:
    return str((await api.spine.rows("SELECT principal FROM inbox LIMIT 1"))[0][0])


async def test_failures_have_their_own_status_before_anything_was_shown(tmp_path: Path) -> None:
    for stream in (False, True):
        door = ScriptedDoor(
            [
                Say(error=ModelRefused("too long", status=400)),
                Say(error=ModelUnavailable("down", status=429, retry_after_s=7)),
            ]
        )
        (tmp_path / str(stream)).mkdir()
        async with official(tmp_path / str(stream), door) as (api, _):
            first = await api.client.post("/v1/responses", json={"input": "hi", "stream": stream})
            assert (first.status_code, first.json()["error"]["code"]) == (400, "upstream_rejected")
            second = await api.client.post("/v1/responses", json={"input": "hi", "stream": stream})
            assert (second.status_code, second.headers["retry-after"]) == (429, "7")
            assert await api.spine.rows("SELECT count(*) FROM responses") == [(0,)]


async def test_a_failure_after_words_were_shown_ends_the_stream_as_failed(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="Well", error=ModelUnavailable("cut", content_passed_on=True))])
    async with official(tmp_path, door) as (_, client):
        stream = await client.responses.create(model="hermes", input="hi", stream=True)
        events = [event async for event in stream]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error is not None
        assert events[-2].type == "response.output_item.done"


async def test_leaving_a_stream_ends_the_turn(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="Well", hold=hold)])
    async with official(tmp_path, door) as (api, client):
        stream = await client.responses.create(model="hermes", input="hi", stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        with trio.fail_after(10):
            while await api.spine.rows("SELECT 1 FROM inbox WHERE state = 'live'"):
                await trio.lowlevel.checkpoint()
        assert await api.spine.rows("SELECT state, reason FROM inbox") == [("interrupted", "the caller left")]


# -- repeats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_is_replayed_with_its_first_id(tmp_path: Path, stream: bool) -> None:
    door = ScriptedDoor(
        [Say(text="I look.", reasoning="hm", calls=[LOOK]), Say(words=("a", "b"), calls=[CALL], streamed=True)]
    )
    headers = {"idempotency-key": "k1"}
    body = {"input": "hi", "stream": stream, "tools": [WEATHER]}
    async with official(tmp_path, door) as (api, _):
        first = await api.client.post("/v1/responses", json=body, headers=headers)
        again = await api.client.post("/v1/responses", json=body, headers=headers)
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert len(door.requests) == 2
        finals = [final_of(each.text) if stream else each.json() for each in (first, again)]
        assert finals[0] == finals[1]
        if stream:
            done = [items_of(each.text) for each in (first, again)]
            assert done[0] == done[1] == finals[0]["output"]
        other = await api.client.post("/v1/responses", json={"input": "other"}, headers=headers)
        assert other.status_code == 422


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def final_of(text: str) -> dict[str, Any]:
    final = events_of(text)[-1]
    assert final["type"] == "response.completed"
    return dict(final["response"])


def items_of(text: str) -> list[dict[str, Any]]:
    return [each["item"] for each in events_of(text) if each["type"] == "response.output_item.done"]


async def test_chat_completions_go_on_in_the_session_that_a_conversation_named(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="first"), Say(calls=[CALL]), Say(text="sunny")])
    async with open_api(tmp_path, door) as api:

        async def complete(*messages: dict[str, Any]) -> httpx2.Response:
            function = {name: value for name, value in WEATHER.items() if name != "type"}
            body = {"model": "hermes", "messages": messages, "tools": [{"type": "function", "function": function}]}
            return await api.client.post("/v1/chat/completions", json=body, headers={"X-Hermes-Session-Id": session})

        made = await api.client.post("/v1/responses", json={"input": "one", "conversation": "c"})
        session = made.headers["x-hermes-session-id"]
        called = await complete({"role": "user", "content": "two"})
        assert called.json()["choices"][0]["message"]["tool_calls"][0]["id"] == CALL.id
        assert called.headers["x-hermes-session-id"] == session
        last = await complete({"role": "tool", "tool_call_id": CALL.id, "content": "21 degrees"})
        assert last.json()["choices"][0]["message"]["content"] == "sunny"
    assert heard(door)[:3] == [("user", "one"), ("assistant", "first"), ("user", "two")]


async def test_a_repeat_of_results_for_a_conversation_is_replayed(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(calls=[CALL]), Say(text="fine")])
    async with official(tmp_path, door) as (api, _):
        await api.client.post("/v1/responses", json={"input": "hi", "conversation": "c", "tools": [WEATHER]})
        results = {
            "input": [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}], "conversation": "c",
        }  # fmt: skip
        first = await api.client.post("/v1/responses", json=results, headers={"idempotency-key": "k"})
        again = await api.client.post("/v1/responses", json=results, headers={"idempotency-key": "k"})
        assert first.json() == again.json()
        assert first.json()["output"][0]["content"][0]["text"] == "fine"
