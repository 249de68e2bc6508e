"""A few connections for reading, each leased to one task at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from hermes.errors import HermesError, StoreUnavailable
from hermes.store.connection import Opening, TrioConnection, open_connection
from hermes.store.faults import fault_of

T = TypeVar("T")
MAX_WAITING = 10_000
READER_PRAGMAS = (
    "PRAGMA query_only=ON",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA temp_store=MEMORY",
)


def snapshot(fn: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    """Have all statements of a function see one state of the database."""

    def inside(connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN")  # the connection ends it, where no cancel can reach
        return fn(connection)

    return inside


class Readers:
    """The pool. Lifetime: `open_readers`."""

    def __init__(self, connections: list[TrioConnection]) -> None:
        self._idle = connections
        self._free = trio.Semaphore(len(connections), max_value=len(connections))
        self._closed = False
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Calls that have not returned."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Tasks that wait for a connection."""
        return self._free.statistics().tasks_waiting

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on a leased connection; see `Database.read`."""
        if self._closed:
            raise StoreUnavailable("closed")
        if self.waiting >= MAX_WAITING:
            raise StoreUnavailable("busy", f"{MAX_WAITING} reads are waiting")
        self._in_flight += 1
        try:
            async with self._free:
                connection = self._idle.pop()
                try:
                    return await connection.run(snapshot(fn))
                finally:
                    self._idle.append(connection)
        except sqlite3.Error as error:
            fault = _fault(error)
            if fault is None:
                raise
            raise fault from error
        finally:
            self._in_flight -= 1

    def refuse(self) -> None:
        """Lease no more."""
        self._closed = True


def _fault(error: sqlite3.Error) -> HermesError | None:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
        return None  # the plain code: query_only refused a write, which is a bug of the function and not of the disk
    return fault_of(error)


@asynccontextmanager
async def open_readers(opening: Opening, count: int) -> AsyncIterator[Readers]:
    """Open `count` (1 to 16) reading connections to a database that its writer has prepared.

    Lifetime: the exit waits for what still runs on them.
    """
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                open_connection(replace(opening, name=f"reader-{n}", pragmas=READER_PRAGMAS, reading=True))
            )
            for n in range(count)
        ]
        readers = Readers(connections)
        try:
            yield readers
        finally:
            readers.refuse()
