"""Where a platform is put to be looked at: a fake service, a host, and a clock that moves only when the kit says so.

Sockets are real, so "nothing goes on any more" is when no task has had anything to do for a while and no thread works. With the
clock standing still, whoever waits for time to pass is seen to wait, and whoever waits for an answer that comes is not.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hermes.events import Content
from hermes.platform import Platform
from hermes.testing.census import LeakCensus, settle
from hermes.testing.clauses.subject import Breach, Subject
from hermes.testing.clock import SMALLEST_JUMP_S, frozen_clock
from hermes.testing.host import TestHost, open_test_host
from hermes.testing.injection import Complaints, collected_complaints, place_of
from hermes.testing.service import FakeService

EPOCH = 1_700_000_000.0  # what the host's clock shows when trio's shows zero
STILL_S = 0.05  # real seconds without a step that count as "nothing goes on"
SHORT_S = 1.0  # virtual; after so little less care is needed, for every deadline of a request is several of them away
SHORTLY_STILL_S = STILL_S / 25  # real; the care that is taken then
FOREVER_S = 1e7
MOST_REQUESTS = 300  # in one piece of work
CLEANUP_S = 10.0  # virtual seconds that the core gives a platform to leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a piece of work went.

    Args:
        kind: it `returned`, it `raised`, or it `waits` (and was cancelled then).
        value, error: what it returned or raised.
        place: where it waited.
        swallowed: it was cancelled and ended otherwise.
        endless: it did not wait for anything, but asked the service again and again.
    """

    kind: Literal["returned", "raised", "waits"]
    value: Any = None
    error: BaseException | None = None
    place: str = ""
    swallowed: bool = False
    endless: bool = False

    def __str__(self) -> str:
        match self.kind:
            case "returned":
                return "returned"
            case "raised":
                return f"raised {self.error!r}"[:300]
        return f"waits at {self.place}"


