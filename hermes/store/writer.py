"""The one writer: functions that wait are committed together, by its thread and not by a task.

Whoever finds the thread idle posts one job; the job begins a transaction, takes everybody who waits by then, runs each
function under a savepoint of its own, commits, and wakes them all with one call into the loop. There is no task, so
that a `finally` can write while the root is being cancelled.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar

import outcome
import trio

from hermes.errors import StoreUnavailable
from hermes.store.availability import Availability
from hermes.store.connection import Call, State, TrioConnection, forget_frames
from hermes.store.faults import fault_of

T = TypeVar("T")
Ended: TypeAlias = tuple[Call[Any], outcome.Outcome[Any]]

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_BATCH = 512
# After this many faults in a row the rest of a failed group is not tried one by one.
_FAULTS_IN_A_ROW = 3

# The comments make the writer's statements texts of their own: a function that says COMMIT itself never gets one of
# them from the statement cache. Its own is parsed, and refused by the authorizer.
_BEGIN = "BEGIN IMMEDIATE -- by the writer"
_COMMIT = "COMMIT -- by the writer"
_ROLLBACK = "ROLLBACK -- by the writer"
_SAVEPOINT = "store_call"
_SAVE = f"SAVEPOINT {_SAVEPOINT} -- by the writer"
_RELEASE = f"RELEASE {_SAVEPOINT} -- by the writer"
_UNDO = f"ROLLBACK TO {_SAVEPOINT} -- by the writer"


@dataclass(slots=True)
class Counters:
    """Written by the writer's thread, read from anywhere.

    Args:
        commits: committed transactions of SQLite.
        calls: functions that were committed in them.
        largest_batch: functions in the largest of them.
        busy: beginnings given up because somebody else held the lock for the whole busy timeout.
        last_commit_at: seconds since the epoch, or None before the first.
    """

    commits: int = 0
    calls: int = 0
    largest_batch: int = 0
    busy: int = 0
    last_commit_at: float | None = None


class _Undone(Exception):
    """SQLite rolled the whole transaction back while a function ran; `error` is what the function saw."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Writer:
    """Groups the functions that wait into transactions. One per database, over the one connection that writes."""

    def __init__(
        self, connection: TrioConnection, availability: Availability, clock: Callable[[], float], *, max_waiting: int
    ) -> None:
        self._connection = connection
        self._raw = connection.raw
        self._token = connection.token
        self._availability = availability
        self._clock = clock
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._in_flight = 0
        self._queue: dict[Call[Any], None] = {}  # in order of arrival; a cancelled call leaves it at once
        self._scheduled = False
        self._closed = False
        self._inside = False  # a function runs now, and may not end the transaction it shares
        self._changes = 0
        self.counters = Counters()

    @property
    def waiting(self) -> int:
        """Functions that wait for their transaction."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Calls that have not returned."""
        return self._in_flight

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run one function as one transaction; the contract is `Database.write`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise StoreUnavailable("closed")
        call = Call(fn)
        with self._lock:
            if len(self._queue) >= self._max_waiting:
                raise StoreUnavailable("busy", f"{self._max_waiting} writes are waiting")
            self._queue[call] = None
            kick, self._scheduled = not self._scheduled, True
        if kick:
            self._connection.post(self._drain)

        def abort(_: object) -> trio.lowlevel.Abort:
            with self._lock:
                if call.state is not State.QUEUED:
                    return trio.lowlevel.Abort.FAILED  # it runs: its caller learns how it ended
                call.state = State.CANCELLED
                del self._queue[call]
                return trio.lowlevel.Abort.SUCCEEDED

        self._in_flight += 1
        try:
            result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._in_flight -= 1
        return result

    def refuse(self) -> None:
        """Take no new calls; those that wait are still executed."""
        self._closed = True

    def guard(self, connection: sqlite3.Connection) -> None:
        """Have SQLite refuse a function that tries to end the transaction it shares. In the writer's thread."""
        connection.set_authorizer(self._authorize)

    def _authorize(self, action: int, _operation: str | None, name: str | None, *_: object) -> int:
        ends = action == sqlite3.SQLITE_TRANSACTION or (action == sqlite3.SQLITE_SAVEPOINT and name == _SAVEPOINT)
        return sqlite3.SQLITE_DENY if ends and self._inside else sqlite3.SQLITE_OK

    # In the writer's thread from here on, but for `_wake`.

    def _drain(self) -> None:
        results: list[Ended] = []
        while True:
            with self._lock:
                more = self._scheduled = bool(self._queue)
            # After the look at the queue: the loop wakes by it and wants the interpreter, which this thread then gives up for good.
            if results:
                self._report(results)
            if not more:
                return
            batch: list[Call[Any]] = []
            ended = outcome.capture(self._transact, batch)
            if type(ended) is outcome.Value:
                results = ended.value
            else:  # a fault of this module itself: nobody may be left waiting for ever
                assert type(ended) is outcome.Error
                self._rollback()
                results = [(call, ended) for call in batch]

    def _take(self, batch: list[Call[Any]]) -> None:
        with self._lock:
            queue = self._queue
            if len(queue) <= MAX_BATCH:
                batch.extend(queue)
                queue.clear()
            else:
                batch.extend(islice(queue, MAX_BATCH))
                for call in batch:
                    del queue[call]
            for call in batch:
                call.state = State.RUNNING

    def _transact(self, batch: list[Call[Any]]) -> list[Ended]:
        error: sqlite3.Error | None = None
        try:
            self._raw.execute(_BEGIN)
        except sqlite3.Error as found:
            error = found
        # After BEGIN: whoever came while it waited for a foreign lock rides along, and until here anybody could leave.
        self._take(batch)
        if error is not None:
            return self._not_begun(batch, error)
        if len(batch) == 1:
            return [self._alone(batch[0])]
        if not batch:
            self._rollback()
            return []
        grouped = outcome.capture(self._together, batch)
        if isinstance(grouped, outcome.Value):
            return grouped.value
        self._rollback()
        return self._one_by_one(batch)

    def _together(self, batch: list[Call[Any]]) -> list[Ended]:
        """Run a batch in the open transaction and commit it. Raises when all of it is lost."""
        connection = self._raw
        results: list[Ended] = []
        for call in batch:
            connection.execute(_SAVE)
            ended = self._call(call)
            if type(ended) is outcome.Error:
                connection.execute(_UNDO)
            connection.execute(_RELEASE)
            results.append((call, ended))
        self._commit(len(batch))
        return results

    def _alone(self, call: Call[Any]) -> Ended:
        """Run one call in the open transaction and end it."""
        try:
            ended = self._call(call)
            if type(ended) is outcome.Value:
                self._commit(1)
                return call, ended
        except _Undone as undone:
            ended = outcome.Error(undone.error)
        except sqlite3.Error as error:
            ended = outcome.Error(error)
        self._rollback()
        return call, ended

    def _one_by_one(self, batch: list[Call[Any]]) -> list[Ended]:
        """Run the calls of a lost group in transactions of their own, so that one of them cannot fail the others.

        What was lost is rolled back, so nothing happens twice. A group is lost when its COMMIT failed (a deferred
        constraint, a full disk) or when SQLite itself gave the transaction up inside a function.
        """
        results: list[Ended] = []
        faults = 0
        for index, call in enumerate(batch):
            try:
                self._raw.execute(_BEGIN)
            except sqlite3.Error as error:
                return results + self._not_begun(batch[index:], error)
            _, ended = self._alone(call)
            results.append((call, ended))
            failed = isinstance(ended, outcome.Error) and fault_of(ended.error) is not None
            faults = faults + 1 if failed else 0
            if faults == _FAULTS_IN_A_ROW:
                return results + [(rest, ended) for rest in batch[index + 1 :]]
        return results

    def _not_begun(self, batch: list[Call[Any]], error: sqlite3.Error) -> list[Ended]:
        fault = fault_of(error)
        if isinstance(fault, StoreUnavailable) and fault.reason == "busy":
            self.counters.busy += 1
        begun = outcome.Error(error)
        return [(call, begun) for call in batch]

    def _call(self, call: Call[Any]) -> outcome.Outcome[Any]:
        connection = self._raw
        assert call.fn is not None
        self._inside = True
        ended: outcome.Outcome[Any] = outcome.capture(call.fn, connection)
        self._inside = False
        if type(ended) is outcome.Value and type(ended.value) is CoroutineType:
            ended.value.close()
            ended = outcome.Error(TypeError("the function of a write must be synchronous"))
        if type(ended) is outcome.Error:
            forget_frames(ended.error)
        if not connection.in_transaction:
            # The authorizer refuses COMMIT and ROLLBACK, so it was SQLite: disk full, an I/O error, no memory.
            lost = sqlite3.OperationalError("SQLite rolled the transaction back")
            raise _Undone(ended.error if type(ended) is outcome.Error else lost)
        return ended

    def _commit(self, calls: int) -> None:
        self._raw.execute(_COMMIT)
        counters = self.counters
        counters.commits += 1
        counters.calls += calls
        if calls > counters.largest_batch:
            counters.largest_batch = calls
        counters.last_commit_at = self._clock()

    def _rollback(self) -> None:
        connection = self._raw
        if connection.in_transaction:
            outcome.capture(connection.execute, _ROLLBACK)  # it ends the transaction even where it reports an error

    def _report(self, results: list[Ended]) -> None:
        """Name the faults, see what they say about the file, and wake everybody with one call into the loop."""
        fault: StoreUnavailable | None = None
        for index, (call, ended) in enumerate(results):
            if type(ended) is outcome.Error:
                named = fault_of(ended.error)
                if named is not None:
                    results[index] = call, outcome.Error(named)
                    fault = named if isinstance(named, StoreUnavailable) else fault
        changes, self._changes = self._changes, self._raw.total_changes
        try:
            self._token.run_sync_soon(self._wake, results, fault, changes != self._changes)
        except trio.RunFinishedError:
            log.debug("the trio run ended before its writes did")

    def _wake(self, results: list[Ended], fault: StoreUnavailable | None, changed: bool) -> None:
        if fault is not None:
            self._availability.failed(fault)
        elif changed:  # an empty transaction proves nothing about the disk
            self._availability.succeeded()
        for call, ended in results:
            trio.lowlevel.reschedule(call.task, ended)
