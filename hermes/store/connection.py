"""One SQLite connection in a thread of its own, for trio: the only file that knows aiosqlite.

aiosqlite's worker thread takes pairs (future, function) from a queue. Its asyncio half is not used: functions are
posted without a future and report to trio through the run's token. The private names that this rests on are pinned by a
contract test, and the version by `pyproject.toml`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import aiosqlite
import outcome
import trio
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from hermes.errors import StoreUnavailable
from hermes.store.faults import is_interrupt

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger(__name__)

# Opcodes of SQLite's machine between two looks at the cancel flag, inside one statement: about 20 us of work.
_PROGRESS_OPCODES = 1000
# The store uses a few hundred different statements; Python's default of 128 would parse some again and again.
_CACHED_STATEMENTS = 512


class Interrupted(Exception):
    """A function that looked at `TrioConnection.interrupted` and gave up: its caller was cancelled."""


class State(Enum):
    """Where a call is; every change is made under the lock that the thread and the cancelling side share."""

    QUEUED = 0
    RUNNING = 1
    DONE = 2
    CANCELLED = 3


class Call(Generic[F]):
    """One function on its way to the thread, and the task that waits for it."""

    __slots__ = ("cancel", "fn", "state", "task")

    def __init__(self, fn: F) -> None:
        self.fn: F | None = fn
        self.task = trio.lowlevel.current_task()
        self.state = State.QUEUED
        self.cancel: Callable[[], NoReturn] | None = None


class ReadingConnection(sqlite3.Connection):
    """A connection whose functions end between two statements, too, when their caller is cancelled."""

    interrupted: Callable[[], bool]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As in the base class. Raises Interrupted once the caller of the function that runs has been cancelled."""
        if self.interrupted():
            raise Interrupted
        return super().execute(sql, parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a connection is opened.

    Args:
        path: the database file; it must exist.
        name: of the thread, for people.
        busy_timeout_s: how long a statement waits in its thread for somebody else's lock (0 to 60).
        pragmas: statements run once after opening.
        mode: `rw`, or `ro` for a file that nobody else has open.
        reading: whether its functions only read, so that they may be ended anywhere.
    """

    path: Path
    name: str
    busy_timeout_s: float
    pragmas: tuple[str, ...] = ()
    mode: str = "rw"
    reading: bool = False

    def connect(self, interrupted: Callable[[], bool]) -> sqlite3.Connection:
        """Open the file in the calling thread. `mode=rw`: a file that has gone away is not made anew."""
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={self.mode}",
            uri=True,
            timeout=self.busy_timeout_s,
            isolation_level=None,
            cached_statements=_CACHED_STATEMENTS,
            factory=ReadingConnection if self.reading else sqlite3.Connection,
        )
        try:
            # interrupt() is lost when it comes just before a statement begins; these looks are not.
            connection.set_progress_handler(interrupted, _PROGRESS_OPCODES)
            if isinstance(connection, ReadingConnection):
                connection.interrupted = interrupted
            for pragma in self.pragmas:
                connection.execute(pragma).close()
        except BaseException:
            connection.close()
            raise
        return connection


class TrioConnection(aiosqlite.Connection):
    """An aiosqlite connection whose waiting side is trio.

    Lifetime: made by `open_connection`, which also closes it. The thread is a daemon, so that a process which dies
    without unwinding is not held up by it; on every ordinary path it is joined.
    """

    def __init__(self, opening: Opening) -> None:
        super().__init__(lambda: opening.connect(lambda: self._interrupted), 64)
        self._thread.daemon = True
        self._thread.name = f"hermes-store-{opening.name}"
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._interrupted = False

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection itself; only for functions that run in its thread."""
        return self._conn

    @property
    def interrupted(self) -> bool:
        """Whether the caller of the function that runs now has been cancelled; long functions look at it."""
        return self._interrupted

    @property
    def token(self) -> trio.lowlevel.TrioToken:
        """The run that this connection reports to."""
        return self._token

    def post(self, job: Callable[[], None]) -> None:
        """Queue a job for the thread; nobody waits for it and it must not raise. Safe from any thread."""
        self._tx.put_nowait((None, job))

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function over the connection in its thread.

        Args:
            fn: plain and synchronous; it must not keep the connection or return a cursor. A transaction that it leaves
                open is rolled back.

        Returns:
            What `fn` returned.

        Raises:
            StoreUnavailable: `closed`, when the connection is being closed.

        Cancellation: before `fn` started it is not run and the cancel is delivered at once. Afterwards its statement is
        interrupted and the thread is waited for: an interrupted function ends in the cancel, one that had finished
        returns its result. The thread is never left behind.
        """
        if not self._running:
            raise StoreUnavailable("closed")
        return await self._submit(lambda: fn(self._conn))

    async def _submit(self, job: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        call = Call(job)
        self._tx.put_nowait((None, partial(self._perform, call)))
        ended: outcome.Outcome[T] = await trio.lowlevel.wait_task_rescheduled(partial(self._abort, call))
        if isinstance(ended, outcome.Error) and call.cancel is not None and _gave_up(ended.error):
            call.cancel()
        return ended.unwrap()

    def _perform(self, call: Call[Callable[[], Any]]) -> None:  # in the thread
        with self._lock:
            if call.state is not State.QUEUED or call.fn is None:
                return
            call.state = State.RUNNING
            self._interrupted = False
        ended = outcome.capture(call.fn)
        call.fn = None  # this frame's argument lives until the thread's next job; what the function holds must not
        with self._lock:
            call.state = State.DONE
            self._interrupted = False
        # From here on nothing can interrupt, so that the end of a transaction is never what a cancel hits.
        if isinstance(ended, outcome.Error):
            forget_frames(ended.error)
        if self._connection is not None and self._connection.in_transaction:
            outcome.capture(self._connection.execute, "ROLLBACK")
        self._report(trio.lowlevel.reschedule, call.task, outcome.Value(ended))

    def _abort(self, call: Call[Any], cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        with self._lock:
            if call.state is State.QUEUED:
                call.state = State.CANCELLED
                call.fn = None
                return trio.lowlevel.Abort.SUCCEEDED
            call.cancel = cancel
            if call.state is State.RUNNING:
                self._interrupted = True
                if self._connection is not None:
                    # Only while our own function runs, which the lock guarantees: never a neighbour's statement.
                    self._conn.interrupt()
        return trio.lowlevel.Abort.FAILED

    def _report(self, fn: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(fn, *args)
        except trio.RunFinishedError:
            log.debug("the trio run ended before a result of %s", self._thread.name)

    def _open(self) -> None:  # in the thread
        self._connection = self._connector()

    async def _connect(self) -> TrioConnection:
        await self._submit(self._open)
        return self

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self.run(lambda _: fn(*args, **kwargs))

    def stop(self) -> None:
        """Refuse new calls; once everything that is queued has run, close the connection and end the thread."""
        if self._running:
            self._running = False
            self._tx.put_nowait((None, self._finish))

    def _finish(self) -> object:  # in the thread
        connection, self._connection = self._connection, None
        if connection is not None:
            closed = outcome.capture(connection.close)
            if isinstance(closed, outcome.Error):
                log.error("closing %s failed", self._thread.name, exc_info=closed.error)
        self._report(self._finished.set)
        return _STOP_RUNNING_SENTINEL

    async def close(self) -> None:
        """Stop, and wait until the thread is gone, whatever cancels the caller."""
        self._finished = trio.Event()
        self.stop()
        with trio.CancelScope(shield=True):
            await self._finished.wait()
        # The thread has nothing left to do but return: this takes microseconds, and no second thread is needed for it.
        self._thread.join()


def forget_frames(error: BaseException) -> None:
    """Drop the locals of what failed: a cursor among them would hold its snapshot for as long as the error is kept."""
    traceback.clear_frames(error.__traceback__)


def _gave_up(error: BaseException) -> bool:
    return isinstance(error, Interrupted) or is_interrupt(error)


@asynccontextmanager
async def open_connection(opening: Opening) -> AsyncIterator[TrioConnection]:
    """Open a connection in a thread of its own.

    Args:
        opening: which file and how.

    Raises:
        sqlite3.Error: the file cannot be opened, or a pragma failed.

    Lifetime: the exit runs what is queued, closes the handle and joins the thread, on every path.
    """
    connection = TrioConnection(opening)
    connection._thread.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        await connection._connect()
        yield connection
