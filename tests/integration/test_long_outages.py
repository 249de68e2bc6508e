"""Telegram and Discord over supervised connections through minutes without their service, in virtual time and on real sockets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
import trio
from trio.testing import MockClock

from hermes.accounts import AccountStatus
from hermes.connections import Connections, open_connections
from hermes.generation import AccountPlan
from hermes.platform import PlatformSpec, Secret
from hermes.settings import SupervisionConfig
from hermes.testing.fake_discord import Fault as DiscordFault
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_http import Answered
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.host import RecordingInbox, TestHost, TestMemory, open_test_host
from platforms.discord import platform as discord_spec
from platforms.discord.config import DiscordConfig
from platforms.telegram import platform as telegram_spec
from platforms.telegram.config import TelegramConfig

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, open_timeout_s=30, healthy_after_s=30)
BEAT_S = 41.25
POLL_S = 50.0
QUIET_S = 120.0
EIGHT_MINUTES_S = 480.0


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.02)  # long enough for a loopback exchange


class World(Protocol):
    """A service, and how its network goes bad."""

    spec: PlatformSpec[Any]
    config: Any
    deadline_s: float  # after which a silent path is known to be silent

    def write(self, text: str) -> None:
        """A person writes."""
        ...

    def answers_502(self) -> None:
        """Everything is answered so, and what is open ends."""
        ...

    def is_a_black_hole(self) -> None:
        """Nothing is answered any more, on old connections or new ones."""
        ...

    def heals(self) -> None:
        """All is well again."""
        ...

    def requests(self) -> int:
        """How many came so far."""
        ...


class TelegramWorld:
    spec = telegram_spec
    deadline_s = POLL_S + 4 * 15.0

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.config = TelegramConfig(
            token=Secret(fake.token), base_url=fake.base_url, poll_timeout_s=POLL_S, quiet_s=QUIET_S
        )

    def write(self, text: str) -> None:
        self.fake.write(7, text)

    def answers_502(self) -> None:
        self.fake.down = True

    def is_a_black_hole(self) -> None:
        self.fake.standing["*"] = Fault(hang=True)

    def heals(self) -> None:
        self.fake.down = False
        self.fake.standing.clear()

    def requests(self) -> int:
        return sum(self.fake.counts.values())


class DiscordWorld:
    spec = discord_spec
    deadline_s = 2 * BEAT_S + 10

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.config = DiscordConfig(token=Secret(fake.token), base_url=fake.base_url, quiet_s=QUIET_S)

    def write(self, text: str) -> None:
        self.fake.say(text)

    def answers_502(self) -> None:
        self.fake.fail(DiscordFault(answer=Answered(status=502), times=1_000_000))
        self.fake.gateway.close(1012)
        self.fake.greets = False

    def is_a_black_hole(self) -> None:
        self.fake.fail(DiscordFault(answer=Answered(hang=True), times=1_000_000))
        self.fake.acks = self.fake.forwards = self.fake.greets = False

    def heals(self) -> None:
        self.fake.faults.clear()
        self.fake.acks = self.fake.forwards = self.fake.greets = True

    def requests(self) -> int:
        return len(self.fake.requests) + len(self.fake.gateway.paths)


@asynccontextmanager
async def open_world(name: str) -> AsyncIterator[World]:
    if name == "telegram":
        async with open_fake_telegram() as fake:
            yield TelegramWorld(fake)
    else:
        async with open_fake_discord(heartbeat_s=BEAT_S) as discord:
            yield DiscordWorld(discord)


def host(account: str, memory: TestMemory) -> AbstractAsyncContextManager[TestHost]:
    return open_test_host(account, memory=memory, reap_s=60)


@asynccontextmanager
async def connected(world: World, inbox: RecordingInbox) -> AsyncIterator[Connections]:
    """One account `a` that receives into the inbox."""
    memory = TestMemory()
    plan = AccountPlan(account="a", spec=world.spec, config=world.config)

    async def cursors(_account: str) -> Mapping[str, bytes]:
        return dict(inbox.cursors)

    async with (
        open_connections(
            {"a": plan}, settings=lambda: SETTINGS, host=lambda each: host(each.account, memory),
            stop_by=lambda: float("inf"), store_ready=trio.lowlevel.checkpoint, rng=random.Random(7),
        ) as connections,
        connections.receiving(lambda *_: inbox, cursors),
    ):  # fmt: skip
        yield connections


def status(connections: Connections) -> AccountStatus:
    record = connections.table.get("a")
    assert record is not None
    return record.status(trio.current_time())


async def until(fact: Callable[[], object], within_s: float = 10_000.0) -> float:
    """Wait for a fact; how many seconds it took."""
    began = trio.current_time()
    with trio.fail_after(within_s):
        while not fact():  # noqa: ASYNC110  # virtual time, and facts that no event tells
            await trio.sleep(5)
    return trio.current_time() - began


async def talks(world: World, inbox: RecordingInbox, connections: Connections, *texts: str) -> None:
    """Everything that was written has come once, in its order, and the account works."""
    await until(lambda: len(inbox.events) >= len(texts), 2 * SETTINGS.backoff_max_s + POLL_S)
    assert [event.text for event in inbox.events] == list(texts)
    await until(lambda: status(connections).works, 120)


@pytest.mark.parametrize("name", ["telegram", "discord"])
@pytest.mark.parametrize("how", ["answers_502", "is_a_black_hole"])
async def test_eight_minutes_without_the_service(clock: MockClock, name: str, how: str) -> None:
    inbox = RecordingInbox()
    async with open_world(name) as world, connected(world, inbox) as connections:
        await until(lambda: status(connections).works)
        await trio.sleep(60)
        world.write("before")
        await talks(world, inbox, connections, "before")
        asked, restarts = world.requests(), status(connections).restarts
        getattr(world, how)()
        world.write("meanwhile")
        took = await until(lambda: not status(connections).works)
        assert took <= 2 * world.deadline_s
        await trio.sleep(EIGHT_MINUTES_S)
        assert not status(connections).works
        assert world.requests() - asked < 80  # it is asked ever more slowly
        assert status(connections).restarts > restarts
        world.heals()
        await talks(world, inbox, connections, "before", "meanwhile")
        world.write("after")
        await talks(world, inbox, connections, "before", "meanwhile", "after")


@pytest.mark.parametrize("name", ["telegram", "discord"])
async def test_five_minutes_in_which_the_process_was_stopped(clock: MockClock, name: str) -> None:
    """Its clock has gone on, its peers have hung up or not, and every deadline is over at once."""
    inbox = RecordingInbox()
    async with open_world(name) as world, connected(world, inbox) as connections:
        await until(lambda: status(connections).works)
        world.write("before")
        await talks(world, inbox, connections, "before")
        world.write("while it was stopped")
        clock.jump(300)
        await talks(world, inbox, connections, "before", "while it was stopped")
        await trio.sleep(200)
        assert status(connections).works
        assert status(connections).restarts <= 1


async def test_polls_that_are_answered_and_bring_nothing(clock: MockClock) -> None:
    inbox = RecordingInbox()
    async with open_fake_telegram() as fake:
        world = TelegramWorld(fake)
        async with connected(world, inbox) as connections:
            world.write("before")
            await talks(world, inbox, connections, "before")
            fake.standing["getUpdates"] = Fault(code=200, body=b'{"ok":true,"result":[]}')
            fake.notify()
            world.write("stuck")

            took = await until(lambda: status(connections).deaf)
            assert took <= 2 * (world.config.quiet_s + world.deadline_s)
            assert "updates" in status(connections).words
            await trio.sleep(120)
            assert not status(connections).works
            fake.standing.clear()
            await talks(world, inbox, connections, "before", "stuck")


async def test_a_gateway_that_answers_heartbeats_and_tells_nothing(clock: MockClock) -> None:
    inbox = RecordingInbox()
    async with open_fake_discord(heartbeat_s=BEAT_S) as fake:
        world = DiscordWorld(fake)
        async with connected(world, inbox) as connections:
            await until(lambda: fake.gateway.live)
            world.write("before")
            await talks(world, inbox, connections, "before")
            fake.forwards = fake.greets = False
            world.write("unheard")
            took = await until(lambda: status(connections).deaf)
            assert took <= world.config.quiet_s + 20
            assert "event" in status(connections).words or "tell us" in status(connections).words
            world.heals()
            await talks(world, inbox, connections, "before", "unheard")


async def test_somebody_else_polls_for_ten_minutes(clock: MockClock) -> None:
    """A state of its own, few polls, and nothing to be done by hand when it is over."""
    inbox = RecordingInbox()
    async with open_fake_telegram() as fake:
        world = TelegramWorld(fake)
        async with connected(world, inbox) as connections:
            world.write("before")
            await talks(world, inbox, connections, "before")
            conflict = (
                "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
            )
            fake.standing["getUpdates"] = Fault(code=409, description=conflict)
            polls = fake.counts["getupdates"]
            world.write("ends the poll that is held")
            await until(lambda: status(connections).state == "conflict")
            assert "somebody else" in status(connections).words
            await trio.sleep(600)
            assert status(connections).state == "conflict"
            assert fake.counts["getupdates"] - polls <= 12
            assert status(connections).generation == 1  # sending was left alone
            fake.standing.clear()
            await talks(world, inbox, connections, "before", "ends the poll that is held")
