"""The spine without its doors, for tests: a real database, real sessions and turns, a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from hermes.agent.loop import Door
from hermes.agents import Agents
from hermes.blobs import Blobs
from hermes.feed import Feed
from hermes.ids import new_id
from hermes.intake import Intake, Payload, TurnEnd
from hermes.messages import user
from hermes.replies import Replies
from hermes.sessions import Sessions, open_sessions
from hermes.settings import Config, StoreConfig
from hermes.store import Store, open_store
from hermes.testing.door import ScriptedDoor
from hermes.toolset import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spine:
    """What `open_spine` opens."""

    store: Store
    sessions: Sessions
    door: Door
    config: Config

    async def ask(self, text: str, key: str = "s", **changes: Any) -> TurnEnd:
        """Say something in a session and wait for the end of its turn."""
        async with self.sessions.attend(intake(text, key, **changes)) as (feed, _accepted):
            return await feed.wait_end()

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        return await self.store.database.read(lambda con: con.execute(query, values).fetchall())


def intake(text: str, key: str = "s", **changes: Any) -> Intake:
    """An attended message to a session."""
    base: dict[str, Any] = {
        "session_key": key, "event_id": new_id("evt"), "mode": "attended", "principal": "local", "source": "test",
        "payload": Payload(messages=(user(text),)), "may_change": True,
    }  # fmt: skip
    return Intake(**{**base, **changes})


def config_for(home: Path, **sections: Any) -> Config:
    """A configuration for tests: everything at its default, the database without fsync at every commit."""
    config = Config(home=home, workspace=home / "workspace", store=StoreConfig(synchronous="normal"))
    return replace(config, **sections)


@asynccontextmanager
async def open_spine(
    home: Path,
    door: Door | None = None,
    *,
    tools: tuple[Tool, ...] = (),
    boot_id: str | None = None,
    drain_s: float = 5.0,
    cut_s: float = 10.0,
    replies: Replies | None = None,
    blobs: Blobs | None = None,
    **sections: Any,
) -> AsyncIterator[Spine]:
    """Open store and sessions in a home and admit turns.

    Args:
        door: the model; an echo by default.
        tools: what is offered.
        boot_id: names the process; a new one by default, as after a restart.
        drain_s: how long running turns may finish when the block is left.
        cut_s: how long the cut ones may take to write their end then.
        replies: how people on messaging services hear of an end.
        blobs: where pictures are.
        sections: parts of the configuration.
    """
    config = config_for(home, **sections)
    now = trio.current_time
    door = door if door is not None else ScriptedDoor()
    async with open_store(home / "hermes.db", config, boot_id or new_id("boot")) as store:
        agents = Agents(store, door, tools, lambda: config, replies=replies, blobs=blobs)
        async with open_sessions(
            store, agents, lambda: config.sessions, drain_by=lambda: now() + drain_s, cut_by=lambda: now() + cut_s
        ) as sessions:
            with sessions.admitting():
                yield Spine(store=store, sessions=sessions, door=door, config=config)


async def wait_until(feed: Feed, kind: type, after: int = 0) -> int:
    """Wait for an event of a kind in a feed; returns its number."""
    while True:
        for number, event in await feed.wait_after(after):
            after = number
            if isinstance(event, kind):
                return number
