"""What the spine must bear beside its ordinary days: large tables, odd replies, repeats, leaving callers, a store that is away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sqlite3
from pathlib import Path

import pytest
import trio
import trio.testing

from hermes.agent.loop import MAX_CALLS
from hermes.agent.validate import MAX_MESSAGES
from hermes.background import _warm_up
from hermes.config import reload_config
from hermes.context import TurnContext
from hermes.current import Current
from hermes.errors import RequestError, StoreUnavailable
from hermes.gateway import run_gateway
from hermes.gateway_options import Overrides, ServeOptions
from hermes.home import Home
from hermes.ids import new_id
from hermes.intake import IdempotencyKey, Payload, ResponseRecord, TurnEnd
from hermes.messages import ToolCall, assistant, encode_message, tool_result, user
from hermes.settings import Config, HttpConfig, RetentionConfig, SessionsConfig, StoreConfig
from hermes.stopping import Stop
from hermes.store import open_store, recovery, sessions
from hermes.store.schema import M001
from hermes.store.turns import MAX_TOGETHER
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.spine import Spine, config_for, intake, open_spine
from hermes.toolset import tool

STATES = "SELECT event_id, state FROM inbox ORDER BY id"


async def states(spine: Spine) -> list[str]:
    return [state for _event, state in await spine.rows(STATES)]


# SQL


def _scans(con: sqlite3.Connection, statements: set[str]) -> list[str]:
    """Statements that read a whole table; those indexes are walked in order, up to a limit, or hold few rows."""
    found = []
    for statement in sorted(statements):
        for *_, step in con.execute(f"EXPLAIN QUERY PLAN {statement}"):
            if re.match(r"SCAN (?!CONSTANT ROW|.* USING (COVERING )?INDEX (inbox_open|sessions_recent))", step):
                found.append(f"{step}: {statement[:150]}")
    return found


async def test_no_statement_of_a_turn_a_start_or_a_sweep_reads_a_whole_table(tmp_path: Path) -> None:
    @tool(read_only=False)
    async def change(context: object) -> str:
        """Change."""
        return "changed"

    statements: set[str] = set()

    def trace(statement: str) -> None:
        if re.match("SELECT|INSERT|UPDATE|DELETE", statement):
            statements.add(statement)

    door = ScriptedDoor(
        lambda request: (
            Say(text="fine")
            if request.history[-1].message.role == "tool"
            else Say(calls=[ToolCall("1", "change", "{}")])
        )
    )
    async with open_spine(tmp_path, door, tools=(change,)) as spine:
        await spine.store.database.write(lambda con: con.set_trace_callback(trace))
        key = IdempotencyKey(route="r", key="k", fingerprint=b"f")
        for _ in range(2):
            await spine.ask("hi", max_queued=3, idempotency=key)
        await spine.sessions.accept(intake("run", mode="detached", source="runs"))
        await spine.sessions.accept(intake("steer", mode="detached", busy="steer"))
        await spine.sessions.stop("s", "stop")
        await spine.sessions.stop_event("nobody", "s")
        await spine.store.forget_old(RetentionConfig(sessions_days=1))
        await spine.store.database.write(lambda con: recovery.recover(con, spine.store.boot_id, 1.0))
        await spine.store.database.write(lambda con: con.set_trace_callback(None))
        await spine.store.database.read(lambda con: con.set_trace_callback(trace))
        await spine.store.inbox.waiting_keys(10)
        await spine.store.turns.open_runs()
        await spine.store.turns.run("run")
        await spine.store.sessions.listing(limit=10, offset=0)
        await spine.store.sessions.history("s")
        assert len(statements) > 40
        assert await spine.store.database.write(lambda con: _scans(con, statements)) == []


async def test_a_sweep_forgets_old_finished_rows_and_no_others(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        now = spine.store.clock()
        ages = [30, 20, 9, 8, 6, 5, 0]
        for number, age in enumerate(ages):
            await spine.store.inbox.accept(intake("x", f"s{number}", mode="detached", event_id=f"e{number}"))
            when = now - age * 86_400
            finished = None if age == 20 else when
            state = "pending" if age == 20 else "answered"
            await spine.store.database.write(
                lambda con, n=number, w=when, f=finished, s=state: (
                    con.execute(
                        "UPDATE inbox SET accepted_at = ?, finished_at = ?, state = ? WHERE event_id = ?",
                        (w, f, s, f"e{n}"),
                    ).rowcount
                )
            )
        await spine.store.forget_old(RetentionConfig())
        assert [event for event, _state in await spine.rows(STATES)] == ["e1", "e4", "e5", "e6"]
        await spine.sessions.stop("s1", "stop")


# Idempotency


def _keyed(name: str = "k") -> IdempotencyKey:
    return IdempotencyKey(route="r", key=name, fingerprint=b"f")


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_a_key_is_not_free_because_its_session_is_gone(tmp_path: Path, how: str) -> None:
    brief = RetentionConfig(ephemeral_s=0.0, finished_rows_s=0.0, dedup_s=0.0, idempotency_s=1000.0)
    door = ScriptedDoor()
    async with open_spine(tmp_path, door, retention=brief) as spine:
        first = await spine.ask("hi", key=new_id("chat"), ephemeral=True, idempotency=_keyed())
        if how == "deleted":
            await spine.store.sessions.delete(first.session_id)
            with pytest.raises(RequestError) as gone:
                await spine.ask("hi", key=new_id("chat"), ephemeral=True, idempotency=_keyed())
            assert gone.value.status == 409
        else:
            while await spine.store.forget_old(brief):
                pass
            assert await spine.ask("hi", key=new_id("chat"), ephemeral=True, idempotency=_keyed()) == first
        assert len(door.requests) == 1


async def test_the_session_of_a_stored_response_lives_as_long_as_the_response(tmp_path: Path) -> None:
    kept = RetentionConfig(ephemeral_s=0.0, responses_s=1000.0)
    async with open_spine(tmp_path, retention=kept) as spine:
        payload = Payload(messages=(user("hi"),), response=ResponseRecord(id="resp_1"))
        await spine.ask("", key=new_id("sess"), payload=payload, ephemeral=True, event_id="resp_1")
        while await spine.store.forget_old(kept):
            pass
        assert await spine.store.responses.get("resp_1", "local") is not None


async def test_a_repeated_event_makes_no_session_and_needs_no_room(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        said = intake("hi", event_id="e1", mode="detached", max_queued=1)
        assert (await spine.store.inbox.accept(said)).fresh
        assert not (await spine.sessions.accept(said)).fresh
        await spine.sessions.stop("s", "stop")
        await spine.store.sessions.delete("s")
        assert not (await spine.sessions.accept(said)).fresh
        assert await spine.store.sessions.get("s") is None


# What a model says, and how long a conversation may be


async def test_a_reply_that_cannot_be_stored_fails_its_turn_and_nothing_else(tmp_path: Path) -> None:
    broken = "half a pair: \ud800"
    door = ScriptedDoor([Say(text=broken), Say(calls=[ToolCall("1", broken, "{}")]), Say(text="fine")])
    async with open_spine(tmp_path, door) as spine:
        for _ in range(2):
            end = await spine.ask("hi")
            assert end.failure is not None
            assert (end.state, end.failure.status) == ("failed", 500)
        assert (await spine.ask("and now?")).state == "done"
        assert await states(spine) == ["answered"] * 3


async def test_a_conversation_at_its_bound_is_refused_in_words(tmp_path: Path) -> None:
    full = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
        INSERT INTO messages SELECT 's', i, '', CASE WHEN i % 2 THEN ? ELSE ? END, 0 FROM n"""
    async with open_spine(tmp_path) as spine:
        await spine.store.sessions.create(
            session_id="s", source="test", principal="local", title=None, model=None, instructions=None
        )
        said = encode_message(user("hi")), encode_message(assistant("hi"))
        for statement, values in (
            (full, (MAX_MESSAGES - 2, *said)),
            ("UPDATE sessions SET next_message = ?", (MAX_MESSAGES - 1,)),
        ):
            await spine.store.database.write(lambda con, s=statement, v=values: con.execute(s, v).rowcount)
        assert (await spine.ask("the last but one")).state == "done"
        end = await spine.ask("one too many")
        assert end.failure is not None
        assert (end.failure.status, end.failure.code) == (400, "context_length_exceeded")
        assert (await spine.ask("elsewhere", key="other")).state == "done"


