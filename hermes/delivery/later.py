"""What is only worth beginning if it is still wanted after a while: one task that keeps the time for all of it.

Most turns end before anything has to be shown of them, so the signs of one (typing, a draft, a line of progress) are no
tasks of their own before they are due: three tasks begun and cancelled cost more than the rest of the core.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio

_SLACK = 64  # forgotten beginnings that may be kept beside as many that are wanted


class Later:
    """Beginnings that wait for their time."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []
        self._wanted: dict[int, Callable[[], None]] = {}
        self._numbers = 0
        self._waiting = trio.CancelScope()

    def at(self, when: float, begin: Callable[[], None]) -> int:
        """Call `begin` at a time of trio's clock, or now if that has passed, unless it is forgotten before. Synchronous.

        Returns: its number, for `forget`.
        """
        self._numbers += 1
        if when <= trio.current_time():
            begin()
        else:
            self._wanted[self._numbers] = begin
            heapq.heappush(self._due, (when, self._numbers))
            if when < self._waiting.deadline:
                self._waiting.deadline = when
        return self._numbers

    def forget(self, number: int) -> bool:
        """Whether this has not begun, and so never will. Synchronous."""
        forgotten = self._wanted.pop(number, None) is not None
        if forgotten and not self._wanted:  # as after a turn that nobody else is beside: nothing to wake up for
            self._due.clear()
            self._waiting.deadline = math.inf
        elif len(self._due) > 2 * len(self._wanted) + _SLACK:
            self._due = [each for each in self._due if each[1] in self._wanted]
            heapq.heapify(self._due)
        return forgotten

    async def run(self) -> None:
        """Keep the time. Cancellation: nothing begins any more."""
        while True:
            self._waiting = trio.CancelScope(deadline=self._due[0][0] if self._due else float("inf"))
            with self._waiting:
                await trio.sleep_forever()
            while self._due and self._due[0][0] <= trio.current_time():
                begin = self._wanted.pop(heapq.heappop(self._due)[1], None)
                if begin is not None:
                    begin()
