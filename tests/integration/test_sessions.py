"""Sessions and turns over a real database and a scripted model: every way a row of the inbox can end."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from hermes.agent.calls import ModelRequest
from hermes.context import TurnContext
from hermes.errors import ModelUnavailable, RequestError
from hermes.ids import new_id
from hermes.intake import ClientTool, IdempotencyKey, Payload, TextEvent, ToolStarted
from hermes.messages import Message, Text, ToolCall, tool_result, user
from hermes.settings import AgentConfig, HttpConfig, SessionsConfig
from hermes.store import open_store
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.spine import Spine, config_for, intake, open_spine, wait_until
from hermes.toolset import tool

STATES = "SELECT event_id, state FROM inbox ORDER BY id"


async def states(spine: Spine) -> list[str]:
    return [state for _event, state in await spine.rows(STATES)]


async def history(spine: Spine, key: str = "s") -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in await spine.store.sessions.history(key)]


async def test_a_turn_is_answered_and_remembered(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        first = await spine.ask("one")
        second = await spine.ask("two")
        assert (first.state, second.state) == ("done", "done")
        assert second.message is not None
        assert second.message.text == "echo: two"
        assert await states(spine) == ["answered", "answered"]
    async with open_spine(tmp_path) as spine:
        await spine.ask("three")
        assert [text for _role, text in await history(spine)] == [
            "one", "echo: one", "two", "echo: two", "three", "echo: three"
        ]  # fmt: skip


async def test_a_failed_turn_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(error=ModelUnavailable("no", status=503)), Say(text="fine")])
    async with open_spine(tmp_path, door) as spine:
        failed = await spine.ask("one")
        assert failed.failure is not None
        assert (failed.state, failed.failure.status) == ("failed", 502)
        assert (await spine.ask("two")).state == "done"
        assert await states(spine) == ["answered", "answered"]
        assert [role for role, _text in await history(spine)] == ["user", "assistant", "user", "assistant"]


async def test_the_last_one_who_leaves_ends_an_attended_turn(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="half of it", hold=hold)])
    async with open_spine(tmp_path, door) as spine:
        async with spine.sessions.attend(intake("one")) as (feed, _accepted):
            await wait_until(feed, TextEvent)
        end = await feed.wait_end()
        assert end.state == "interrupted"
        assert await states(spine) == ["interrupted"]
        assert (await history(spine))[-1][1].startswith("half of it\n\n(interrupted: the caller left")
        assert (await spine.ask("two")).state == "done"


async def test_who_leaves_before_the_turn_began_costs_no_model_call(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="first", hold=hold)])
    async with open_spine(tmp_path, door) as spine, trio.open_nursery() as nursery:
        nursery.start_soon(spine.ask, "one")
        await door.asking.wait()
        async with spine.sessions.attend(intake("never")):
            pass
        hold.set()
        assert (await spine.ask("three")).state == "done"
        assert await states(spine) == ["answered", "interrupted", "answered"]
        assert len(door.requests) == 2


async def test_stop_holds_for_what_came_before_it_and_nothing_after(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="long", hold=trio.Event())])
    async with open_spine(tmp_path, door) as spine, trio.open_nursery() as nursery:
        ends: list[str] = []

        async def ask(text: str) -> None:
            ends.append((await spine.ask(text)).state)

        nursery.start_soon(ask, "running")
        await door.asking.wait()
        nursery.start_soon(ask, "queued")
        while len(await spine.rows(STATES)) < 2:
            await trio.lowlevel.checkpoint()
        assert await spine.sessions.stop("s", "stop-1") == 2
        assert (await spine.ask("after")).state == "done"
        assert await states(spine) == ["stopped", "stopped", "answered"]
    assert ends == ["interrupted", "interrupted"]


async def test_a_full_mailbox_and_an_absent_session_are_refused(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(hold=trio.Event(), text="x")])
    async with open_spine(tmp_path, door) as spine, trio.open_nursery() as nursery:
        nursery.start_soon(spine.ask, "running")
        await door.asking.wait()
        await spine.sessions.accept(intake("one", mode="detached"))
        with pytest.raises(RequestError) as full:
            await spine.ask("two", max_queued=1)
        assert full.value.status == 409
        with pytest.raises(RequestError) as absent:
            await spine.ask("x", key="nobody", existing=True)
        assert absent.value.status == 404
        assert len(await spine.rows(STATES)) == 2
        await spine.sessions.stop("s", "stop")


@pytest.mark.parametrize("shown", [False, True])
async def test_a_newer_message_interrupts_a_persons_turn(tmp_path: Path, shown: bool) -> None:
    never = trio.Event()
    door = ScriptedDoor([Say(text="words", hold=never) if shown else Say(hold_before=never)])
    async with open_spine(tmp_path, door) as spine:
        await spine.sessions.accept(intake("first", mode="detached", busy="interrupt"))
        await door.asking.wait()
        if shown:
            feed = spine.sessions.feed_of((await spine.rows(STATES))[0][0])
            assert feed is not None
            await wait_until(feed, TextEvent)
        await spine.sessions.accept(intake("second", mode="detached", busy="interrupt"))
        await _settled(spine)
        assert await states(spine) == ["superseded" if shown else "merged", "answered"]
        asked = [message.text for message in door.histories[-1] if message.role == "user"]
        assert asked == (["first", "second"] if shown else ["first\n\nsecond"])


async def test_steering_joins_the_running_turn_after_its_step(tmp_path: Path) -> None:
    running, go = trio.Event(), trio.Event()

    @tool(read_only=True)
    async def wait(context: TurnContext) -> str:
        """Wait until the test says."""
        running.set()
        await go.wait()
        return "waited"

    door = ScriptedDoor([Say(calls=[ToolCall("c1", "wait", "{}")]), Say(text="done")])
    async with open_spine(tmp_path, door, tools=(wait,)) as spine:
        await spine.sessions.accept(intake("work", mode="detached", busy="steer"))
        await running.wait()
        await spine.sessions.accept(intake("and hurry", mode="detached", busy="steer"))
        go.set()
        await _settled(spine)
        assert await states(spine) == ["answered", "merged"]
        assert [role for role, _text in await history(spine)] == ["user", "assistant", "tool", "user", "assistant"]


async def _settled(spine: Spine) -> None:
    while await spine.rows("SELECT 1 FROM inbox WHERE state IN ('pending', 'live')"):
        await trio.lowlevel.checkpoint()


async def test_tools_run_together_and_become_history_as_a_whole(tmp_path: Path) -> None:
    together = 0
    both = trio.Event()

    @tool(read_only=False)
    async def meet(context: TurnContext, name: str) -> str:
        """Wait for the other call.

        Args:
            name: who meets.
        """
        nonlocal together
        together += 1
        if together == 2:
            both.set()
        await both.wait()
        return f"{name} met"

    calls = [ToolCall("a", "meet", '{"name": "A"}'), ToolCall("b", "meet", '{"name": "B"}'), ToolCall("c", "nosuch", "{}"),
             ToolCall("d", "meet", "{broken")]  # fmt: skip
    door = ScriptedDoor([Say(calls=calls), Say(text="fine")])
    async with open_spine(tmp_path, door, tools=(meet,)) as spine:
        end = await spine.ask("go")
        assert end.state == "done"
        results = {message.tool_call_id: message.text for message in end.transcript if message.role == "tool"}
        assert results["a"] == "A met"
        assert results["b"] == "B met"
        assert "no tool 'nosuch'" in results["c"]
        assert "JSON" in results["d"]
        assert together == 2
        assert await spine.rows("SELECT count(*) FROM steps") == [(0,)]
        assert await spine.rows("SELECT changed FROM turns") == [(1,)]


async def test_tools_with_side_effects_are_not_even_offered_to_others(tmp_path: Path) -> None:
    @tool(read_only=False)
    async def change(context: TurnContext) -> str:
        """Change something."""
        raise AssertionError("must not run")

    door = ScriptedDoor([Say(calls=[ToolCall("a", "change", "{}")]), Say(text="fine")])
    async with open_spine(tmp_path, door, tools=(change,)) as spine:
        end = await spine.ask("go", may_change=False)
        assert door.requests[0].tools == ()
        assert "no tool 'change'" in end.transcript[1].text


async def test_a_mixed_step_hands_out_only_the_clients_calls(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool(read_only=True)
    async def ours(context: TurnContext) -> str:
        """Ours."""
        ran.append("ours")
        return "from us"

    theirs = ClientTool(name="theirs")
    calls = [ToolCall("1", "ours", "{}"), ToolCall("2", "theirs", '{"x": 1}')]
    door = ScriptedDoor(
        [Say(calls=calls), Say(text="thanks"), Say(calls=[ToolCall("3", "theirs", "{}")]), Say(text="on")]
    )
    async with open_spine(tmp_path, door, tools=(ours,)) as spine:
        payload = Payload(messages=(user("go"),), tools=(theirs,))
        end = await spine.ask("", payload=payload)
        assert end.message is not None
        assert ([call.id for call in end.message.tool_calls], end.finish_reason) == (["2"], "tool_calls")
        assert ran == ["ours"]
        assert [role for role, _text in await history(spine)] == ["user"]  # the step waits for its client
        supplied = tool_result(ToolCall("2", "theirs", ""), "from the client")
        await spine.ask("", payload=Payload(messages=(supplied,), tools=(theirs,)))
        assert [text for _role, text in await history(spine)] == ["go", "", "from us", "from the client", "thanks"]
        # The next one is never supplied: the conversation goes on and says so.
        await spine.ask("", payload=Payload(messages=(user("again"),), tools=(theirs,)))
        await spine.ask("forget it")
        assert (await history(spine))[-3][1].startswith("not provided")
        unknown = await spine.ask("", payload=Payload(messages=(supplied,)))
        assert unknown.failure is not None
        assert unknown.failure.status == 400


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_call_cut_by_the_length_limit_or_a_filter_is_not_run(tmp_path: Path, reason: str) -> None:
    @tool(read_only=True)
    async def never(context: TurnContext) -> str:
        """Never."""
        raise AssertionError("must not run")

    door = ScriptedDoor([Say(text="so", calls=[ToolCall("1", "never", '{"a')], finish_reason=reason)])
    async with open_spine(tmp_path, door, tools=(never,)) as spine:
        end = await spine.ask("go")
        assert (end.state, end.finish_reason) == ("done", reason)
        assert end.message is not None
        assert end.message.tool_calls == ()


async def test_the_last_step_is_made_without_tools(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def again(context: TurnContext) -> str:
        """Again."""
        return "again"

    def always(request: ModelRequest) -> Say:
        if request.options.tool_choice == "none":
            return Say(text="enough")
        return Say(calls=[ToolCall(new_id("c"), "again", "{}")])

    door = ScriptedDoor(always)
    async with open_spine(tmp_path, door, tools=(again,), agent=AgentConfig(max_steps=3)) as spine:
        end = await spine.ask("go")
        assert end.message is not None
        assert end.message.text == "enough"
        assert len(door.requests) == 3


async def test_an_idempotency_key_means_one_turn(tmp_path: Path) -> None:
    def key(body: bytes = b"body") -> IdempotencyKey:
        return IdempotencyKey(route="r", key="k", fingerprint=body)

    hold = trio.Event()
    door = ScriptedDoor([Say(text="once", hold=hold)])
    async with open_spine(tmp_path, door) as spine:
        ends = []

        async def ask() -> None:
            ends.append(await spine.ask("hi", key=new_id("chat"), idempotency=key()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await door.asking.wait()
            nursery.start_soon(ask)
            while spine.sessions.statistics().attended < 2:
                await trio.lowlevel.checkpoint()
            hold.set()
        await ask()  # replayed
        assert len(door.requests) == 1
        assert ends[0] == ends[1] == ends[2]
        with pytest.raises(RequestError) as other:
            await spine.ask("hi", key=new_id("chat"), idempotency=key(b"other"))
        assert other.value.status == 422


async def test_the_key_of_a_turn_that_changed_something_and_failed_stays_taken(tmp_path: Path) -> None:
    @tool(read_only=False)
    async def change(context: TurnContext) -> str:
        """Change."""
        return "changed"

    def broken(changed: bool) -> ScriptedDoor:
        down = Say(error=ModelUnavailable("down"))
        return ScriptedDoor([Say(calls=[ToolCall("1", "change", "{}")]), down] if changed else [down])

    key = IdempotencyKey(route="r", key="k", fingerprint=b"f")
    async with open_spine(tmp_path, broken(changed=False), tools=(change,)) as spine:
        assert (await spine.ask("hi", idempotency=key)).state == "failed"
        assert (await spine.ask("hi", idempotency=key)).state == "done"  # the failure had freed it
    key = IdempotencyKey(route="r", key="k2", fingerprint=b"f")
    async with open_spine(tmp_path, broken(changed=True), tools=(change,)) as spine:
        assert (await spine.ask("hi", idempotency=key)).state == "failed"
        with pytest.raises(RequestError) as taken:
            await spine.ask("hi", idempotency=key)
        assert taken.value.status == 409


async def test_a_drain_finishes_turns_and_a_short_one_cuts_them(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="slow", hold=hold), Say(text="never", hold=trio.Event())])
    ends = []
    async with trio.open_nursery() as nursery:
        async with open_spine(tmp_path, door, drain_s=0.05) as spine:

            async def ask(key: str) -> None:
                ends.append((await spine.ask("hi", key=key)).state)

            nursery.start_soon(ask, "a")
            await door.asking.wait()
            door.asking = trio.Event()
            nursery.start_soon(ask, "b")
            await door.asking.wait()
            await spine.sessions.accept(intake("later", key="a", mode="detached"))
            hold.set()
    assert sorted(ends) == ["done", "interrupted"]
    async with open_spine(tmp_path) as spine:  # what was not begun is answered by the next start
        await _settled(spine)
        assert sorted(await states(spine)) == ["answered", "answered", "interrupted"]


@pytest.mark.parametrize("mode", ["attended", "detached"])
async def test_a_root_cancel_writes_how_every_turn_ended(tmp_path: Path, mode: str) -> None:
    count = 100
    door = ScriptedDoor(lambda request: Say(text="x", hold=trio.Event()))
    with trio.CancelScope() as root:
        limits = HttpConfig(max_concurrent_turns=count)
        async with open_spine(tmp_path, door, http=limits) as spine, trio.open_nursery() as nursery:
            for number in range(count):
                if mode == "attended":
                    nursery.start_soon(spine.ask, "hi", f"s{number}")
                else:
                    await spine.sessions.accept(intake("hi", f"s{number}", mode="detached"))
            while spine.sessions.statistics().turning < count:
                await trio.lowlevel.checkpoint()
            root.cancel()
    assert root.cancelled_caught
    async with open_spine(tmp_path, ScriptedDoor()) as spine:
        await _settled(spine)
        found = await states(spine)
        assert set(found) == {"interrupted" if mode == "attended" else "answered"}
        assert await spine.rows("SELECT count(*) FROM turns WHERE state = 'running'") == [(0,)]


async def test_a_row_that_kills_the_process_is_set_aside(tmp_path: Path) -> None:
    async def die(times: int) -> None:
        for _ in range(times):
            await _interrupted_life(tmp_path)

    await die(2)
    async with open_spine(tmp_path) as spine:
        await _settled(spine)
        assert await states(spine) == ["quarantined"]


async def _interrupted_life(home: Path) -> None:
    """A life in which the row was begun and the process died: its turn stays `running`, as after kill -9."""
    async with open_store(home / "hermes.db", config_for(home), new_id("boot")) as store:
        await store.inbox.accept(intake("deadly", event_id="deadly", mode="detached"))
        found = await store.turns.take_up("s", new_id("turn"), frozenset(), remembers=False)
        assert found.claim is not None


async def test_a_detached_turn_resumes_from_its_last_whole_step(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool(read_only=False)
    async def change(context: TurnContext, what: str) -> str:
        """Change.

        Args:
            what: to change.
        """
        ran.append(what)
        if what == "second":
            await trio.sleep_forever()
        return f"changed {what}"

    door = ScriptedDoor([
        Say(calls=[ToolCall("1", "change", '{"what": "first"}')]), Say(calls=[ToolCall("2", "change", '{"what": "second"}')])
    ])  # fmt: skip
    with trio.CancelScope() as root:
        async with open_spine(tmp_path, door, tools=(change,)) as spine:
            await spine.sessions.accept(intake("go", mode="detached", source="runs", event_id="run_1"))
            while len(ran) < 2:
                await trio.lowlevel.checkpoint()
            root.cancel()
    later = ScriptedDoor([Say(text="the end")])
    async with open_spine(tmp_path, later, tools=(change,)) as spine:
        await _settled(spine)
        assert ran == ["first", "second"]
        assert [message.text for message in later.histories[0]][:3] == ["go", "", "changed first"]
        assert later.histories[0][-1].text.startswith("interrupted, outcome unknown")
        run = await spine.store.turns.run("run_1")
        assert run is not None
        assert (run.state, run.turn_state) == ("answered", "done")


async def test_old_messages_of_a_person_go_to_the_model_together_with_their_times(tmp_path: Path) -> None:
    async with open_store(tmp_path / "hermes.db", config_for(tmp_path), "then", clock=lambda: 1_700_000_000.0) as store:
        for text in ("one", "two"):
            await store.inbox.accept(intake(text, mode="detached", busy="interrupt"))
    door = ScriptedDoor()
    async with open_spine(tmp_path, door) as spine:
        await _settled(spine)
        assert await states(spine) == ["merged", "answered"]
        assert door.histories[0][-1].text == "[written 2023-11-14 22:13 UTC] one\n\n[written 2023-11-14 22:13 UTC] two"


@pytest.mark.wall_clock_s(120)
async def test_evicted_while_messages_arrive_none_waits_for_the_next(tmp_path: Path) -> None:
    """Ten sessions, room for three, an eviction at every chance: each message is answered without another one's help."""
    rng = random.Random(7)
    messages = 10_000 if os.environ.get("HERMES_FULL") else 2_000
    async with open_spine(tmp_path, sessions=SessionsConfig(max_live=3, sweep_s=3600)) as spine:

        async def talk(key: str) -> None:
            for _ in range(messages // 10):
                with trio.fail_after(20):
                    assert (await spine.ask("hi", key)).state == "done"
                for _ in range(rng.randrange(4)):
                    await trio.lowlevel.checkpoint()
                spine.sessions.forget(f"s{rng.randrange(10)}")

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(talk, f"s{number}")
        assert spine.sessions.statistics().evicted > messages // 10


async def test_ten_thousand_stored_sessions_are_no_tasks(tmp_path: Path) -> None:
    async with open_store(tmp_path / "hermes.db", config_for(tmp_path), "then") as store:

        def fill(con: object) -> None:
            rows = [(f"s{n}", f"s{n}", "test", "local", 0.0, 0.0) for n in range(10_000)]
            con.executemany(  # type: ignore[attr-defined]
                "INSERT INTO sessions (id, key, source, principal, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )

        await store.database.write(fill)
    async with open_spine(tmp_path) as spine:
        before = trio.lowlevel.current_statistics().tasks_living
        assert spine.sessions.statistics().live == 0
        await spine.ask("hi", "s5000")
        spine.sessions.forget("s5000")
        await trio.testing.wait_all_tasks_blocked()
        assert spine.sessions.statistics().live == 0
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_message_with_parts_is_kept_as_it_came(tmp_path: Path) -> None:
    message = Message(role="user", parts=(Text("look: "), Text("here")), name="ann")
    async with open_spine(tmp_path) as spine:
        await spine.ask("", payload=Payload(messages=(message,)))
        assert (await spine.store.sessions.history("s"))[0] == message


async def test_following_sees_tools_as_they_run(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def look(context: TurnContext) -> str:
        """Look."""
        return "seen"

    door = ScriptedDoor([Say(text="let me see", calls=[ToolCall("1", "look", "{}")]), Say(text="seen it")])
    async with open_spine(tmp_path, door, tools=(look,)) as spine:
        async with spine.sessions.attend(intake("go")) as (feed, _accepted):
            await wait_until(feed, ToolStarted)
            end = await feed.wait_end()
        kinds = [type(event).__name__ for _number, event in feed.after(0)]
        assert kinds == ["TextEvent", "ToolStarted", "ToolFinished", "StepEvent", "TextEvent", "Ended"]
        assert end.message is not None
        assert end.message.text == "seen it"


async def test_an_event_that_is_being_committed_while_all_is_cancelled_is_ended_too(tmp_path: Path) -> None:
    go_on, began = threading.Event(), threading.Event()
    states: list[str] = []

    def hold(_: object) -> None:
        began.set()
        go_on.wait(20)

    async def ask(spine: Spine) -> None:
        states.append((await spine.ask("in between")).state)

    async with trio.open_nursery() as outside:
        with trio.CancelScope() as root:
            async with open_spine(tmp_path) as spine:
                outside.start_soon(spine.store.database.write, hold)
                await trio.to_thread.run_sync(began.wait)
                outside.start_soon(ask, spine)
                while not spine.sessions._live.doors:
                    await trio.lowlevel.checkpoint()
                root.cancel()
                outside.start_soon(trio.to_thread.run_sync, go_on.set)
                await trio.sleep_forever()
    assert states == ["interrupted"]
    with contextlib.closing(sqlite3.connect(tmp_path / "hermes.db")) as con:  # before any second start
        assert con.execute("SELECT state FROM inbox").fetchall() == [("interrupted",)]


async def test_a_wake_while_a_door_begins_a_turn_begins_no_second_one_beside_it(tmp_path: Path) -> None:
    go_on, began = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        began.set()
        go_on.wait(20)

    async def earlier(spine: Spine) -> None:
        await spine.store.inbox.accept(intake("earlier", mode="detached"))
        spine.sessions.wake("s")

    door = ScriptedDoor()
    async with open_spine(tmp_path, door) as spine:
        await spine.ask("first")
        while not spine.sessions._live._live["s"].idle:
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spine.store.database.write, hold)
            await trio.to_thread.run_sync(began.wait)
            nursery.start_soon(earlier, spine)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(spine.ask, "later")
            while not spine.sessions._live.doors:
                await trio.lowlevel.checkpoint()
            spine.sessions.wake("s")
            await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
        await _settled(spine)
        said = [[message.text for message in each if message.role == "user"][-1] for each in door.histories]
        assert said == ["first", "earlier", "later"]
        roles = [role for role, _ in await history(spine)]
        assert roles == ["user", "assistant"] * 3


async def test_what_a_turn_used_is_counted_also_when_it_fails(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def look(context: TurnContext) -> str:
        """Look."""
        return "seen"

    door = ScriptedDoor([Say(calls=[ToolCall("1", "look", "{}")]), Say(error=ModelUnavailable("down"))])
    async with open_spine(tmp_path, door, tools=(look,)) as spine:
        end = await spine.ask("go")
        assert (end.state, end.usage.total_tokens) == ("failed", 2)
        row = await spine.store.sessions.get("s")
        assert row is not None
        assert (row.input_tokens, row.output_tokens) == (1, 1)


async def test_a_row_whose_content_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    async with open_store(tmp_path / "hermes.db", config_for(tmp_path), "then") as store:
        await store.inbox.accept(intake("hi", mode="detached"))
        await store.inbox.accept(intake("and then", mode="detached"))
        await store.database.write(lambda con: con.execute("UPDATE inbox SET payload = x'00' WHERE id = 1").rowcount)
    async with open_spine(tmp_path) as spine:
        await _settled(spine)
        assert await states(spine) == ["quarantined", "answered"]
