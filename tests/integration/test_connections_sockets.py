"""Sockets that platforms open in `receive`: the first of a connection is a start like any other, under virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MockClock

from hermes.connections import STARTS_AT_ONCE, AccountPlan, Connections, open_connections
from hermes.errors import PlatformUnavailable, Unreachable
from hermes.events import Address, Content, Receipt, ReplyRef
from hermes.platform import Host, Inbox
from hermes.settings import SupervisionConfig
from hermes.testing import no_leaks
from hermes.testing.fake_accounts import HI, FakePlatform, FakeService, fake_host

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, open_timeout_s=30, healthy_after_s=30)
ACCOUNTS = 20
OPENS_S, HANGS_S = 1.0, 10.0
LONG_S = 100.0  # of a socket that hangs while another waits for its turn


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Network:
    """What all accounts hang on.

    Attributes:
        opening: connections and sockets being opened; `most` of them at once so far.
        hangs: hosts to which nothing gets through.
        sent: how many sockets were opened to send.
        renewed: how many were opened beside another.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.up = True
        self.lost = trio.Event()
        self.renew = trio.Event()
        self.opening = self.most = self.sent = self.renewed = 0
        self.hangs: set[str] = set()
        self.hangs_s = HANGS_S
        self.service = FakeService()

    def goes(self) -> None:
        self.up = False
        self.lost.set()

    def comes_back(self) -> None:
        self.up = True
        self.lost = trio.Event()

    async def start(self, host: str) -> None:
        """What takes a place among the starts."""
        self.opening += 1
        self.most = max(self.most, self.opening)
        try:
            await trio.sleep(OPENS_S if self.up and host not in self.hangs else self.hangs_s)
            if not self.up or host in self.hangs:
                raise Unreachable("there is no network", sent=False)
        finally:
            self.opening -= 1

    @asynccontextmanager
    async def socket(self, host: str, *_port: int, **_more: object) -> AsyncIterator[None]:
        if host == "send":
            self.sent += 1
        elif host == "beside":
            self.renewed += 1
        else:
            await self.start(host)
        yield

    @asynccontextmanager
    async def host(self, plan: AccountPlan) -> AsyncIterator[Host]:
        opener: Any = self.socket
        async with fake_host(plan) as host:
            yield replace(host, websocket=opener, tcp=opener)

    def plan(self, account: str, *, resumes: bool = False) -> AccountPlan:
        @asynccontextmanager
        async def opened(_config: object, host: Host) -> AsyncIterator[Receives]:
            await self.start("rest")
            yield Resumes(self, host) if resumes else Receives(self, host)

        plan = self.service.plan(account)
        return replace(plan, spec=replace(plan.spec, open=opened))


class Receives(FakePlatform):
    """One connection; its socket is opened by `receive`, and one more by each send."""

    def __init__(self, network: Network, host: Host) -> None:
        super().__init__(network.service)
        self._network = network
        self._host = host

    def socket(self, to: str) -> AbstractAsyncContextManager[object]:
        return self._host.websocket(to) if self._network.kind == "websocket" else self._host.tcp(to, 1, tls=False)

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        async with self.socket(self._host.account), trio.open_nursery() as nursery:  # its tasks are ours as well
            inbox.alive("event", next_within_s=86_400)
            nursery.start_soon(self._renew)
            await self._network.lost.wait()
            nursery.cancel_scope.cancel()
        raise PlatformUnavailable("the socket was closed")

    async def _renew(self) -> None:
        await self._network.renew.wait()
        async with self.socket("beside"):
            await trio.sleep_forever()

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        async with self.socket("send"):
            return Receipt(message_id=key, address=to)


class Resumes(Receives):
    """The same; a socket that is lost is opened again without the run of `receive` being ended."""

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        while True:
            async with self.socket(self._host.account):
                inbox.alive("event", next_within_s=LONG_S / 2)
                await self._network.lost.wait()


@asynccontextmanager
async def connected(network: Network, plans: Mapping[str, AccountPlan]) -> AsyncIterator[Connections]:
    service = network.service
    async with (
        no_leaks(),
        open_connections(
            plans, settings=lambda: SETTINGS, host=network.host, stop_by=lambda: float("inf"),
            store_ready=trio.lowlevel.checkpoint, rng=random.Random(7),
        ) as connections,
        connections.receiving(service.inbox_for, service.cursors_for),
    ):  # fmt: skip
        yield connections


