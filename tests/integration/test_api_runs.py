"""`/v1/runs` over real HTTP: started, followed from anywhere, stopped, and resumed by the next process."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.errors import ModelUnavailable
from hermes.http.api import runs
from hermes.messages import ToolCall
from hermes.settings import HttpConfig
from hermes.store.turns import RESUME_GAP
from hermes.testing.api import ApiUnderTest, open_api
from hermes.testing.door import Say, ScriptedDoor
from hermes.toolset import Tool, tool

pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator:ResourceWarning"
)  # httpx2, where a stream is left early

LOOK = ToolCall("call_1", "look", "{}")
Event = tuple[int | None, str, Any]


@tool(read_only=True)
async def look(context: Any) -> str:
    """Look around."""
    return "all quiet"


def events_of(text: str) -> list[Event]:
    """The named events of a stream, as (id, name, data)."""
    found: list[Event] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append((number, fields["event"], json.loads(fields["data"])))
    return found


def said(events: list[Event]) -> str:
    return "".join(data["delta"] for _, name, data in events if name == "message.delta")


def numbers(events: list[Event]) -> list[int]:
    return [number for number, _, _ in events if number is not None]


async def start(
    api: ApiUnderTest, text: Any = "go", *, headers: dict[str, str] | None = None, **body: Any
) -> dict[str, Any]:
    answer = await api.client.post("/v1/runs", json={"input": text, **body}, headers=headers)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def status(api: ApiUnderTest, run_id: str) -> dict[str, Any]:
    return dict((await api.client.get(f"/v1/runs/{run_id}")).json())


async def wait_over(api: ApiUnderTest, run_id: str) -> dict[str, Any]:
    """Follow a run to its end, then its status."""
    await api.client.get(f"/v1/runs/{run_id}/events")
    return await status(api, run_id)


class Follower:
    """Reads a stream event by event."""

    def __init__(self, pieces: AsyncIterator[str]) -> None:
        self.events: list[Event] = []
        self.text = ""
        self._pieces = pieces

    async def until(self, name: str) -> Event:
        async for piece in self._pieces:
            self.text += piece
            self.events = events_of(self.text[: self.text.rfind("\n\n") + 2])
            if found := [event for event in self.events if event[1] == name]:
                return found[-1]
        raise AssertionError(f"the stream ended without {name}: {self.text}")


@asynccontextmanager
async def following(api: ApiUnderTest, run_id: str, after: int = 0) -> AsyncIterator[Follower]:
    async with api.client.stream("GET", f"/v1/runs/{run_id}/events", params={"after": after}) as response:
        assert response.status_code == 200
        async with aclosing(response.aiter_text()) as pieces:
            yield Follower(pieces)


async def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    door = ScriptedDoor(
        [Say(text="I look.", reasoning="hm", calls=[LOOK], streamed=True), Say(words=("All ", "quiet."))]
    )
    async with open_api(tmp_path, door, tools=(look,)) as api:
        run = await start(api, instructions="Be brief.", model="hermes")
        assert run["status"] in ("queued", "running", "completed")
        answer = await api.client.get(f"/v1/runs/{run['run_id']}/events")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-hermes-session-id"] == run["session_id"]
        events = events_of(answer.text)
        assert [name for _, name, _ in events] == [
            "run.started", "reasoning.delta", "message.delta", "tool.started", "tool.completed", "step",
            "message.delta", "run.completed",
        ]  # fmt: skip
        assert numbers(events) == sorted(set(numbers(events)))
        shown = events[4][2]
        assert (shown["name"], shown["ok"], shown["preview"]) == ("look", True, "all quiet")
        final = events[-1][2]
        assert (final["output"], final["finish_reason"], final["error"]) == ("All quiet.", "stop", None)
        assert final["usage"]["total_tokens"] > 0
        assert await status(api, run["run_id"]) == final
        assert "Be brief." in door.requests[0].system
        messages = (await api.client.get(f"/api/sessions/{run['session_id']}/messages")).json()["data"]
        assert [each["role"] for each in messages] == ["user", "assistant", "tool", "assistant"]
        assert not api.errors


async def test_every_place_to_go_on_from_gives_the_rest_once(tmp_path: Path) -> None:
    words = tuple(f"{letter} " for letter in "abcdefgh")
    door = ScriptedDoor([Say(words=words, reasoning="hm", calls=[LOOK]), Say(words=words)])
    # The numbers are those of the turn's own events: a thought, 8 words, a call's two, a step, 8 words, the end.
    texts = dict.fromkeys(range(1, 22), "") | {2 + n: word for n, word in enumerate(words)}
    texts |= {13 + n: word for n, word in enumerate(words)}
    async with open_api(tmp_path, door, tools=(look,)) as api:
        run = await start(api)
        await wait_over(api, run["run_id"])
        assert len(await api.spine.rows("SELECT 1 FROM run_events")) < 10  # neighbours are kept together
        for number in range(22):
            headers = {"last-event-id": str(number)}
            rest = events_of((await api.client.get(f"/v1/runs/{run['run_id']}/events", headers=headers)).text)
            assert said(rest) == "".join(texts[each] for each in texts if each > number)
            assert all(each > number for each in numbers(rest))
            assert numbers(rest)[-1:] == ([21] if number < 21 else [])
            assert [name for _, name, _ in rest[-1:]] == (["run.completed"] if number < 21 else [])


async def test_leaving_and_coming_back_loses_nothing(tmp_path: Path) -> None:
    first, second = trio.Event(), trio.Event()
    door = ScriptedDoor([Say(words=("a", "b"), hold=first, calls=[LOOK]), Say(words=("c", "d"), hold=second)])
    async with open_api(tmp_path, door, tools=(look,)) as api:
        run = await start(api)
        async with following(api, run["run_id"]) as one:
            await one.until("message.delta")
        assert (await status(api, run["run_id"]))["status"] == "running"
        first.set()
        async with (
            following(api, run["run_id"], max(numbers(one.events))) as two,
            following(api, run["run_id"]) as all_of_it,
        ):
            await two.until("step")
            second.set()
            await two.until("run.completed")
            await all_of_it.until("run.completed")
        assert said(one.events) + said(two.events) == said(all_of_it.events) == "abcd"
        assert numbers(all_of_it.events) == sorted(set(numbers(all_of_it.events)))


async def test_a_queued_run_can_be_followed_before_it_begins(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="one", hold=hold), Say(text="two")])
    async with open_api(tmp_path, door) as api:
        one = await start(api, session_id="desk")
        await door.asking.wait()
        two = await start(api, session_id="desk")
        assert two["session_id"] == "desk"
        assert two["status"] == "queued"
        async with following(api, two["run_id"]) as follower:
            await follower.until("run.started")
            hold.set()
            final = await follower.until("run.completed")
        assert final[2]["output"] == "two"
        assert (await status(api, one["run_id"]))["output"] == "one"
        assert [each.text for each in door.histories[-1]] == ["go", "one", "go"]


@pytest.mark.parametrize("queued", [False, True])
async def test_stop(tmp_path: Path, queued: bool) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="half", hold=hold)])
    async with open_api(tmp_path, door) as api:
        one = await start(api, session_id="desk")
        await door.asking.wait()
        target = await start(api, session_id="desk") if queued else one
        async with following(api, target["run_id"]) as follower:
            await follower.until("run.started" if queued else "message.delta")
            stopped = await api.client.post(f"/v1/runs/{target['run_id']}/stop")
            assert stopped.status_code == 200
            final = await follower.until("run.cancelled")
        assert final[2]["error"]["code"] == "stopped"
        assert (await status(api, target["run_id"]))["status"] == "cancelled"
        again = await api.client.post(f"/v1/runs/{target['run_id']}/stop")
        assert (again.status_code, again.json()["status"]) == (200, "cancelled")
        if queued:
            assert (await status(api, one["run_id"]))["status"] == "running"
            hold.set()
            assert (await wait_over(api, one["run_id"]))["status"] == "completed"


async def test_a_failed_run_says_why(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(error=ModelUnavailable("down", status=503))])
    async with open_api(tmp_path, door) as api:
        run = await start(api)
        final = events_of((await api.client.get(f"/v1/runs/{run['run_id']}/events")).text)[-1]
        assert final[1] == "run.failed"
        assert final[2]["error"]["code"] == "upstream_unavailable"
        assert final[2]["output"] is None


async def test_a_key_names_one_run(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="once", hold=hold)])
    async with open_api(tmp_path, door) as api:
        headers = {"idempotency-key": "k"}
        first = await start(api, headers=headers)
        second = await start(api, headers=headers)
        hold.set()
        await wait_over(api, first["run_id"])
        third = await start(api, headers=headers)
        assert {each["run_id"] for each in (first, second, third)} == {first["run_id"]}
        assert {each["session_id"] for each in (first, second, third)} == {first["session_id"]}
        assert third["status"] == "completed"
        assert len(door.requests) == 1
        other = await api.client.post("/v1/runs", json={"input": "other"}, headers=headers)
        assert other.status_code == 422


async def test_a_history_is_taken_along(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door) as api:
        history = [
            {"role": "system", "content": "Be Bob."}, {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"},
        ]  # fmt: skip
        run = await start(api, history, session_id="desk")
        await wait_over(api, run["run_id"])
        assert [each.text for each in door.histories[-1]] == ["one", "two", "three"]
        assert "Be Bob." in door.requests[-1].system
        run = await start(
            api, [*history[:3], {"role": "user", "content": "four"}], headers={"x-hermes-session-id": "desk"}
        )
        await wait_over(api, run["run_id"])
        assert [each.text for each in door.histories[-1]] == ["one", "two", "three", "echo: three", "four"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": 3}, "input"),
    ({"input": "x", "tools": [{}]}, "tools"),
    ({"input": "x", "previous_response_id": "r"}, "previous_response_id"),
    ({"input": "x", "session_id": "no/slashes"}, "session_id"),
    ({"input": "x", "session_id": 5}, "session_id"),
    ({"input": "x", "instructions": 5}, "instructions"),
    ({"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "input"),
]


async def test_bad_requests_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_api(tmp_path) as api:
        for body, path in BAD:
            answer = await api.client.post("/v1/runs", json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, path), body
        model = await api.client.post("/v1/runs", json={"input": "x", "model": "none"})
        assert (model.status_code, model.json()["error"]["code"]) == (404, "model_not_found")
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/stop")):
            answer = await api.client.request(method, f"/v1/runs/run_none{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "run_not_found")
        answer = await api.client.get("/v1/runs/x/events", headers={"last-event-id": "ten"})
        assert answer.status_code == 400
        monkeypatch.setattr(runs, "MAX_OPEN", 0)
        answer = await api.client.post("/v1/runs", json={"input": "x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert await api.spine.rows("SELECT 1 FROM inbox UNION SELECT 1 FROM sessions") == []
        assert not api.errors


async def test_silence_is_filled_and_head_does_not_wait(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="late", hold_before=hold)])
    async with open_api(tmp_path, door, http=HttpConfig(keepalive_s=0.01)) as api:
        run = await start(api)
        head = await api.client.head(f"/v1/runs/{run['run_id']}/events")
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        async with api.client.stream("GET", f"/v1/runs/{run['run_id']}/events") as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                if text.count(": keepalive") == 3:
                    hold.set()
        assert events_of(text)[-1][1] == "run.completed"


# -- the next process --------------------------------------------------------------------------------------------------


class Written:
    """A tool with side effects, and how often it ran."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate: trio.Event | None = None

    def tools(self) -> tuple[Tool, ...]:
        @tool(read_only=False)
        async def write(context: Any) -> str:
            """Write something down."""
            self.runs += 1
            if self.gate is not None:
                await self.gate.wait()
            return "written"

        return (write,)


