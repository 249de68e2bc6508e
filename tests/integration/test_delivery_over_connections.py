"""Delivery through accounts that are really supervised: outages, restarts, a refused token, a connection that is replaced."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

from hermes.connections import Connections, open_connections
from hermes.delivery import Delivery
from hermes.delivery.content import MARK
from hermes.errors import AccountDown, PlatformRefused, PlatformUnavailable, RateLimited
from hermes.platform import Capabilities
from hermes.settings import SupervisionConfig
from hermes.testing.delivering import Place, open_delivering
from hermes.testing.fake_accounts import FakeService, fake_host, hang

SETTINGS = SupervisionConfig(backoff_max_s=60, send_grace_s=10)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Real:
    """What `open_delivering` wants of connections, from real ones."""

    def __init__(self, connections: Connections) -> None:
        self.lease = connections.lease
        self.wait_connected = connections.connected
        self.platforms: dict[str, Any] = {"one": None}

    def capabilities(self, account: str) -> Capabilities:
        if account != "one":
            raise AccountDown(account, "removed")
        return Capabilities()


@asynccontextmanager
async def opened(home: Path, clock: MockClock, service: FakeService) -> AsyncIterator[tuple[Place, Connections]]:
    running: list[Delivery] = []
    async with open_connections(
        {"one": service.plan("one")}, settings=lambda: SETTINGS, host=fake_host, stop_by=lambda: float("inf"),
        store_ready=trio.lowlevel.checkpoint, rng=random.Random(1), renewed=lambda account: running[0].begin_anew(account),
    ) as connections:  # fmt: skip
        async with open_delivering(home, clock, connections=Real(connections), accounts=["one"]) as place:  # type: ignore[arg-type]
            running.append(place.delivery)
            yield place, connections


async def test_ten_minutes_without_the_service_and_a_restart_in_between(tmp_path: Path, clock: MockClock) -> None:
    service = FakeService(open_always=PlatformUnavailable("no answer"))
    async with opened(tmp_path, clock, service) as (place, _):
        await place.post("1", "2")
        await trio.sleep(300)
    async with opened(tmp_path, clock, service) as (place, _):
        await trio.sleep(300)
        assert service.sent == []
        service.open_always = None
        await place.until("sent", "sent")
        assert service.sent == ["1", "2"]
        assert trio.current_time() < 601 + SETTINGS.backoff_max_s


async def test_a_token_that_is_refused_while_sending_keeps_the_reply_for_the_next_one(
    tmp_path: Path, clock: MockClock
) -> None:
    service = FakeService(send_always=PlatformRefused("revoked"))
    async with opened(tmp_path, clock, service) as (place, connections):
        await connections.connected("one")
        await place.post("1")
        await trio.sleep(3600)
        assert await place.states() == ["pending"]
        assert len(service.keys) == 1
        service.send_always = None
        connections.apply({"one": service.plan("one", token="better")})
        await place.until("sent")
        assert service.sent == ["1"]
        assert service.tokens[-1] == "better"


@pytest.mark.parametrize("scope", ["account", "method", "address"])
async def test_a_limit_is_over_for_another_token_and_for_no_other_change(
    tmp_path: Path, clock: MockClock, scope: Literal["account", "method", "address"]
) -> None:
    service = FakeService()
    service.send_steps.append(RateLimited("too much", retry_after_s=86_000, scope=scope))
    async with opened(tmp_path, clock, service) as (place, connections):
        await connections.connected("one")
        await place.post("1")
        await trio.sleep(60)
        connections.apply({"one": service.plan("one", enabled=False)})
        await trio.sleep(60)
        connections.apply({"one": service.plan("one")})
        await trio.sleep(60)
        assert (await place.states(), service.sent) == (["pending"], [])
        connections.apply({"one": service.plan("one", token="other")})
        with trio.fail_after(60):
            await place.until("sent")


async def test_a_connection_that_is_replaced_under_a_send(tmp_path: Path, clock: MockClock) -> None:
    service = FakeService()
    service.send_steps.append(hang)
    async with opened(tmp_path, clock, service) as (place, connections):
        await connections.connected("one")
        await place.post("1", "2")
        await place.until("sending", "pending")
        began = trio.current_time()
        connections.apply({"one": service.plan("one", token="other")})
        await place.until("sent", "sent")
        assert service.sent == [f"{MARK}\n1", "2"]
        assert len(set(service.keys)) == 2
        assert trio.current_time() - began >= SETTINGS.send_grace_s
