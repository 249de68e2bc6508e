"""Reactions ended at every step: nothing hangs, and the next start makes of what still waits what it should be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hermes.delivery import Delivery, open_delivery, receipts
from hermes.delivery.receipts import EMOJI
from hermes.events import Address
from hermes.ids import new_id
from hermes.intake import Payload
from hermes.messages import user
from hermes.platform import Capabilities
from hermes.settings import DeliveryConfig
from hermes.store import Store, open_store
from hermes.testing import Ending, cancel_at_every_step
from hermes.testing.cancellation import Way
from hermes.testing.delivering import say
from hermes.testing.fake_platform import FakeConnections, FakePlatform
from hermes.testing.spine import config_for, intake

QUICK = DeliveryConfig(backoff_base_s=0.001, sweep_s=0.05, receipts="reaction")
END = "UPDATE inbox SET state = 'answered', finished_at = 1 WHERE event_id LIKE ?"


@asynccontextmanager
async def opened(home: Path, connections: FakeConnections) -> AsyncIterator[tuple[Store, Delivery]]:
    async with (
        open_store(home / "hermes.db", config_for(home, delivery=QUICK), new_id("boot")) as store,
        open_delivery(
            store, lease=connections.lease, wait_connected=connections.wait_connected,
            capabilities=connections.capabilities, settings=lambda: QUICK, flush_by=lambda: trio.current_time() + 5,
            render=lambda text, _: say(text),
        ) as delivery,
    ):  # fmt: skip
        yield store, delivery


async def end(store: Store, delivery: Delivery, name: str) -> None:
    await store.database.write(lambda con: con.execute(END, (name,)))
    delivery.wake(Address("one", "a"))


@pytest.mark.wall_clock_s(400)
async def test_at_every_step(
    tmp_path: Path, seed: int, full: bool, record: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_AFTER_S", "APART_S"):
        monkeypatch.setattr(receipts, name, 0.0005)
    monkeypatch.setattr(receipts, "LOOK_S", 0.02)
    platform = FakePlatform(Capabilities(reactions=True))
    running: list[FakeConnections] = []

    async def scenario() -> None:
        running.clear()
        running.append(FakeConnections(one=platform))
        async with opened(tmp_path, running[0]) as (store, delivery):
            for name in ("m1", "m2"):
                await store.inbox.accept(
                    intake(
                        "hello", event_id=name, mode="detached", account="one", chat="a",
                        payload=Payload(messages=(user("hello"),), message_id=name),
                    )
                )  # fmt: skip
                delivery.accepted()
            with trio.move_on_after(0.2):
                while platform.reactions.get(("a", "m2")) != EMOJI:  # noqa: ASYNC110  # an observable fact
                    await trio.sleep(0.001)
            await end(store, delivery, "m1")
            await delivery.post(Address("one", "a"), say("an answer"), source="test")

    async def check() -> None:
        async with opened(tmp_path, FakeConnections(one=platform)) as (store, delivery):
            rows = await store.database.read(
                lambda con: con.execute("SELECT event_id FROM inbox WHERE state = 'pending'").fetchall()
            )
            waiting = {("a", name) for (name,) in rows}
            with trio.fail_after(5):
                while any(platform.reactions.get(each) != EMOJI for each in waiting):  # noqa: ASYNC110
                    await trio.sleep(0.001)
                await end(store, delivery, "%")
                while any(platform.reactions[each] for each in waiting):  # noqa: ASYNC110
                    await trio.sleep(0.001)
            await store.database.write(lambda con: con.execute("DELETE FROM inbox"))
            while (await store.outbox.counts()).keys() - {"rejected", "held"}:  # noqa: ASYNC110
                await trio.sleep(0.005)
            await store.database.write(lambda con: con.execute("DELETE FROM outbox"))
        assert platform.most_signals <= 1
        assert all(platform.signals[chat] == 0 for chat in platform.signals)
        platform.reactions.clear()
        platform.messages.clear()
        platform.calls.clear()

    def leave() -> None:
        for connections in running:
            connections.down("one")
            connections.back("one")

    ways: tuple[Way, ...] = ("cancel", "deadline", "sibling", Ending("the connection is left", leave))
    report = await cancel_at_every_step(
        scenario, check=check, ways=ways, stride=1 if full else 20, seeds=(seed % 997,), settle_s=5
    )
    record("Cancellation matrix", "receipts", steps=report.steps, endings=report.runs)
    assert report.runs > 5
