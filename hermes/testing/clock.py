"""Virtual time for tests: a clock that stands still while threads or real sockets are at work, and jumps in order."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

SMALLEST_JUMP_S = 1e-6  # a difference of floats may round to nothing; time must still move


class Hold(trio.abc.Instrument, contextlib.AbstractContextManager["Hold"]):
    """Keeps a `MockClock` from jumping while something outside the loop is at work.

    A MockClock with an autojump threshold jumps when every task waits, also when one of them waits for a thread: a
    thread of a tenth of a second then moves the time by the next deadline, an hour perhaps. Inside this block the clock
    jumps only when no thread of `trio.to_thread` runs, no predicate says "busy" and nobody is inside `keep()`.

    Args:
        clock: the clock of this trio run.
        busy: plain functions, asked after task steps, that say whether something else is at work, such as the requests
            that a store's own thread has not answered.
        autojump_threshold: real seconds that all tasks must wait before the clock jumps (>= 0), when it may.
    """

    def __init__(self, clock: MockClock, *busy: Callable[[], bool], autojump_threshold: float = 0.0) -> None:
        self._clock = clock
        self._busy = busy
        self._threshold = autojump_threshold
        self._kept = 0
        self._limiter: trio.CapacityLimiter | None = None

    def __enter__(self) -> Hold:
        self._limiter = trio.to_thread.current_default_thread_limiter()
        self._before = self._clock.autojump_threshold
        trio.lowlevel.add_instrument(self)
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)
        self._clock.autojump_threshold = self._before

    @contextmanager
    def keep(self) -> Iterator[None]:
        """No jump inside this block: for real sockets and processes, whose answers the loop cannot foresee."""
        self._kept += 1
        try:
            yield
        finally:
            self._kept -= 1

    @property
    def held(self) -> bool:
        """Whether the clock stands still now."""
        assert self._limiter is not None
        return self._kept > 0 or self._limiter.borrowed_tokens > 0 or any(busy() for busy in self._busy)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # the instrument's signature
        """The loop reads the threshold before it waits, so after a step is the moment to set it."""
        self._look()

    def _look(self) -> None:
        threshold = math.inf if self.held else self._threshold
        if threshold != self._clock.autojump_threshold:
            self._clock.autojump_threshold = threshold


def frozen_clock() -> MockClock:
    """A clock that moves only when `advance()` or `clock.jump()` says so."""
    return MockClock(rate=0.0, autojump_threshold=math.inf)


async def advance(clock: MockClock, seconds: float) -> None:
    """Move a frozen clock, stopping at each deadline on the way until every task waits again.

    A bare `clock.jump(3600)` lets everything that was due within the hour happen at its end, in any order; this lets it
    happen in order and at its time.

    Args:
        clock: the clock of this trio run.
        seconds: how far (>= 0).
    """
    end = trio.current_time() + seconds
    while True:
        await wait_all_tasks_blocked()
        left = end - trio.current_time()
        due = max(trio.lowlevel.current_statistics().seconds_to_next_deadline, SMALLEST_JUMP_S)
        clock.jump(max(0.0, min(due, left)))
        if due >= left:
            await wait_all_tasks_blocked()
            return
