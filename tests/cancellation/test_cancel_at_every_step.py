"""The search for what a cancellation leaves behind finds each kind of leak, and finds nothing where nothing is."""

from __future__ import annotations

import contextlib
import gc
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from hermes.testing import Ending, advance, cancel_at_every_step, frozen_clock

Scenario = Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_echo() -> AsyncIterator[int]:
    async def echo(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_clean_scenario_with_real_sockets_passes_in_every_way() -> None:
    async with open_echo() as port:

        async def scenario() -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, b"hello")
                assert await stream.receive_some(10) == b"hello"

        report = await cancel_at_every_step(scenario, ways=("cancel", "deadline", "sibling"))
    assert report.steps >= 4
    assert report.runs >= 3 * report.steps
    assert report.ways == ("cancel", "deadline", "sibling")


async def test_every_suspended_state_is_ended_once() -> None:
    reached: list[int] = []

    async def scenario() -> None:
        for number in range(5):
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                reached.append(number)
                raise

    report = await cancel_at_every_step(scenario)
    assert report.steps == 5
    assert sorted(set(reached)) == [0, 1, 2, 3, 4]


async def test_tasks_spawned_below_are_counted_and_those_beside_are_not() -> None:
    async def busy_neighbour() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    async def child() -> None:
        for _ in range(10):
            await trio.lowlevel.checkpoint()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy_neighbour)
        report = await cancel_at_every_step(scenario)
        nursery.cancel_scope.cancel()
    assert 20 <= report.steps <= 24


LEFT: list[Any] = []


async def leaks_a_socket() -> None:
    ours, theirs = socket.socketpair()
    await trio.lowlevel.checkpoint()
    ours.close()
    theirs.close()


async def leaks_a_file() -> None:
    handle = open(__file__, encoding="utf-8")  # noqa: ASYNC230, SIM115
    LEFT.append(handle)
    await trio.lowlevel.checkpoint()
    handle.close()


async def leaks_a_thread() -> None:
    end = threading.Event()
    LEFT.append(end)
    threading.Thread(target=end.wait, name="forgotten", daemon=True).start()
    await trio.lowlevel.checkpoint()
    end.set()


async def leaks_a_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
    LEFT.append(child)
    await trio.lowlevel.checkpoint()
    child.communicate()


async def raises_while_leaving() -> None:
    try:
        await trio.lowlevel.checkpoint()
    finally:
        if sys.exc_info()[0] is not None:
            raise OSError("could not close")


async def complains_in_a_finaliser() -> None:
    class Fragile:
        def __del__(self) -> None:
            if not self.closed:
                raise RuntimeError("was not closed")

        closed = False

    fragile = Fragile()
    fragile.itself = fragile  # type: ignore[attr-defined]  # a cycle: only the collector finds it
    await trio.lowlevel.checkpoint()
    fragile.closed = True


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (leaks_a_socket, "ResourceWarning: unclosed <socket"),
        (leaks_a_file, "descriptor: 1 more of kind "),
        (leaks_a_thread, "thread: forgotten"),
        (leaks_a_child, "child process: "),
        (raises_while_leaving, "raised OSError('could not close')"),
        (complains_in_a_finaliser, "error in a finaliser: RuntimeError('was not closed')"),
    ],
)
async def test_each_kind_of_leak_is_found_and_its_place_named(scenario: Scenario, message: str) -> None:
    try:
        with pytest.raises(AssertionError) as caught:
            await cancel_at_every_step(scenario, settle_s=0.02)
    finally:
        for item in LEFT:
            for close in ("close", "set", "communicate"):
                getattr(item, close, lambda: None)()
        LEFT.clear()
        gc.collect()
    assert message in str(caught.value)
    assert "step 1 by cancel" in str(caught.value)
    assert scenario.__name__ in str(caught.value)
    assert "test_cancel_at_every_step.py:" in str(caught.value)


async def test_a_task_left_in_a_background_nursery_is_found() -> None:
    async with trio.open_nursery() as background:

        async def forgotten(done: trio.Event) -> None:
            await done.wait()

        async def scenario() -> None:
            done = trio.Event()
            background.start_soon(forgotten, done)
            await trio.lowlevel.checkpoint()
            done.set()

        with pytest.raises(AssertionError, match=r"1 task\(s\) too many; all living: .*forgotten"):
            await cancel_at_every_step(scenario, settle_s=0.01)
        background.cancel_scope.cancel()


