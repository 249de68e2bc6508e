"""The last resort: a thread that ends the process when the stop takes too long, and that notices a loop that is stuck.

It is a thread because what it guards against is a loop, a task or a shield that does not let go. Behind it the
interpreter's own timer (faulthandler) waits two seconds longer, for the case that a C call never gives the GIL back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import trio

from hermes.observe.logs import get_log

log = get_log(__name__)

EXIT_CODE = 1
BEHIND_S = 2.0
FLUSH_S = 1.0


class Watchdog:
    """Armed with a moment, it ends the process then; fed by the loop, it tells when the loop is stuck.

    Args:
        stream: where all stacks are written; a real file with a descriptor.
        stuck_after_s: seconds without a heartbeat after which the loop counts as stuck (> 0).
        end: ends the process; tests give another.
        flush: writes what is logged, within so many seconds.
        clock: seconds of a clock that never goes back.

    Lifetime: `open_watchdog` owns the thread.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        stuck_after_s: float,
        end: Callable[[int], object],
        flush: Callable[[float], object],
        clock: Callable[[], float],
    ) -> None:
        self.stuck_s = 0.0  # the longest silence of the loop that was noticed
        self._stream = stream
        self._stuck_after_s = stuck_after_s
        self._end = end
        self._flush = flush
        self._clock = clock
        self._changed = threading.Condition()
        self._by = math.inf
        self._why = ""
        self._beat_at: float | None = None
        self._stuck = False
        self._over = False

    def arm(self, by: float, why: str = "the stop took too long") -> None:
        """End the process at this moment, unless disarmed.

        Args:
            by: seconds of the monotonic clock (`time.monotonic()`); the earliest of several counts.
            why: for the log.
        """
        with self._changed:
            if by < self._by:
                self._by, self._why = by, why
                if self._end is os._exit:
                    seconds = max(0.1, by - self._clock()) + BEHIND_S
                    faulthandler.dump_traceback_later(seconds, exit=True, file=self._stream)
            self._changed.notify()

    def disarm(self) -> None:
        """There is nothing to wait for any more."""
        with self._changed:
            self._by = math.inf
            if self._end is os._exit:
                faulthandler.cancel_dump_traceback_later()
            self._changed.notify()

    @property
    def armed(self) -> bool:
        """Whether the process will be ended."""
        return self._by < math.inf

    def beat(self) -> None:
        """The loop turns."""
        self._beat_at = self._clock()
        if self._stuck:
            self._stuck = False
            log.warning("loop.turns_again", silent_s=self.stuck_s)

    async def keep_beating(self, every_s: float = 2.0) -> None:
        """The task that feeds it, for as long as it runs.

        Args:
            every_s: seconds between two beats, a fraction of `stuck_after_s`.

        Cancellation: from then on the loop is not expected to beat.
        """
        try:
            while True:
                self.beat()
                with self._changed:
                    self._changed.notify()
                await trio.sleep(every_s)
        finally:
            self._beat_at = None

    def stop(self) -> None:
        """End the thread; `open_watchdog` calls it."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def run(self) -> None:
        """The thread."""
        while True:
            with self._changed:
                self._changed.wait(self._wait_s())
                if self._over:
                    return
                late = self._clock() >= self._by
            if late:
                self._last_words()
                self._end(EXIT_CODE)
                return
            self._look_at_loop()

    def _wait_s(self) -> float | None:
        """Until the next moment of interest; None: until something changes."""
        moments = [self._by]
        if self._beat_at is not None and not self._stuck:
            moments.append(self._beat_at + self._stuck_after_s)
        elif self._stuck:
            moments.append(self._clock() + self._stuck_after_s)
        nearest = min(moments)
        return None if math.isinf(nearest) else max(0.0, nearest - self._clock())

    def _look_at_loop(self) -> None:
        beat_at = self._beat_at
        if beat_at is None or (silent := self._clock() - beat_at) < self._stuck_after_s:
            return
        self.stuck_s = max(self.stuck_s, silent)
        if not self._stuck:
            self._stuck = True
            log.error("loop.stuck", silent_s=silent)
            self._stacks(f"the loop has not turned for {silent:.1f} s")

    def _last_words(self) -> None:
        log.error("watchdog.ends_process", why=self._why, exit_code=EXIT_CODE)
        self._flush(FLUSH_S)
        self._stacks(self._why)

    def _stacks(self, why: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a stream that is closed or full changes nothing about the end
            self._stream.write(f"watchdog: {why}; all threads:\n")
            self._stream.flush()
            faulthandler.dump_traceback(self._stream, all_threads=True)


@contextmanager
def open_watchdog(
    stream: TextIO,
    *,
    stuck_after_s: float = 10.0,
    end: Callable[[int], object] = os._exit,
    flush: Callable[[float], object] = lambda _within_s: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Watchdog]:
    """A watchdog, until the block is left; outermost, around `trio.run`, so that it also covers what comes after it.

    Args:
        stream: where all stacks are written: standard error or a log's file, with a descriptor of its own.
        stuck_after_s: seconds without a heartbeat after which the loop's stacks are written (> 0).
        end: ends the process at once (exit code 1).
        flush: called with seconds before the end: writes what is logged.
        clock: seconds of a clock that never goes back.

    Yields:
        the watchdog, not armed.
    """
    watchdog = Watchdog(stream, stuck_after_s=stuck_after_s, end=end, flush=flush, clock=clock)
    thread = threading.Thread(target=watchdog.run, name="watchdog", daemon=True)
    thread.start()
    try:
        yield watchdog
    finally:
        watchdog.disarm()
        watchdog.stop()
        thread.join()
