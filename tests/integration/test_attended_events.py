"""Events of platforms that somebody waits for: begun with their commit, ended when nobody waits, forgotten when they are over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from hermes.access import AccessPolicy
from hermes.events import Address, InboundEvent, Person, ReplyRef, StoredContent
from hermes.messaging import render_parts
from hermes.platform import Capabilities
from hermes.platform_config import AccountConfig
from hermes.reception import AccountInbox, Reception
from hermes.replies import NoReplies
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.fake_accounts import FakeService
from hermes.testing.gateway_process import until
from hermes.testing.spine import Spine, open_spine


class Replies(NoReplies):
    """Replies that are stored as parts."""

    def parts(self, _address: Address, markdown: str) -> tuple[StoredContent, ...]:
        return render_parts(markdown, Capabilities())


def event(number: int, thread: str = "one") -> InboundEvent:
    address = Address("hooks", "ask", thread)
    found = InboundEvent(
        id=str(number), address=address, chat_kind="dm", sender=Person("ask"), text=f"call {number}", attended=True
    )
    return msgspec.structs.replace(found, reply=ReplyRef(token=found.key))


@asynccontextmanager
async def receiving(home: Path, door: ScriptedDoor, **access: Any) -> AsyncIterator[tuple[Spine, AccountInbox]]:
    policy = AccessPolicy(**{"dm_policy": "open", "busy": "queue", **access})
    account = AccountConfig(account="hooks", spec=FakeService().plan().spec, config=None, access=policy)
    async with open_spine(home, door, replies=Replies(), platforms={"hooks": account}) as spine:
        reception = Reception(
            spine.store, lambda: spine.sessions, lambda: spine.config, wake_lane=lambda _: None,
            wake_commands=lambda: None,
        )  # fmt: skip
        yield spine, reception.inbox_for("hooks", 1)


async def rows(spine: Spine) -> list[tuple[Any, ...]]:
    return await spine.rows("SELECT event_id, state, reason FROM inbox ORDER BY id")


async def parts(spine: Spine) -> list[tuple[Any, ...]]:
    return await spine.rows("SELECT chat, thread, CAST(content AS TEXT) FROM outbox ORDER BY id")


async def ended(spine: Spine, count: int) -> None:
    async def over() -> bool:
        found = await spine.rows("SELECT count(*) FROM inbox WHERE finished_at IS NOT NULL")
        return bool(found[0][0] >= count)

    await until(over, f"{count} rows at their end")


async def test_a_turn_begins_in_the_transaction_that_commits_its_event(tmp_path: Path) -> None:
    async with receiving(tmp_path, ScriptedDoor()) as (spine, inbox):
        before = spine.store.database.statistics().transactions
        assert await inbox.deliver(event(1)) == {event(1).key}
        assert spine.store.database.statistics().transactions == before + 1
        await ended(spine, 1)
        assert spine.store.database.statistics().transactions - before <= 3  # and one for the end, one last look
        assert await inbox.deliver(event(1)) == frozenset()
        assert [state for _, state, _ in await rows(spine)] == ["answered"]
        assert [(chat, thread) for chat, thread, _ in await parts(spine)] == [("ask", "one")]


async def test_in_a_busy_session_it_waits_and_interrupts_nobody(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with receiving(tmp_path, door) as (spine, inbox):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(inbox.deliver, event(number))
        await ended(spine, 5)
        assert [state for _, state, _ in await rows(spine)] == ["answered"] * 5
        assert len(await parts(spine)) == 5


async def test_who_may_not_speak_is_not_answered(tmp_path: Path) -> None:
    async with receiving(tmp_path, ScriptedDoor(), dm_policy="ignore") as (spine, inbox):
        assert await inbox.deliver(event(1)) == frozenset()
        assert await rows(spine) == []
        assert spine.sessions.statistics().live == 0


async def test_when_nobody_waits_any_more_the_turn_ends_and_nobody_is_told(tmp_path: Path) -> None:
    async with receiving(tmp_path, ScriptedDoor([Say(hold_before=trio.Event())])) as (spine, inbox):
        await inbox.deliver(event(1))
        await until(lambda: spine.sessions.statistics().turning, "the turn")
        await inbox.deliver(event(2))  # behind it
        inbox.left(event(2).key)
        inbox.left(event(1).key)
        await ended(spine, 2)
        assert await rows(spine) == [
            (event(1).key, "interrupted", "the caller left"), (event(2).key, "interrupted", "the caller left"),
        ]  # fmt: skip
        assert await parts(spine) == []


async def test_who_leaves_while_the_turn_is_being_begun_ends_it(tmp_path: Path) -> None:
    """Between the commit that begins it and its first step nobody runs it yet."""
    async with receiving(tmp_path, ScriptedDoor([Say(hold_before=trio.Event())])) as (spine, inbox):
        await inbox.deliver(event(1))
        assert spine.sessions.statistics().turning == 0
        inbox.left(event(1).key)
        await ended(spine, 1)
        assert await rows(spine) == [(event(1).key, "interrupted", "the caller left")]
        assert await parts(spine) == []


async def test_what_is_over_is_forgotten(tmp_path: Path) -> None:
    async with receiving(tmp_path, ScriptedDoor()) as (spine, inbox):
        for number in range(3):
            await inbox.deliver(event(number, thread=str(number)))
        await ended(spine, 3)
        await until(lambda: not spine.sessions.statistics().turning, "the end of the turns")
        for number in range(5):  # too late, or of an event that never was
            inbox.left(event(number).key)
        feeds = spine.sessions._feeds
        assert (feeds.left, feeds.awaited) == (set(), {})
