"""Chat completions over real HTTP: answers, streams, sessions, the client's own functions, limits, hang-ups."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
import trio.testing

from hermes.agent.calls import CallDelta, Deadlines, ModelReply, ModelRequest, OnDelta, ReasoningDelta, TextDelta
from hermes.context import TurnContext
from hermes.errors import ContextOverflow, ModelUnavailable
from hermes.intake import Payload
from hermes.messages import Message, Reasoning, Text, ToolCall, Usage, tool_result
from hermes.messages import user as said_by_user
from hermes.settings import Endpoint, HttpConfig, ModelConfig, SessionsConfig
from hermes.testing.api import ApiUnderTest, open_api
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.spine import intake
from hermes.toolset import tool

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = ToolCall(id="call_1", name="weather", arguments='{"city":"Oslo"}')


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def data_of(text: str) -> list[Any]:
    """The events of a stream, `[DONE]` as it is."""
    found = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in found]


def deltas_of(events: list[Any]) -> list[dict[str, Any]]:
    return [event["choices"][0]["delta"] for event in events if event != "[DONE]" and event["choices"]]


@asynccontextmanager
async def streaming(api: ApiUnderTest, **body: Any) -> AsyncIterator[httpx2.Response]:
    base = {"model": "hermes", "messages": [user("hi")], "stream": True}
    headers = body.pop("headers", None)
    async with api.client.stream("POST", "/v1/chat/completions", json={**base, **body}, headers=headers) as response:
        yield response


async def states(api: ApiUnderTest) -> list[str]:
    return [state for (state,) in await api.spine.rows("SELECT state FROM inbox ORDER BY id")]


async def until_ended(api: ApiUnderTest, key: str) -> None:
    """Wait until nothing waits in a mailbox."""
    query = "SELECT count(*) FROM inbox WHERE session_key = ? AND finished_at IS NULL"
    while (await api.spine.rows(query, key)) != [(0,)]:
        await trio.lowlevel.checkpoint()


async def until(api: ApiUnderTest, *wanted: str) -> None:
    """Wait until the rows of the inbox are in these states."""
    while (await states(api)) != list(wanted):
        await trio.lowlevel.checkpoint()


class Pieces:
    """A door that passes on the deltas it is given, and ends with the reply they make."""

    def __init__(self, *replies: tuple[list[Any], Message, str]) -> None:
        self.replies = list(replies)

    async def ask(
        self, request: ModelRequest, *, endpoint: Endpoint | None, deadlines: Deadlines, on_delta: OnDelta
    ) -> ModelReply:
        deltas, message, finish = self.replies.pop(0)
        for delta in deltas:
            await trio.lowlevel.checkpoint()
            on_delta(delta)
        usage = Usage(input_tokens=10, output_tokens=5, cached_tokens=3, reasoning_tokens=2)
        return ModelReply(message=message, finish_reason=finish, usage=usage, model="m", endpoint="e")


async def test_an_answer_has_every_part_of_a_completion(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.chat("hello")
        assert answer.status_code == 200
        body = answer.json()
        assert body["id"].startswith("chatcmpl-")
        assert (body["object"], body["model"]) == ("chat.completion", "hermes")
        assert isinstance(body["created"], int)
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "echo: hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0
        assert answer.headers["x-hermes-session-id"].startswith("chat_")


async def test_a_stream_begins_with_the_role_and_ends_after_the_commit(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        async with streaming(api, stream_options={"include_usage": True}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-hermes-session-id"].startswith("chat_")
            text = ""
            async for piece in response.aiter_text():
                text += piece
                if "[DONE]" in text:
                    assert await states(api) == ["answered"]
        events = data_of(text)
        assert deltas_of(events)[0] == {"role": "assistant", "content": "", "refusal": None}
        assert "".join(delta.get("content") or "" for delta in deltas_of(events)) == "echo: hi"
        assert events[-1] == "[DONE]"
        assert events[-2]["choices"] == []
        assert events[-2]["usage"]["total_tokens"] > 0
        assert events[-3]["choices"][0]["finish_reason"] == "stop"
        assert all(event["usage"] is None for event in events[:-2])


async def test_reasoning_and_token_details_are_kept(tmp_path: Path) -> None:
    message = Message(role="assistant", parts=(Reasoning(text="hm, so"), Text("yes")))
    deltas = [ReasoningDelta("hm,"), ReasoningDelta(" so"), TextDelta("ye"), TextDelta("s")]
    async with open_api(tmp_path, Pieces((deltas, message, "stop"), (deltas, message, "stop"))) as api:
        body = (await api.chat()).json()
        assert body["choices"][0]["message"]["reasoning_content"] == "hm, so"
        assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
        assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
        async with streaming(api) as response:
            found = deltas_of(data_of((await response.aread()).decode()))
        assert "".join(delta.get("reasoning_content", "") for delta in found) == "hm, so"
        assert "".join(delta.get("content") or "" for delta in found) == "yes"


async def test_only_the_clients_own_calls_are_shown(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def clock(context: TurnContext) -> str:
        """Tell the time."""
        return "noon"

    ours = ToolCall(id="call_0", name="clock", arguments="{}")
    deltas = [
        TextDelta("Let me look."),
        CallDelta(0, "call_0", "clock"), CallDelta(0, arguments="{}"),
        CallDelta(1, "call_1", "weather"), CallDelta(1, arguments='{"city":'), CallDelta(1, arguments='"Oslo"}'),
    ]  # fmt: skip
    message = Message(role="assistant", parts=(Text("Let me look."),), tool_calls=(ours, CALL))
    async with open_api(tmp_path, Pieces((deltas, message, "tool_calls")), tools=(clock,)) as api:
        async with streaming(api, tools=[WEATHER]) as response:
            events = data_of((await response.aread()).decode())
        pieces = [piece for delta in deltas_of(events) for piece in delta.get("tool_calls", ())]
        assert pieces[0]["id"] == "call_1"
        assert pieces[0]["type"] == "function"
        assert {piece["index"] for piece in pieces} == {0}
        assert "".join(piece["function"]["arguments"] for piece in pieces) == CALL.arguments
        assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_words_of_steps_are_kept_apart(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def clock(context: TurnContext) -> str:
        """Tell the time."""
        return "noon"

    door = ScriptedDoor([Say(text="Looking.", calls=[ToolCall("c", "clock", "{}")]), Say(text="It is noon.")])
    async with open_api(tmp_path, door, tools=(clock,)) as api:
        async with streaming(api) as response:
            events = data_of((await response.aread()).decode())
        words = "".join(delta.get("content") or "" for delta in deltas_of(events))
        assert words == "Looking.\n\nIt is noon."
        assert not any("tool_calls" in delta for delta in deltas_of(events))


@pytest.mark.parametrize("named", [True, False])
async def test_the_clients_function_is_handed_back_and_its_result_taken(tmp_path: Path, named: bool) -> None:
    headers = {"X-Hermes-Session-Id": "trip"} if named else None
    door = ScriptedDoor([Say(calls=[CALL]), Say(text="Rain.")])
    async with open_api(tmp_path, door) as api:
        first = (await api.chat("weather?", tools=[WEATHER], headers=headers)).json()["choices"][0]
        assert first["finish_reason"] == "tool_calls"
        assert first["message"]["content"] is None
        assert first["message"]["tool_calls"] == [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": CALL.arguments}}
        ]
        said = [user("weather?"), first["message"], {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
        second = await api.chat(messages=said, tools=[WEATHER], headers=headers)
        assert second.json()["choices"][0]["message"]["content"] == "Rain."
        roles = [(message.role, message.text) for message in door.histories[-1]]
        assert roles == [("user", "weather?"), ("assistant", ""), ("tool", "rain")]


async def test_a_named_session_takes_the_result_alone(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(calls=[CALL]), Say(text="Rain.")])
    headers = {"X-Hermes-Session-Id": "trip"}
    async with open_api(tmp_path, door) as api:
        await api.chat("weather?", tools=[WEATHER], headers=headers)
        wrong = [{"role": "tool", "tool_call_id": "call_9", "content": "?"}]
        refused = await api.chat(messages=wrong, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_tool_call")
        assert await states(api) == ["answered"]
        alone = [{"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
        assert (await api.chat(messages=alone, headers=headers)).status_code == 200
        for elsewhere in ({"X-Hermes-Session-Id": "other"}, None):
            assert (await api.chat(messages=alone, headers=elsewhere)).status_code == 400


async def test_what_cannot_be_done_is_told_apart_from_what_was_not_done(tmp_path: Path) -> None:
    """Results that the client does not bring are recorded as not provided, and the conversation goes on."""
    door = ScriptedDoor([Say(calls=[CALL]), Say(text="Well.")])
    headers = {"X-Hermes-Session-Id": "trip"}
    async with open_api(tmp_path, door) as api:
        await api.chat("weather?", tools=[WEATHER], headers=headers)
        assert (await api.chat("never mind", headers=headers)).status_code == 200
        assert [message.role for message in door.histories[-1]] == ["user", "assistant", "tool", "user"]
        assert "not provided" in door.histories[-1][2].text


async def test_without_a_session_the_clients_history_is_the_history(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door) as api:
        said = [
            {"role": "system", "content": "Be brief."},
            user("one"),
            {"role": "assistant", "content": "1"},
            {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
            user("two"),
        ]
        first = await api.chat(messages=said)
        second = await api.chat(messages=said)
        assert first.headers["x-hermes-session-id"] != second.headers["x-hermes-session-id"]
        for history in door.histories:
            assert [(message.role, message.text) for message in history] == [
                ("user", "one"), ("assistant", "1"), ("user", "two")
            ]  # fmt: skip
        assert "Be brief.\n\nIn French." in door.requests[0].system
        assert await api.spine.rows("SELECT count(*) FROM sessions WHERE expires_at IS NULL") == [(0,)]


async def test_a_named_session_keeps_its_own_history(tmp_path: Path) -> None:
    door = ScriptedDoor()
    headers = {"X-Hermes-Session-Id": "a.b:c@d-E_1"}
    async with open_api(tmp_path, door) as api:
        begun = [user("zero"), {"role": "assistant", "content": "0"}, user("one")]
        first = await api.chat(messages=begun, headers=headers)
        assert first.headers["x-hermes-session-id"] == "a.b:c@d-E_1"
        forged = [user("never said"), {"role": "assistant", "content": "nor this"}, user("two")]
        assert (await api.chat(messages=forged, headers=headers)).status_code == 200
        assert [message.text for message in door.histories[-1]] == ["zero", "0", "one", "echo: one", "two"]


async def test_a_history_whose_calls_lost_their_results_can_be_gone_on_with(tmp_path: Path) -> None:
    """The request that brought the results was left before it began; the next one may bring them again, or not."""
    held = trio.Event()
    door = ScriptedDoor([Say(text="first", hold_before=held)])
    begun = (said_by_user("go"), Message(role="assistant", tool_calls=(ToolCall("c", "f", "{}"),)))
    results = Payload(messages=(tool_result(begun[1].tool_calls[0], "r"),))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    again = [
        user("go"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    async with open_api(tmp_path, door, sessions=SessionsConfig(max_live=1)) as api:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.chat)
            await door.asking.wait()  # the one place is taken: nothing else begins
            for key in ("a", "b"):
                async with api.spine.sessions.attend(intake("", key, payload=results, prefix=begun)):
                    pass
            held.set()
        for key, messages in (("a", again), ("b", [user("on")])):
            await until_ended(api, key)
            answer = await api.chat(messages=messages, headers={"X-Hermes-Session-Id": key})
            assert answer.status_code == 200, answer.text
        _, first, second = door.histories
        assert [message.text for message in first] == ["go", "", "r"]
        assert [message.role for message in second] == ["user", "assistant", "tool", "user"]
        assert "not provided" in second[2].text


async def test_images_sound_and_names_reach_the_model_unfetched(tmp_path: Path) -> None:
    door = ScriptedDoor()
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://pictures.invalid/1.png"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    async with open_api(tmp_path, door) as api:
        assert (await api.chat(messages=[{"role": "user", "name": "ann", "content": parts}])).status_code == 200
        (seen,) = door.histories[0]
        assert [type(part).__name__ for part in seen.parts] == ["Text", "Image", "Image", "Audio"]
        assert seen.name == "ann"
        assert (seen.parts[1].detail, seen.parts[2].url) == ("low", "https://pictures.invalid/1.png")  # type: ignore[union-attr]


async def test_options_are_passed_on(tmp_path: Path) -> None:
    door = ScriptedDoor()
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "unheard-of": 1}}}
    async with open_api(tmp_path, door) as api:
        answer = await api.chat(
            temperature=0.5, top_p=1, stop="END", seed=7, max_tokens=10, max_completion_tokens=20, reasoning_effort="low",
            frequency_penalty=-1, presence_penalty=1.5, response_format=form, tools=[WEATHER], parallel_tool_calls=False,
            tool_choice={"type": "function", "function": {"name": "weather"}}, n=1, user="u", metadata={"a": "b"},
            store=False, logprobs=False, service_tier="auto",
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        options = door.requests[0].options
        assert (options.temperature, options.top_p, options.stop, options.seed) == (0.5, 1, ("END",), 7)
        assert (options.max_output_tokens, options.reasoning_effort) == (20, "low")
        assert (options.frequency_penalty, options.presence_penalty) == (-1, 1.5)
        assert options.response_format == form
        assert options.parallel_tool_calls is False
        assert options.tool_choice == {"type": "function", "function": {"name": "weather"}}
        assert [each.name for each in door.requests[0].tools] == ["weather"]
        assert api.services.counts["unknown_fields"] == 0
        await api.chat(wibble=1, messages=[{**user("x"), "wobble": 2}])
        assert api.services.counts["unknown_fields"] == 2


async def test_models_are_asked_for_by_name(tmp_path: Path) -> None:
    model = ModelConfig(
        primary=Endpoint(model="big"), fallback=(Endpoint(model="small"),), aliases=(("a/b", Endpoint(model="other")),)
    )
    async with open_api(tmp_path, model=model) as api:
        listing = (await api.client.get("/v1/models")).json()
        assert [each["id"] for each in listing["data"]] == ["hermes", "big", "small", "a/b"]
        assert (await api.client.get("/v1/models/a/b")).json()["id"] == "a/b"
        for path in ("/v1/models/none", "/v1/models/%00", "/v1/models/%ff"):
            missing = await api.client.get(path)
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
        assert (await api.chat(model="a/b")).json()["model"] == "a/b"
        refused = await api.chat(model="gpt-nothing")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert await states(api) == ["answered"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelUnavailable("busy", status=429, retry_after_s=3.2), 429, "rate_limit_exceeded"),
        (ModelUnavailable("down", status=503), 502, "upstream_unavailable"),
        (ContextOverflow("too long"), 400, "context_length_exceeded"),
        (KeyError("a bug"), 500, "internal_error"),
    ],
)
async def test_a_failed_turn_has_its_own_status(
    tmp_path: Path, stream: bool, error: Exception, status: int, code: str
) -> None:
    async with open_api(tmp_path, ScriptedDoor([Say(error=error)])) as api:
        answer = await api.chat(stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers.get("retry-after") == ("4" if status == 429 else None)
        assert answer.headers["x-hermes-session-id"].startswith("chat_")


async def test_a_stream_that_fails_later_says_so_and_is_not_done(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="half a", error=ModelUnavailable("cut", status=502))])
    async with open_api(tmp_path, door) as api:
        async with streaming(api) as response:
            assert response.status_code == 200
            events = data_of((await response.aread()).decode())
        assert deltas_of(events[:-1])[-1]["content"] == "half a"
        assert events[-1]["error"]["code"] == "upstream_unavailable"


async def test_a_silent_stream_is_kept_alive(tmp_path: Path) -> None:
    held = trio.Event()
    door = ScriptedDoor([Say(text="late", hold_before=held)])
    async with open_api(tmp_path, door, http=HttpConfig(keepalive_s=0.01)) as api:
        async with streaming(api) as response:
            pieces = response.aiter_raw()
            seen = b""
            while seen.count(b": keepalive\n\n") < 2:
                seen += await anext(pieces)
            held.set()
            seen += b"".join([piece async for piece in pieces])
        assert seen.startswith(b"data: ")
        events = data_of(seen.decode())
        assert "".join(delta.get("content") or "" for delta in deltas_of(events)) == "late"
        assert events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_who_hangs_up_ends_the_turn(tmp_path: Path, stream: bool) -> None:
    door = ScriptedDoor([Say(text="begun", hold=trio.Event())])
    async with open_api(tmp_path, door) as api:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: api.chat(stream=stream, headers={"X-Hermes-Session-Id": "s"}))
            await door.asking.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        await until(api, "interrupted")
        assert not api.errors
        answer = await api.chat("again", headers={"X-Hermes-Session-Id": "s"})
        assert answer.status_code == 200
        assert "interrupted: the caller left" in door.histories[-1][1].text


async def test_requests_of_a_session_wait_in_line_until_there_are_too_many(tmp_path: Path) -> None:
    held = trio.Event()
    door = ScriptedDoor(lambda request: Say(text="ok", hold_before=held))
    headers = {"X-Hermes-Session-Id": "s"}
    answers: list[int] = []

    async def ask() -> None:
        answers.append((await api.chat(headers=headers)).status_code)

    async with open_api(tmp_path, door, sessions=SessionsConfig(max_queued=2)) as api:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await door.asking.wait()
            for count in (1, 2):
                nursery.start_soon(ask)
                await until(api, "live", *["pending"] * count)
            refused = await api.chat(headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_busy")
            held.set()
        assert answers == [200, 200, 200]


async def test_too_many_turns_at_once_are_refused(tmp_path: Path) -> None:
    held = trio.Event()
    door = ScriptedDoor(lambda request: Say(text="ok", hold_before=held))
    async with open_api(tmp_path, door, http=HttpConfig(max_concurrent_turns=1)) as api:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.chat)
            await door.asking.wait()
            refused = await api.chat()
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"]["type"] == "rate_limit_error"
            held.set()


async def test_what_is_not_open_answers_503(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        for part in ("sessions", "store"):
            setattr(api.services, part, None)
            answer = await api.chat()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
            assert "retry-after" in answer.headers


async def test_a_turn_that_is_stopped_is_a_conflict(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="begun", hold=trio.Event())])
    async with open_api(tmp_path, door) as api:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answer = await api.chat(headers={"X-Hermes-Session-Id": "s"})
                assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stopped")

            nursery.start_soon(ask)
            await door.asking.wait()
            assert await api.spine.sessions.stop("s", "evt_stop") == 1
