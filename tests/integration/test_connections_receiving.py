"""Receiving behind its gate: alone again after a failure, silence found, old runs harmless; and that all of it is seen."""

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
from hermes.errors import (
    LeaseEnded,
    PlatformConflict,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    StoreUnavailable,
    Unreachable,
    WebSocketClosed,
)
from hermes.events import Address
from hermes.generation import RECEIVE_TRIES
from hermes.platform import Inbox
from hermes.settings import SupervisionConfig
from hermes.testing import no_leaks
from hermes.testing.fake_accounts import HI, FakeService, event, fake_host, hang, hang_shielded

SETTINGS = SupervisionConfig(backoff_base_s=1, backoff_max_s=60, open_timeout_s=30, healthy_after_s=30, send_grace_s=10)


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


@asynccontextmanager
async def receiving(service: FakeService, **more: Any) -> AsyncIterator[Connections]:
    async with (
        connected(service, **more) as connections,
        connections.receiving(service.inbox_for, service.cursors_for),
    ):
        yield connections
    assert service.receiving == 0


def status(connections: Connections) -> AccountStatus:
    record = connections.table.get("a")
    assert record is not None
    return record.status(trio.current_time())


async def until(fact: Callable[[], object]) -> None:
    while not fact():  # noqa: ASYNC110  # virtual time, and facts that no event tells
        await trio.sleep(0.1)


async def send(connections: Connections) -> None:
    async with connections.lease("a") as platform:
        await platform.send(Address("a", "chat"), HI, key="k", reply=None)


# --- the gate


async def test_nothing_is_received_outside_the_gate_and_cursors_are_handed_on(clock: MockClock) -> None:
    async def delivers(inbox: Inbox) -> None:
        await inbox.deliver(event(len(service.committed)), cursors={"offset": b"%d" % len(service.committed)})
        await trio.sleep_forever()

    service = FakeService(receive_always=delivers)
    async with connected(service) as connections:
        await trio.sleep(100)
        assert service.received_at == []
        async with connections.receiving(service.inbox_for, service.cursors_for):
            await until(lambda: service.committed == ["0"])
            assert status(connections).progress_s["deliver"] < 1
            with pytest.raises(RuntimeError, match="open already"):
                async with connections.receiving(service.inbox_for, service.cursors_for):
                    pass
        assert service.receiving == 0
        await send(connections)  # those who send stay connected
        async with connections.receiving(service.inbox_for, service.cursors_for):
            await until(lambda: service.committed == ["0", "1"])
        assert service.given_cursors == [{}, {"offset": b"0"}]
        assert len(service.opened_at) == 1


@pytest.mark.parametrize(("seconds", "committed"), [(5, ["1"]), (50, [])])
async def test_the_gate_waits_for_a_run_that_cleans_up_and_kills_the_inbox_of_one_that_does_not(
    clock: MockClock, caplog: pytest.LogCaptureFixture, seconds: float, committed: list[str]
) -> None:
    late: list[str] = []

    async def stubborn(inbox: Inbox) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
                try:
                    await inbox.deliver(event(1))
                except LeaseEnded:
                    late.append("refused")

    service = FakeService(receive_always=stubborn)
    async with connected(service) as connections:
        async with connections.receiving(service.inbox_for, service.cursors_for):
            await until(lambda: service.receiving)
            began = trio.current_time()
        assert trio.current_time() - began <= 10
        await until(lambda: service.receiving == 0)
        assert service.committed == committed
    assert late == ([] if committed else ["refused"])
    assert ("account.receives_on" in caplog.text) == (not committed)


# --- failures


async def test_a_failed_poll_is_repeated_alone_and_only_then_the_connection_is_renewed(clock: MockClock) -> None:
    service = FakeService(receive_steps=deque([Unreachable("no answer", sent=False)] * RECEIVE_TRIES))
    async with receiving(service) as connections:
        await until(lambda: len(service.received_at) == RECEIVE_TRIES + 1)
        assert status(connections).generation == 1
        assert status(connections).state == "degraded"
        assert "receiving fails: no answer" in status(connections).words
        await trio.sleep(SETTINGS.healthy_after_s)
        assert status(connections).state == "connected"

    service = FakeService(receive_steps=deque([Unreachable("no answer", sent=False)] * (RECEIVE_TRIES + 1)))
    async with receiving(service) as connections:
        await until(lambda: len(service.received_at) == RECEIVE_TRIES + 2)
        assert status(connections).generation == 2
        assert service.most_open == service.most_receiving == 1


