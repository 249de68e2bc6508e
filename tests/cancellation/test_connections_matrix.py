"""Two accounts with a receiver and senders, ended at each step in each way: nothing stays, and a second start works."""

from __future__ import annotations

import contextlib
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from hermes.connections import Connections, open_connections
from hermes.errors import AccountDown, LeaseEnded, PlatformUnavailable
from hermes.events import Address
from hermes.platform import Inbox
from hermes.settings import SupervisionConfig
from hermes.testing import Ending, cancel_at_every_step
from hermes.testing.fake_accounts import HI, FakeService, event, fake_host

SETTINGS = SupervisionConfig(backoff_base_s=0.0, backoff_max_s=0.0, open_timeout_s=20, send_grace_s=5)


@asynccontextmanager
async def held() -> AsyncIterator[None]:
    """What a platform has open: a task, a pair of sockets, and a clean-up that says goodbye."""
    one, other = trio.socket.socketpair()
    with one, other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.recv, 1)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


async def delivers(inbox: Inbox) -> None:
    inbox.alive("poll", next_within_s=50)
    for number in range(2):
        await inbox.deliver(event(number), cursors={"offset": b"%d" % number})
    await trio.sleep_forever()


class Day:
    """A scenario: two accounts come up, one after a failure; one fails while it receives; events and sends on both."""

    def __init__(self) -> None:
        self.services: list[FakeService] = []
        self.connections: Connections | None = None
        self.stop_by = math.inf
        self.runs = 0

    def expire(self) -> None:
        """The gateway's own deadline is over: every exit has to be quick from here on."""
        self.stop_by = -math.inf

    def change(self) -> None:
        """Both accounts are configured anew, wherever they are."""
        if self.connections is not None and self.services:
            self.connections.apply(
                {name: each.plan(name, token="new") for name, each in zip("ab", self.services, strict=True)}
            )

    def remove(self) -> None:
        """Both accounts are removed, wherever they are."""
        if self.connections is not None:
            self.connections.apply({})

    async def __call__(self) -> None:
        self.runs += 1
        self.stop_by = math.inf
        one = FakeService(held=held, receive_always=delivers)
        other = FakeService(
            held=held,
            open_steps=deque([PlatformUnavailable("away")]),
            receive_steps=deque([KeyError("bug")]),
            receive_always=delivers,
        )
        self.services = [one, other]
        try:
            async with open_connections(
                {"a": one.plan("a"), "b": other.plan("b")},
                settings=lambda: SETTINGS,
                host=fake_host,
                stop_by=lambda: self.stop_by,
                store_ready=trio.lowlevel.checkpoint,
                rng=random.Random(1),
            ) as self.connections:
                async with trio.open_nursery() as senders:
                    async with self.connections.receiving(one.inbox_for, one.cursors_for):
                        for account in ("a", "b", "a"):
                            await self.connections.connected(account)
                            senders.start_soon(self.send, account)
                        await self.connections.connected("b")
                        for _ in range(5):
                            await trio.lowlevel.checkpoint()
        finally:
            self.connections = None
            for each in self.services:
                assert (each.open_now, each.opening, each.receiving) == (0, 0, 0)
                assert each.most_open <= 1
                assert each.most_receiving <= 1

    async def send(self, account: str) -> None:
        assert self.connections is not None
        with contextlib.suppress(AccountDown, LeaseEnded):
            async with self.connections.lease(account) as platform:
                await platform.send(Address(account, "chat"), HI, key="k", reply=None)


@pytest.mark.wall_clock_s(150)
async def test_two_accounts_end_at_every_step_and_leave_nothing(full: bool, record: Callable[..., None]) -> None:
    day = Day()

    async def survivor() -> None:
        service = FakeService(held=held, receive_always=delivers)
        async with (
            open_connections(
                {"a": service.plan()},
                settings=lambda: SETTINGS,
                host=fake_host,
                stop_by=lambda: math.inf,
                store_ready=trio.lowlevel.checkpoint,
            ) as connections,
            connections.receiving(service.inbox_for, service.cursors_for),
        ):
            await connections.connected("a")
            while len(service.committed) < 2:
                await trio.lowlevel.checkpoint()

    report = await cancel_at_every_step(
        day,
        check=survivor,
        ways=(
            "cancel",
            "deadline",
            "sibling",
            Ending("out of time", day.expire),
            Ending("configured anew", day.change),
            Ending("removed", day.remove, tolerate=(AccountDown,)),
        ),
        seeds=range(40 if full else 4),
    )
    record(
        "Cancellation matrix",
        "connections: two accounts end at every step and leave nothing",
        steps=report.steps,
        endings=report.runs,
    )
    assert report.steps > 60
    assert day.runs > report.runs


@pytest.mark.wall_clock_s(60)
async def test_a_root_cancel_at_every_step_while_shielded_sends_are_out(
    full: bool, record: Callable[..., None]
) -> None:
    """Holders that shield themselves finish within the grace; the connection is closed after them, never under them."""

    async def scenario() -> None:
        service, began = FakeService(held=held), trio.Event()

        async def slow() -> None:
            began.set()
            for _ in range(5):
                await trio.lowlevel.checkpoint()

        async def send(connections: Connections) -> None:
            with trio.CancelScope(shield=True), contextlib.suppress(AccountDown, LeaseEnded):
                async with connections.lease("a") as platform:
                    await platform.send(Address("a", "chat"), HI, key="k", reply=None)

        service.send_always = slow
        try:
            async with trio.open_nursery() as nursery:
                async with open_connections(
                    {"a": service.plan()},
                    settings=lambda: SETTINGS,
                    host=fake_host,
                    stop_by=lambda: math.inf,
                    store_ready=trio.lowlevel.checkpoint,
                ) as connections:
                    await connections.connected("a")
                    nursery.start_soon(send, connections)
                    nursery.start_soon(send, connections)
                    await began.wait()
        finally:
            assert service.open_now == 0
            assert len(service.sent) == len(service.keys)

    report = await cancel_at_every_step(
        scenario, ways=("cancel", "deadline", "sibling"), seeds=range(40 if full else 4)
    )
    record(
        "Cancellation matrix",
        "connections: a root cancel at every step while shielded sends are out",
        steps=report.steps,
        endings=report.runs,
    )
    assert report.steps > 20
