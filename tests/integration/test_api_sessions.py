"""`/api/sessions` over real HTTP: looked at, changed, forked, ended, and talked in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.errors import ModelUnavailable
from hermes.messages import ToolCall
from hermes.settings import Endpoint, HttpConfig, ModelConfig, SessionsConfig
from hermes.testing.api import ApiUnderTest, open_api
from hermes.testing.door import Say, ScriptedDoor
from hermes.toolset import tool

pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator:ResourceWarning"
)  # httpx2, where a stream is left early

ROUTES = [
    ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/messages"), ("POST", "/fork"), ("POST", "/stop"),
    ("POST", "/chat"), ("POST", "/chat/stream"),
]  # fmt: skip
LOOK = ToolCall("call_1", "look", "{}")
MODELS = ModelConfig(aliases=(("fast", Endpoint(model="fast-1")),))


@tool(read_only=True)
async def look(context: Any) -> str:
    """Look around."""
    return "all quiet"


async def create(api: ApiUnderTest, **body: Any) -> dict[str, Any]:
    answer = await api.client.post("/api/sessions", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["x-hermes-session-id"] == answer.json()["id"]
    return dict(answer.json())


async def chat(api: ApiUnderTest, session: str, text: Any, **body: Any) -> httpx2.Response:
    return await api.client.post(f"/api/sessions/{session}/chat", json={"message": text, **body})


async def messages(api: ApiUnderTest, session: str, **query: Any) -> list[dict[str, Any]]:
    answer = await api.client.get(f"/api/sessions/{session}/messages", params=query)
    assert answer.status_code == 200
    return list(answer.json()["data"])


def events_of(text: str) -> list[tuple[str, Any]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in blocks]


# -- rows --------------------------------------------------------------------------------------------------------------


async def test_create_get_patch_list_delete(tmp_path: Path) -> None:
    async with open_api(tmp_path, model=MODELS) as api:
        made = await create(api, id="desk", title="Desk", model="fast", system_prompt="Be Bob.")
        assert (made["object"], made["title"], made["model"], made["instructions"]) == (
            "session",
            "Desk",
            "fast",
            "Be Bob.",
        )
        assert (made["source"], made["turns"], made["messages"], made["ended_at"]) == ("sessions", 0, 0, None)
        again = await api.client.post("/api/sessions", json={"id": "desk"})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "session_exists")
        other = await api.client.post("/api/sessions")
        assert other.status_code == 201
        assert other.json()["id"].startswith("sess_")
        changed = await api.client.patch(
            "/api/sessions/desk", json={"title": None, "model": None, "instructions": "Be Al."}
        )
        assert changed.status_code == 200
        assert (changed.json()["title"], changed.json()["model"], changed.json()["instructions"]) == (
            None,
            None,
            "Be Al.",
        )
        assert (await api.client.get("/api/sessions/desk")).json() == changed.json()
        await api.chat("ephemeral")
        listed = (await api.client.get("/api/sessions")).json()
        assert {each["id"] for each in listed["data"]} == {"desk", other.json()["id"]}
        assert listed["has_more"] is False
        everything = (await api.client.get("/api/sessions", params={"include_ephemeral": "1"})).json()
        assert [each["ephemeral"] for each in everything["data"]].count(True) == 1
        page = (await api.client.get("/api/sessions", params={"limit": "1", "offset": "1"})).json()
        assert (len(page["data"]), page["has_more"]) == (1, False)
        assert (await api.client.get("/api/sessions", params={"source": "runs"})).json()["data"] == []
        gone = await api.client.delete("/api/sessions/desk")
        assert gone.json() == {"id": "desk", "object": "session", "deleted": True}
        for method, path in ROUTES:
            answer = await api.client.request(method, f"/api/sessions/desk{path}", json={"title": "x", "message": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found"), path
        assert not api.errors


async def test_messages_show_the_whole_transcript(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="I look.", reasoning="hm", calls=[LOOK]), Say(text="Quiet.")])
    async with open_api(tmp_path, door, tools=(look,)) as api:
        await create(api, id="desk")
        picture = {"type": "input_image", "image_url": "https://example.org/a.png"}
        said = [{"role": "user", "content": [{"type": "input_text", "text": "see"}, picture]}]
        assert (await chat(api, "desk", said)).status_code == 200
        shown = await messages(api, "desk")
        assert [(each["seq"], each["role"]) for each in shown] == [
            (1, "user"),
            (2, "assistant"),
            (3, "tool"),
            (4, "assistant"),
        ]
        assert shown[0]["content"][0] == {"type": "text", "text": "see"}
        assert shown[0]["content"][1]["image_url"]["url"] == "https://example.org/a.png"
        assert shown[1]["reasoning_content"] == "hm"
        assert shown[1]["tool_calls"] == [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ]
        assert (shown[2]["tool_call_id"], shown[2]["name"], shown[2]["content"]) == ("call_1", "look", "all quiet")
        assert len({each["turn_id"] for each in shown}) == 1
        assert all(each["created_at"] > 0 for each in shown)
        assert await messages(api, "desk", after=3) == shown[3:]
        page = (await api.client.get("/api/sessions/desk/messages", params={"limit": 3})).json()
        assert (page["data"], page["has_more"]) == (shown[:3], True)


async def test_messages_begin_with_a_clients_own_history(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        history = [
            {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}
        ]  # fmt: skip
        answer = await api.client.post("/v1/chat/completions", json={"model": "hermes", "messages": history})
        session = answer.headers["x-hermes-session-id"]
        shown = await messages(api, session)
        assert [(each["seq"], each["content"]) for each in shown] == [
            (-1, "one"),
            (0, "two"),
            (1, "three"),
            (2, "echo: three"),
        ]
        assert await messages(api, session, after=-1) == shown[1:]
        assert await messages(api, session, after=0) == shown[2:]


async def test_fork_keeps_whole_steps(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="I look.", calls=[LOOK]), Say(text="Quiet.")])
    async with open_api(tmp_path, door, tools=(look,)) as api:
        await create(api, id="desk", title="Desk")
        await chat(api, "desk", "look")
        whole = (await api.client.post("/api/sessions/desk/fork", json={"id": "copy"})).json()
        assert (whole["parent_id"], whole["title"], whole["messages"]) == ("desk", "Desk", 4)
        for upto, kept in ((0, 0), (1, 1), (2, 1), (3, 3), (4, 4), (9, 4)):
            answer = await api.client.post("/api/sessions/desk/fork", json={"upto": upto, "title": "t"})
            assert (answer.status_code, answer.json()["messages"], answer.json()["title"]) == (201, kept, "t")
            assert (await chat(api, answer.json()["id"], "go on")).status_code == 200  # what a provider takes
        assert [each["content"] for each in await messages(api, "copy")] == ["look", "I look.", "all quiet", "Quiet."]
        assert (await api.client.post("/api/sessions/desk/fork", json={"id": "copy"})).status_code == 409


async def test_an_ended_session_is_closed_to_turns(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        await create(api, id="desk")
        await chat(api, "desk", "one")
        ended = await api.client.patch("/api/sessions/desk", json={"end_reason": "done with it"})
        assert ended.json()["end_reason"] == "done with it"
        assert ended.json()["ended_at"] is not None
        for path, body in (
            ("/api/sessions/desk/chat", {"message": "x"}),
            ("/v1/runs", {"input": "x", "session_id": "desk"}),
        ):
            refused = await api.client.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_ended")
        spoken = {"messages": [{"role": "user", "content": "x"}], "model": "hermes"}
        answered = {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}], "model": "hermes"}
        for body in (spoken, answered):
            refused = await api.client.post("/v1/chat/completions", json=body, headers={"X-Hermes-Session-Id": "desk"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_ended")
        assert len(await messages(api, "desk")) == 2
        fork = (await api.client.post("/api/sessions/desk/fork", json={})).json()
        answer = await chat(api, fork["id"], "two")
        assert answer.json()["message"]["content"] == "echo: two"
        renamed = await api.client.patch("/api/sessions/desk", json={"title": "old", "end_reason": "still"})
        assert renamed.json()["ended_at"] == ended.json()["ended_at"]


async def test_delete_takes_the_words_away_and_the_live_memory_too(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door) as api:
        await create(api, id="desk")
        await chat(api, "desk", "a secret word")
        await api.client.delete("/api/sessions/desk")
        for table, column in (("messages", "body"), ("inbox", "payload"), ("turns", "outcome")):
            found = await api.spine.rows(f"SELECT 1 FROM {table} WHERE instr({column}, CAST('secret' AS BLOB))")
            assert found == [], table
        await create(api, id="desk")
        await chat(api, "desk", "new")
        assert [each.text for each in door.histories[-1]] == ["new"]


async def test_delete_ends_the_turn_that_runs(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="half", hold=hold), Say(text="fresh")])
    answers: list[httpx2.Response] = []

    async def ask(api: ApiUnderTest) -> None:
        answers.append(await chat(api, "desk", "one"))

    async with open_api(tmp_path, door) as api:
        await create(api, id="desk")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, api)
            await door.asking.wait()
            assert (await api.client.get("/api/sessions/desk")).json()["turning"] is True
            assert (await api.client.delete("/api/sessions/desk")).status_code == 200
        assert answers[0].status_code == 409
        assert answers[0].json()["error"]["code"] == "stopped"
        assert await api.spine.rows("SELECT 1 FROM messages") == []
        await create(api, id="desk")
        await chat(api, "desk", "new")
        assert [each["content"] for each in await messages(api, "desk")] == ["new", "fresh"]


# -- turns -------------------------------------------------------------------------------------------------------------


async def test_chat_tells_what_was_done(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="I look.", calls=[LOOK]), Say(text="Quiet.")])
    async with open_api(tmp_path, door, tools=(look,)) as api:
        await create(api, id="desk")
        answer = await chat(api, "desk", "look", instructions="Be brief.")
        turn = answer.json()
        assert answer.headers["x-hermes-session-id"] == turn["session_id"] == "desk"
        assert turn["message"] == {"role": "assistant", "content": "Quiet."}
        assert (turn["finish_reason"], turn["steps"], turn["tools_used"]) == ("stop", 2, ["look"])
        assert turn["usage"]["total_tokens"] > 0
        assert turn["turn_id"].startswith("turn_")
        assert "Be brief." in door.requests[0].system
        old = await api.client.post("/api/sessions/desk/chat", json={"input": "more", "system_message": "Be long."})
        assert old.json()["message"]["content"] == "echo: more"
        assert "Be long." in door.requests[-1].system


async def test_chat_stream_explains_itself(tmp_path: Path) -> None:
    door = ScriptedDoor(
        [Say(text="I look.", reasoning="hm", calls=[LOOK], streamed=True), Say(words=("All ", "quiet."))]
    )
    async with open_api(tmp_path, door, tools=(look,)) as api:
        answer = await api.client.post(
            "/api/sessions/new/chat/stream", params={"create": "1"}, json={"message": "look"}
        )
        events = events_of(answer.text)
        names = [name for name, _ in events]
        assert names == [
            "run.started", "reasoning.delta", "message.delta", "tool.started", "tool.completed", "step",
            "message.delta", "message.delta", "message.completed", "run.completed", "done",
        ]  # fmt: skip
        by_name = dict(events)
        assert by_name["run.started"]["session_id"] == "new"
        assert by_name["tool.started"] == {"call_id": "call_1", "name": "look", "arguments": "{}"}
        assert (by_name["tool.completed"]["ok"], by_name["tool.completed"]["preview"]) == (True, "all quiet")
        assert by_name["message.completed"]["message"]["content"] == "All quiet."
        assert by_name["run.completed"]["tools_used"] == ["look"]
        assert by_name["run.completed"]["run_id"] == by_name["run.started"]["run_id"]
        session = (await api.client.get("/api/sessions/new")).json()
        assert (session["source"], session["ephemeral"]) == ("sessions", False)


async def test_a_turn_that_fails_has_its_own_status_until_something_was_shown(tmp_path: Path) -> None:
    door = ScriptedDoor(
        [
            Say(error=ModelUnavailable("down")),
            Say(error=ModelUnavailable("down")),
            Say(text="Well", error=ModelUnavailable("cut")),
        ]
    )
    async with open_api(tmp_path, door) as api:
        await create(api, id="desk")
        assert (await chat(api, "desk", "x")).status_code == 502
        assert (await api.client.post("/api/sessions/desk/chat/stream", json={"message": "x"})).status_code == 502
        shown = await api.client.post("/api/sessions/desk/chat/stream", json={"message": "x"})
        events = events_of(shown.text)
        assert [name for name, _ in events] == ["run.started", "message.delta", "error", "done"]
        assert events[2][1]["error"]["code"] == "upstream_unavailable"


@asynccontextmanager
async def streaming(api: ApiUnderTest, session: str, text: str) -> AsyncIterator[AsyncIterator[str]]:
    async with api.client.stream("POST", f"/api/sessions/{session}/chat/stream", json={"message": text}) as response:
        async with aclosing(response.aiter_text()) as pieces:
            yield pieces


async def test_stop_ends_the_turn_and_what_waits(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="half", hold=trio.Event()), Say(text="after")])
    waiting: list[httpx2.Response] = []

    async def ask(api: ApiUnderTest) -> None:
        waiting.append(await chat(api, "desk", "two"))

    async with open_api(tmp_path, door) as api, trio.open_nursery() as nursery:
        await create(api, id="desk")
        async with streaming(api, "desk", "one") as pieces:
            text = ""
            async for piece in pieces:
                text += piece
                if "half" in piece:
                    nursery.start_soon(ask, api)
                    while not await api.spine.rows("SELECT 1 FROM inbox WHERE state = 'pending'"):
                        await trio.lowlevel.checkpoint()
                    stopped = await api.client.post("/api/sessions/desk/stop")
                    assert stopped.json()["stopped"] == 2
        events = events_of(text)
        assert [name for name, _ in events] == ["run.started", "message.delta", "error", "done"]
        assert (events[2][1]["error"]["code"], events[2][1]["state"]) == ("stopped", "interrupted")
        with trio.fail_after(5):
            while not waiting:
                await trio.lowlevel.checkpoint()
        assert waiting[0].status_code == 409
        assert (await chat(api, "desk", "three")).json()["message"]["content"] == "after"
        assert (await api.client.post("/api/sessions/desk/stop")).json()["stopped"] == 0


async def test_who_leaves_a_stream_ends_its_turn(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="half", hold=trio.Event())])
    async with open_api(tmp_path, door) as api:
        await create(api, id="desk")
        async with streaming(api, "desk", "one") as pieces:
            async for piece in pieces:
                if "half" in piece:
                    break
        with trio.fail_after(5):
            while not await api.spine.rows("SELECT 1 FROM inbox WHERE state = 'interrupted'"):
                await trio.lowlevel.checkpoint()
        last = (await messages(api, "desk"))[-1]
        assert last["note"] == "interrupted"
        assert last["content"].startswith("half")


async def test_what_was_chosen_holds_after_eviction(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door, model=MODELS, sessions=SessionsConfig(max_live=1)) as api:
        await create(api, id="desk")
        assert (await chat(api, "desk", "one")).json()["model"] == "scripted"
        await api.client.patch("/api/sessions/desk", json={"model": "fast", "instructions": "Be Bob."})
        assert (await chat(api, "desk", "two")).json()["model"] == "fast-1"
        assert "Be Bob." in door.requests[-1].system
        await create(api, id="other")
        await chat(api, "other", "x")  # takes the only place
        assert (await chat(api, "desk", "three")).json()["model"] == "fast-1"
        assert "Be Bob." in door.requests[-1].system
        assert [each.text for each in door.histories[-1]] == ["one", "echo: one", "two", "echo: two", "three"]
        assert (await chat(api, "desk", "four", model="hermes")).json()[
            "model"
        ] == "fast-1"  # the gateway's name: its own choice


async def test_a_repeat_is_replayed(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="once")])
    async with open_api(tmp_path, door) as api:
        await create(api, id="desk")
        headers = {"idempotency-key": "k"}
        answers = [
            await api.client.post("/api/sessions/desk/chat", json={"message": "x"}, headers=headers) for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json()
        assert answers[1].headers["idempotent-replayed"] == "true"
        assert len(door.requests) == 1


BAD: list[tuple[str, str, Any, str | None]] = [
    ("POST", "/api/sessions", {"id": "no/slashes"}, "id"),
    ("POST", "/api/sessions", {"id": ""}, "id"),
    ("POST", "/api/sessions", {"id": 5}, "id"),
    ("POST", "/api/sessions", {"title": ["x"]}, "title"),
    ("POST", "/api/sessions", {"title": "x" * 501}, "title"),
    ("POST", "/api/sessions", {"instructions": {}}, "instructions"),
    ("POST", "/api/sessions", [], None),
    ("PATCH", "/api/sessions/desk", {}, None),
    ("PATCH", "/api/sessions/desk", {"title": 5}, "title"),
    ("PATCH", "/api/sessions/desk", {"end_reason": None}, "end_reason"),
    ("PATCH", "/api/sessions/desk", {"end_reason": 5}, "end_reason"),
    ("POST", "/api/sessions/desk/fork", {"upto": "all"}, "upto"),
    ("POST", "/api/sessions/desk/fork", {"upto": -1}, "upto"),
    ("POST", "/api/sessions/desk/chat", {}, "message"),
    ("POST", "/api/sessions/desk/chat", {"message": 5}, "message"),
    ("POST", "/api/sessions/desk/chat", {"message": [{"role": "assistant", "content": "x"}]}, "message"),
    ("POST", "/api/sessions/desk/chat", {"message": "x", "instructions": 5}, "instructions"),
    ("POST", "/api/sessions/desk/chat/stream", {"message": "x", "model": 5}, "model"),
    ("GET", "/api/sessions?limit=201", None, "limit"),
    ("GET", "/api/sessions?limit=x", None, "limit"),
    ("GET", "/api/sessions?offset=-1", None, "offset"),
    ("GET", "/api/sessions/desk/messages?limit=0", None, "limit"),
    ("GET", "/api/sessions/desk/messages?after=x", None, "after"),
]


async def test_bad_requests_change_nothing(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        before = await create(api, id="desk")
        for method, path, body, param in BAD:
            answer = await api.client.request(method, path, json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), (
                method,
                path,
                body,
                answer.text,
            )
        for method, path in (
            ("POST", "/api/sessions"),
            ("PATCH", "/api/sessions/desk"),
            ("POST", "/api/sessions/desk/chat"),
        ):
            answer = await api.client.request(method, path, json={"model": "gpt-99", "message": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert (await api.client.get("/api/sessions/desk")).json() == before
        assert await api.spine.rows("SELECT count(*) FROM inbox") == [(0,)]
        assert (await create(api, title="a\x00b"))["title"] == "a\x00b"
        assert not api.errors


async def test_a_full_mailbox_is_409(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="first", hold=hold)])
    settings = replace(SessionsConfig(), max_queued=1)
    async with open_api(tmp_path, door, sessions=settings, http=HttpConfig(max_concurrent_turns=8)) as api:
        await create(api, id="desk")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat, api, "desk", "one")
            await door.asking.wait()
            nursery.start_soon(chat, api, "desk", "two")
            while not await api.spine.rows("SELECT 1 FROM inbox WHERE state = 'pending'"):
                await trio.lowlevel.checkpoint()
            full = await chat(api, "desk", "three")
            assert (full.status_code, full.json()["error"]["code"]) == (409, "session_busy")
            hold.set()


async def test_a_delete_reaches_a_turn_wherever_it_is(tmp_path: Path) -> None:
    door = ScriptedDoor(
        lambda request: Say(text="new") if request.system.endswith("Be new.") else Say(hold=trio.Event())
    )
    async with open_api(tmp_path, door) as api:
        for pause in range(30):
            await create(api, id="desk")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chat, api, "desk", "old")
                while not await api.spine.rows("SELECT 1 FROM inbox WHERE state IN ('pending', 'live')"):
                    await trio.lowlevel.checkpoint()
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
                with trio.fail_after(5):
                    assert (await api.client.delete("/api/sessions/desk")).status_code == 200
                await create(api, id="desk", instructions="Be new.")
                await chat(api, "desk", "one")
                assert [each["content"] for each in await messages(api, "desk")] == ["one", "new"]
                await api.client.delete("/api/sessions/desk")


async def test_a_response_outlives_the_end_of_its_session_but_not_its_delete(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door) as api:

        async def respond(text: str, **more: Any) -> httpx2.Response:
            return await api.client.post("/v1/responses", json={"input": text, **more})

        first = await respond("one", conversation="trip")
        session = first.headers["x-hermes-session-id"]
        await api.client.patch(f"/api/sessions/{session}", json={"end_reason": "over"})
        previous = {"previous_response_id": first.json()["id"]}
        assert (await respond("two", **previous)).headers["x-hermes-session-id"] != session
        assert [each.text for each in door.histories[-1]] == ["one", "echo: one", "two"]
        await respond("anew", conversation="trip")
        assert [each.text for each in door.histories[-1]] == ["anew"]
        await api.client.delete(f"/api/sessions/{session}")
        gone = await respond("three", **previous)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "previous_response_not_found")