WRITE = ToolCall("call_w", "write", "{}")


@pytest.mark.parametrize("killed", [False, True])
async def test_a_run_is_resumed_by_the_next_process(tmp_path: Path, killed: bool) -> None:
    """A root cancel, or a death at which only what was committed is left: then the files as they were are the evidence."""
    written, home, after = Written(), tmp_path / "one", tmp_path / "two"
    home.mkdir()
    door = ScriptedDoor([Say(text="I write.", calls=[WRITE]), Say(text="half of the", hold=trio.Event())])
    with trio.CancelScope() as root:
        async with open_api(home, door, tools=written.tools()) as api:
            run = await start(api)
            async with following(api, run["run_id"]) as follower:
                await follower.until("step")
                while said(follower.events) != "I write.half of the":
                    await follower.until("message.delta")
                if killed:
                    shutil.copytree(home, after)
            root.cancel()
    if not killed:
        shutil.copytree(home, after)
    seen = max(numbers(follower.events))

    door = ScriptedDoor([Say(text="It is done.")])
    async with open_api(after, door, tools=written.tools()) as api:
        answer = await api.client.get(f"/v1/runs/{run['run_id']}/events", headers={"last-event-id": str(seen)})
        rest = events_of(answer.text)
        assert [name for _, name, _ in rest] == ["run.resumed", "message.delta", "run.completed"]
        assert numbers(rest)[0] >= RESUME_GAP
        assert rest[-1][2]["output"] == "It is done."
        assert written.runs == 1
        roles = [(each.role, each.text) for each in door.histories[0]]
        assert roles == [("user", "go"), ("assistant", "I write."), ("tool", "written")]
        stored = events_of((await api.client.get(f"/v1/runs/{run['run_id']}/events")).text)
        assert numbers(stored) == sorted(set(numbers(stored)))
        assert numbers(stored)[-1] == numbers(rest)[-1]
        assert await api.spine.rows("SELECT state FROM inbox") == [("answered",)]


