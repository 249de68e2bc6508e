"""The process dies at any moment, several times; in the end everything was shown, and twice only with a mark.

A death is a copy of the database's files as they are at that moment, and of what the service shows; the next life begins with
those. What the dying process does after that moment is seen by nobody.
"""

from __future__ import annotations

import copy
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from hermes.delivery.content import MARK
from hermes.errors import RateLimited, SendUncertain
from hermes.events import Address
from hermes.platform import Capabilities
from hermes.testing.delivering import Place, open_delivering
from hermes.testing.fake_platform import Call, FakeConnections, FakePlatform, Message, Mood

CHATS = [Address(account="one", chat=chat) for chat in "abc"]


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Life:
    """One life of the process: it dies at its n-th look at the world, of which there are some at each request."""

    def __init__(self, home: Path, platform: FakePlatform, dies_after: int) -> None:
        self.home = home
        self.platform = platform
        self.left = dies_after
        self.died = False
        self.messages: dict[str, Message] = {}
        self.scope = trio.CancelScope()
        self.perhaps: set[tuple[str, str]] = set()

    def look(self) -> None:
        self.left -= 1
        if self.left == 0 and not self.died:
            self.died = True
            self.messages = copy.copy(self.platform.messages)
            after = self.home.parent / f"{self.home.name}x"
            after.mkdir()
            for name in ("hermes.db", "hermes.db-wal"):  # in this order: what the log has wins
                if (self.home / name).exists():
                    shutil.copy(self.home / name, after / name)
            self.scope.cancel()

    def mood(self, dice: random.Random, call: Call) -> Mood:
        self.look()
        chance = dice.random()
        if chance < 0.1:
            return Mood(raises=SendUncertain("cut"), shows=dice.random() < 0.5)
        if chance < 0.2:
            return Mood(raises=RateLimited("slowly", retry_after_s=1), shows=False)
        return Mood()


class Watched(FakePlatform):
    """Looks once more when a request is over, before its answer is known."""

    life: Life

    async def send(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        try:
            return await super().send(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            self.life.look()
            await trio.lowlevel.checkpoint()  # noqa: ASYNC102  # the look of a test
            self.life.look()


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("drops", [False, True])
async def test_deaths(tmp_path: Path, clock: MockClock, seed: int, number: int, drops: bool) -> None:
    dice = random.Random(seed * 1000 + number)
    platform = Watched(Capabilities(edits=True, drafts=True, deduplicates=drops))
    home = tmp_path / "h"
    home.mkdir()
    said: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    perhaps: set[tuple[str, str]] = set()
    for life_number in range(6):
        life = platform.life = Life(home, platform, dice.randrange(1, 12) if life_number < 5 else 0)
        platform.mood = lambda call, life=life: life.mood(dice, call)
        connections = FakeConnections(one=platform)
        with life.scope:
            async with open_delivering(home, clock, connections=connections, backoff_base_s=1.0) as place:
                await live(place, life, said, life_number, dice)
        perhaps |= life.perhaps
        if life.died:
            platform.messages = life.messages
            home = home.parent / f"{home.name}x"
    for chat, texts in said.items():
        shown = platform.texts(chat)
        plain = [text for text in shown if not text.startswith(MARK)]
        assert len(plain) == len(set(plain)), "twice, and no mark"
        firsts = list(dict.fromkeys(text.removeprefix(f"{MARK}\n") for text in shown))
        texts = [text for text in texts if text in firsts or (chat, text) not in perhaps]
        assert set(firsts) == set(texts)
        assert firsts == texts, "out of order"
        if drops:
            assert shown == texts
    with sqlite3.connect(home / "hermes.db") as con:
        assert {state for (state,) in con.execute("SELECT state FROM outbox")} == {"sent"}
    con.close()


async def live(place: Place, life: Life, said: dict[str, list[str]], number: int, dice: random.Random) -> None:
    """Say something new in each chat, then wait for everything to arrive, unless death comes first."""
    for address in CHATS:
        texts = [f"{number}.{part}" for part in range(dice.randrange(1, 3))]
        if not life.died:
            with trio.CancelScope(shield=True):
                await place.post(*texts, at=address)
            life.look() if dice.random() < 0.2 else None
            if life.died:  # in the middle of it: committed or not, nobody was told
                life.perhaps.update((address.chat, text) for text in texts)
            said[address.chat] += texts
    while not life.died and set(await place.states()) != {"sent"}:  # noqa: ASYNC110  # an observable fact
        await trio.sleep(0.1)
    if not life.died and life.left > 0:
        life.left = 1
        life.look()
    await trio.lowlevel.checkpoint()
