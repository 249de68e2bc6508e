"""Append-only migrations, recorded by name: each is one transaction together with its record."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hermes.errors import SchemaTooNew


@dataclass(frozen=True, slots=True)
class Migration:
    """One change of the schema. Once released it is never edited, renamed or removed.

    Args:
        name: unique for ever; what the file remembers.
        change: SQL text of any number of statements, or a function over the connection. Neither begins or ends a
            transaction.
    """

    name: str
    change: str | Callable[[sqlite3.Connection], None]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE to COMMIT, undone on every other way out. Blocks: for the connection's own thread."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> Iterator[str]:
    """Split SQL text into statements. (`executescript` would commit the transaction that a migration runs in.)"""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip("; \t\r\n"):
                yield statement
            statement = ""
    rest = statement.strip("; \t\r\n")
    if rest:
        yield rest


def applied(connection: sqlite3.Connection) -> list[str]:
    """The names that the file remembers, in the order in which they were applied."""
    return [name for (name,) in connection.execute("SELECT name FROM store_migrations ORDER BY rowid")]


def check_known(connection: sqlite3.Connection, known: Sequence[Migration]) -> None:
    """Refuse a file that a newer Hermes has written.

    Raises:
        SchemaTooNew: the file remembers a migration, or carries a version, that this program does not have.
    """
    unknown = [name for name in applied(connection) if name not in {migration.name for migration in known}]
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if unknown or version > len(known):
        what = f" (unknown here: {', '.join(unknown)})" if unknown else ""
        raise SchemaTooNew(f"its schema is version {version}, this program knows {len(known)}{what}")


def migrate(connection: sqlite3.Connection, known: Sequence[Migration], now: float) -> list[str]:
    """Apply what the file does not remember yet, in the order of `known`.

    Args:
        connection: the writer's, with no transaction open.
        known: every migration there is, oldest first.
        now: recorded beside each, seconds since the epoch.

    Returns:
        The names applied now.
    """
    done = set(applied(connection))
    fresh = [migration for migration in known if migration.name not in done]
    if not fresh:
        return []
    # Off, as https://www.sqlite.org/lang_altertable.html section 7 asks: a table that is rebuilt is dropped on the way.
    # It cannot be changed inside a transaction; the check before each commit does its work.
    connection.execute("PRAGMA foreign_keys=OFF")
    try:
        for migration in fresh:
            with transaction(connection):
                _apply(connection, migration)
                connection.execute(
                    "INSERT INTO store_migrations (name, applied_at) VALUES (?, ?)", (migration.name, now)
                )
                done.add(migration.name)
                connection.execute(f"PRAGMA user_version={len(done)}")
    finally:
        connection.execute("PRAGMA foreign_keys=ON")
    return [migration.name for migration in fresh]


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    if isinstance(migration.change, str):
        for statement in statements(migration.change):
            connection.execute(statement)
    else:
        migration.change(connection)
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise sqlite3.IntegrityError(f"migration {migration.name} leaves a broken reference in {broken[0]}")