async def test_an_ordinary_reconnect_of_a_socket_after_a_healthy_time_is_no_incident(clock: MockClock) -> None:
    async def a_minute(inbox: Inbox) -> None:
        inbox.alive("heartbeat", next_within_s=100)
        await trio.sleep(60)
        raise WebSocketClosed(1001)

    service = FakeService(receive_always=a_minute)
    async with receiving(service) as connections:
        states = set()
        for _ in range(3600):
            await trio.sleep(1)
            states.add(status(connections).state)
        assert states == {"connected"}
        assert status(connections).generation == 1
        assert 3600 / 61 < len(service.received_at) <= 3600 / 60 + 1


async def test_a_socket_that_only_just_comes_up_each_time_is_no_storm(clock: MockClock) -> None:
    """One sign of life is no recovery: the delays go on growing until it has held for `healthy_after_s`."""

    async def a_moment(inbox: Inbox) -> None:
        inbox.alive("heartbeat", next_within_s=100)
        raise WebSocketClosed(1006)

    service = FakeService(receive_always=a_moment)
    async with receiving(service):
        await trio.sleep(3600)
        assert len(service.received_at) < 3600 / SETTINGS.backoff_max_s * 4 * (RECEIVE_TRIES + 1)


async def test_a_poll_that_fails_while_sends_fail_too_renews_the_connection_at_once(clock: MockClock) -> None:
    failing = trio.Event()

    async def fails(inbox: Inbox) -> None:
        await failing.wait()
        raise PlatformUnavailable("gone")

    service = FakeService(receive_steps=deque([fails]), send_steps=deque([PlatformUnavailable("gone")]))
    async with receiving(service) as connections:
        with pytest.raises(PlatformUnavailable):
            await send(connections)
        failing.set()
        await until(lambda: status(connections).generation == 2)
        assert len(service.received_at) <= 2


async def test_a_limit_pauses_receiving_and_nothing_else(clock: MockClock) -> None:
    service = FakeService(receive_steps=deque([RateLimited("slow down", retry_after_s=500)] * 6))
    async with receiving(service) as connections:
        await trio.sleep(400)
        assert len(service.received_at) == 1
        await send(connections)
        await until(lambda: len(service.received_at) == 7)
        assert all(
            after - before >= 500 for before, after in zip(service.received_at, service.received_at[1:], strict=False)
        )
        assert status(connections).generation == 1


async def test_a_conflict_of_receiving_leaves_sending_alone(clock: MockClock) -> None:
    service = FakeService(receive_steps=deque([PlatformConflict("another poller")] * 5))
    async with receiving(service) as connections:
        await trio.sleep(70)
        assert len(service.received_at) == 2
        assert status(connections).state == "conflict"
        assert not status(connections).works
        await send(connections)
        assert connections.retry("a")  # the other one was stopped: look now
        await until(lambda: len(service.received_at) == 3)
        await trio.sleep(60 * 3 + SETTINGS.healthy_after_s)
        assert (status(connections).state, status(connections).generation) == ("connected", 1)


async def test_a_refusal_of_receiving_or_of_a_send_parks_the_account(clock: MockClock) -> None:
    refused = PlatformRefused("revoked")
    for service in (FakeService(receive_steps=deque([refused])), FakeService(send_steps=deque([refused]))):
        async with receiving(service) as connections:
            if service.send_steps:
                with pytest.raises(PlatformRefused):
                    await send(connections)
            await until(lambda: status(connections).state == "parked(refused)")
            await trio.sleep(10_000)
            assert (len(service.opened_at), service.open_now) == (1, 0)


async def test_receiving_that_returns_has_failed(clock: MockClock) -> None:
    async def returns(inbox: Inbox) -> None:
        await trio.sleep(0.01)

    service = FakeService(receive_always=returns)
    async with receiving(service) as connections:
        await trio.sleep(500)
        assert len(service.opened_at) == len(service.received_at) == 5
        assert status(connections).state == "parked(bug)"
        assert "stopped receiving" in status(connections).words


