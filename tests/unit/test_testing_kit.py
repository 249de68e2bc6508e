"""The helpers of the public kit: its names, the census, the clocks, the ports."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

import hermes.testing
from hermes.testing import Hold, LeakCensus, advance, frozen_clock, no_leaks, refusing_port, silent_port
from hermes.testing.census import LINUX, kind_of, open_descriptors, tcp_states


def test_the_kit_is_exactly_these_names() -> None:
    expected = {
        "Breach",
        "CLAUSES",
        "Clause",
        "Ending",
        "FakeService",
        "Hold",
        "LeakCensus",
        "RecordingInbox",
        "Report",
        "Subject",
        "Switch",
        "TestHost",
        "TestMemory",
        "WireAnswer",
        "WireRequest",
        "advance",
        "cancel_at_every_step",
        "check_platform",
        "check_platform_clauses",
        "deterministic_scheduling",
        "frozen_clock",
        "json_answer",
        "no_leaks",
        "open_test_host",
        "open_wire_server",
        "refusing_port",
        "silent_port",
    }
    assert set(hermes.testing.__all__) == expected
    assert all(
        getattr(hermes.testing, name).__doc__ for name in expected - {"Switch"}
    )  # words, explained where they stand


# --- the census ------------------------------------------------------------------------------------------------------


def test_descriptors_are_named_by_what_they_are() -> None:
    with open(__file__, encoding="utf-8") as handle, socket.socket() as sock:
        found = open_descriptors()
        assert kind_of(found[sock.fileno()]) == "socket"
        assert handle.fileno() in found
    assert sock.fileno() not in open_descriptors()


async def test_no_leaks_is_silent_where_everything_is_closed() -> None:
    async with no_leaks():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
        await trio.to_thread.run_sync(lambda: None)
        await trio.run_process([sys.executable, "-c", ""])


async def test_no_leaks_names_what_is_left() -> None:
    end = threading.Event()
    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError) as caught:
            async with no_leaks(settle_s=0.01):
                more = os.dup(ours.fileno())
                thread = threading.Thread(target=end.wait, name="forgotten thread")
                thread.start()
                nursery.start_soon(trio.sleep_forever, name="forgotten task")
                child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
                await trio.lowlevel.checkpoint()
        text = str(caught.value)
        nursery.cancel_scope.cancel()
    os.close(more)
    end.set()
    thread.join()
    child.communicate()
    ours.close()
    theirs.close()
    assert "1 more of kind socket" in text
    assert "1 more of kind pipe" in text
    assert "thread: forgotten thread" in text
    assert "task: forgotten task" in text
    assert f"child process: {child.pid}" in text


async def test_no_leaks_waits_for_what_is_ending() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="ending")
    async with no_leaks():
        thread.start()
        trio.lowlevel.current_trio_token().run_sync_soon(end.set)  # runs after the block is left
    thread.join()


async def test_the_error_of_the_block_comes_first() -> None:
    with pytest.raises(ValueError, match="its own") as caught:
        async with no_leaks():
            kept = socket.socket()
            raise ValueError("its own")
    kept.close()
    assert "1 more of kind socket" in caught.value.__notes__[0]


async def test_a_replaced_socket_is_no_leak_and_spares_are_counted() -> None:
    before_one = socket.socket()
    before = LeakCensus.take()
    now_one = socket.socket()
    before_one.close()
    assert LeakCensus.take().growth_since(before) == []
    with socket.socket():
        assert LeakCensus.take().growth_since(before, spare_sockets=1) == []
        assert "1 more of kind socket" in "".join(LeakCensus.take().growth_since(before))
    now_one.close()


@pytest.mark.skipif(not LINUX, reason="the kernel's socket table is read from /proc")
async def test_sockets_whose_peer_has_closed_are_counted() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        before = LeakCensus.take()
        with socket.create_connection(listening.getsockname()) as near:
            far, _ = listening.accept()
            assert tcp_states()["ESTABLISHED"] == 2
            far.close()
            while tcp_states()["CLOSE_WAIT"] == 0:
                await trio.lowlevel.checkpoint()
            census = LeakCensus.take()
            assert census.close_wait == 1
            assert "sockets in CLOSE_WAIT: 0 before, 1 now" in census.growth_since(before)
            assert near.recv(1) == b""


def test_a_census_outside_of_trio_has_no_tasks() -> None:
    assert LeakCensus.take(tasks=False).tasks == ()


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class OnIdle(trio.abc.Instrument):
    """Acts once, when the loop is about to wait: what happens then happens while every task waits."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act: Callable[[], object] | None = act

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 1 and self.act is not None:
            act, self.act = self.act, None
            act()


async def test_a_held_clock_stands_still_while_a_thread_works(clock: MockClock) -> None:
    done = threading.Event()
    with Hold(clock):
        trio.lowlevel.add_instrument(OnIdle(done.set))
        with trio.move_on_after(3600) as scope:
            await trio.to_thread.run_sync(done.wait)
        assert not scope.cancelled_caught
        assert trio.current_time() < 1
        await trio.sleep(3600)
        assert 3600 <= trio.current_time() < 3601
    assert clock.autojump_threshold == 0


async def test_without_a_hold_the_clock_jumps_over_the_thread(clock: MockClock) -> None:
    """The premise of the helper: if trio changes this, the helper can go."""
    done = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, done.wait)
        await trio.sleep(3000)
        done.set()
    assert trio.current_time() >= 3000


async def test_a_held_clock_asks_who_else_is_busy(clock: MockClock) -> None:
    asked: list[int] = []
    token = trio.lowlevel.current_trio_token()
    answer = trio.Event()
    idle = threading.Event()

    def finish() -> None:
        asked.clear()
        answer.set()

    def work() -> None:
        idle.wait()
        token.run_sync_soon(finish)

    with Hold(clock, lambda: bool(asked)):
        trio.lowlevel.add_instrument(OnIdle(idle.set))
        asked.append(1)
        thread = threading.Thread(target=work)
        thread.start()
        with trio.fail_after(3600):
            await answer.wait()
        thread.join()
        assert trio.current_time() < 1


async def test_a_held_clock_can_be_kept_for_real_sockets(clock: MockClock) -> None:
    near, far = socket.socketpair()
    with Hold(clock) as hold, near, far:
        trio.lowlevel.add_instrument(OnIdle(lambda: far.send(b"x")))
        with hold.keep(), trio.fail_after(3600):
            assert hold.held
            await trio.lowlevel.wait_readable(near)
        assert not hold.held
        assert trio.current_time() < 1


def test_advancing_a_frozen_clock_stops_at_each_deadline_in_order() -> None:
    clock = frozen_clock()
    seen: list[tuple[str, float]] = []

    async def every(name: str, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            seen.append((name, round(trio.current_time(), 3)))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(every, "a", 0.3)
            nursery.start_soon(every, "b", 0.7)
            await advance(clock, 0.1)
            assert seen == []
            await advance(clock, 1.4)
            assert round(trio.current_time(), 6) == 1.5
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    assert seen == [("a", 0.3), ("a", 0.6), ("b", 0.7), ("a", 0.9), ("a", 1.2), ("b", 1.4), ("a", 1.5)]


# --- ports -----------------------------------------------------------------------------------------------------------


async def test_a_refusing_port_refuses() -> None:
    with refusing_port() as port, pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_silent_port_accepts_and_is_taken() -> None:
    with silent_port() as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello?")
            with contextlib.suppress(OSError), socket.socket() as second:
                second.bind(("127.0.0.1", port))
                pytest.fail("the port was free")
    gc.collect()
