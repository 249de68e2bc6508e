"""A copy of the live database, verified before it gets its name."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from hermes.errors import StoreCorrupt
from hermes.store import header
from hermes.store.connection import Interrupted, Opening, TrioConnection, open_connection
from hermes.store.faults import explained
from hermes.store.migrations import applied
from hermes.store.readers import READER_PRAGMAS

log = logging.getLogger(__name__)

# 1 MiB at the usual page size: about a millisecond between two looks at the cancel flag.
_PAGES_PER_STEP = 256
_ADVICE = "Nothing was kept under that name; the database itself may be damaged."


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """A finished backup.

    Args:
        path: the copy.
        size_bytes: of the file.
        version: of its schema.
        migrations: the names it holds.
    """

    path: Path
    size_bytes: int
    version: int
    migrations: tuple[str, ...]


async def back_up(opening: Opening, destination: Path) -> BackupReport:
    """Copy a database while it is read and written, check the copy, and only then give it its name.

    The copy is one committed state: the source connection holds a read transaction, so writers go on in the log and
    the copy never starts again. It is made in steps under a temporary name beside the destination, converted to a
    single file without a log, checked (structure, header, migrations), synced, and linked.

    Args:
        opening: how the live database is opened.
        destination: a path that does not exist yet, in a directory that does.

    Raises:
        FileExistsError: something has that name. Nothing is ever overwritten.
        StoreUnavailable: the copy could not be read or written (`full`, `read-only`, `io`).
        StoreCorrupt: the copy, and so the original, is damaged.

    Cancellation: ends at the next step (about a millisecond of work) or interrupts the check; the temporary file is
    removed.
    """
    if await trio.to_thread.run_sync(os.path.lexists, destination):
        raise FileExistsError(f"{destination} exists; a backup overwrites nothing")
    async with _temporary_file(destination) as temporary:
        with explained(destination, advice=_ADVICE):
            async with open_connection(_reading(opening, opening.path, "rw")) as source:
                await source.run(partial(_copy, source, temporary))
            async with open_connection(_reading(opening, temporary, "ro")) as copy:
                version, migrations = await copy.run(partial(_verify, opening.path))
            size = await trio.to_thread.run_sync(_publish, temporary, destination)
    return BackupReport(path=destination, size_bytes=size, version=version, migrations=migrations)


def _reading(opening: Opening, path: Path, mode: str) -> Opening:
    return replace(opening, path=path, name="backup", pragmas=READER_PRAGMAS, mode=mode, reading=True)


@asynccontextmanager
async def _temporary_file(destination: Path) -> AsyncIterator[Path]:
    temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}.part")
    with explained(destination):
        header.create_file(temporary)
    try:
        yield temporary
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove, temporary)


def _remove(temporary: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        try:
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            log.warning("a temporary file of the backup stays behind: %s", error)


def _copy(source: TrioConnection, temporary: Path, connection: sqlite3.Connection) -> None:
    def progress(*_: int) -> None:
        if source.interrupted:
            raise Interrupted

    with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as target:
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the read transaction begins here
            connection.backup(target, pages=_PAGES_PER_STEP, progress=progress, sleep=0)
        finally:
            connection.execute("ROLLBACK")
        # One file, with nothing beside it: the copy brought the original's write-ahead mode with it.
        target.execute("PRAGMA journal_mode=DELETE").fetchone()


def _verify(original: Path, connection: sqlite3.Connection) -> tuple[int, tuple[str, ...]]:
    try:
        header.quick_check(connection)
        header.check_application(connection)
    except StoreCorrupt as error:
        raise StoreCorrupt(f"the copy of {original} did not pass its check ({error})") from error
    return connection.execute("PRAGMA user_version").fetchone()[0], tuple(applied(connection))


def _publish(temporary: Path, destination: Path) -> int:
    """Sync the copy, which nothing in this process has open, and give it its name without replacing anything."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    _name(temporary, destination)
    directory = os.open(destination.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return size


def _name(temporary: Path, destination: Path) -> None:
    try:
        os.link(temporary, destination)  # never replaces: that is decided by the kernel, in one step
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the look and the rename are two steps there
        if os.path.lexists(destination):
            raise FileExistsError(f"{destination} exists; a backup overwrites nothing") from None
        temporary.rename(destination)
