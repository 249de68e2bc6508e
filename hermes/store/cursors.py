"""What an account remembers over restarts: how far it has read, and a few values of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from hermes.errors import PlatformProtocolError

MAX_CURSORS = 512  # of one account
MAX_KEYS = 256
MAX_NAME = 100
MAX_VALUE = 4096


def cursors(con: sqlite3.Connection, account: str) -> dict[str, bytes]:
    """How far an account has read, by name."""
    return dict(con.execute("SELECT name, value FROM cursors WHERE account = ?", (account,)).fetchall())


def move(con: sqlite3.Connection, account: str, to: Mapping[str, bytes], now: float) -> None:
    """Store each cursor over the one before; the ones moved longest ago go when there are too many.

    Raises:
        PlatformProtocolError: a name or a value is too long.
    """
    grown = False
    for name, value in to.items():
        _check("cursor", name, value)
        moved = con.execute(
            "UPDATE cursors SET value = ?, updated_at = ? WHERE account = ? AND name = ?", (value, now, account, name)
        ).rowcount
        if not moved:
            con.execute(
                "INSERT INTO cursors (account, name, value, updated_at) VALUES (?, ?, ?, ?)",
                (account, name, value, now),
            )
            grown = True
    if grown:  # the cursors that were there moved: there are as many as before
        con.execute(
            "DELETE FROM cursors WHERE account = ? AND name IN"
            " (SELECT name FROM cursors WHERE account = ? ORDER BY updated_at DESC, name LIMIT -1 OFFSET ?)",
            (account, account, MAX_CURSORS),
        )


def recall(con: sqlite3.Connection, account: str, key: str) -> bytes | None:
    """A value that the account keeps, or None."""
    found = con.execute("SELECT value FROM account_memory WHERE account = ? AND key = ?", (account, key)).fetchone()
    return None if found is None else bytes(found[0])


def keep(con: sqlite3.Connection, account: str, key: str, value: bytes | None, now: float) -> None:
    """Keep a value; None forgets it. The ones kept longest ago go when there are too many.

    Raises:
        PlatformProtocolError: the key or the value is too long.
    """
    if value is None:
        con.execute("DELETE FROM account_memory WHERE account = ? AND key = ?", (account, key))
        return
    _check("memory", key, value)
    con.execute(
        "INSERT INTO account_memory (account, key, value, updated_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (account, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        (account, key, value, now),
    )
    con.execute(
        "DELETE FROM account_memory WHERE account = ? AND key IN"
        " (SELECT key FROM account_memory WHERE account = ? ORDER BY updated_at DESC, key LIMIT -1 OFFSET ?)",
        (account, account, MAX_KEYS),
    )


def _check(what: str, name: str, value: bytes) -> None:
    if not 0 < len(name) <= MAX_NAME:
        raise PlatformProtocolError(f"the name of a {what} has 1 to {MAX_NAME} characters")
    if len(value) > MAX_VALUE:
        raise PlatformProtocolError(f"a {what} has at most {MAX_VALUE} bytes")
