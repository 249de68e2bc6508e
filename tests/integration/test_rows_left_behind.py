"""Messages that are accepted are answered, whatever becomes of their chat, their account and the process meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hermes.access import AccessPolicy
from hermes.events import Address, InboundEvent, Person
from hermes.platform_config import AccountConfig
from hermes.settings import Config, SessionsConfig
from hermes.store import open_store
from hermes.store.reception import Place
from hermes.testing.clock import Hold
from hermes.testing.door import ScriptedDoor
from hermes.testing.spine import Spine, intake, open_spine
from platforms.telegram import platform as telegram

POLICY = AccessPolicy(allowed_users=frozenset({"7"}))
PLACE = Place(account="tg", platform="telegram", access=POLICY, busy="interrupt", pairing_text=str)


def configured(home: Path) -> Config:
    account = AccountConfig(account="tg", spec=telegram, config=None, access=POLICY)
    return Config(home=home, workspace=home, platforms={"tg": account})


def said(number: int, chat: str, **more: str) -> InboundEvent:
    return InboundEvent(
        id=str(number), address=Address("tg", chat), chat_kind="group", sender=Person("7"), text="hi", to_us=True
    )


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
