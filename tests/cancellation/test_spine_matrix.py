"""A turn, an HTTP exchange and the whole gateway, ended at their steps: nothing is left, nothing acknowledged is lost.

The normal run tries every n-th step from an offset that the seed chooses; the full one tries them all.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from hermes.agent.calls import ModelRequest
from hermes.context import TurnContext
from hermes.control_client import call
from hermes.errors import NoGateway
from hermes.feed import Feed
from hermes.gateway import Gateway, Mode, open_gateway
from hermes.gateway_options import ServeOptions
from hermes.home import Home, find_socket
from hermes.ids import new_id
from hermes.instance import is_held
from hermes.intake import FINAL_ROW_STATES, TurnEnd
from hermes.messages import ToolCall
from hermes.settings import HttpConfig
from hermes.store import open_store
from hermes.testing import cancel_at_every_step
from hermes.testing.api import KEY, open_api
from hermes.testing.cancellation import Report, Way
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.injection import Ending
from hermes.testing.spine import Spine, config_for, intake, open_spine
from hermes.toolset import Tool, tool

WAYS: tuple[Way, ...] = ("cancel", "deadline", "sibling")


class Witness:
    """What was said by whom: acknowledgements, ends that were told, what tools did."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lives = 0
        self.acknowledged: set[str] = set()
        self.told: dict[str, str] = {}
        self.effects: Counter[str] = Counter()

    def tools(self) -> tuple[Tool, ...]:
        @tool(read_only=False)
        async def change(context: TurnContext, mark: str) -> str:
            """Change something."""
            await trio.lowlevel.checkpoint()
            self.effects[f"{context.turn_id} {mark}"] += 1
            await trio.lowlevel.checkpoint()
            return "changed"

        @tool(read_only=True)
        async def look(context: TurnContext) -> str:
            """Look at something."""
            await trio.lowlevel.checkpoint()
            return "seen"

        return change, look

    def door(self) -> ScriptedDoor:
        def script(request: ModelRequest) -> Say:
            if request.history[-1].message.role == "tool":
                return Say(text="both are done")
            calls = (
                ToolCall(id="c1", name="change", arguments='{"mark": "m"}'),
                ToolCall(id="c2", name="look", arguments="{}"),
            )
            return Say(text="two at once", calls=calls)

        return ScriptedDoor(script)

    async def judge(self, spine: Spine) -> None:
        """On a second start, before anything new: every row is over, what was told is what is there, nothing ran twice."""
        rows = dict(await spine.rows("SELECT event_id, state FROM inbox"))
        assert self.acknowledged <= set(rows)
        assert set(rows.values()) <= set(FINAL_ROW_STATES), rows
        for event, state in self.told.items():
            assert (rows[event] == "answered") == (state == "done"), (event, rows[event], state)
        assert await spine.rows("SELECT id FROM turns WHERE state = 'running'") == []
        assert await spine.rows("SELECT number FROM steps") == await spine.rows("SELECT number FROM calls") == []
        assert not [mark for mark, count in self.effects.items() if count > 1]

    async def second_start(self) -> None:
        """The same store carries on: the old is closed, the sessions go on with histories that a provider takes."""
        if Home(self.home).database.exists():
            with contextlib.closing(sqlite3.connect(Home(self.home).database)) as con:
                tables = con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'turns'").fetchone()
                running = con.execute("SELECT id FROM turns WHERE state = 'running'").fetchall() if tables[0] else []
            assert not running, "a turn's end was not written, though the store was there"
        async with open_spine(self.home, self.door(), tools=self.tools()) as spine:
            await self.judge(spine)
            assert (await spine.ask("and now?")).state == "done"


Record = Callable[..., None]


def shown(record: Record, what: str, report: Report) -> None:
    print(f"{what}: {report.runs} endings in {report.steps} steps, ways {', '.join(report.ways)}")
    record("Cancellation matrix", what, steps=report.steps, endings=report.runs, ways=", ".join(report.ways))


