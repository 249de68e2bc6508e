"""What tests of the real process with accounts share: its configuration, its rows, and both services behind one face."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from hermes.home import Home
from hermes.intake import FINAL_ROW_STATES
from hermes.testing.fake_discord import ALICE, FakeDiscord
from hermes.testing.fake_model import FakeModel
from hermes.testing.fake_telegram import FakeTelegram
from hermes.testing.gateway_process import GatewayProcess, until

QUICK = {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2, "open_timeout_s": 5}
FINAL_PARTS = ("sent", "rejected", "held")
MARK = "(may be a duplicate)"


class Service(Protocol):
    """A messaging service with one person who writes to the bot."""

    @property
    def name(self) -> str:
        """Of the platform, and of its account."""
        ...

    def section(self, **more: Any) -> dict[str, Any]:
        """The account in the configuration."""
        ...

    def write(self, text: str, chat: int = 0) -> None:
        """The person writes in one of the conversations."""
        ...

    def texts(self, chat: int = 0) -> list[str]:
        """What the bot has written there."""
        ...


class TelegramService:
    """A `Service`: the person is 7, and each conversation is with another such person."""

    name = "telegram"

    def __init__(self, fake: FakeTelegram) -> None:
        self.fake = fake

    def section(self, **more: Any) -> dict[str, Any]:
        """Everybody may speak, 7 is an admin."""
        return {
            "token": self.fake.token, "base_url": self.fake.base_url, "allowed_users": ["*"], "admins": [7],
            "admin_tools": True, "poll_timeout_s": 5, **more,
        }  # fmt: skip

    def write(self, text: str, chat: int = 0) -> None:
        """A direct message."""
        self.fake.write(7 + chat, text)

    def texts(self, chat: int = 0) -> list[str]:
        """What the bot has written there."""
        return self.fake.texts(7 + chat)


class DiscordService:
    """A `Service`: the person is Alice, who has as many direct conversations as are asked for."""

    name = "discord"

    def __init__(self, fake: FakeDiscord) -> None:
        self.fake = fake

    def section(self, **more: Any) -> dict[str, Any]:
        """Everybody may speak, Alice is an admin."""
        return {
            "token": self.fake.token, "base_url": self.fake.base_url, "allowed_users": ["*"], "admins": [int(ALICE)],
            "admin_tools": True, "timeout_s": 10, **more,
        }  # fmt: skip

    def channel(self, chat: int) -> str:
        """The channel of a conversation."""
        id_ = str(600 + chat)
        if id_ not in self.fake.channels:
            self.fake.add_channel(id_, 1)
        return id_

    def write(self, text: str, chat: int = 0) -> None:
        """A direct message."""
        self.fake.say(text, self.channel(chat))

    def texts(self, chat: int = 0) -> list[str]:
        """What the bot has written there."""
        return self.fake.shown(self.channel(chat))


def sections(model: FakeModel, *services: Service, **more: Any) -> dict[str, Any]:
    """A configuration with these accounts, and with every pause short."""
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k", "retry_budget": 1},
        "platforms": {each.name: each.section() for each in services},
        "supervision": QUICK,
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
        "sessions": {"sweep_s": 0.5},
        **more,
    }


def look(home: Path, sql: str) -> list[Any]:
    """Read the database of a gateway, running or not."""
    with closing(sqlite3.connect(f"file:{Home(home).database}?mode=ro", uri=True)) as con:
        return con.execute(sql).fetchall()


def open_rows(home: Path) -> tuple[int, int]:
    """How many rows of the inbox and of the outbox have no final state."""
    (inbox,) = look(home, "SELECT count(*) FROM inbox WHERE finished_at IS NULL")[0]
    (outbox,) = look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0]
    return inbox, outbox


def final_states(home: Path) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """State -> rows, of the inbox and of the outbox.

    Raises:
        AssertionError: a state is not final.
    """
    inbox = dict(look(home, "SELECT state, count(*) FROM inbox GROUP BY state"))
    outbox = dict(look(home, "SELECT state, count(*) FROM outbox GROUP BY state"))
    assert inbox.keys() <= set(FINAL_ROW_STATES), inbox
    assert outbox.keys() <= set(FINAL_PARTS), outbox
    return inbox, outbox


async def answered(service: Service, count: int, chat: int = 0, *, within_s: float = 20.0) -> list[str]:
    """Wait until the bot has written so many messages in a conversation; all of them."""
    what = f"{count} messages of the bot in conversation {chat}"
    await until(lambda: len(service.texts(chat)) >= count, what, within_s=within_s)
    return service.texts(chat)


async def account(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    """An account as `/ready` shows it."""
    found: dict[str, Any] = (await gateway.client.get("/ready")).json()["accounts"][name]
    return found


async def until_state(gateway: GatewayProcess, name: str, state: str, *, within_s: float = 15.0) -> dict[str, Any]:
    """Wait until an account is in a state; what is shown of it then."""

    async def see() -> dict[str, Any]:
        found = await account(gateway, name)
        return found if found["state"] == state else {}

    return await until(see, f"{name} is {state}", within_s=within_s)