async def test_a_thousand_calls_in_one_reply_are_bounded(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool(read_only=False)
    async def change(context: TurnContext, what: str) -> str:
        """Change.

        Args:
            what: to change.
        """
        ran.append(what)
        return what * 1000

    calls = [ToolCall(f"c{number}", "change", f'{{"what": "{number}"}}') for number in range(1000)]
    door = ScriptedDoor([Say(calls=calls), Say(text="fine")])
    async with open_spine(tmp_path, door, tools=(change,)) as spine:
        end = await spine.ask("go")
        assert end.state == "done"
        results = [message for message in end.transcript if message.role == "tool"]
        assert len(results) == 1000
        assert len(ran) == len(set(ran)) == MAX_CALLS
        assert "not run" in results[-1].text


# Who leaves, and what stops


async def test_who_left_is_forgotten_once_the_row_has_ended(tmp_path: Path) -> None:
    """Callers leave at every moment: before the commit is heard of, before the turn begins, while it runs."""
    door = ScriptedDoor(lambda request: Say(text="x", hold=trio.Event()))
    async with open_spine(tmp_path, door) as spine:
        for number in range(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spine.ask, "hi", f"s{number % 7}")
                for _ in range(number):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            async with spine.sessions.attend(intake("leaves at once", f"t{number}")):
                pass
        await _settled(spine)
        assert set(await states(spine)) == {"interrupted"}
        assert spine.sessions._feeds.left == set()
        assert spine.sessions._feeds._feeds == {}


async def _settled(spine: Spine) -> None:
    while await spine.rows("SELECT 1 FROM inbox WHERE state IN ('pending', 'live')"):
        await trio.lowlevel.checkpoint()
    while spine.sessions.statistics().turning:
        await trio.lowlevel.checkpoint()


async def test_who_was_told_that_the_gateway_stops_is_not_answered_behind_their_back(tmp_path: Path) -> None:
    """The drain begins while an event is being committed together with its turn."""
    door = ScriptedDoor()
    ends: list[TurnEnd] = []
    async with trio.open_nursery() as nursery:
        async with open_spine(tmp_path, door) as spine:

            async def ask() -> None:
                ends.append(await spine.ask("hi"))

            nursery.start_soon(ask)
            while not spine.sessions.statistics().attended:
                await trio.lowlevel.checkpoint()
    assert [end.failure is not None and end.failure.status for end in ends] == [503]
    assert door.requests == []
    async with open_spine(tmp_path) as spine:
        assert await states(spine) == ["interrupted"]


async def test_only_a_persons_messages_are_answered_together(tmp_path: Path) -> None:
    """A caller who waits behind a turn that is begun anew has a turn of its own."""
    door = ScriptedDoor([Say(hold_before=trio.Event())])
    async with open_spine(tmp_path, door) as spine, trio.open_nursery() as nursery:
        ends: list[TurnEnd] = []

        async def ask() -> None:
            ends.append(await spine.ask("caller", busy="interrupt"))

        await spine.sessions.accept(intake("first", mode="detached", busy="interrupt"))
        await door.asking.wait()
        nursery.start_soon(ask)
        while len(await spine.rows(STATES)) < 2:
            await trio.lowlevel.checkpoint()
        await spine.sessions.accept(intake("second", mode="detached", busy="interrupt"))
        with trio.fail_after(5):
            await _settled(spine)
        assert await states(spine) == ["answered", "answered", "answered"]
    assert [end.state for end in ends] == ["done"]


async def test_a_newer_message_interrupts_a_turn_that_is_just_being_begun(tmp_path: Path) -> None:
    door = ScriptedDoor(
        lambda request: (
            Say(text="both") if "second" in str(request.history[-1].message.text) else Say(hold=trio.Event())
        )
    )
    async with open_spine(tmp_path, door) as spine:
        for number in range(40):
            await spine.sessions.accept(intake("first", f"s{number}", mode="detached", busy="interrupt"))
            for _ in range(number % 4):
                await trio.lowlevel.checkpoint()
            await spine.sessions.accept(intake("second", f"s{number}", mode="detached", busy="interrupt"))
        with trio.fail_after(10):
            await _settled(spine)
        assert set(await states(spine)) <= {"answered", "merged", "superseded"}


async def test_a_session_deleted_under_a_turn_takes_nothing_of_it_into_a_new_one(tmp_path: Path) -> None:
    running, go = trio.Event(), trio.Event()

    @tool(read_only=False)
    async def wait(context: TurnContext) -> str:
        """Wait until the test says."""
        running.set()
        await go.wait()
        return "a secret of the old session"

    door = ScriptedDoor([Say(calls=[ToolCall("1", "wait", "{}")]), Say(text="never asked")])
    ends: list[TurnEnd] = []
    async with open_spine(tmp_path, door, tools=(wait,)) as spine, trio.open_nursery() as nursery:

        async def ask() -> None:
            ends.append(await spine.ask("go"))

        nursery.start_soon(ask)
        await running.wait()
        await spine.store.sessions.delete("s")
        await spine.store.sessions.create(
            session_id="s", source="test", principal="local", title=None, model=None, instructions=None
        )
        go.set()
        await _settled(spine)
        assert await spine.store.sessions.history("s") == []
        assert await spine.rows("SELECT count(*) FROM steps") == [(0,)]
    assert [end.failure is not None and end.failure.code for end in ends] == ["session_deleted"]
    assert len(door.requests) == 1


# A store that is away


async def test_a_stop_does_not_wait_for_a_store_that_stays_away(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="x", hold=hold)])
    store = StoreConfig(synchronous="normal", busy_timeout_s=0.01)
    with contextlib.closing(sqlite3.connect(tmp_path / "hermes.db", isolation_level=None)) as foreign:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(20):
                async with open_spine(tmp_path, door, store=store, drain_s=0.05, cut_s=0.05) as spine:
                    await spine.sessions.accept(intake("waits", key="other", mode="detached"))
                    nursery.start_soon(spine.ask, "hi")
                    await door.asking.wait()
                    foreign.execute("BEGIN IMMEDIATE")
                    hold.set()
                    while spine.store.database.statistics().unavailable is None:
                        await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        foreign.execute("ROLLBACK")
    async with open_spine(tmp_path) as spine:
        await _settled(spine)
        assert sorted(await states(spine)) == ["answered", "interrupted"]


