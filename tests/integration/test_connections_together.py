"""Twenty accounts that lose their network in one moment, again and again, under virtual time: they come back a few at a time, all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MockClock

from hermes.accounts import AccountStatus
from hermes.connections import STARTS_AT_ONCE, Connections, open_connections
from hermes.errors import AccountDown, ConnectionEnded, PlatformUnavailable
from hermes.events import Address
from hermes.platform import Inbox
from hermes.settings import SupervisionConfig
from hermes.testing import no_leaks
from hermes.testing.fake_accounts import HI, FakeService, fake_host

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, open_timeout_s=30, healthy_after_s=30)
ACCOUNTS = 20
START_S = 1.0  # of a start that succeeds
SLOW_S = 3.0  # of one that fails, where it does not fail at once or hang
OUTAGE_S = 300.0
BACK_S = SETTINGS.open_timeout_s + SETTINGS.backoff_max_s + START_S * ACCOUNTS / STARTS_AT_ONCE + 1.0


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Network:
    """What all accounts hang on. Each notices in one of three ways that it is gone: beside, by receiving, by sending.

    Attributes:
        how: what becomes of a start during an outage: it `fails` at once, fails `slowly`, or is `swallowed`.
        opening: starts under way, over all services; `most` of them at once so far.
    """

    def __init__(self, how: str) -> None:
        self.how = how
        self.up = True
        self.lost = trio.Event()
        self.opening = self.most = 0
        self.services = [
            FakeService(open_always=self.start, held=self.notices),
            FakeService(open_always=self.start, receive_always=self.receive),
            FakeService(open_always=self.start, send_always=self.send),
        ]

    def plans(self) -> dict[str, Any]:
        """The accounts, of each service as many as of the next."""
        return {f"a{n}": self.services[n % len(self.services)].plan(f"a{n}") for n in range(ACCOUNTS)}

    def goes(self) -> None:
        """It is gone for everybody."""
        self.up = False
        self.lost.set()

    def comes_back(self) -> None:
        """For everybody, too."""
        self.up = True
        self.lost = trio.Event()

    async def start(self) -> None:
        self.opening += 1
        self.most = max(self.most, self.opening)
        up = self.up
        try:
            if up:
                await trio.sleep(START_S)
            elif self.how == "slowly":
                await trio.sleep(SLOW_S)
            elif self.how == "swallowed":
                await trio.sleep_forever()
            if not (up and self.up):  # what was lost on the way is not repeated
                raise PlatformUnavailable("there is no network")
        finally:
            self.opening -= 1

    @asynccontextmanager
    async def notices(self) -> AsyncIterator[None]:
        async def beside() -> NoReturn:
            await self.lost.wait()
            raise ConnectionEnded("the socket was closed")

        async with trio.open_nursery() as nursery:
            if self.up:  # else the start itself says so
                nursery.start_soon(beside)
            yield
            nursery.cancel_scope.cancel()

    async def receive(self, inbox: Inbox) -> None:
        await self.lost.wait()
        raise PlatformUnavailable("no answer")

    async def send(self) -> None:
        if not self.up:
            raise ConnectionEnded("the socket was closed")


def statuses(connections: Connections) -> tuple[AccountStatus, ...]:
    return connections.table.snapshot(trio.current_time())


async def until(fact: Callable[[], object], within_s: float) -> None:
    with trio.fail_after(within_s):
        while not fact():  # noqa: ASYNC110  # virtual time, and facts that no event tells
            await trio.sleep(0.5)


async def keep_sending(connections: Connections, account: str) -> None:
    """Somebody has something to say every second."""
    while True:
        await trio.sleep(1)
        try:
            async with connections.lease(account) as platform:
                await platform.send(Address(account, "chat"), HI, key="k", reply=None)
        except (AccountDown, ConnectionEnded):
            pass


@pytest.mark.parametrize("how", ["fails", "slowly", "swallowed"])
async def test_accounts_that_lose_the_network_together_come_back_a_few_at_a_time(clock: MockClock, how: str) -> None:
    network = Network(how)
    first = network.services[0]
    async with no_leaks(), trio.open_nursery() as senders:
        async with (
            open_connections(
                network.plans(), settings=lambda: SETTINGS, host=fake_host, stop_by=lambda: float("inf"),
                store_ready=trio.lowlevel.checkpoint, rng=random.Random(7),
            ) as connections,
            connections.receiving(first.inbox_for, first.cursors_for),
        ):  # fmt: skip

            def all_work() -> bool:
                found = statuses(connections)
                return len(found) == ACCOUNTS and all(each.works for each in found)

            for n in range(2, ACCOUNTS, len(network.services)):  # those that notice by sending
                senders.start_soon(keep_sending, connections, f"a{n}")
            await until(all_work, BACK_S)
            assert network.most == STARTS_AT_ONCE
            for outage in range(2):
                await trio.sleep(outage * 2 * SETTINGS.healthy_after_s)  # the first comes before any of them is healthy
                before = {each.account: each.generation for each in statuses(connections)}
                network.most = 0
                network.goes()
                await trio.sleep(SETTINGS.open_timeout_s)
                assert not [each for each in statuses(connections) if each.works], outage
                await trio.sleep(OUTAGE_S - SETTINGS.open_timeout_s)
                tries = Counter(
                    {each.account: each.generation - before[each.account] for each in statuses(connections)}
                )
                # One that fails at once is over before the next begins.
                assert network.most == (1 if how == "fails" else STARTS_AT_ONCE), (how, outage)
                assert len(tries) == ACCOUNTS
                assert min(tries.values()) >= 1, tries  # nobody is passed over
                assert max(tries.values()) <= 10 + 3 * OUTAGE_S / SETTINGS.backoff_max_s, tries
                network.most = 0
                network.comes_back()
                await until(all_work, BACK_S)
                assert network.most <= STARTS_AT_ONCE
                assert {each.state for each in statuses(connections)} == {"connected"}
                assert max(service.most_receiving for service in network.services) <= ACCOUNTS
            senders.cancel_scope.cancel()
    assert network.opening == 0
    assert [service.open_now for service in network.services] == [0, 0, 0]
