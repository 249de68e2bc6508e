"""Lanes, a reply being written, typing, progress, ended at every step: each part says what became of it, the next start goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hermes.delivery import Delivery, open_delivery
from hermes.delivery.content import MARK
from hermes.errors import SendUncertain
from hermes.events import Address
from hermes.ids import new_id
from hermes.platform import Capabilities
from hermes.settings import DeliveryConfig
from hermes.store import Store, live_parts, open_store
from hermes.testing import Ending, cancel_at_every_step
from hermes.testing.cancellation import Way
from hermes.testing.delivering import say
from hermes.testing.fake_platform import FakeConnections, FakePlatform, Mood, refuses
from hermes.testing.spine import config_for

A, B, C = (Address(account="one", chat=chat) for chat in "abc")
QUICK = DeliveryConfig(
    backoff_base_s=0.001,
    edit_interval_s=0.001,
    sweep_s=0.05,
    progress="line",
    progress_after_s=0.001,
    progress_every_s=0.01,
)


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


@pytest.mark.wall_clock_s(400)
@pytest.mark.parametrize("drops", [False, True])
async def test_at_every_step(tmp_path: Path, seed: int, full: bool, record: Callable[..., None], drops: bool) -> None:
    platform = FakePlatform(Capabilities(edits=True, drafts=True, deduplicates=drops, typing_every_s=0.01))
    running: list[FakeConnections] = []
    posted: set[str] = set()
    ended: set[str] = set()
    life = 0

    async def scenario() -> None:
        nonlocal life
        life += 1
        running.clear()
        connections = FakeConnections(one=platform)
        running.append(connections)
        platform.queued.clear()
        platform.next("b", refuses(SendUncertain("cut")))
        platform.next("c", Mood())
        async with opened(tmp_path, connections) as (store, delivery):
            for address, count in ((A, 2), (B, 1)):
                texts = [f"{address.chat} {life} {number}" for number in range(count)]
                await delivery.post(address, say(*texts), source="test")
                posted.update(texts)
            turn = f"t{life}"
            async with (
                delivery.open_live(C, turn_id=turn) as live,
                delivery.open_typing(C),
                delivery.open_progress(live) as progress,
            ):
                progress.words([f"draft {life}"])
                await trio.lowlevel.checkpoint()
                progress.began("1", "terminal")
                live.update(f"draft {life} more")
                await trio.sleep(0.002)  # the line is written
            now = store.clock()
            text = f"c {life}"
            added = await store.database.write(
                lambda con: live_parts.finish_live(con, C, say(text), reply=None, source="turn", turn_id=turn, now=now)
            )
            ended.add(text)
            delivery.wake(added.address)

    async def check() -> None:
        async with opened(tmp_path, FakeConnections(one=platform)) as (store, _):
            while (await store.outbox.counts()).keys() - {"rejected", "held"}:  # noqa: ASYNC110  # an observable fact
                await trio.sleep(0.005)
            rows = await store.database.read(lambda con: con.execute("SELECT state, reason FROM outbox").fetchall())
        assert all(row in (("sent", None), ("sent", "cut"), ("rejected", "cut")) for row in rows), rows
        for chat in "abc":
            shown = Counter(platform.texts(chat))
            assert all(count == 1 for text, count in shown.items() if not text.startswith(MARK)), shown
            plain = {text.removeprefix(f"{MARK}\n") for text in shown}
            wanted = {text for text in posted | ended if text[0] == chat}
            assert wanted <= plain, wanted - plain
        firsts = dict.fromkeys(text.removeprefix(f"{MARK}\n") for text in platform.texts("a"))
        assert list(firsts) == sorted(firsts, key=lambda text: [int(each) for each in text.split()[1:]])
        async with open_store(tmp_path / "hermes.db", config_for(tmp_path), new_id("boot")) as store:
            await store.database.write(lambda con: con.execute("DELETE FROM outbox"))
        platform.messages.clear()
        platform.calls.clear()
        posted.clear()
        ended.clear()

    def leave() -> None:
        for connections in running:
            connections.down("one")
            connections.back("one")

    ways: tuple[Way, ...] = ("cancel", "deadline", "sibling", Ending("the connection is left", leave))
    report = await cancel_at_every_step(
        scenario, check=check, ways=ways, stride=1 if full else 6, seeds=(seed % 997,), settle_s=5
    )
    record("Cancellation matrix", f"delivery (drops repeats: {drops})", steps=report.steps, endings=report.runs)
    assert report.runs > 20