async def test_a_store_that_is_away_lets_receiving_wait_and_nothing_is_counted(clock: MockClock) -> None:
    async def delivers(inbox: Inbox) -> None:
        inbox.alive("poll", next_within_s=60)
        await inbox.deliver(event(1))
        await trio.sleep_forever()

    back = trio.Event()
    service = FakeService(receive_always=delivers, commit_steps=deque([StoreUnavailable("full")]))
    async with receiving(service, store_ready=back.wait) as connections:
        await trio.sleep(5000)
        assert (service.committed, len(service.received_at)) == ([], 1)
        assert (status(connections).state, status(connections).restarts) == ("degraded", 0)
        assert "the store is unavailable (full)" in status(connections).words
        back.set()
        await until(lambda: service.committed == ["1"])
        assert (status(connections).generation, status(connections).restarts) == (1, 0)


# --- silence


async def test_a_broken_promise_is_shown_and_renews_the_connection(clock: MockClock) -> None:
    async def falls_silent(inbox: Inbox) -> None:
        for _ in range(10):
            inbox.alive("poll", next_within_s=60)
            inbox.alive("heartbeat", next_within_s=1000)
            await trio.sleep(50)
        await trio.sleep_forever()

    async def lives(inbox: Inbox) -> None:
        await trio.sleep(20)
        inbox.alive("poll", next_within_s=60_000)
        await trio.sleep_forever()

    service = FakeService(receive_steps=deque([falls_silent, lives]))
    async with receiving(service) as connections:
        await trio.sleep(9 * 50 + 59)
        assert (status(connections).state, status(connections).generation) == ("connected", 1)
        await trio.sleep(2)
        seen = status(connections)
        assert not seen.works
        assert "poll" in seen.reason
        await until(lambda: service.receiving and status(connections).generation == 2)
        assert status(connections).state == "deaf"  # connected again, and still nothing was heard
        assert status(connections).deaf == ("poll",)
        await trio.sleep(25)
        assert status(connections).state == "connected"
        assert service.most_open == service.most_receiving == 1


async def test_a_broken_promise_is_shown_also_while_receiving_does_not_end(clock: MockClock) -> None:
    async def stuck(inbox: Inbox) -> None:
        inbox.alive("poll", next_within_s=60)
        await hang_shielded()

    service = FakeService(receive_steps=deque([stuck]))
    async with receiving(service) as connections:
        await trio.sleep(59)
        assert status(connections).works
        await trio.sleep(2)
        assert (status(connections).state, status(connections).deaf) == ("deaf", ("poll",))
        await until(lambda: service.receiving and status(connections).generation == 2)


async def test_a_path_that_is_proven_to_bring_nothing_is_shown_however_healthy_the_rest_is(clock: MockClock) -> None:
    async def finds_out(inbox: Inbox) -> None:
        inbox.alive("poll", next_within_s=600)
        await trio.sleep(500)
        raise PlatformUnavailable("2 updates wait, and the polls bring none", silent="updates")

    async def brings(inbox: Inbox) -> None:
        inbox.alive("poll", next_within_s=60_000)
        await inbox.deliver(cursors={"offset": b"1"})
        await trio.sleep(20)
        await inbox.deliver(event(1))
        await trio.sleep_forever()

    service = FakeService(receive_steps=deque([finds_out, brings]))
    async with receiving(service) as connections:
        await trio.sleep(499)
        assert status(connections).state == "connected"
        await until(lambda: service.receiving and status(connections).generation == 2)
        await trio.sleep(10)
        assert (status(connections).state, status(connections).deaf) == ("deaf", ("updates",))
        await until(lambda: service.committed == ["1"])
        assert status(connections).state == "connected"


async def test_a_slow_commit_is_no_silence(clock: MockClock) -> None:
    async def slow() -> None:
        await trio.sleep(500)

    async def delivers(inbox: Inbox) -> None:
        inbox.alive("poll", next_within_s=60)
        await trio.sleep(30)
        await inbox.deliver(event(1))
        await trio.sleep(29)
        inbox.alive("poll", next_within_s=60_000)
        await trio.sleep_forever()

    service = FakeService(receive_always=delivers, commit_steps=deque([slow]))
    async with receiving(service) as connections:
        await trio.sleep(2000)
        assert (status(connections).generation, len(service.received_at)) == (1, 1)
        assert service.committed == ["1"]