class Bench:
    """A platform's surroundings; made by `open_bench`.

    Attributes:
        subject: what is checked.
        service: its fake service.
        host: its host.
    """

    def __init__(
        self, subject: Subject, service: FakeService, host: TestHost, clock: MockClock, complaints: Complaints
    ) -> None:
        self.subject = subject
        self.service = service
        self.host = host
        self._clock = clock
        self._complaints = complaints

    def open(self) -> AbstractAsyncContextManager[Platform]:
        """A new connection of the platform."""
        opened: AbstractAsyncContextManager[Platform] = self.subject.spec.open(
            self.subject.config(self.service, self.host), self.host
        )
        return opened

    def content(self, text: str) -> Content:
        """A message in words without markup."""
        return Content(text=text)

    async def still(self, cushion_s: float = STILL_S) -> None:
        """Wait until nothing goes on."""
        limiter = trio.to_thread.current_default_thread_limiter()
        while True:
            await wait_all_tasks_blocked(cushion_s)
            if not limiter.borrowed_tokens:
                return

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, stopping at each deadline on the way; ends early when nobody waits for that time."""
        await self.still()
        while seconds > 0.0:
            due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if due > seconds:
                return
            step = max(due, SMALLEST_JUMP_S)
            self._clock.jump(step)
            seconds -= step
            await self.still(STILL_S if step > SHORT_S else SHORTLY_STILL_S)

    def skip(self, seconds: float) -> None:
        """Let so much time be over at once."""
        self._clock.jump(seconds)

    async def keep_time(self) -> None:
        """Beside work that must end by itself: let deadlines of clean-ups pass when everything waits for them."""
        while True:
            await self.still(SHORTLY_STILL_S)
            due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if due > SHORT_S:
                await self.still()
                due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if due <= CLEANUP_S:
                self._clock.jump(max(due, SMALLEST_JUMP_S))

    async def outcome(self, work: Callable[[], Awaitable[Any]], *, may_take_s: float = 0.0) -> Outcome:
        """Do something and see how it goes; what neither ends nor goes on is cancelled.

        Args:
            work: what to do.
            may_take_s: virtual seconds that may pass before it counts as waiting.
        """
        found: list[Outcome] = []
        scope, watching = trio.CancelScope(), trio.CancelScope()
        tasks: list[trio.lowlevel.Task] = []

        async def run() -> None:
            tasks.append(trio.lowlevel.current_task())
            try:
                with scope:
                    value = await work()
                    found.append(Outcome(kind="returned", value=value))
            except Exception as error:  # noqa: BLE001  # what a platform raises is the finding
                found.append(Outcome(kind="raised", error=error))
            finally:
                tasks.clear()
                watching.cancel()

        place: str | None = None
        with _Loops(self.service, lambda: scope.cancel("it goes round and round")) as loops:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, name="the platform")
                with watching:
                    await self.pass_time(may_take_s)
                    place = _innermost(tasks[0])
                    scope.cancel("it waits")
                    await self.pass_time(CLEANUP_S)
                    self._clock.jump(FOREVER_S)  # a clean-up that shields itself for longer than that cannot be ended
                    await self.still()
                    sys.stderr.write(f"the kit: this cannot be cancelled: {_innermost(tasks[0])}\n")
        if loops.endless:
            return Outcome(kind="waits", place=f"nothing: it made {MOST_REQUESTS} requests in a row", endless=True)
        if place is None:
            return found[0]
        return Outcome(kind="waits", place=place, swallowed=bool(found), error=found[0].error if found else None)

    async def leaves_nothing(self, before: LeakCensus, after: str) -> None:
        """Raises Breach if more is held than before."""
        gc.collect()
        await self.still()
        if left := await settle(lambda: LeakCensus.take().growth_since(before), 1.0):
            raise Breach(f"after {after} it has left: {'; '.join(left)}")
        if self._complaints.lines:
            raise Breach(f"after {after} the collector found: {'; '.join(self._complaints.lines)}")


class _Loops(trio.abc.Instrument):
    """Notices work that asks the service again and again and never waits, which would keep everything from being still."""

    def __init__(self, service: FakeService, act: Callable[[], None]) -> None:
        self.endless = False
        self._service = service
        self._most = len(service.requests()) + MOST_REQUESTS
        self._act = act

    def __enter__(self) -> _Loops:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # the instrument's signature
        """Everything that could run has run."""
        if not self.endless and len(self._service.requests()) > self._most:
            self.endless = True
            self._act()


def _innermost(task: trio.lowlevel.Task) -> str:
    """Where a task waits, or the tasks that it waits for."""
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return "; ".join(map(_innermost, children)) if children else place_of(task)


@asynccontextmanager
async def open_bench(subject: Subject, clock: MockClock, complaints: Complaints) -> AsyncIterator[Bench]:
    """A fake service and a host, with everything in them warm: a platform was connected once and has left."""
    async with (
        open_test_host(subject.account, clock=lambda: EPOCH + trio.current_time()) as host,
        subject.service() as service,
    ):
        bench = Bench(subject, service, host, clock, complaints)
        await bench.outcome(partial(_once, bench), may_take_s=CLEANUP_S)
        await bench.still()
        yield bench


async def _once(bench: Bench) -> None:
    async with bench.open():
        pass


def on_bench(check: Callable[[Bench], Awaitable[None]]) -> Callable[[Subject], None]:
    """A check that is run by trio, on a clock that stands still."""

    def run(subject: Subject) -> None:
        clock = frozen_clock()

        async def main(complaints: Complaints) -> None:
            async with open_bench(subject, clock, complaints) as bench:
                await check(bench)

        with collected_complaints() as complaints:
            try:
                trio.run(main, complaints, clock=clock)
            except BaseExceptionGroup as group:
                breaches, rest = group.split(AssertionError)
                if rest is not None or breaches is None:
                    raise
                raise _first_leaf(breaches) from None
        if complaints.lines:
            raise Breach(f"the collector found: {'; '.join(complaints.lines)}")

    return run


def _first_leaf(error: BaseException) -> BaseException:
    """The first error that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
