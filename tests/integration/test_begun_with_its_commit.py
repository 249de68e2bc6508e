"""A lone message that nobody waits for is kept and begun by one transaction where its session is free; else by two, as any other."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from lone_messages import (
    BEN,
    KEY,
    Gated,
    accounts,
    at_once,
    message,
    moved_by,
    quiet,
    receiving,
    rows_of,
    states,
    swept,
    taken,
)

from hermes.agent.calls import ModelRequest
from hermes.errors import StoreUnavailable
from hermes.events import AttachmentRef, InboundEvent, Person
from hermes.reception import AccountInbox
from hermes.settings import HttpConfig, SessionResetConfig, SessionsConfig, StoreConfig
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.gateway_process import until


async def test_it_costs_one_transaction_to_keep_and_begin_and_one_to_end(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (spine, inbox):
        for number in range(3):  # the first finds no live session, the others an idle one
            before = spine.store.database.statistics().transactions
            assert await inbox.deliver(message(number), cursors=moved_by(number)) == {message(number).key}
            assert spine.store.database.statistics().transactions == before + 1
            assert await spine.store.inbox.cursors("tg") == moved_by(number)
            assert (await spine.rows("SELECT turn_id FROM inbox ORDER BY id DESC"))[0][0] is not None
            await quiet(spine)
            assert spine.store.database.statistics().transactions == before + 2
        assert await at_once(spine) == [True] * 3
        assert await inbox.deliver(message(2), cursors=moved_by(9)) == frozenset()  # a repeat begins nothing
        assert await spine.store.inbox.cursors("tg") == moved_by(9)
        assert await states(spine) == ["answered"] * 3


async def test_an_attempt_is_counted_before_the_turn_runs(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(hold_before=trio.Event())])
    async with receiving(tmp_path, door, drain_s=0) as (spine, inbox):
        await inbox.deliver(message(1), cursors=moved_by(1))
        assert not door.requests
        assert await spine.rows("SELECT state, attempts FROM inbox") == [("live", 1)]
        await door.asking.wait()
    async with receiving(tmp_path) as (spine, _):  # it was cut: the next start goes on with it
        await until(lambda: not spine.sessions.statistics().turning and spine.door.requests, "the answer")  # type: ignore[attr-defined]
        await quiet(spine)
        assert await states(spine) == ["answered"]


@pytest.mark.parametrize(
    "event",
    [
        message(1, text="/queue words"), message(1, album="a"), message(1, continues=True),
        message(1, attachments=(AttachmentRef(ref="f", kind="image"),)),
        message(1, chat="-5", chat_kind="group", text="to others"), message(1, sender=Person("9"), chat="9"),
        message(1, kind="button", text="more"), message(1, kind="edited", edits="0"),
        message(1, sender=Person("9", bot=True)),
    ],
    ids=["command", "album", "continues", "files", "context", "stranger", "button", "edit", "bot"],
)  # fmt: skip
async def test_what_is_no_plain_message_to_us_is_kept_as_before(tmp_path: Path, event: InboundEvent) -> None:
    async with receiving(tmp_path, platforms=accounts(dm_policy="allowlist")) as (spine, inbox):
        reserved = 0
        reserve = spine.sessions._live.reserve

        def noted(*args: Any, **more: Any) -> Any:
            nonlocal reserved
            reserved += 1
            return reserve(*args, **more)

        spine.sessions._live.reserve = noted  # type: ignore[method-assign]
        await inbox.deliver(event, cursors=moved_by(1))
        assert await spine.store.inbox.cursors("tg") == moved_by(1)
        assert reserved == (event.sender.id == "9")  # only the store knows whom the owner let in
        assert True not in await at_once(spine)


async def test_several_of_one_batch_are_taken_up_in_their_order(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with receiving(tmp_path, door, sessions=SessionsConfig(busy="queue")) as (spine, inbox):
        await inbox.deliver(message(1), message(2), cursors=moved_by(2))
        await quiet(spine)
        assert await at_once(spine) == [False, False]
        assert [each[-1].text for each in door.histories] == ["message 1", "message 2"]


async def test_who_was_let_in_by_a_code_is_answered_at_once_and_a_stranger_is_told_one(tmp_path: Path) -> None:
    async with receiving(tmp_path, platforms=accounts(allowed_users=frozenset())) as (spine, inbox):
        await inbox.deliver(message(1), cursors=moved_by(1))
        assert (await states(spine), len(spine.sessions._live)) == ([], 0)
        (said,) = await spine.rows("SELECT CAST(content AS TEXT) FROM outbox")
        code = re.search(r"approve tg (\w+)", said[0])
        assert code is not None
        await spine.store.accounts.approve("tg", code[1])
        await inbox.deliver(message(2), cursors=moved_by(2))
        await quiet(spine)
        assert (await states(spine), await at_once(spine)) == (["answered"], [True])


async def test_a_busy_session_takes_it_as_it_always_did(tmp_path: Path) -> None:
    """The turn has shown nothing: it begins anew with both."""
    door = ScriptedDoor([Say(hold_before=trio.Event())])
    async with receiving(tmp_path, door) as (spine, inbox):
        await inbox.deliver(message(1), cursors=moved_by(1))
        await door.asking.wait()
        await inbox.deliver(message(2), cursors=moved_by(2))
        await quiet(spine)
        assert await states(spine) == ["merged", "answered"]
        assert [each.text for each in door.histories[-1]] == ["message 1\n\nmessage 2"]


async def test_a_newer_one_while_it_is_being_begun_is_answered_with_it(tmp_path: Path) -> None:
    def say(request: ModelRequest) -> Say:
        alone = request.history[-1].message.text == "message 1"
        return Say(text="yes", hold_before=trio.Event() if alone else None)

    platforms, door = Gated(accounts()), ScriptedDoor(say)
    async with receiving(tmp_path, door, platforms=platforms) as (spine, inbox):
        platforms.armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(inbox.deliver, message(1), cursors=moved_by(1)))
            await platforms.held()
            nursery.start_soon(partial(inbox.deliver, message(2), cursors=moved_by(2)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            platforms.go_on.set()
        await quiet(spine)
        assert await states(spine) == ["merged", "answered"]
        assert await spine.store.inbox.cursors("tg") == moved_by(2)


async def test_a_mailbox_whose_first_row_holds_for_more_parts_is_left_alone(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with receiving(tmp_path, door, sessions=SessionsConfig(merge_window_s=0.3, busy="queue")) as (spine, inbox):
        await inbox.deliver(message(1, album="a"), cursors=moved_by(1))
        await until(lambda: spine.sessions._live._live[KEY].held_s, "the album's wait")
        await inbox.deliver(message(2), cursors=moved_by(2))
        assert await states(spine) == ["pending", "pending"]
        await quiet(spine)
        assert [each[-1].text for each in door.histories] == ["message 1", "message 2"]
        assert await at_once(spine) == [False, False]


async def test_one_that_was_kept_just_before_is_answered_with_it(tmp_path: Path) -> None:
    """It is the older one whose turn is begun then, and the newer one interrupts that, whoever hears of its commit first."""

    def say(request: ModelRequest) -> Say:
        alone = request.history[-1].message.text == "older"
        return Say(text="yes", hold_before=trio.Event() if alone else None)

    platforms = Gated(accounts())
    async with receiving(tmp_path, ScriptedDoor(say), platforms=platforms) as (spine, inbox):
        await inbox.deliver(message(0), cursors=moved_by(0))
        await quiet(spine)
        for number in range(1, 7):  # those who wait for a commit go on from it in any order
            older, newer = message(number, text="older"), message(number + 100, text="newer")
            platforms.inside.clear()
            platforms.go_on.clear()
            platforms.armed = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spine.store.database.write, lambda _: platforms.get("tg"))  # both wait behind it
                await platforms.held()
                other = message(number, "8", sender=BEN)  # with it, the older one is not alone
                nursery.start_soon(partial(inbox.deliver, older, other, cursors=moved_by(number)))
                await trio.testing.wait_all_tasks_blocked(0.02)
                nursery.start_soon(partial(inbox.deliver, newer, cursors=moved_by(number + 100)))
                await trio.testing.wait_all_tasks_blocked(0.02)
                platforms.go_on.set()
            await quiet(spine)
            found = await spine.rows("SELECT event_id, state FROM inbox WHERE chat = '7' ORDER BY id DESC LIMIT 2")
            assert found == [(newer.key, "answered"), (older.key, "merged")]


@pytest.mark.parametrize("how", ["another needs its room", "it is let go"])
async def test_what_holds_for_more_parts_is_answered_after_its_wait_whoever_is_let_go(tmp_path: Path, how: str) -> None:
    """Not by the sweep: that comes much later."""
    settings = SessionsConfig(merge_window_s=0.3, max_live=1, sweep_s=3600)
    async with receiving(tmp_path, sessions=settings) as (spine, inbox):
        await swept(spine)
        await inbox.deliver(message(1, album="a"), cursors=moved_by(1))
        await until(lambda: spine.sessions._live._live[KEY].held_s, "the album's wait")
        if how == "it is let go":
            spine.sessions.forget(KEY)
        else:
            await inbox.deliver(message(2, "8", sender=BEN), cursors=moved_by(2))
        await quiet(spine)
        assert set(await states(spine)) == {"answered"}


@pytest.mark.parametrize("turning", [True, False], ids=["behind a turn", "held for more parts"])
async def test_what_waits_in_a_chat_that_moves_is_answered_without_the_sweep(tmp_path: Path, turning: bool) -> None:
    """After the turn that runs: it is one conversation."""
    gate = trio.Event()
    door = ScriptedDoor([Say(text="yes", hold_before=gate)] if turning else [])
    settings, group = (
        SessionsConfig(busy="queue", sweep_s=3600, merge_window_s=0.3),
        {"chat_kind": "group", "to_us": True},
    )
    async with receiving(tmp_path, door, sessions=settings) as (spine, inbox):
        await swept(spine)
        if turning:
            await inbox.deliver(message(1, "-5", **group), cursors=moved_by(1))
            await door.asking.wait()
        await inbox.deliver(message(2, "-5", album=None if turning else "a", **group), cursors=moved_by(2))
        await inbox.deliver(message(3, "-5", chat_kind="group", kind="moved", text="-6"), cursors=moved_by(3))
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(door.requests) == turning
        gate.set()
        await quiet(spine)
        assert set(await states(spine)) == {"answered"}
        assert {key for (key,) in await spine.rows("SELECT session_key FROM inbox")} == {"tg:group:-6:user 7"}


async def test_a_command_that_waits_comes_first(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (spine, inbox):
        await inbox.deliver(message(1, text="/title words"), cursors=moved_by(1))
        await inbox.deliver(message(2), cursors=moved_by(2))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await states(spine) == ["pending", "pending"]
        assert taken(spine) == 0
        (command,) = await spine.store.inbox.next_commands(9)
        await spine.store.inbox.finish_command(command, ())
        spine.sessions.wake(KEY)  # as whoever ran it does
        await quiet(spine)
        assert await states(spine) == ["command", "answered"]


async def test_no_more_run_at_once_than_may_and_every_place_comes_back(tmp_path: Path) -> None:
    running = most = 0
    gate = trio.Event()

    class Counting(ScriptedDoor):
        async def ask(self, *args: Any, **more: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await gate.wait()
                return await super().ask(*args, **more)
            finally:
                running -= 1

    async def writes(inbox: AccountInbox, chat: int) -> None:
        for number in range(3):
            await inbox.deliver(message(number, str(chat)), cursors=moved_by(number))
            await trio.lowlevel.checkpoint()

    settings, http = SessionsConfig(busy="queue"), HttpConfig(max_concurrent_turns=3)
    async with receiving(tmp_path, Counting(), sessions=settings, http=http) as (spine, inbox):
        async with trio.open_nursery() as nursery:
            for chat in range(12):
                nursery.start_soon(writes, inbox, chat)
        # Nobody who delivers waits for a turn: none has ended.
        assert await spine.rows("SELECT state, count(*) FROM inbox GROUP BY state ORDER BY state") == [
            ("live", 3),
            ("pending", 33),
        ]
        gate.set()
        await quiet(spine)
        assert (most, set(await states(spine)), taken(spine)) == (3, {"answered"}, 0)


async def test_who_waits_for_a_place_is_not_overtaken(tmp_path: Path) -> None:
    first, door = trio.Event(), ScriptedDoor()
    door.script = [Say(hold_before=first), Say(text="second"), Say(text="third")]
    async with receiving(tmp_path, door, http=HttpConfig(max_concurrent_turns=1)) as (spine, inbox):
        await inbox.deliver(message(1, "1"), cursors=moved_by(1))
        await door.asking.wait()
        await inbox.deliver(message(2, "2"), cursors=moved_by(2))
        await until(lambda: spine.sessions._detached_slots.statistics().tasks_waiting, "the one that waits")
        first.set()
        await inbox.deliver(message(3, "3"), cursors=moved_by(3))
        await quiet(spine)
        assert [each[-1].text for each in door.histories] == ["message 1", "message 2", "message 3"]
        assert await at_once(spine) == [True, False, False]


async def test_nobody_is_let_go_for_what_may_not_be_answered(tmp_path: Path) -> None:
    async with receiving(tmp_path, sessions=SessionsConfig(max_live=1)) as (spine, inbox):
        await inbox.deliver(message(1), cursors=moved_by(1))
        await quiet(spine)
        await inbox.deliver(message(2, "9", sender=Person("9")), cursors=moved_by(2))  # a stranger, who is told a code
        assert KEY in spine.sessions._live
        await inbox.deliver(message(3, "8", sender=BEN), cursors=moved_by(3))  # takes its place, as it always did
        await quiet(spine)
        assert (await states(spine), await at_once(spine)) == (["answered"] * 2, [True, False])
        assert (KEY in spine.sessions._live, len(spine.sessions._live)) == (False, 1)


async def test_once_admission_has_ended_it_is_kept_and_not_begun(tmp_path: Path) -> None:
    async with receiving(tmp_path, drain_s=0) as (spine, inbox):
        spine.sessions._live.open = False
        await inbox.deliver(message(1), cursors=moved_by(1))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await states(spine), len(spine.sessions._live)) == (["pending"], 0)


async def let_go(platforms: Gated) -> None:
    """What is held up goes on, once everything else waits."""
    await trio.testing.wait_all_tasks_blocked(0.02)
    platforms.go_on.set()


@pytest.mark.parametrize("drain_s", [5.0, 0.0], ids=["finished", "cut"])
async def test_the_drain_sees_what_is_being_begun(tmp_path: Path, drain_s: float) -> None:
    platforms, told = Gated(accounts()), list[frozenset[str]]()
    door = ScriptedDoor()

    async def deliver(inbox: AccountInbox) -> None:
        told.append(await inbox.deliver(message(1), cursors=moved_by(1)))

    async with trio.open_nursery() as outside:
        async with receiving(tmp_path, door, platforms=platforms, drain_s=drain_s) as (spine, inbox):
            platforms.armed = True
            outside.start_soon(deliver, inbox)
            await platforms.held()
            assert (spine.sessions._live.doors, taken(spine)) == (1, 1)
            outside.start_soon(let_go, platforms)
    assert told == [{message(1).key}]
    ended = ("answered", 0, 1) if drain_s else ("pending", 1, 0)
    assert rows_of(tmp_path, "SELECT state, resume, attempts FROM inbox") == [ended]
    assert rows_of(tmp_path, "SELECT count(*) FROM turns WHERE state = 'running'") == [(0,)]
    assert len(door.requests) == (1 if drain_s else 0)


@pytest.mark.parametrize("live", [False, True], ids=["not yet live", "idle"])
async def test_all_is_cancelled_while_it_is_being_begun(tmp_path: Path, live: bool) -> None:
    platforms, told = Gated(accounts()), list[frozenset[str]]()

    async def deliver(inbox: AccountInbox) -> None:
        told.append(await inbox.deliver(message(1), cursors=moved_by(1)))

    async with trio.open_nursery() as outside:
        with trio.CancelScope() as root:
            async with receiving(tmp_path, platforms=platforms) as (spine, inbox):
                if live:
                    await inbox.deliver(message(0), cursors=moved_by(0))
                    await quiet(spine)
                platforms.armed = True
                outside.start_soon(deliver, inbox)
                await platforms.held()
                root.cancel()
                outside.start_soon(let_go, platforms)
                await trio.sleep_forever()
    assert told == [{message(1).key}]
    (ended,) = rows_of(tmp_path, f"SELECT state, resume, attempts FROM inbox WHERE event_id = '{message(1).key}'")
    assert ended == ("pending", 1, 0)
    assert rows_of(tmp_path, "SELECT count(*) FROM turns WHERE state = 'running'") == [(0,)]


@pytest.mark.parametrize("live", [False, True], ids=["not yet live", "idle"])
@pytest.mark.parametrize("begun", [False, True], ids=["queued", "running"])
async def test_whoever_receives_is_cancelled(tmp_path: Path, live: bool, begun: bool) -> None:
    """Before its transaction runs, nothing is kept; once it runs, it is kept and answered like any other."""
    platforms = Gated(accounts())
    async with receiving(tmp_path, platforms=platforms) as (spine, inbox):
        if live:
            await inbox.deliver(message(0), cursors=moved_by(0))
            await quiet(spine)
        platforms.armed = True
        async with trio.open_nursery() as nursery:
            if not begun:  # another transaction is held up, and this one waits behind it
                nursery.start_soon(spine.store.database.write, lambda con: platforms.get("tg"))
                await platforms.held()
            scope = trio.CancelScope()

            async def deliver() -> None:
                with scope:
                    await inbox.deliver(message(1), cursors=moved_by(1))

            nursery.start_soon(deliver)
            if begun:
                await platforms.held()
            else:
                await trio.testing.wait_all_tasks_blocked(0.02)
            assert (spine.sessions._live.doors, taken(spine)) == (1, 1)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert (spine.sessions._live.doors, taken(spine)) == ((1, 1) if begun else (0, 0))
            assert len(spine.sessions._live) == (1 if begun or live else 0)
            platforms.go_on.set()
        await quiet(spine)
        assert await states(spine) == ["answered"] * (live + begun)
        assert await spine.store.inbox.cursors("tg") == (moved_by(1) if begun else moved_by(0) if live else {})
        await inbox.deliver(message(1), cursors=moved_by(1))  # it comes again
        await quiet(spine)
        assert await states(spine) == ["answered"] * (live + 1)


async def test_a_stop_ends_what_is_being_begun_before_it_and_nothing_after(tmp_path: Path) -> None:
    platforms, door = Gated(accounts()), ScriptedDoor()
    async with receiving(tmp_path, door, platforms=platforms) as (spine, inbox):
        platforms.armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spine.store.database.write, lambda _: platforms.get("tg"))  # both wait behind it
            await platforms.held()
            nursery.start_soon(partial(inbox.deliver, message(1), cursors=moved_by(1)))
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.start_soon(spine.sessions.quiet, KEY, "the stop")
            await trio.testing.wait_all_tasks_blocked(0.02)
            platforms.go_on.set()
        await inbox.deliver(message(2), cursors=moved_by(2))
        await quiet(spine)
        assert await spine.rows("SELECT state, reason FROM inbox ORDER BY id") == [
            ("stopped", "the stop"),
            ("answered", None),
        ]
        assert [each[-1].text for each in door.histories] == ["message 2"]


async def test_a_sweep_finds_what_waits_behind_a_repeat_that_begins_nothing(tmp_path: Path) -> None:
    """A repeat keeps its session from being woken by the sweep, and has nothing to hand over."""
    platforms = Gated(accounts())
    async with receiving(tmp_path, platforms=platforms) as (spine, inbox):
        live = spine.sessions._live
        await swept(spine)
        live.open = False  # it comes while the gateway does not answer
        await inbox.deliver(message(1), cursors=moved_by(1))
        live.open = True
        platforms.armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spine.store.database.write, lambda _: platforms.get("tg"))
            await platforms.held()
            nursery.start_soon(partial(inbox.deliver, message(1), cursors=moved_by(1)))
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert live.doors == 1
            nursery.start_soon(spine.sessions.sweep)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await until(lambda: spine.store.database.in_flight == 2, "the sweep's look")  # the two writes alone
            platforms.go_on.set()
            await quiet(spine)
            nursery.cancel_scope.cancel()
        assert await states(spine) == ["answered"]


async def test_a_store_that_is_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async with receiving(tmp_path, store=StoreConfig(synchronous="normal", busy_timeout_s=0.05)) as (spine, inbox):
        await inbox.deliver(message(0), cursors=moved_by(0))
        await quiet(spine)
        with closing(sqlite3.connect(tmp_path / "hermes.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for chat in ("7", "8"):  # an idle session, and one that is not live
                with pytest.raises(StoreUnavailable):
                    await inbox.deliver(message(1, chat), cursors=moved_by(1))
                assert (taken(spine), list(spine.sessions._live._live)) == (0, [KEY])
            other.execute("ROLLBACK")
        await spine.store.database.wait_available()
        for chat in ("7", "8"):
            await inbox.deliver(message(1, chat), cursors=moved_by(1))
        await quiet(spine)
        assert await states(spine) == ["answered"] * 3


async def test_a_conversation_that_begins_anew_does_not_know_the_one_before(tmp_path: Path) -> None:
    door = ScriptedDoor()
    anew = SessionResetConfig(mode="idle", idle_minutes=0)
    async with receiving(tmp_path, door, session_reset=anew) as (spine, inbox):
        for number in range(3):
            await inbox.deliver(message(number), cursors=moved_by(number))
            await quiet(spine)
        assert len(await spine.rows("select id from sessions")) == 3
    asked = [[each.text for each in history] for history in door.histories]
    assert [len(texts) for texts in asked] == [1, 1, 1]
    assert ["message" in texts[0] and str(number) in texts[0] for number, texts in enumerate(asked)] == [True] * 3