async def test_the_survivor_is_asked_after_each_run() -> None:
    free = 2

    async def scenario() -> None:
        nonlocal free
        free -= 1
        await trio.lowlevel.checkpoint()  # a slot that a cancelled caller does not give back
        free += 1

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert free == 2, f"{free} slots are free"

    with pytest.raises(AssertionError, match=r"the survivor does not work: AssertionError.*1 slots are free"):
        await cancel_at_every_step(scenario, check=check)


async def test_a_sibling_that_raises_ends_the_scenario_and_its_error_is_no_finding() -> None:
    seen: list[int] = []

    async def scenario() -> None:
        for number in range(6):
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                seen.append(number)
                raise

    report = await cancel_at_every_step(scenario, ways=("sibling",))
    assert len(set(seen)) >= 4
    assert report.runs >= report.steps


async def test_an_ending_of_its_own_may_bring_errors_that_are_tolerated() -> None:
    current: list[trio.SocketStream] = []

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as near:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as far:
                current[:] = [far]
                for _ in range(3):
                    await far.send_all(b"x")
                    await near.receive_some(1)

    peer_closes = Ending("peer closes", lambda: [far.socket.close() for far in current] and None)
    with pytest.raises(AssertionError, match=r"raised ClosedResourceError|raised BrokenResourceError"):
        await cancel_at_every_step(scenario, ways=(peer_closes,))
    tolerant = Ending("peer closes", peer_closes.act, tolerate=(trio.ClosedResourceError, trio.BrokenResourceError))
    report = await cancel_at_every_step(scenario, ways=(tolerant,))
    assert report.ways == ("peer closes",)
    assert report.runs > 3


async def test_the_outer_deadline_of_a_test_is_not_swallowed() -> None:
    async def scenario() -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0.01) as scope:
        await cancel_at_every_step(scenario)
    assert scope.cancelled_caught


async def test_a_scenario_that_fails_by_itself_is_told_as_such() -> None:
    async def scenario() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("of its own")

    with pytest.raises(AssertionError, match=r"not ended[^\n]*\n    at its own end\n    raised ValueError"):
        await cancel_at_every_step(scenario)


async def test_stride_and_limit_bound_the_runs() -> None:
    async def scenario() -> None:
        for _ in range(40):
            await trio.lowlevel.checkpoint()

    assert (await cancel_at_every_step(scenario)).runs == 41
    assert (await cancel_at_every_step(scenario, stride=10)).runs == 5
    assert (await cancel_at_every_step(scenario, limit=8)).runs <= 8
    assert (await cancel_at_every_step(scenario, seeds=(0, 1))).runs == 82
    with pytest.raises(ValueError, match="at least 1"):
        await cancel_at_every_step(scenario, stride=0)


async def test_one_seed_gives_one_order() -> None:
    async def order_of(seed: int) -> list[str]:
        orders: list[list[str]] = []

        async def note(name: str) -> None:
            for _ in range(3):
                orders[-1].append(name)
                await trio.lowlevel.checkpoint()

        async def scenario() -> None:
            orders.append([])
            async with trio.open_nursery() as nursery:
                for name in "abcde":
                    nursery.start_soon(note, name)

        await cancel_at_every_step(scenario, seeds=(seed,), limit=1)
        assert orders[0] == orders[1]
        return orders[0]

    first = [await order_of(seed) for seed in range(4)]
    assert first == [await order_of(seed) for seed in range(4)]
    assert any(order != first[0] for order in first)


async def test_virtual_time_stands_still_while_it_looks() -> None:
    moments: list[float] = []

    async def scenario() -> None:
        moments.append(trio.current_time())
        await trio.lowlevel.checkpoint()

    await cancel_at_every_step(scenario)
    assert len(moments) >= 3


def test_on_a_frozen_clock_nothing_moves_but_what_the_test_moves() -> None:
    clock = frozen_clock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await trio.sleep(60)
            ticks.append(trio.current_time())

    async def scenario() -> None:
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await cancel_at_every_step(scenario)
            assert ticks == []
            await advance(clock, 200)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    assert [round(at) for at in ticks] == [60, 120, 180]