async def until(fact: Callable[[], object], within_s: float) -> None:
    with trio.fail_after(within_s):
        while not fact():  # noqa: ASYNC110  # virtual time, and facts that no event tells
            await trio.sleep(0.1)


def hears(connections: Connections, account: str) -> bool:
    status = connections.table.get(account)
    return status is not None and status.progressed and status.status(trio.current_time()).works


def words(connections: Connections) -> str:
    return "; ".join(each.words for each in connections.table.snapshot(trio.current_time()))


@pytest.mark.parametrize("kind", ["websocket", "tcp"])
async def test_twenty_accounts_that_lose_their_sockets_together_open_a_few_at_a_time(
    clock: MockClock, kind: str
) -> None:
    network = Network(kind)
    names = [f"a{n}" for n in range(ACCOUNTS)]
    async with connected(network, {name: network.plan(name) for name in names}) as connections:
        await until(lambda: "it waits until other accounts are connected" in words(connections), 20)
        for outage_s in (2.0, 200.0):  # shorter than what it takes to give a connection up, and longer
            await until(lambda: all(hears(connections, name) for name in names), 200)
            assert "waits" not in words(connections)
            assert network.most == STARTS_AT_ONCE
            network.most = 0
            network.goes()
            await trio.sleep(outage_s)
            assert not any(hears(connections, name) for name in names if outage_s > 2)
            network.comes_back()
        await until(lambda: all(hears(connections, name) for name in names), 200)
        assert network.most == STARTS_AT_ONCE
    assert network.opening == 0


@pytest.mark.parametrize("kind", ["websocket", "tcp"])
async def test_what_replaces_a_socket_or_sends_waits_for_nobody_and_who_waits_says_so(
    clock: MockClock, kind: str
) -> None:
    network = Network(kind)
    bad = [f"b{n}" for n in range(STARTS_AT_ONCE)]
    plans = {name: network.plan(name) for name in ("good", *bad)}
    async with connected(network, {"good": plans["good"]}) as connections:
        await until(lambda: hears(connections, "good"), 10)
        network.hangs.update(bad)
        network.hangs_s = LONG_S
        connections.apply(plans)
        await until(lambda: network.opening == STARTS_AT_ONCE and not network.service.opening, 10)
        await trio.sleep(2)
        assert network.opening == STARTS_AT_ONCE  # each is open and its socket hangs
        network.renew.set()
        async with connections.lease("good") as platform:
            await platform.send(Address("good", "chat"), HI, key="k", reply=None)
        await trio.testing.wait_all_tasks_blocked()
        assert (network.sent, network.renewed, network.opening) == (1, 1, STARTS_AT_ONCE)
        network.lost.set()
        await trio.testing.wait_all_tasks_blocked()
        network.lost = trio.Event()

        await until(lambda: "receiving fails: the socket was closed" in words(connections), 3)
        await trio.sleep(2 * SETTINGS.healthy_after_s)
        assert "receiving fails: the socket was closed" in words(connections)  # as long as it waits
        assert network.opening == STARTS_AT_ONCE
        network.hangs.clear()
        await until(lambda: hears(connections, "good"), LONG_S)
        assert network.most == STARTS_AT_ONCE


async def test_who_waits_for_a_turn_breaks_no_promise_meanwhile(clock: MockClock) -> None:
    """It is the core that keeps the platform waiting: the account is not deaf, and its connection stays."""
    network = Network("websocket")
    bad = [f"b{n}" for n in range(STARTS_AT_ONCE)]
    plans = {"good": network.plan("good", resumes=True), **{name: network.plan(name) for name in bad}}
    async with connected(network, {"good": plans["good"]}) as connections:
        await until(lambda: hears(connections, "good"), 10)
        network.hangs.update(bad)
        network.hangs_s = LONG_S
        connections.apply(plans)
        await until(lambda: network.opening == STARTS_AT_ONCE and not network.service.opening, 10)
        await trio.sleep(2)
        network.lost.set()
        await trio.testing.wait_all_tasks_blocked()
        network.lost = trio.Event()
        await trio.sleep(0.8 * LONG_S)
        assert "it waits until other accounts are connected" in words(connections)
        assert "deaf" not in words(connections)
        await until(lambda: hears(connections, "good"), LONG_S)
        good = connections.table.get("good")
        assert good is not None
        assert (good.generation, good.restarts) == (1, 0)