@pytest.mark.wall_clock_s(400)
async def test_a_turn_with_two_tools_and_a_stream(tmp_path: Path, seed: int, full: bool, record: Record) -> None:
    witness = Witness(tmp_path)
    reader: list[trio.CancelScope] = []

    async def scenario() -> None:
        reader.clear()
        witness.lives += 1
        async with open_spine(tmp_path, witness.door(), tools=witness.tools(), drain_s=0) as spine:
            with trio.CancelScope() as reading:
                reader.append(reading)
                event = new_id("evt")
                async with spine.sessions.attend(intake(f"life {witness.lives}", event_id=event)) as (feed, _):
                    witness.acknowledged.add(event)
                    witness.told[event] = (await _followed(feed)).state
            assert (await spine.ask("another", key="t")).state in ("done", "interrupted")

    leaves = Ending("the reader leaves", lambda: [scope.cancel() for scope in reader] and None)
    report = await cancel_at_every_step(
        scenario, check=witness.second_start, ways=(*WAYS, leaves), stride=1 if full else 5, seeds=(seed % 997,)
    )
    shown(record, "a turn with two tools and a stream", report)
    assert report.runs > 20


async def _followed(feed: Feed) -> TurnEnd:
    number = 0
    while feed.end is None:
        number = (await feed.wait_after(number))[-1][0]
    return feed.end


@pytest.mark.wall_clock_s(400)
async def test_an_http_exchange(tmp_path: Path, seed: int, full: bool, record: Record) -> None:
    witness = Witness(tmp_path)
    client: list[trio.CancelScope] = []

    async def scenario() -> None:
        client.clear()
        witness.lives += 1
        async with open_api(tmp_path, witness.door(), tools=witness.tools()) as api:
            with trio.CancelScope() as asking:
                client.append(asking)
                for stream in (True, False):
                    said = await _asked(int(api.url.rpartition(":")[2]), stream=stream, session="http")
                    assert b"both are done" in said
                    assert stream == (b"[DONE]" in said)
        assert not api.errors

    leaves = Ending("the client leaves", lambda: [scope.cancel() for scope in client] and None)
    report = await cancel_at_every_step(
        scenario, check=witness.second_start, ways=(*WAYS, leaves), stride=1 if full else 9, seeds=(seed % 997,)
    )
    shown(record, "an HTTP exchange", report)
    assert report.runs > 20


async def _asked(port: int, *, stream: bool, session: str) -> bytes:
    """One chat completion on a connection of its own, read to its end."""
    body = json.dumps({"model": "hermes", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
        f"X-Hermes-Session-Id: {session}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    said = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
        await connection.send_all(head.encode() + body)
        async for data in connection:
            said += data
    return said


@pytest.mark.wall_clock_s(600)
@pytest.mark.parametrize("mode", ["gateway", "embedded"])
async def test_the_start_and_stop_of_the_whole_gateway(
    tmp_path: Path, seed: int, full: bool, record: Record, mode: Mode
) -> None:
    home = Home(tmp_path)
    config = config_for(tmp_path, http=HttpConfig(port=0))
    options = ServeOptions(home=tmp_path)
    running: list[Gateway] = []
    answered: set[str] = set()

    async def scenario() -> None:
        running.clear()
        async with open_gateway(config, options=options, mode=mode, announce=lambda _: None) as gateway:
            running.append(gateway)
            body = {"model": "hermes", "messages": [{"role": "user", "content": "hello"}]}
            found = await call(find_socket(home), "POST", "/v1/chat/completions", body, timeout_s=20)
            answered.add(found["id"].removeprefix("chatcmpl-"))
            gateway.stop.request("the scenario is over", 20)

    def ask_to_stop() -> None:
        for gateway in running:
            gateway.stop.request("injected", 20)

    async def check() -> None:
        assert not is_held(home)
        with pytest.raises(NoGateway):
            await call(find_socket(home), "GET", "/health", timeout_s=5)
        async with open_store(home.database, config, new_id("boot")) as store:
            rows = dict(
                await store.database.read(lambda con: con.execute("SELECT event_id, state FROM inbox").fetchall())
            )
        assert answered <= {event for event, state in rows.items() if state == "answered"}
        assert set(rows.values()) <= set(FINAL_ROW_STATES), rows

    ways: tuple[Way, ...] = (
        (*WAYS, Ending("soft stop", ask_to_stop)) if full else ("cancel", Ending("soft stop", ask_to_stop))
    )
    report = await cancel_at_every_step(
        scenario, check=check, ways=ways, stride=1 if full else 11, seeds=(seed % 997,), settle_s=5
    )
    shown(record, f"start and stop of the gateway ({mode})", report)
    assert report.runs > 10
    await scenario()
    await check()
