"""Messages that are accepted are answered, whatever becomes of their chat, their account and the process meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.access import AccessPolicy
from hermes.events import Address, InboundEvent, Person, Receipt, StoredContent
from hermes.intake import TurnEnd
from hermes.platform_config import AccountConfig
from hermes.sessions import WAKE_BATCH
from hermes.settings import Config, SessionsConfig
from hermes.store import open_store
from hermes.store.reception import Place
from hermes.store.rows import Claim
from hermes.store.turns import Finish
from hermes.testing.clock import Hold
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.spine import Spine, intake, open_spine
from platforms.telegram import platform as telegram

POLICY = AccessPolicy(allowed_users=frozenset({"7"}))
PLACE = Place(account="tg", platform="telegram", access=POLICY, busy="interrupt", pairing_text=str)


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


def configured(home: Path) -> Config:
    account = AccountConfig(account="tg", spec=telegram, config=None, access=POLICY)
    return Config(home=home, workspace=home, platforms={"tg": account})


def said(number: int, chat: str, *, continues: bool = False) -> InboundEvent:
    return InboundEvent(
        id=str(number), address=Address("tg", chat), chat_kind="group", sender=Person("7"), text="hi", to_us=True,
        continues=continues,
    )  # fmt: skip


def moved(number: int, old: str, new: str) -> InboundEvent:
    return InboundEvent(
        id=str(number), address=Address("tg", old), chat_kind="group", sender=Person("0"), kind="moved", text=new
    )


async def test_a_turn_that_ran_as_its_group_moved_is_resumed_after_a_death(tmp_path: Path) -> None:
    async with open_store(tmp_path / "hermes.db", configured(tmp_path), "boot1") as store:
        await store.inbox.deliver(PLACE, (said(1, "-5"),), {})
        begun = await store.turns.take_up("tg:group:-5:user 7", "turn_1", frozenset(), remembers=False)
        assert begun.claim is not None
        await store.inbox.deliver(PLACE, (moved(2, "-5", "-1005"),), {})
    async with open_store(tmp_path / "hermes.db", configured(tmp_path), "boot2") as store:
        (key,) = await store.inbox.waiting_keys(9)
        found = await store.turns.take_up(key, "turn_2", frozenset(), remembers=False)
        assert found.settled == ()
        assert found.claim is not None
        assert found.claim.resumed


async def test_a_clock_that_is_set_back_keeps_no_message_waiting(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    async with open_store(tmp_path / "hermes.db", configured(tmp_path), "boot", lambda: now[0]) as store:
        await store.inbox.deliver(PLACE, (said(1, "-5", continues=True),), {})
        held = await store.turns.take_up("tg:group:-5:user 7", "turn_1", frozenset(), remembers=False)
        assert held.held_s == PLACE.merge_window_s
        now[0] -= 0.25  # no more than clocks are corrected by
        held = await store.turns.take_up("tg:group:-5:user 7", "turn_1", frozenset(), remembers=False)
        assert held.held_s == PLACE.merge_window_s + 0.25
        now[0] -= 3600
        found = await store.turns.take_up("tg:group:-5:user 7", "turn_1", frozenset(), remembers=False)
        assert found.claim is not None


async def test_what_a_restarted_turn_showed_becomes_the_reply_to_both_messages(tmp_path: Path) -> None:
    """A line that says that it takes long is shown, and the turn begins anew with a newer message: nothing stays `live`."""
    key, where = "tg:group:-5:user 7", Address("tg", "-5")
    async with open_store(tmp_path / "hermes.db", configured(tmp_path), "boot") as store:

        async def begin(number: int) -> Claim:
            await store.inbox.deliver(PLACE, (said(number, "-5"),), {})
            found = await store.turns.take_up(key, f"turn_{number}", frozenset(), remembers=False)
            assert found.claim is not None
            return found.claim

        def finish(claim: Claim, **how: Any) -> Finish:
            end = TurnEnd(event_id=claim.rows[-1].event_id, session_id=claim.session.id, state="done")
            return Finish(claim=claim, end=end, messages=(), **how)

        first = await begin(1)
        line = StoredContent(text="still working")
        live = await store.outbox.open_live(where, line, reply=None, source="turn", turn_id="turn_1")
        assert live is not None
        await store.outbox.shown(live.id, Receipt(message_id="m1", address=where))
        await store.turns.finish(finish(first, rows="pending", reason="restarted"))
        both = await begin(2)
        assert [each.event_id for each in both.rows] == ["tg/-5/message/1", "tg/-5/message/2"]
        await store.turns.finish(finish(both, rows="answered", reply=(StoredContent(text="the reply"),)))
        found = await store.database.read(
            lambda con: con.execute("SELECT state, receipt IS NULL FROM outbox").fetchall()
        )
        assert found == [("pending", 0)]  # to be edited


async def until_answered(spine: Spine, event_id: str) -> None:
    """Wait until a row is over."""
    while await spine.rows("SELECT state FROM inbox WHERE event_id = ?", event_id) != [("answered",)]:  # noqa: ASYNC110
        await trio.sleep(1)  # an observable fact


async def accept(spine: Spine, event_id: str, key: str) -> None:
    """A row of which nobody is told."""
    await spine.store.inbox.accept(intake(event_id, key, event_id=event_id, mode="detached"))


async def test_a_lost_hint_costs_a_sweep_also_where_a_session_is_live(tmp_path: Path, clock: MockClock) -> None:
    async with open_spine(tmp_path) as spine:
        with Hold(clock, lambda: spine.store.database.in_flight > 0):
            await spine.ask("hi")
            await accept(spine, "later", "s")
            with trio.fail_after(2 * SessionsConfig().sweep_s):
                await until_answered(spine, "later")
            assert spine.sessions.statistics().live == 1


async def test_mailboxes_that_are_busy_for_long_hide_no_others_from_the_sweep(tmp_path: Path, clock: MockClock) -> None:
    end, busy = trio.Event(), [f"busy{number}" for number in range(WAKE_BATCH)]
    door = ScriptedDoor(
        lambda request: Say(text="ok", hold_before=None if request.history[-1].message.text == "free" else end)
    )
    async with open_spine(tmp_path, door) as spine:
        with Hold(clock, lambda: spine.store.database.in_flight > 0):
            for key in busy:
                await accept(spine, f"{key} 1", key)
                await accept(spine, f"{key} 2", key)
            await accept(spine, "free", "free")
            with trio.fail_after(2 * SessionsConfig().sweep_s):
                await until_answered(spine, "free")
            assert spine.sessions.statistics().turning == WAKE_BATCH
            end.set()
