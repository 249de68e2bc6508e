"""Which task step held the loop: an instrument cheap enough to be always on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from hermes.observe.lines import short_path
from hermes.observe.logs import get_log

log = get_log(__name__)

THRESHOLD_S = 0.05
REBASE_S = 0.005  # how inexact the CPU time of a slow step may be


@dataclass(slots=True)
class SlowSteps:
    """What was seen.

    Args:
        slow: steps that took more CPU time of the loop's thread than the threshold.
        longest_cpu_s: the most CPU time that one step took, of those that were slow by the clock.
        longest_wall_s: the longest step by the clock, waiting for the processor included.
        longest_task: the task of the step that took the most CPU time.
    """

    slow: int = 0
    longest_cpu_s: float = 0.0
    longest_wall_s: float = 0.0
    longest_task: str = ""


def where_now(task: trio.lowlevel.Task) -> str:
    """Where a task waits after its step, innermost first; what took the time lies before that place."""
    frames = [f"{short_path(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}"
              for frame, line in task.iter_await_frames()
              if not frame.f_globals.get("__name__", "").startswith("trio.")]  # fmt: skip
    return " < ".join(reversed(frames[-5:])) or "its end"


class _Instrument(trio.abc.Instrument):
    """Measures steps from one end to the next, so that only one hook is called for each step.

    To read the thread's CPU time is a system call; the clock is not. A step can take no more CPU time than time, so the
    CPU clock is read only after a step that was long by the clock, against a base that is at most `REBASE_S` old.
    """

    def __init__(self, seen: SlowSteps, threshold_s: float) -> None:
        clock, cpu_clock = time.perf_counter, time.thread_time
        last = clock()
        base_at, base_cpu = last, cpu_clock()

        # Closures: a lookup of self for each name would double what a step costs.
        def after_io_wait(_timeout: float) -> None:
            nonlocal last
            last = clock()

        def after_task_step(task: trio.lowlevel.Task) -> None:
            nonlocal last, base_at, base_cpu
            now = clock()
            wall = now - last
            if wall > threshold_s:
                cpu = min(wall, cpu_clock() - base_cpu)
                seen.longest_wall_s = max(seen.longest_wall_s, wall)
                if cpu > seen.longest_cpu_s:
                    seen.longest_cpu_s, seen.longest_task = cpu, task.name
                if cpu > threshold_s:
                    seen.slow += 1
                    log.warning("loop.slow_step", task=task.name, cpu_s=cpu, wall_s=wall, at=where_now(task))
                now = clock()
            if now - base_at > REBASE_S:
                base_at, base_cpu = now, cpu_clock()
            last = now

        self.after_io_wait = after_io_wait  # type: ignore[method-assign, assignment]
        self.after_task_step = after_task_step  # type: ignore[method-assign]


@contextmanager
def watch_steps(*, threshold_s: float = THRESHOLD_S) -> Iterator[SlowSteps]:
    """Log each task step that takes more CPU time of the loop's thread than a threshold, and keep the longest.

    Args:
        threshold_s: seconds of CPU time (> `REBASE_S`).

    Yields:
        what has been seen so far; it changes.

    Lifetime: inside a trio run; measures all of its tasks until the block is left.
    """
    seen = SlowSteps()
    instrument = _Instrument(seen, threshold_s)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield seen
    finally:
        trio.lowlevel.remove_instrument(instrument)
