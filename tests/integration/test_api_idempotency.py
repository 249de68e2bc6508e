"""`Idempotency-Key`: replayed, joined, refused, freed; also across a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing

from hermes.context import TurnContext
from hermes.errors import ModelUnavailable
from hermes.messages import ToolCall
from hermes.testing.api import ApiUnderTest, open_api
from hermes.testing.door import Say, ScriptedDoor
from hermes.toolset import tool

KEYED = {"Idempotency-Key": "order-1"}


def words(answer: httpx2.Response) -> str:
    content = answer.json()["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def counting() -> tuple[ScriptedDoor, list[int]]:
    """A door that says which request this is."""
    seen: list[int] = []

    def say(_: object) -> Say:
        seen.append(1)
        return Say(text=f"answer {len(seen)}")

    return ScriptedDoor(say), seen


async def states(api: ApiUnderTest) -> list[str]:
    return [state for (state,) in await api.spine.rows("SELECT state FROM inbox ORDER BY id")]


async def until(api: ApiUnderTest, holds: Callable[[list[str]], bool]) -> None:
    while not holds(await states(api)):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("headers", [KEYED, {**KEYED, "X-Hermes-Session-Id": "s"}])
async def test_a_completed_answer_is_replayed_exactly(tmp_path: Path, headers: dict[str, str]) -> None:
    door, seen = counting()
    async with open_api(tmp_path, door) as api:
        first = await api.chat(headers=headers)
        again = await api.chat(headers=headers)
        assert again.content == first.content
        assert again.headers["x-hermes-session-id"] == first.headers["x-hermes-session-id"]
        assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    async with open_api(tmp_path, door) as api:
        assert (await api.chat(headers=headers)).content == first.content
        assert len(seen) == 1
        assert await states(api) == ["answered"]


async def test_a_stream_is_replayed_as_a_stream(tmp_path: Path) -> None:
    door, seen = counting()
    async with open_api(tmp_path, door) as api:
        answers = [await api.chat(headers=KEYED, stream=True) for _ in range(2)]
        for answer in answers:
            assert '"content":"answer 1"' in answer.text
            assert answer.text.endswith("data: [DONE]\n\n")
        assert len(seen) == 1


async def test_a_key_belongs_to_one_body_and_one_session(tmp_path: Path) -> None:
    door, seen = counting()
    async with open_api(tmp_path, door) as api:
        await api.chat("one", headers=KEYED)
        for other in (
            await api.chat("two", headers=KEYED),
            await api.chat("one", headers={**KEYED, "X-Hermes-Session-Id": "s"}),
        ):
            assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert words(await api.chat("two", headers={"Idempotency-Key": "order-2"})) == "answer 2"
        assert len(seen) == 2


async def test_a_second_request_waits_for_the_turn_in_flight(tmp_path: Path) -> None:
    held = trio.Event()
    door = ScriptedDoor([Say(text="once", hold=held)])
    answers: list[str] = []
    async with open_api(tmp_path, door) as api:

        async def ask() -> None:
            answers.append(words(await api.chat(headers=KEYED)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await door.asking.wait()
            nursery.start_soon(ask)
            while api.spine.sessions.statistics().attended < 2:
                await trio.lowlevel.checkpoint()
            held.set()
        assert answers == ["once", "once"]
        assert len(door.requests) == 1


async def test_the_turn_is_cancelled_when_the_last_who_waits_has_gone(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="begun", hold=trio.Event()), Say(text="anew")])
    async with open_api(tmp_path, door) as api:
        async with trio.open_nursery() as first, trio.open_nursery() as second:
            first.start_soon(lambda: api.chat(headers=KEYED))
            await door.asking.wait()
            second.start_soon(lambda: api.chat(headers=KEYED))
            while api.spine.sessions.statistics().attended < 2:
                await trio.lowlevel.checkpoint()
            first.cancel_scope.cancel()
            while api.spine.sessions.statistics().attended > 1:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert await states(api) == ["live"]
            second.cancel_scope.cancel()
        await until(api, lambda found: found == ["interrupted"])
        assert words(await api.chat(headers=KEYED)) == "anew"


async def test_a_failed_turn_frees_the_key(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(error=ModelUnavailable("down", status=503)), Say(text="fine")])
    async with open_api(tmp_path, door) as api:
        assert (await api.chat(headers=KEYED)).status_code == 502
        assert words(await api.chat(headers=KEYED)) == "fine"


async def test_a_refused_request_does_not_take_the_key(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        assert (await api.chat(headers=KEYED, n=2)).status_code == 400
        assert (await api.chat(headers=KEYED, model="none")).status_code == 404
        assert words(await api.chat(headers=KEYED)) == "echo: hi"


@pytest.mark.parametrize("died", [False, True])
async def test_a_turn_that_changed_something_is_not_run_again(tmp_path: Path, died: bool) -> None:
    ran: list[int] = []

    @tool(read_only=False)
    async def pay(context: TurnContext) -> str:
        """Pay."""
        ran.append(1)
        return "paid"

    call = ToolCall("c", "pay", "{}")
    door = ScriptedDoor([Say(calls=[call]), Say(error=ModelUnavailable("down", status=503))])
    async with open_api(tmp_path, door, tools=(pay,)) as api:
        assert (await api.chat(headers=KEYED)).status_code == 502
        if not died:
            again = await api.chat(headers=KEYED)
            assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_outcome_unknown")
    async with open_api(tmp_path, door, tools=(pay,)) as api:
        assert (await api.chat(headers=KEYED)).status_code == 409
        assert len(ran) == 1


async def test_results_of_the_clients_functions_are_replayed_too(tmp_path: Path) -> None:
    """The session has the results already when the request comes again: that is no result of an unknown call."""
    function = {"type": "function", "function": {"name": "f"}}
    door = ScriptedDoor([Say(calls=[ToolCall("c", "f", "{}")]), Say(text="done")])
    named = {"X-Hermes-Session-Id": "s"}
    async with open_api(tmp_path, door) as api:
        await api.chat(tools=[function], headers=named)
        result = [{"role": "tool", "tool_call_id": "c", "content": "r"}]
        answers = [await api.chat(messages=result, headers={**named, **KEYED}) for _ in range(2)]
        assert [words(answer) for answer in answers] == ["done", "done"]
        assert len(door.requests) == 2