# The gateway around it


async def test_a_signal_during_the_start_ends_it_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    home = Home(tmp_path)
    config = Config(home=tmp_path, workspace=tmp_path / "workspace", http=HttpConfig(port=0))
    options = ServeOptions(home=tmp_path, config_file=None, overrides=Overrides(), replace=True, verbosity=-1)
    with home.lock_file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the start waits for whoever this is
        codes: list[int] = []

        async def serve() -> None:
            codes.append(await run_gateway(config, options=options, announce=lambda _line: None))

        before = signal.getsignal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            while signal.getsignal(signal.SIGTERM) == before:
                await trio.lowlevel.checkpoint()
            os.kill(os.getpid(), signal.SIGTERM)
        assert codes == [0]


def test_who_asks_late_to_be_told_of_a_stop_is_told_at_once() -> None:
    async def late() -> list[str]:
        stop, told = Stop(), list[str]()
        stop.request("a test", 5.0)
        stop.when_asked(lambda: told.append(stop.reason))
        return told

    assert trio.run(late) == ["a test"]


async def test_a_reload_changes_how_long_rows_are_kept_and_names_what_waits(tmp_path: Path) -> None:
    written = "sessions: {stale_after_s: 5}\nagent: {tools: [files], max_steps: 7}\nlogging: {level: debug, files: 9}\n"
    options = ServeOptions(home=tmp_path, config_file=None, overrides=Overrides(), replace=False, verbosity=-1)
    current = Current(reload_config(options), options)
    async with open_spine(tmp_path) as spine:
        current.listen(spine.store.configure)
        (tmp_path / "config.yaml").write_text(written)
        assert await current.reload()
        assert current.waiting == {"agent.tools", "logging.files"}
        assert spine.store.turns._look("s", "t", frozenset(), remembers=False).stale_after_s == 5


