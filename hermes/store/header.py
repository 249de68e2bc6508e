"""What the engine keeps in the file: whose it is, whether the last stop was clean, and a row to try writing with.

All of it is read through SQLite. The file is never opened plainly in this process: closing such a descriptor would drop
the locks that SQLite holds on it (https://www.sqlite.org/howtocorrupt.html section 2.2).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hermes.errors import StoreCorrupt
from hermes.store.migrations import Migration, check_known, migrate, transaction

APPLICATION_ID = 0x48726D73  # "Hrms"
JOURNAL_LIMIT_BYTES = 67_108_864
_PROBE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was found and done at opening."""

    unclean: bool
    created: bool
    migrated: tuple[str, ...]
    version: int


def create_file(path: Path) -> None:
    """Make an empty file that only its owner can read, if there is none; `O_EXCL` proves that nobody has it open."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def prepare(
    connection: sqlite3.Connection, known: Sequence[Migration], synchronous: str, clock: Callable[[], float]
) -> Prepared:
    """Judge the file, bring its schema up to date, prove that it can be written, and note that it is in use.

    Raises:
        StoreCorrupt: not a Hermes database, or damaged.
        SchemaTooNew: a newer Hermes has written it.
        sqlite3.Error: any fault on the way.
    """
    created = _is_empty(connection)
    if not created:
        check_application(connection)
        check_known(connection, known)
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"the file system allows no write-ahead log (journal mode {mode})")
    connection.execute(f"PRAGMA synchronous={synchronous.upper()}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA journal_size_limit={JOURNAL_LIMIT_BYTES}")
    if created:
        _create(connection)
    migrated = migrate(connection, known, clock())
    with transaction(connection):
        unclean = _get(connection, "running") is not None
        _put(connection, "running", b"1")
        probe(connection)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return Prepared(unclean=unclean, created=created, migrated=tuple(migrated), version=version)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(objects == application == version == 0)


def check_application(connection: sqlite3.Connection) -> None:
    """Refuse a SQLite database that is somebody else's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('store_meta', 'store_migrations')")
    if application != APPLICATION_ID or tables.fetchone() != (2,):
        raise StoreCorrupt(f"not a Hermes database (its application id is {application & 0xFFFFFFFF:#010x})")


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("CREATE TABLE store_meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        connection.execute("CREATE TABLE store_migrations (name TEXT NOT NULL UNIQUE, applied_at REAL NOT NULL)")


def _get(connection: sqlite3.Connection, key: str) -> bytes | None:
    row = connection.execute("SELECT value FROM store_meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def _put(connection: sqlite3.Connection, key: str, value: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO store_meta (key, value) VALUES (?, ?)", (key, value))


def probe(connection: sqlite3.Connection) -> None:
    """Write a few fresh pages: what a full, read-only or broken disk refuses."""
    connection.execute(f"INSERT OR REPLACE INTO store_meta (key, value) VALUES ('probe', randomblob({_PROBE_BYTES}))")


def finish(connection: sqlite3.Connection) -> None:
    """Note a clean stop and move the log into the file, each waiting half a second for others at most."""
    connection.set_authorizer(None)
    connection.execute("PRAGMA busy_timeout=500")
    with transaction(connection):
        connection.execute("DELETE FROM store_meta WHERE key IN ('running', 'probe')")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def quick_check(connection: sqlite3.Connection) -> None:
    """Raise StoreCorrupt with the first findings of SQLite's structural check."""
    findings = [text for (text,) in connection.execute("PRAGMA quick_check(10)")]
    if findings != ["ok"]:
        raise StoreCorrupt("the database is damaged: " + "; ".join(findings)[:500])
