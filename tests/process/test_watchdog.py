"""The last resort works: against a stop that does not end, a loop that is stuck, and a C call that keeps the GIL."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

from hermes.observe.watchdog import Watchdog, open_watchdog

ENDLESS = """
import sys, time, threading, trio
from hermes.observe.watchdog import open_watchdog

async def main():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

with open_watchdog(sys.stderr) as watchdog:
    watchdog.arm(time.monotonic() + 0.1, "the drain did not end")
    {body}
"""


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("trio.run(main)", "get_events"),
        ("time.sleep(60)", "in <module>"),
        ("threading.Event().wait()", "in wait"),
    ],
)
def test_a_process_that_does_not_end_is_ended_with_all_stacks(body: str, seen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS.format(body=body)], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == 1
    assert "watchdog: the drain did not end; all threads:" in done.stderr
    assert seen in done.stderr


HOLDS_THE_GIL = """
import re, sys, time
from hermes.observe import watchdog
watchdog.BEHIND_S = 0.2
with watchdog.open_watchdog(sys.stderr) as dog:
    dog.arm(time.monotonic() + 0.1)
    sys.setswitchinterval(1000)
    re.fullmatch("(a|aa)+b", "a" * 60)
"""


def test_a_c_call_that_keeps_the_gil_is_ended_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDS_THE_GIL], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in fullmatch" in done.stderr


def test_the_end_is_logged_and_flushed_first(tmp_path: Path) -> None:
    ended, flushed = threading.Event(), []
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    with (tmp_path / "stacks").open("w+") as stream:
        with open_watchdog(stream, end=end, flush=flushed.append) as watchdog:
            watchdog.arm(time.monotonic() + 3600, "later")
            watchdog.arm(time.monotonic() - 1, "now")
            assert ended.wait(20)
        stream.seek(0)
        assert "watchdog: now; all threads:" in stream.read()
    assert codes == [1]
    assert flushed == [1.0]


def test_a_process_that_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    codes: list[int] = []
    with (tmp_path / "stacks").open("w+") as stream:
        with open_watchdog(stream, end=codes.append) as watchdog:
            assert not watchdog.armed
            watchdog.arm(time.monotonic() + 3600)
            assert watchdog.armed
        assert not watchdog.armed
        stream.seek(0)
        assert stream.read() == ""
    assert codes == []
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_loop_that_is_stuck_is_told_once_with_its_stacks_and_when_it_turns_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = Time()
    with (tmp_path / "stacks").open("w+") as stream:
        watchdog = Watchdog(stream, stuck_after_s=10, end=lambda _code: None, flush=lambda _s: None, clock=now)
        watchdog._look_at_loop()
        assert caplog.messages == []  # a loop that does not beat yet is not stuck
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.keep_beating)
            await trio.testing.wait_all_tasks_blocked()
            now.now += 9
            watchdog._look_at_loop()
            assert caplog.messages == []
            now.now += 6
            watchdog._look_at_loop()
            now.now += 5
            watchdog._look_at_loop()
            watchdog.beat()
            nursery.cancel_scope.cancel()
        now.now += 100
        watchdog._look_at_loop()  # it has stopped beating on purpose
        stream.seek(0)
        text = stream.read()
    assert [message.split()[0] for message in caplog.messages] == ["loop.stuck", "loop.turns_again"]
    assert "silent_s=20" in caplog.messages[1]
    assert text.count("all threads:") == 1
    assert watchdog.stuck_s == 20


def test_a_stream_that_is_closed_does_not_keep_the_process(tmp_path: Path) -> None:
    codes: list[int] = []
    stream = (tmp_path / "stacks").open("w")
    stream.close()
    watchdog = Watchdog(stream, stuck_after_s=10, end=codes.append, flush=lambda _s: None, clock=time.monotonic)
    watchdog.arm(time.monotonic() - 1)
    watchdog.run()
    assert codes == [1]
