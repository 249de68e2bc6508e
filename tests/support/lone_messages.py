"""Receiving over the spine, for tests of messages that come alone: one account, everything told about who holds what."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import trio
import trio.testing

from hermes.access import AccessPolicy
from hermes.events import Address, InboundEvent, Person, StoredContent
from hermes.messaging import render_parts
from hermes.platform import Capabilities
from hermes.platform_config import AccountConfig
from hermes.reception import AccountInbox, Reception
from hermes.replies import NoReplies
from hermes.testing.door import ScriptedDoor
from hermes.testing.fake_accounts import FakeService
from hermes.testing.gateway_process import until
from hermes.testing.spine import Spine, open_spine

ANNA, BEN = Person("7", "Anna"), Person("8", "Ben")
KEY = "tg:dm:7"


class Replies(NoReplies):
    """Replies that are stored as parts."""

    def parts(self, _address: Address, markdown: str, _buttons: Any = ()) -> Sequence[StoredContent]:
        return render_parts(markdown, Capabilities())


class Gated(dict[str, AccountConfig]):
    """Accounts whose next look from a transaction waits: what it holds up has begun, and has not been committed."""

    def __init__(self, accounts: Mapping[str, AccountConfig]) -> None:
        super().__init__(accounts)
        self.armed = False
        self.inside, self.go_on = threading.Event(), threading.Event()

    def get(self, key: str, default: Any = None) -> Any:
        if self.armed and threading.current_thread() is not threading.main_thread():
            self.armed = False
            self.inside.set()
            self.go_on.wait(20)
        return super().get(key, default)

    async def held(self) -> None:
        await trio.to_thread.run_sync(self.inside.wait, abandon_on_cancel=True)


def message(number: int, chat: str = "7", *, sender: Person = ANNA, **more: Any) -> InboundEvent:
    base: dict[str, Any] = {"id": str(number), "chat_kind": "dm", "text": f"message {number}"}
    return InboundEvent(**{**base, "address": Address("tg", chat), "sender": sender, **more})


def moved_by(number: int) -> dict[str, bytes]:
    return {"offset": str(number).encode()}


def accounts(**access: Any) -> dict[str, AccountConfig]:
    policy = AccessPolicy(**{"allowed_users": frozenset({"7", "8"}), **access})
    return {"tg": AccountConfig(account="tg", spec=FakeService().plan().spec, config=None, access=policy)}


@asynccontextmanager
async def receiving(
    home: Path,
    door: ScriptedDoor | None = None,
    *,
    kind: type[Reception] = Reception,
    platforms: Any = None,
    **more: Any,
) -> AsyncIterator[tuple[Spine, AccountInbox]]:
    platforms = accounts() if platforms is None else platforms
    async with open_spine(home, door, replies=Replies(), platforms=platforms, **more) as spine:
        reception = kind(
            spine.store, lambda: spine.sessions, lambda: spine.config, wake_lane=lambda _: None,
            wake_commands=lambda: None,
        )  # fmt: skip
        yield spine, reception.inbox_for("tg", 1)


async def quiet(spine: Spine) -> None:
    """Every row that needs nobody but a turn is over, and whoever is live rests."""

    await until(lambda: is_over(spine), "every row at its end")
    assert taken(spine) == 0


async def swept(spine: Spine) -> None:
    """The first look for mailboxes that nobody was woken for is over."""
    await trio.testing.wait_all_tasks_blocked()
    await until(lambda: not spine.store.database.in_flight, "the first sweep")


async def is_over(spine: Spine) -> bool:
    """The same, now."""
    found = await spine.rows("SELECT count(*) FROM inbox WHERE finished_at IS NULL AND kind != 'command'")
    return found == [(0,)] and rest(spine)


def rest(spine: Spine) -> bool:
    """Whether every session that is live waits for nothing but a wake."""
    live = spine.sessions._live
    return not live.doors and all(live.rests(key) for key in live._live)


def taken(spine: Spine) -> int:
    """How many places are taken; nobody holds one for a door unless that is at work."""
    live = spine.sessions._live
    assert live.doors == sum(each.reserved for each in live._live.values())
    assert all(
        each.reserved or each.handed is not None or each.turn is not None
        for each in live._live.values()
        if each.places is not None
    )
    return spine.sessions._detached_slots.borrowed_tokens


def rows_of(home: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a database that nobody has open."""
    with closing(sqlite3.connect(home / "hermes.db")) as con:
        return con.execute(query).fetchall()


async def states(spine: Spine) -> list[str]:
    return [state for (state,) in await spine.rows("SELECT state FROM inbox ORDER BY id")]


async def at_once(spine: Spine) -> list[bool]:
    """Of each turn, whether it was begun by the commit that kept its message: then it has that commit's time."""
    found = await spine.rows(
        "SELECT started_at = accepted_at FROM turns JOIN inbox USING (event_id) ORDER BY started_at"
    )
    return [bool(same) for (same,) in found]
