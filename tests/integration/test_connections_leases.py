"""Leases: over before a connection is left, whoever ends it and however; the holder learns it in its own task."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.accounts import AccountStatus
from hermes.connections import Connections, open_connections
from hermes.errors import AccountDown, LeaseEnded, PlatformUnavailable, SendUncertain
from hermes.events import Address, AttachmentRef
from hermes.platform import Activity, Inbox, Platform
from hermes.settings import SupervisionConfig
from hermes.testing import no_leaks
from hermes.testing.fake_accounts import HI, FakeService, fake_host

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, send_grace_s=10)
CHAT = Address("a", "chat")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@asynccontextmanager
async def connected(service: FakeService, **more: Any) -> AsyncIterator[Connections]:
    given = {
        "settings": lambda: SETTINGS, "host": fake_host, "stop_by": lambda: float("inf"),
        "store_ready": trio.lowlevel.checkpoint, "rng": random.Random(7), **more,
    }  # fmt: skip
    async with no_leaks(), open_connections({"a": service.plan()}, **given) as connections:
        await connections.connected("a")
        yield connections


def status(connections: Connections) -> AccountStatus:
    record = connections.table.get("a")
    assert record is not None
    return record.status(trio.current_time())


async def until(fact: Callable[[], object]) -> None:
    while not fact():  # noqa: ASYNC110  # virtual time, and facts that no event tells
        await trio.sleep(0.1)


class Sender:
    """A task that sends something that takes so long, and notes what became of it and when."""

    def __init__(self, connections: Connections, *, shielded: bool = False) -> None:
        self.began = trio.Event()
        self.ended: tuple[str, float] | None = None
        self._connections = connections
        self._shielded = shielded

    async def run(self) -> None:
        with trio.CancelScope(shield=self._shielded):
            try:
                async with self._connections.lease("a") as platform:
                    self.began.set()
                    await platform.send(CHAT, HI, key="k", reply=None)
                how = "sent"
            except (LeaseEnded, AccountDown) as error:
                how = type(error).__name__
            self.ended = how, trio.current_time()


def taking(seconds: float) -> Callable[[], Any]:
    async def step() -> None:
        await trio.sleep(seconds)

    return step


async def test_a_lease_hands_out_the_whole_platform_but_its_receiving(clock: MockClock) -> None:
    service = FakeService()
    async with connected(service) as connections, connections.lease("a") as platform:
        assert status(connections).leases == 1
        receipt = await platform.send(CHAT, HI, key="k", reply=None)
        assert (await platform.edit(receipt, HI)).message_id == "2"
        await platform.signal(CHAT, Activity(kind="typing"))
        async with platform.fetch(AttachmentRef(kind="image", ref="abcdef"), max_bytes=3) as content:
            assert [piece async for piece in content] == [b"abc"]
        assert platform.capabilities == service.plan().spec.capabilities
        with pytest.raises(RuntimeError, match="for sending"):
            await platform.receive(service.inbox_for("a", 1), {})


async def test_what_a_body_raises_comes_out_as_it_is(clock: MockClock) -> None:
    service = FakeService(send_steps=deque([SendUncertain("cut"), KeyError("bug")]))
    async with connected(service) as connections:
        with pytest.raises(SendUncertain):
            async with connections.lease("a") as platform:
                await platform.send(CHAT, HI, key="k", reply=None)
        assert status(connections).state == "degraded"
        with pytest.raises(KeyError):
            async with connections.lease("a") as platform:
                await platform.send(CHAT, HI, key="k", reply=None)
        with trio.move_on_after(5) as scope:
            async with connections.lease("a"):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert status(connections).leases == 0
        assert status(connections).generation == 1


@pytest.mark.parametrize(("seconds", "ended"), [(6, ("sent", 6.0)), (60, ("LeaseEnded", 10.0))])
@pytest.mark.parametrize("by", ["failure", "change", "removal", "exit"])
async def test_leases_may_finish_within_the_grace_then_are_cut_and_only_then_is_the_connection_left(
    clock: MockClock, seconds: float, ended: tuple[str, float], by: str
) -> None:
    fails, closed_at = trio.Event(), []

    async def receive(inbox: Inbox) -> None:
        await fails.wait()
        raise KeyError("bug")

    async def close() -> None:
        closed_at.append(trio.current_time())
        assert sender.ended is not None

    service = FakeService(send_always=taking(seconds), close_always=close, receive_steps=deque([receive]))
    async with trio.open_nursery() as nursery:
        async with (
            connected(service) as connections,
        ):
            sender = Sender(connections)
            nursery.start_soon(sender.run)
            await sender.began.wait()
            if by == "failure":
                async with connections.receiving(service.inbox_for, service.cursors_for):
                    fails.set()
                    await until(lambda: status(connections).state == "stopping")
                    with pytest.raises(AccountDown, match="stopping"):
                        async with connections.lease("a"):
                            pass
                    await until(lambda: closed_at)
            elif by == "change":
                connections.apply({"a": service.plan(token="new")})
                await until(lambda: len(service.opened_at) == 2)
            elif by == "removal":
                connections.apply({})
                await until(lambda: closed_at)
    assert sender.ended == ended
    assert closed_at[0] == ended[1]


async def test_the_gateways_own_deadline_cuts_the_grace(clock: MockClock) -> None:
    service = FakeService(send_always=taking(60))
    async with trio.open_nursery() as nursery:
        async with connected(service, stop_by=lambda: 3.0) as connections:
            sender = Sender(connections)
            nursery.start_soon(sender.run)
            await sender.began.wait()
    assert sender.ended == ("LeaseEnded", 3.0)


@pytest.mark.parametrize(("seconds", "ended"), [(6, ("sent", 6.0)), (60, ("LeaseEnded", 10.0))])
async def test_a_root_cancel_with_a_shielded_holder_gives_it_the_grace_and_no_more(
    clock: MockClock, seconds: float, ended: tuple[str, float]
) -> None:
    """The lease's own scope is inside the holder's shield, so it bounds that shield."""
    service = FakeService(send_always=taking(seconds))
    with trio.CancelScope() as root:
        async with trio.open_nursery() as nursery:
            async with connected(service) as connections:
                sender = Sender(connections, shielded=True)
                nursery.start_soon(sender.run)
                await sender.began.wait()
                root.cancel()
                await trio.sleep_forever()
    assert root.cancelled_caught
    assert sender.ended == ended
    assert service.open_now == 0


async def test_a_root_cancel_cuts_holders_that_do_not_shield_at_once(clock: MockClock) -> None:
    service = FakeService(send_always=taking(60))
    with trio.CancelScope() as root:
        async with trio.open_nursery() as nursery:
            async with connected(service) as connections:
                senders = [Sender(connections) for _ in range(10)]
                for sender in senders:
                    nursery.start_soon(sender.run)
                    await sender.began.wait()
                root.cancel()
    assert trio.current_time() == 0
    assert [each.ended for each in senders] == [None] * 10
    assert service.open_now == 0


async def test_a_holder_that_gives_nothing_back_delays_the_end_and_is_named(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service, over = FakeService(), trio.Event()

    async def keeps(connections: Connections, began: trio.Event) -> None:
        with pytest.raises(LeaseEnded):
            async with connections.lease("a"):
                began.set()
                with trio.CancelScope(shield=True):
                    await over.wait()
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        async with connected(service) as connections:
            began = trio.Event()
            nursery.start_soon(keeps, connections, began)
            await began.wait()
            connections.apply({"a": service.plan(token="new")})
            await connections.connected("a")
            assert trio.current_time() == 15
            over.set()
    assert "account.leases_kept" in caplog.text


async def test_waiting_for_a_connection_ends_when_it_is_there_again(clock: MockClock) -> None:
    service = FakeService(open_steps=deque([None, PlatformUnavailable("away", retry_after_s=100)]))
    async with connected(service) as connections:
        connections.apply({"a": service.plan(token="new")})
        with pytest.raises(AccountDown):
            async with connections.lease("a"):
                pass
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(connections.connected, "a")
        assert 100 <= trio.current_time() <= 101
        with pytest.raises(AccountDown, match="not configured"):
            async with connections.lease("nobody"):
                pass


async def test_a_result_that_came_is_kept_even_if_the_lease_was_cut_meanwhile(clock: MockClock) -> None:
    """Only a body that was really cancelled ends in LeaseEnded: an answer is never turned into an uncertainty."""
    service = FakeService()
    got: list[Platform] = []

    async def holds(connections: Connections, began: trio.Event) -> None:
        async with connections.lease("a") as platform:
            began.set()
            with trio.CancelScope(shield=True):
                await trio.sleep(12)
            got.append(platform)

    async with trio.open_nursery() as nursery:
        async with connected(service) as connections:
            began = trio.Event()
            nursery.start_soon(holds, connections, began)
            await began.wait()
    assert len(got) == 1