class _Unclean:
    """A store after an unclean stop, whose check finds no file handle at first."""

    def __init__(self) -> None:
        self.database = self
        self.unclean = True
        self.checks = 0

    async def quick_check(self) -> None:
        await trio.lowlevel.checkpoint()
        self.checks += 1
        if self.checks == 1:
            raise StoreUnavailable("io", "no file handle is left")

    async def warm(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_check_that_cannot_be_made_now_is_made_later(clock: trio.testing.MockClock) -> None:
    store = _Unclean()
    await _warm_up(store, store)  # type: ignore[arg-type]
    assert store.checks == 2


# What was found by odd requests


async def test_results_without_calls_in_a_new_session_are_the_requests_fault(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        result = tool_result(ToolCall("nobody's", "f", "{}"), "x")
        end = await spine.ask("", payload=Payload(messages=(result,)))
        assert end.failure is not None
        assert (end.failure.status, end.failure.code) == (400, "unknown_tool_call")


def test_a_session_made_without_a_history_of_the_clients_has_none(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as con:
        con.executescript(M001)
        for name, prefix in (("without", None), ("with", b"[]")):
            made = sessions.create(con, session_id=name, key=name, source="", principal="", now=1.0, prefix=prefix)
            taken = sessions.next_event(con, name, 1.0)[0]
            found = sessions.get(con, name)
            assert taken is not None
            assert found is not None
            assert [bool(row.has_prefix) for row in (made, taken, found)] == [prefix is not None] * 3


async def test_more_than_one_look_of_refused_rows_are_all_refused(tmp_path: Path) -> None:
    async with open_spine(tmp_path, sessions=SessionsConfig(sweep_s=3600)) as spine:
        for number in range(2 * MAX_TOGETHER + 5):
            await spine.store.inbox.accept(intake(str(number), mode="detached"))
        await spine.store.sessions.delete("s")
        await spine.sessions.accept(intake("wakes the other", key="other", mode="detached"))
        spine.sessions._live.wake("s")
        with trio.fail_after(5):
            await _settled(spine)
        assert set(await states(spine)) == {"refused", "answered"}


async def test_a_wake_while_a_door_begins_a_turn_is_not_lost(tmp_path: Path) -> None:
    """The door looks into the mailbox, another event is committed behind its look, and its wake comes first."""
    async with open_spine(tmp_path, sessions=SessionsConfig(sweep_s=3600)) as spine:
        for number in range(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spine.ask, "at the door", f"s{number}")
                nursery.start_soon(spine.sessions.accept, intake("behind it", f"s{number}", mode="detached"))
        with trio.fail_after(5):
            await _settled(spine)
        assert set(await states(spine)) == {"answered"}


async def test_what_is_resumed_in_a_new_session_is_said_again(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="x", hold=trio.Event())])
    async with open_spine(tmp_path, door, drain_s=0.0) as spine:
        await spine.sessions.accept(intake("still to be answered", mode="detached"))
        await door.asking.wait()
    async with open_store(tmp_path / "hermes.db", config_for(tmp_path), new_id("boot")) as store:
        await store.sessions.delete("s")
        await store.sessions.create(
            session_id="s", source="test", principal="local", title=None, model=None, instructions=None
        )
    async with open_spine(tmp_path) as spine:
        await _settled(spine)
        assert [message.text for message in await spine.store.sessions.history("s")] == [
            "still to be answered", "echo: still to be answered"
        ]  # fmt: skip