@pytest.mark.parametrize(
    "paths", [[("p" * 41, 1.0)], [("", 1.0)], [("p", 0.0)], [("p", float("nan"))], [(f"p{n}", 9.0) for n in range(9)]]
)
async def test_signs_out_of_their_bounds_are_a_bug_of_the_platform(
    clock: MockClock, paths: list[tuple[str, float]]
) -> None:
    async def signs(inbox: Inbox) -> None:
        for path, within_s in paths:
            inbox.alive(path, next_within_s=within_s)
        await trio.sleep_forever()

    service = FakeService(receive_always=signs)
    async with receiving(service) as connections:
        await until(lambda: status(connections).restarts)
        assert "ValueError" in status(connections).reason
        assert len(status(connections).progress_s) <= 8


async def test_sends_that_fail_while_reading_works_are_seen(clock: MockClock) -> None:
    service = FakeService(send_always=PlatformUnavailable("502"))
    async with receiving(service) as connections:
        for _ in range(2):
            with pytest.raises(PlatformUnavailable):
                await send(connections)
            await trio.sleep(10)
        seen = status(connections)
        assert (seen.state, seen.send_failing_s, seen.works) == ("degraded", 20, False)
        assert "sending fails: 502" in seen.words
        service.send_always = RateLimited("wait", retry_after_s=1)  # an answer, if not the one that was hoped for
        with pytest.raises(RateLimited):
            await send(connections)
        assert status(connections).state == "connected"
        assert status(connections).progress_s["send"] == 0


# --- old generations


async def test_what_an_old_connection_delivers_late_is_dropped_and_counted(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its close takes ten seconds, and a task of it delivers meanwhile: nothing is committed, nothing runs twice."""
    told: list[BaseException] = []

    async def late() -> None:
        await trio.sleep(9)
        try:
            await service.inboxes[0].deliver(event(99))
        except LeaseEnded as error:
            told.append(error)
        service.inboxes[0].alive("poll", next_within_s=1)
        service.inboxes[0].left("x")

    async def fails(inbox: Inbox) -> None:
        raise KeyError("bug")

    service = FakeService(receive_steps=deque([fails]), close_steps=deque([late]))
    async with receiving(service) as connections:
        await until(lambda: status(connections).generation == 2 and service.receiving)
        await service.inboxes[1].deliver(event(1))
        assert service.committed == ["1"]
        assert service.left == []
        assert len(told) == 1
        assert status(connections).stale == 3
        assert (service.most_open, service.most_receiving) == (1, 1)
    assert "account.stale_delivery" in caplog.text


async def test_over_two_hundred_forced_reconnects_there_is_one_poll_at_a_time(clock: MockClock) -> None:
    rng = random.Random(5)

    async def fails(inbox: Inbox) -> None:
        await trio.sleep(rng.uniform(0, 40))
        inbox.alive("poll", next_within_s=100)
        raise rng.choice([PlatformUnavailable("x"), PlatformUnavailable("y"), WebSocketClosed(1006)])

    async def close() -> None:
        await trio.sleep(rng.uniform(0, 9))

    service = FakeService(receive_always=fails, close_always=close)
    async with receiving(service) as connections:
        for number in range(200):
            connections.apply({"a": service.plan(token=str(number))})
            await trio.sleep(rng.uniform(0, 15))
        assert len(service.opened_at) > 100
        assert (service.most_open, service.most_receiving) == (1, 1)
        await until(lambda: service.receiving)
        assert service.tokens[-1] == "199"


async def test_leaving_while_a_clean_up_of_receiving_hangs_is_bounded_by_its_own_shield(clock: MockClock) -> None:
    async def hangs(inbox: Inbox) -> None:
        try:
            await hang()
        finally:
            await hang_shielded()  # noqa: ASYNC102  # a bad clean-up is what is tested

    service = FakeService(receive_always=hangs)
    with trio.CancelScope() as root:
        async with receiving(service):
            await until(lambda: service.receiving)
            root.cancel()
    assert root.cancelled_caught
    assert service.open_now == 0
