"""The engine put together: one writer, a few readers, and what is known about the file."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from hermes.settings import StoreConfig
from hermes.store import header
from hermes.store.availability import Availability
from hermes.store.backup import BackupReport, back_up
from hermes.store.connection import Opening, TrioConnection, open_connection
from hermes.store.faults import Reason, explained
from hermes.store.migrations import Migration
from hermes.store.readers import READER_PRAGMAS, Readers, open_readers
from hermes.store.writer import MAX_WAITING, Writer

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatistics:
    """What the database has done since it was opened, and whether it can be written now.

    Args:
        commits: transactions that reached the file.
        transactions: functions committed in them.
        largest_batch: functions in the largest.
        waiting_writes: functions that wait for theirs.
        waiting_reads: tasks that wait for a reader.
        busy: transactions given up because another process held the lock for the whole busy timeout.
        unavailable: why writes fail now, or None.
        unavailable_since: seconds since the epoch, or None.
        last_commit_at: seconds since the epoch, or None before the first.
    """

    commits: int
    transactions: int
    largest_batch: int
    waiting_writes: int
    waiting_reads: int
    busy: int
    unavailable: Reason | None
    unavailable_since: float | None
    last_commit_at: float | None


class Database:
    """An open database. Lifetime: `open_database`."""

    def __init__(
        self, opening: Opening, prepared: header.Prepared, writer: Writer, readers: Readers, availability: Availability
    ) -> None:
        self._opening = opening
        self._prepared = prepared
        self._writer = writer
        self._readers = readers
        self._availability = availability

    @property
    def path(self) -> Path:
        """The database file."""
        return self._opening.path

    @property
    def unclean(self) -> bool:
        """Whether the last process that had the file open ended without closing it."""
        return self._prepared.unclean

    @property
    def created(self) -> bool:
        """Whether the file is new."""
        return self._prepared.created

    @property
    def version(self) -> int:
        """Of the schema: how many migrations the file has."""
        return self._prepared.version

    @property
    def in_flight(self) -> int:
        """Reads and writes that have not returned; a virtual clock stands still while there are any."""
        return self._writer.in_flight + self._readers.in_flight

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run one function as one transaction and return when it is committed.

        Functions that wait at the same time are committed together, each under a savepoint of its own.

        Args:
            fn: plain and synchronous. It does not begin, commit or roll back (SQLite refuses that), keeps no cursor,
                and acts through the connection alone: a group that could not be committed is rolled back and its
                functions are run again.

        Returns:
            What `fn` returned, once it is durable.

        Raises:
            StoreUnavailable: the store could not do it now (`busy`, `full`, `read-only`, `io`) or is `closed`; nothing
                of it is in the database.
            StoreCorrupt: the file is damaged.
            Exception: whatever `fn` raised, unchanged; only what `fn` did is undone.

        Cancellation: before `fn` starts it is not executed and the cancel is delivered at once, also while the database
        is locked. Once it has started it is waited for and its outcome is returned or raised; the cancel comes at the
        next checkpoint. In a shielded scope it works in any `finally` up to the exit of `open_database`.
        """
        return await self._writer.write(fn)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on a reader; all its statements see one committed state.

        Args:
            fn: plain and synchronous; it cannot write, and keeps no cursor.

        Raises:
            StoreUnavailable: as for `write`.
            StoreCorrupt: the file is damaged.

        Cancellation: interrupts the statement that runs; returns when the thread has let go of it.
        """
        return await self._readers.read(fn)

    async def wait_available(self) -> None:
        """Return when writes succeed, at once if they do; a probe finds out each second while they do not."""
        await self._availability.wait_available()

    async def quick_check(self) -> None:
        """Check the structure of the whole file on a connection of its own, while everything else goes on.

        Raises:
            StoreCorrupt: with the first findings.

        Cancellation: interrupts the check.
        """
        reading = replace(self._opening, name="check", pragmas=READER_PRAGMAS, reading=True)
        with explained(self.path):
            async with open_connection(reading) as connection:
                await connection.run(header.quick_check)

    async def backup(self, destination: Path) -> BackupReport:
        """Copy the database, as it is at one moment, to a new file while it is being used; see `back_up`."""
        return await back_up(self._opening, destination)

    def statistics(self) -> StoreStatistics:
        """What there is to know, now."""
        counters, outage = self._writer.counters, self._availability.outage
        return StoreStatistics(
            commits=counters.commits,
            transactions=counters.calls,
            largest_batch=counters.largest_batch,
            waiting_writes=self._writer.waiting,
            waiting_reads=self._readers.waiting,
            busy=counters.busy,
            unavailable=None if outage is None else outage.reason,
            unavailable_since=None if outage is None else outage.since,
            last_commit_at=counters.last_commit_at,
        )


@asynccontextmanager
async def open_database(
    path: Path, *, settings: StoreConfig, migrations: Sequence[Migration], clock: Callable[[], float] = time.time
) -> AsyncIterator[Database]:
    """Open a database, or create it (mode 0600), with its schema brought up to date.

    Args:
        path: the file; its directory exists.
        settings: `store:` of the configuration.
        migrations: every migration there is, oldest first; names are unique.
        clock: seconds since the epoch.

    Raises:
        StoreCorrupt: not a Hermes database, or damaged.
        SchemaTooNew: a newer Hermes has written it.
        StoreUnavailable: it cannot be written (locked for longer than `busy_timeout_s`, full, read-only, I/O).

    Lifetime: while it is open, `1 + settings.readers` threads, each with one handle. The exit refuses new calls,
    finishes those that wait, notes a clean stop, and leaves neither thread nor handle, on every path.

    Cancellation: the entry can be cancelled at any point and leaves nothing; the exit is shielded, and bounded by the
    busy timeout.
    """
    opening = Opening(path=path, name="writer", busy_timeout_s=settings.busy_timeout_s)
    availability = Availability(clock)
    async with AsyncExitStack() as stack:
        with explained(path):
            header.create_file(path)
            connection = await stack.enter_async_context(open_connection(opening))
            writer = Writer(connection, availability, clock, max_waiting=MAX_WAITING)
            prepared = await connection.run(partial(_prepare, writer, migrations, settings, clock))
            stack.push_async_callback(_finish, connection)
            readers = await stack.enter_async_context(open_readers(opening, settings.readers))
        stack.callback(writer.refuse)
        await stack.enter_async_context(_open_probe(availability, writer))
        yield Database(opening, prepared, writer, readers, availability)


def _prepare(
    writer: Writer,
    migrations: Sequence[Migration],
    settings: StoreConfig,
    clock: Callable[[], float],
    connection: sqlite3.Connection,
) -> header.Prepared:
    prepared = header.prepare(connection, migrations, settings.synchronous, clock)
    writer.guard(connection)
    return prepared


async def _finish(connection: TrioConnection) -> None:
    with trio.CancelScope(shield=True):
        try:
            await connection.run(header.finish)
        except sqlite3.Error as error:
            log.warning("the clean stop could not be noted (%s); the next start checks the file", error)


@asynccontextmanager
async def _open_probe(availability: Availability, writer: Writer) -> AsyncIterator[None]:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(availability.probe_while_unavailable, partial(writer.write, header.probe))
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The body's own error, as it was raised: a database is no place where errors change their type.
        error, *others = group.exceptions
        if others:
            raise
        raise error from error.__cause__
