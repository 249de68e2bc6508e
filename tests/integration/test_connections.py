"""Accounts kept connected, under virtual time: what each kind of failure leads to, and that nothing of it stays or spreads."""

from __future__ import annotations

import logging
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.accounts import AccountStatus, all_required_work
from hermes.backoff import BUGS_MOST
from hermes.connections import STARTS_AT_ONCE, Connections, open_connections
from hermes.errors import (
    AccountDown,
    PlatformConflict,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from hermes.settings import SupervisionConfig
from hermes.testing import no_leaks
from hermes.testing.fake_accounts import FakeService, fake_host, fresh, hang, hang_shielded

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, open_timeout_s=30, probe_s=600, healthy_after_s=30)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@asynccontextmanager
async def connected(*services: FakeService, **more: Any) -> AsyncIterator[Connections]:
    """One account of each service, called a, b, …; everything is gone afterwards."""
    plans = {name: each.plan(name) for name, each in zip("abcdefghijklmnopqrstuvwxyz", services, strict=False)}
    given = {
        "settings": lambda: SETTINGS, "host": fake_host, "stop_by": lambda: float("inf"),
        "store_ready": trio.lowlevel.checkpoint, "rng": random.Random(7), **more,
    }  # fmt: skip
    async with no_leaks():
        async with open_connections(plans, **given) as connections:
            yield connections
        assert connections.table.snapshot(trio.current_time()) == ()
    assert [each.open_now + each.opening for each in services] == [0] * len(services)


def status(connections: Connections, account: str = "a") -> AccountStatus:
    record = connections.table.get(account)
    assert record is not None
    return record.status(trio.current_time())


async def until(fact: Callable[[], object]) -> None:
    while not fact():  # noqa: ASYNC110  # virtual time, and facts that no event tells
        await trio.sleep(0.1)


REFUSED = PlatformRefused("the token is not valid: get another one from @BotFather")
AWAY = PlatformUnavailable("no answer")


async def test_an_account_is_connected_and_opening_delays_nobody(clock: MockClock) -> None:
    service = FakeService()
    async with connected(service) as connections:
        assert status(connections).state == "connecting"
        assert not service.opened_at
        await connections.connected("a")
        assert status(connections).state == "connected"
        assert status(connections).works
        assert status(connections).generation == 1
        assert trio.current_time() == 0


# --- what a failure leads to


