"""The way to other accounts: once a key, never in a circle, and what is committed there is delivered as any reply is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hermes.access import AccessPolicy
from hermes.errors import PlatformUnavailable, SendRejected, StoreUnavailable
from hermes.events import Address, StoredContent
from hermes.forwarding import AccountOutbox
from hermes.generation import AccountPlan
from hermes.platform_config import AccountConfig
from hermes.store import Store, open_store
from hermes.testing.fake_accounts import FakeService
from hermes.testing.spine import config_for

CHAT = Address("chats", "7")


class Shows:
    def __init__(self) -> None:
        self.woken: list[Address] = []

    def parts(self, _address: Address, markdown: str) -> Sequence[StoredContent]:
        return [StoredContent(text=each) for each in markdown.split("|") if each]

    def wake(self, address: Address) -> None:
        self.woken.append(address)


@asynccontextmanager
async def forwarding(tmp_path: Path) -> AsyncIterator[tuple[Any, Shows, Store]]:
    spec = FakeService().plan().spec
    config = config_for(tmp_path)
    accounts = {
        name: AccountConfig(account=name, spec=replace(spec, name=kind), config=None, access=AccessPolicy())
        for name, kind in (("hooks", "webhook"), ("more-hooks", "webhook"), ("chats", "chat"))
    }
    current = cast("Any", SimpleNamespace(config=SimpleNamespace(platforms=accounts)))
    plan = AccountPlan(account="hooks", spec=accounts["hooks"].spec, config=None, required=True)
    shows = Shows()
    async with open_store(tmp_path / "hermes.db", config, "boot") as store:
        yield AccountOutbox(plan, store, shows, current), shows, store


async def rows(store: Store) -> list[tuple[Any, ...]]:
    query = "SELECT account, chat, source, state, content FROM outbox ORDER BY id"
    return [
        (*each[:4], each[4].decode()) for each in await store.database.read(lambda con: con.execute(query).fetchall())
    ]


async def test_what_has_a_key_is_committed_once_and_in_order(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (outbox, shows, store):
        await outbox.post(CHAT, "one|two", key="k1")
        await outbox.post(CHAT, "three", key="k2")
        await outbox.post(CHAT, "one|two", key="k1")
        assert [row[:4] for row in await rows(store)] == [("chats", "7", "forwarded", "pending")] * 3
        assert [word in row[4] for word, row in zip(("one", "two", "three"), await rows(store), strict=True)] == [
            True
        ] * 3
        assert shows.woken == [CHAT, CHAT]
        keys = await store.database.read(lambda con: con.execute("SELECT key FROM outbox").fetchall())
        assert all(key.isalnum() and key == key.lower() and len(key) <= 25 for (key,) in keys)


async def test_what_would_go_in_a_circle_or_nowhere_is_rejected(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (outbox, shows, store):
        for account in ("hooks", "more-hooks", "gone"):
            with pytest.raises(SendRejected):
                await outbox.post(Address(account, "7"), "words", key="k1")
        assert not await rows(store)
        assert not shows.woken


async def test_a_store_that_is_away_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with forwarding(tmp_path) as (outbox, _, store):

        async def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("full")

        with monkeypatch.context() as patch:
            patch.setattr(type(store.outbox), "add", away)
            with pytest.raises(PlatformUnavailable):
                await outbox.post(CHAT, "words", key="k1")
        await outbox.post(CHAT, "words", key="k1")
        assert len(await rows(store)) == 1
