"""What is only worth beginning if it is still wanted after a while: one task that keeps the time for all of it.

Most turns end before anything has to be shown of them, so the signs of one (typing, a draft, a line of progress) are no
tasks of their own before they are due: three tasks begun and cancelled cost more than the rest of the core.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

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


class Beside(Generic[T]):
    """What goes on beside a block: begun after a while, unless the block is over before, and closed after it.

    A class, no generator: each turn enters three of them, which nearly never begin.

    Args:
        given: what the block gets.
        later: keeps the time.
        when: on trio's clock; None = it never begins.
        begin: called then.
        close: called after a block of which it has begun, and told whether something was raised in there.
    """

    __slots__ = ("_begin", "_close", "_given", "_later", "_number", "_when")

    def __init__(
        self, given: T, later: Later, when: float | None, begin: Callable[[], None],
        close: Callable[[bool], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._given = given
        self._later = later
        self._when = when
        self._begin = begin
        self._close = close
        self._number = 0

    async def __aenter__(self) -> T:
        if self._when is not None:
            self._number = self._later.at(self._when, self._begin)
        return self._given

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._when is not None and not self._later.forget(self._number):
            # Shielded and bounded inside.
            await self._close(kind is not None)  # noqa: ASYNC102  # shielded and bounded inside
