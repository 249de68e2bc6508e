"""An account keeps the lock on its token for as long as it is configured so, connected or not: nobody else takes its place."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from hermes.connections import Connections, open_connections
from hermes.errors import PlatformRefused, PlatformUnavailable
from hermes.hosting import open_hosts
from hermes.settings import SupervisionConfig
from hermes.testing.fake_accounts import FakeService

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, open_timeout_s=30)
TWO_HOURS_S = 7200.0


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.02)  # long enough for the thread that imports


@asynccontextmanager
async def gateway(home: Path, service: FakeService) -> AsyncIterator[Connections]:
    """The accounts of one home, and the locks that all homes of this user share."""
    config = SimpleNamespace(surroundings=SimpleNamespace(state_dir=home.parent / "state"), home=home)
    anything = cast("Any", None)
    async with (
        open_hosts(anything, SimpleNamespace(of=lambda _: None), cast("Any", config)) as hosts,  # type: ignore[arg-type]
        open_connections(
            {"a": service.plan()}, settings=lambda: SETTINGS, host=hosts.open, stop_by=lambda: float("inf"),
            store_ready=trio.lowlevel.checkpoint, release=hosts.release, rng=random.Random(7),
        ) as connections,
    ):  # fmt: skip
        yield connections


def state(connections: Connections) -> str:
    record = connections.table.get("a")
    assert record is not None
    return record.status(trio.current_time()).state


@pytest.mark.parametrize("error", [PlatformUnavailable("no answer"), PlatformRefused("no"), ZeroDivisionError()])
async def test_who_waits_gets_it_only_when_the_account_is_gone(
    tmp_path: Path, clock: MockClock, error: Exception
) -> None:
    first, second = FakeService(open_always=error), FakeService()
    async with gateway(tmp_path / "one", first) as one:
        while not first.opened_at:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1)
        async with gateway(tmp_path / "two", second) as two:
            await trio.sleep(TWO_HOURS_S)
            assert state(one) in ("retrying", "parked(refused)", "parked(bug)")
            assert (state(two), second.opened_at) == ("conflict", [])
            record = two.table.get("a")
            assert record is not None
            assert f"the account a of {tmp_path / 'one'}" in record.status(trio.current_time()).words
            one.apply({})
            await two.connected("a")


@pytest.mark.parametrize("more", [{"token": "another"}, {"enabled": False}])
async def test_a_changed_or_disabled_account_lets_its_token_go(
    tmp_path: Path, clock: MockClock, more: dict[str, Any]
) -> None:
    first, second = FakeService(), FakeService()
    async with gateway(tmp_path / "one", first) as one:
        await one.connected("a")
        async with gateway(tmp_path / "two", second) as two:
            await trio.sleep(100)
            assert state(two) == "conflict"
            one.apply({"a": first.plan(**more)})
            await two.connected("a")
    assert not list((tmp_path / "state" / "hermes").iterdir())


async def test_a_lock_that_could_not_be_had_is_tried_again(tmp_path: Path, clock: MockClock) -> None:
    """What stood in the way, such as a full disk, does not cost the lock for as long as the account exists."""
    locks = tmp_path / "state" / "hermes"
    locks.parent.mkdir()
    locks.write_text("in the way")

    async def fails_first() -> None:
        if locks.is_file():
            locks.unlink()
            raise PlatformUnavailable("no answer")

    first, second = FakeService(open_always=fails_first), FakeService()
    async with gateway(tmp_path / "one", first) as one:
        await one.connected("a")
        async with gateway(tmp_path / "two", second) as two:
            await trio.sleep(100)
            assert (state(two), second.opened_at) == ("conflict", [])
