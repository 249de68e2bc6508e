"""A few connections for reading, each leased to one task at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from hermes.errors import StoreUnavailable
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
        connection.execute("BEGIN")
        try:
            return fn(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    return inside


class Readers:
    """The pool. Lifetime: `open_readers`."""

    def __init__(self, connections: list[TrioConnection]) -> None:
        self._idle = connections
        self._free = trio.Semaphore(len(connections), max_value=len(connections))
        self._closed = False

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
        await self._free.acquire()
        connection = self._idle.pop()
        try:
            return await connection.run(snapshot(fn))
        except sqlite3.Error as error:
            raise _named(error) from error
        finally:
            self._idle.append(connection)
            self._free.release()

    def refuse(self) -> None:
        """Lease no more."""
        self._closed = True


def _named(error: sqlite3.Error) -> Exception:
    fault = fault_of(error)
    if isinstance(fault, StoreUnavailable) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
        return error  # the plain code: query_only refused a write, which is a bug of the function and not of the disk
    return fault or error


@asynccontextmanager
async def open_readers(opening: Opening, count: int) -> AsyncIterator[Readers]:
    """Open `count` (1 to 16) reading connections to a database that its writer has prepared.

    Lifetime: the exit waits for what still runs on them.
    """
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                open_connection(replace(opening, name=f"reader-{n}", pragmas=READER_PRAGMAS))
            )
            for n in range(count)
        ]
        readers = Readers(connections)
        try:
            yield readers
        finally:
            readers.refuse()