async def test_a_tool_that_was_cut_by_a_death_is_not_run_again(tmp_path: Path) -> None:
    written, home, after = Written(), tmp_path / "one", tmp_path / "two"
    home.mkdir()
    written.gate = trio.Event()
    door = ScriptedDoor([Say(text="I write.", calls=[WRITE]), Say(text="!")])
    async with open_api(home, door, tools=written.tools()) as api:
        run = await start(api)
        async with following(api, run["run_id"]) as follower:
            await follower.until("tool.started")
            shutil.copytree(home, after)
            written.gate.set()
            await follower.until("run.completed")
    door = ScriptedDoor([Say(text="I cannot tell.")])
    async with open_api(after, door, tools=written.tools()) as api:
        assert (await wait_over(api, run["run_id"]))["output"] == "I cannot tell."
        assert written.runs == 1
        assert door.histories[0][-1].role == "tool"
        assert "outcome unknown" in door.histories[0][-1].text


async def test_a_follower_is_told_that_the_gateway_stops(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="one", hold=hold)])
    texts: list[str] = []

    async def read(
        api: ApiUnderTest, run_id: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with following(api, run_id) as follower:
            await follower.until("run.started")
            task_status.started()
            with pytest.raises(AssertionError, match="the stream ended"):
                await follower.until("run.completed")
        texts.append(follower.text)

    async with open_api(tmp_path, door) as api, trio.open_nursery() as nursery:
        await start(api, session_id="desk")
        await door.asking.wait()
        queued = await start(api, session_id="desk")
        await nursery.start(read, api, queued["run_id"])
        nursery.start_soon(api.spine.sessions.drain, trio.current_time() + 60)
        with trio.fail_after(5):
            while not texts:
                await trio.lowlevel.checkpoint()
        hold.set()
        nursery.cancel_scope.cancel()
    assert "the gateway stops" in texts[0]
    assert [name for _, name, _ in events_of(texts[0])] == ["run.started"]
    async with open_api(tmp_path) as api:
        assert (await wait_over(api, queued["run_id"]))["status"] == "completed"


async def test_a_stop_reaches_a_run_wherever_it_is(tmp_path: Path) -> None:
    door = ScriptedDoor(lambda _: Say(text="half", hold=trio.Event()))
    async with open_api(tmp_path, door) as api:
        for pause in range(40):
            run = await start(api)
            for _ in range(pause):
                await trio.lowlevel.checkpoint()
            await api.client.post(f"/v1/runs/{run['run_id']}/stop")
            with trio.fail_after(5):
                assert (await wait_over(api, run["run_id"]))["status"] == "cancelled"
