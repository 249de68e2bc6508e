"""Delivery without its gateway, for tests: a real database, real lanes, a service in memory, on virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from hermes.delivery import Delivery, open_delivery
from hermes.events import Address, ReplyRef, StoredContent
from hermes.ids import new_id
from hermes.intake import Payload, RowState
from hermes.messages import user
from hermes.platform import Capabilities
from hermes.settings import DeliveryConfig
from hermes.store import Store, live_parts, open_store
from hermes.testing.clock import Hold
from hermes.testing.fake_platform import FakeConnections, FakePlatform
from hermes.testing.spine import config_for, intake

EPOCH = 1_000_000_000.0
A = Address(account="one", chat="a")


def say(*texts: str) -> list[StoredContent]:
    """Parts of plain text."""
    return [StoredContent(text=text) for text in texts]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What `open_delivering` opens."""

    store: Store
    delivery: Delivery
    platform: FakePlatform
    connections: FakeConnections
    settings: list[DeliveryConfig]

    def set(self, **changes: Any) -> None:
        """Other settings from now on, as a reload brings them."""
        self.settings[0] = replace(self.settings[0], **changes)

    async def accept(self, message: str, at: Address = A) -> None:
        """Somebody writes; the row waits, and nobody takes it up."""
        await self.store.inbox.accept(
            intake(
                "hello", str(at), event_id=f"{at}/{message}", mode="detached", account=at.account, chat=at.chat,
                thread=at.thread, payload=Payload(messages=(user("hello"),), message_id=message),
            )
        )  # fmt: skip
        self.delivery.accepted()

    async def end(self, message: str, at: Address = A, state: RowState = "answered") -> None:
        """The row ends like this."""
        await self.store.database.write(
            lambda con: con.execute(
                "UPDATE inbox SET state = ?, finished_at = 1 WHERE event_id = ?", (state, f"{at}/{message}")
            )
        )
        self.delivery.wake(at)

    async def rows(self, columns: str = "state, reason") -> list[tuple[Any, ...]]:
        """The outbox, in the order of its ids."""
        query = f"SELECT {columns} FROM outbox ORDER BY id"  # noqa: S608  # a test's own columns
        return await self.store.database.read(lambda con: con.execute(query).fetchall())

    async def states(self) -> list[str]:
        """The states of the rows."""
        return [state for (state,) in await self.rows("state")]

    async def until(self, *states: str) -> None:
        """Wait until the rows have these states."""
        pause = 0.05
        while await self.states() != list(states):
            await trio.sleep(pause)
            pause = min(pause * 1.2, 0.5)

    async def until_shown(self, *texts: str, chat: str = "a") -> None:
        """Wait until a chat shows these messages."""
        while self.platform.texts(chat) != list(texts):  # noqa: ASYNC110  # an observable fact
            await trio.sleep(0.01)

    async def post(self, *texts: str, at: Address = A) -> None:
        """Commit parts and wake their lane."""
        await self.delivery.post(at, say(*texts), source="test")

    async def finish(
        self, at: Address, turn: str, *texts: str, reply: ReplyRef | None = None, resumes: str | None = None
    ) -> None:
        """The transaction that ends a turn with these parts as its reply."""
        now = self.store.clock()
        added = await self.store.database.write(
            lambda con: live_parts.finish_live(
                con, at, say(*texts), reply=reply, source="turn", turn_id=turn, now=now, resumes=resumes
            )
        )
        self.delivery.wake(added.address)

    async def cut(self, turn: str) -> None:
        """The transaction that ends a turn without a last word."""
        now = self.store.clock()
        await self.store.database.write(lambda con: live_parts.end_live(con, turn, now))


@asynccontextmanager
async def open_delivering(
    home: Path,
    clock: MockClock,
    *,
    capabilities: Capabilities | None = None,
    connections: FakeConnections | None = None,
    flush_s: float = 0.0,
    accounts: Sequence[str] | None = None,
    part: int = 4096,
    **settings: Any,
) -> AsyncIterator[Place]:
    """Open store and delivery in a directory.

    Args:
        clock: of this trio run; it stands still while the store works.
        capabilities: of the accounts `one` and `two`, where `connections` are not given.
        flush_s: how long the exit may send.
        accounts: the configured ones.
        part: characters of a part of a draft.
        settings: of `delivery:`.
    """
    configured = [replace(DeliveryConfig(), **settings)]

    def render(text: str, _: Capabilities) -> list[StoredContent]:
        return say(*(text[at : at + part] for at in range(0, len(text), part)))

    config = config_for(home, delivery=configured[0])
    if connections is None:
        can = capabilities if capabilities is not None else Capabilities()
        connections = FakeConnections(one=FakePlatform(can), two=FakePlatform(can))
    stores: list[Store] = []
    with Hold(clock, lambda: not stores or stores[0].database.in_flight > 0):
        now = trio.current_time
        try:
            async with open_store(home / "hermes.db", config, new_id("boot"), lambda: EPOCH + now()) as store:
                stores.append(store)
                async with open_delivery(
                    store, lease=connections.lease, wait_connected=connections.wait_connected,
                    capabilities=connections.capabilities, settings=lambda: configured[0],
                    flush_by=lambda: now() + flush_s, render=render,
                    accounts=(lambda: accounts) if accounts is not None else None, rng=random.Random(1),
                ) as running:  # fmt: skip
                    yield Place(
                        store=store,
                        delivery=running,
                        platform=connections.platforms["one"],
                        connections=connections,
                        settings=configured,
                    )
                stores.clear()
        finally:
            stores.clear()