async def test_the_log_says_when_an_account_is_back_and_shows_the_code_of_bugs_alone(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = FakeService(open_steps=deque([AWAY, KeyError("update_id")]))
    with caplog.at_level(logging.INFO):
        async with connected(service) as connections:
            await connections.connected("a")
    lines = [line for line in caplog.text.splitlines() if "account." in line]
    told = [re.search(r"account\.[a-z_]+", line)[0] for line in lines]  # type: ignore[index]
    assert told == ["account.waits", "account.failed", "account.waits", "account.connected"]
    assert "update_id" in lines[1]


async def test_a_refused_account_makes_one_attempt_and_says_why(clock: MockClock) -> None:
    service = FakeService(open_always=REFUSED)
    async with connected(service) as connections:
        await trio.sleep(50_000)
        assert len(service.opened_at) == 1
        seen = status(connections)
        assert (seen.state, seen.next_attempt_s) == ("parked(refused)", None)
        assert "BotFather" in seen.words
        assert not seen.works
        assert all_required_work([seen])
        with pytest.raises(AccountDown, match="BotFather"):
            async with connections.lease("a"):
                pass


async def test_a_refused_account_is_tried_again_when_it_is_asked_for_or_its_configuration_changes(
    clock: MockClock,
) -> None:
    service = FakeService(open_steps=deque([REFUSED, REFUSED]))
    async with connected(service) as connections:
        await until(lambda: status(connections).state == "parked(refused)")
        assert connections.retry("a")
        assert not connections.retry("nobody")
        await until(lambda: len(service.opened_at) == 2 and status(connections).state == "parked(refused)")
        connections.apply({"a": service.plan()})  # the same: nothing happens
        await trio.sleep(1000)
        assert len(service.opened_at) == 2
        connections.apply({"a": service.plan(token="another")})
        await connections.connected("a")
        assert service.tokens == ["good", "good", "another"]
        assert status(connections).state == "connected"
        assert not connections.retry("a")


async def test_an_unavailable_service_is_tried_for_ever_and_never_parked(clock: MockClock) -> None:
    service = FakeService(open_always=AWAY)
    async with connected(service) as connections:
        await trio.sleep(40_000)
        assert status(connections).state == "retrying"
        assert status(connections).reason == "no answer"
        gaps = [after - before for before, after in zip(service.opened_at, service.opened_at[1:], strict=False)]
        assert len(gaps) > 40_000 / SETTINGS.backoff_max_s
        assert max(gaps) <= SETTINGS.backoff_max_s
        assert sum(gaps[:5]) < 1 + 2 + 4 + 8 + 16
        assert status(connections).restarts == len(service.opened_at)
        service.open_always = None
        await connections.connected("a")
        assert status(connections).works


async def test_what_a_service_asks_for_is_waited_for(clock: MockClock) -> None:
    service = FakeService(open_steps=deque([PlatformUnavailable("busy", retry_after_s=500)]))
    async with connected(service) as connections:
        await connections.connected("a")
        assert 500 <= service.opened_at[1] <= 501


async def test_a_conflict_is_slow_and_has_a_state_of_its_own(clock: MockClock) -> None:
    service = FakeService(open_always=PlatformConflict("another poller"))
    async with connected(service) as connections:
        await trio.sleep(200)
        assert service.opened_at == [0, 60, 120, 180]
        assert status(connections).state == "conflict"
        service.open_always = PlatformConflict("another poller", retry_after_s=100)
        await trio.sleep(100)
        assert service.opened_at[4:] == [240]
        service.open_always = None
        await connections.connected("a")
        assert service.opened_at[5:] == [340]


async def test_a_bug_is_restarted_then_parked_then_probed_and_forgotten_when_it_works(clock: MockClock) -> None:
    service = FakeService(open_always=KeyError("id"))
    async with connected(service) as connections:
        await trio.sleep(SETTINGS.probe_s - 1)
        assert len(service.opened_at) == BUGS_MOST
        seen = status(connections)
        assert seen.state == "parked(bug)"
        assert "KeyError: 'id' (testing/fake_accounts.py:" in seen.reason
        assert not all_required_work([seen])
        await trio.sleep(SETTINGS.probe_s)
        assert len(service.opened_at) == BUGS_MOST + 1  # one probe, and no series of restarts
        assert status(connections).state == "parked(bug)"
        assert connections.retry("a")
        await until(lambda: len(service.opened_at) > BUGS_MOST + 1)
        service.open_always = None
        await connections.connected("a")


async def test_errors_of_the_platform_tree_never_count_as_bugs(clock: MockClock) -> None:
    service = FakeService(open_always=PlatformProtocolError("that is no JSON"))
    async with connected(service) as connections:
        await trio.sleep(5000)
        assert len(service.opened_at) > 2 * BUGS_MOST
        assert status(connections).state == "retrying"


async def test_a_store_that_is_away_is_waited_for_and_counts_nothing(clock: MockClock) -> None:
    service, back = FakeService(open_steps=deque([StoreUnavailable("full")])), trio.Event()
    async with connected(service, store_ready=back.wait) as connections:
        await trio.sleep(5000)
        assert len(service.opened_at) == 1
        assert (status(connections).state, status(connections).restarts) == ("connecting", 0)
        back.set()
        await connections.connected("a")
        assert status(connections).restarts == 0


async def test_a_damaged_store_ends_everything(clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with connected(FakeService(open_always=StoreCorrupt("no database"))):
            await trio.sleep_forever()
    assert caught.group_contains(StoreCorrupt)


async def test_an_open_that_hangs_is_ended_at_its_deadline(clock: MockClock) -> None:
    service = FakeService(open_steps=deque([hang]))
    async with connected(service) as connections:
        await trio.sleep(SETTINGS.open_timeout_s - 1)
        assert status(connections).state == "connecting"
        await until(lambda: status(connections).state == "retrying")
        assert "not connected within 30 s" in status(connections).reason
        assert status(connections).restarts == 1
        await connections.connected("a")


async def test_many_short_lives_are_no_recovery(clock: MockClock) -> None:
    """A connection that comes up and fails within moments, again and again, is retried ever more slowly."""

    async def fails(_: object) -> None:
        raise AWAY

    service = FakeService(receive_always=fails)
    async with connected(service) as connections, connections.receiving(service.inbox_for, service.cursors_for):
        await trio.sleep(4000)
        assert len(service.opened_at) < 4000 / SETTINGS.backoff_max_s * 3
        assert status(connections).state in ("degraded", "retrying")


# --- clean-up never hides the reason, and keeps nothing


@pytest.mark.parametrize(
    ("close", "kind"),
    [(OSError("close"), "retrying"), (KeyError("close"), "retrying"), (hang, "retrying"), (AWAY, "retrying")],
)
async def test_a_clean_up_after_a_failure_changes_nothing_of_its_reason(
    clock: MockClock, close: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_: object) -> None:
        raise PlatformUnavailable("the reason", retry_after_s=50)

    service = FakeService(receive_always=fails, close_always=close)
    async with connected(service) as connections, connections.receiving(service.inbox_for, service.cursors_for):
        await until(lambda: status(connections).state == kind)
        assert status(connections).reason == "the reason"
        assert service.open_now == 0
    assert "account.close" in caplog.text


async def test_a_refusal_survives_a_clean_up_that_fails_or_hangs_inside_open(clock: MockClock) -> None:
    for clean_up in (OSError("close"), AWAY, hang):

        @asynccontextmanager
        async def held(clean_up: Any = clean_up) -> AsyncIterator[None]:
            try:
                yield
            finally:
                await trio.lowlevel.checkpoint()  # noqa: ASYNC102  # a bad clean-up is what is tested
                if isinstance(clean_up, Exception):
                    raise fresh(clean_up)
                await clean_up()  # noqa: ASYNC102

        service = FakeService(open_always=REFUSED, held=held)
        async with connected(service) as connections:
            await until(lambda: status(connections).state == "parked(refused)")
            assert "BotFather" in status(connections).reason


async def test_a_clean_up_that_shields_itself_keeps_its_own_account_waiting_and_says_so(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = FakeService(close_steps=deque([hang_shielded])), FakeService()
    async with connected(bad, good) as connections:
        await connections.connected("a")
        connections.apply({"a": bad.plan(token="new"), "b": good.plan("b")})
        await trio.sleep(500)
        seen = status(connections)
        assert (seen.state, "does not end" in seen.reason, bad.open_now) == ("stopping", True, 1)
        assert len(bad.opened_at) == 1  # never two at once
        assert "hang_shielded" in caplog.text
        assert status(connections, "b").works
        await connections.connected("a")
        assert (bad.most_open, bad.tokens) == (1, ["good", "new"])


async def test_errors_of_a_platform_during_a_root_cancel_stay_inside(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def held() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield
            finally:
                raise OSError("close")

    service = FakeService(held=held)
    with trio.CancelScope() as root:
        async with connected(service) as connections:
            await connections.connected("a")
            root.cancel()
    assert root.cancelled_caught
    assert "account.cleanup_failed" in caplog.text


async def test_a_connection_that_ends_in_the_background_is_a_failure(clock: MockClock) -> None:
    async def beside(how: BaseException | None, nursery: trio.Nursery) -> None:
        await trio.sleep(5)
        if how is not None:
            raise fresh(how)
        nursery.cancel_scope.cancel()

    for how, words in ((AWAY, "no answer"), (None, "without an error"), (REFUSED, "BotFather")):

        @asynccontextmanager
        async def held(how: BaseException | None = how) -> AsyncIterator[None]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beside, how, nursery)
                yield
                nursery.cancel_scope.cancel()

        service = FakeService(held=held)
        async with connected(service) as connections:
            await connections.connected("a")
            await until(lambda: not status(connections).works)
            assert words in status(connections).reason
            assert service.open_now == 0


# --- many accounts


async def test_one_that_is_black_holed_or_broken_disturbs_no_other(clock: MockClock) -> None:
    hole, broken, good = FakeService(open_always=hang), FakeService(open_always=ZeroDivisionError()), FakeService()
    async with connected(hole, broken, good) as connections:
        await connections.connected("c")
        assert trio.current_time() == 0
        await trio.sleep(SETTINGS.open_timeout_s / 2)
        assert status(connections, "a").state == "connecting"
        await trio.sleep(3000)
        assert [each.state for each in connections.table.snapshot(trio.current_time())][1:] == [
            "parked(bug)",
            "connected",
        ]
        assert len(good.opened_at) == 1
        assert connections.table.counts(trio.current_time())["connected"] == 1


async def test_starts_in_flight_are_bounded(clock: MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(1)

    shared = FakeService(open_always=slowly)
    async with connected() as connections:
        connections.apply({f"a{n}": shared.plan(f"a{n}") for n in range(20)})
        for n in range(20):
            await connections.connected(f"a{n}")
        assert shared.most_opening == STARTS_AT_ONCE
        assert 20 / STARTS_AT_ONCE <= trio.current_time() < 10
        connections.apply({})
        await until(lambda: connections.table.snapshot(trio.current_time()) == ())


async def test_starts_that_cannot_even_be_cancelled_give_their_place_back(clock: MockClock) -> None:
    stuck, good = FakeService(open_always=hang_shielded), FakeService()
    async with connected() as connections:
        plans = {f"s{n}": stuck.plan(f"s{n}") for n in range(STARTS_AT_ONCE)}
        connections.apply(plans)
        await until(lambda: stuck.opening == STARTS_AT_ONCE)
        connections.apply({**plans, "good": good.plan("good")})
        await connections.connected("good")
        assert trio.current_time() < 2 * SETTINGS.open_timeout_s


# --- a changed configuration


async def test_only_what_changed_gets_a_new_generation(clock: MockClock) -> None:
    one, two, three = FakeService(), FakeService(), FakeService()
    async with connected(one, two) as connections:
        await connections.connected("a")
        await connections.connected("b")
        connections.apply({"b": two.plan("b", token="new"), "c": three.plan("c", required=False)})
        await connections.connected("c")
        await until(lambda: len(two.opened_at) == 2)
        await until(lambda: connections.table.get("a") is None)
        assert (one.open_now, two.tokens, two.most_open) == (0, ["good", "new"], 1)
        connections.apply({"b": two.plan("b", token="new", required=False), "c": three.plan("c", required=False)})
        await trio.sleep(10)
        assert status(connections, "b").generation == 2
        assert not status(connections, "b").required
        with pytest.raises(AccountDown, match="removed"):
            await connections.connected("a")


async def test_an_account_that_is_removed_and_comes_back_at_once_is_never_there_twice(clock: MockClock) -> None:
    async def slowly() -> None:
        await trio.sleep(5)

    service = FakeService(close_always=slowly)
    async with connected(service) as connections:
        await connections.connected("a")
        connections.apply({})
        connections.apply({"a": service.plan()})
        await trio.sleep(1)
        assert status(connections).state == "stopping"
        await connections.connected("a")
        assert (len(service.opened_at), service.most_open) == (2, 1)


async def test_a_disabled_account_is_listed_and_never_opened(clock: MockClock) -> None:
    service = FakeService()
    async with connected() as connections:
        connections.apply({"a": service.plan(enabled=False)})
        await trio.sleep(1000)
        assert (status(connections).state, service.opened_at) == ("disabled", [])
        assert not connections.retry("a")
        assert all_required_work([status(connections)])
        connections.apply({"a": service.plan()})
        await connections.connected("a")
        connections.apply({"a": service.plan(enabled=False)})
        await until(lambda: status(connections).state == "disabled")
        assert service.open_now == 0


async def test_who_waits_for_an_account_hears_that_it_will_not_come(clock: MockClock) -> None:
    told: list[AccountDown] = []

    async def wait(connections: Connections, account: str) -> None:
        try:
            await connections.connected(account)
        except AccountDown as error:
            told.append(error)

    services = FakeService(open_always=REFUSED), FakeService(open_always=REFUSED)
    async with trio.open_nursery() as nursery:
        async with connected(*services) as connections:
            nursery.start_soon(wait, connections, "a")
            nursery.start_soon(wait, connections, "b")
            await until(lambda: status(connections, "b").state == "parked(refused)")
            connections.apply({"b": services[1].plan("b")})
            await until(lambda: told)
            assert [each.state for each in told] == ["removed"]
    assert [each.state for each in told] == ["removed", "stopping"]
