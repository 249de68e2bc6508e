"""Messages that wait for their files: which they are, and what was fetched for them. Plain functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from hermes.events import AttachmentRef
from hermes.intake import decode_payload, encode_payload
from hermes.messages import Part
from hermes.store.tables import Tables

UNFETCHED = "state = 'pending' AND fetch_until IS NOT NULL"  # word for word the condition of the index


class Unfetched(msgspec.Struct, frozen=True, kw_only=True):
    """A message that waits.

    Args:
        row: its id in the inbox.
        account: whose platform fetches.
        session_key: its mailbox.
        until: how long it waits, seconds since the epoch; it may be over, while the message has to wait for another turn.
        files: what came with it.
        may_change: whether its writer was offered tools with side effects when it came.
    """

    row: int
    account: str
    session_key: str
    until: float
    files: tuple[AttachmentRef, ...]
    may_change: bool = False


def waiting(con: sqlite3.Connection, limit: int) -> list[tuple[int, str]]:
    """Rows that wait for files, oldest first, each with its account."""
    return con.execute(f"SELECT id, account FROM inbox WHERE {UNFETCHED} ORDER BY id LIMIT ?", (limit,)).fetchall()


def wait_again(con: sqlite3.Connection, until: float) -> int:
    """Have what waits since before wait until a time: after a start its files are there to be fetched as ever."""
    return con.execute(
        f"UPDATE inbox SET fetch_until = ? WHERE {UNFETCHED} AND fetch_until < ?", (until, until)
    ).rowcount


def unfetched(con: sqlite3.Connection, row: int) -> Unfetched | None:
    """A row that waits; None if it does not (any more), or cannot be read."""
    found = con.execute(
        f"SELECT account, session_key, fetch_until, payload, may_change FROM inbox WHERE id = ? AND {UNFETCHED}", (row,)
    ).fetchone()
    if found is None:
        return None
    try:
        files = decode_payload(found[3]).attachments
    except msgspec.DecodeError:  # written by another version; whoever takes it up sets it aside
        files = ()
    return Unfetched(
        row=row, account=found[0], session_key=found[1], until=found[2], files=files, may_change=bool(found[4])
    )


def fetched(con: sqlite3.Connection, of: Unfetched, parts: Sequence[Part]) -> bool:
    """Add to a message what was fetched for it, and let it wait no more.

    Returns:
        False if it does not wait any more, or was edited meanwhile so that it has other files.
    """
    found = con.execute(f"SELECT payload FROM inbox WHERE id = ? AND {UNFETCHED}", (of.row,)).fetchone()
    if found is None:
        return False
    body = found[0]
    if of.files:
        payload = decode_payload(body)
        if payload.attachments != of.files:
            return False
        last = payload.messages[-1]
        last = msgspec.structs.replace(last, parts=(*last.parts, *parts))
        body = encode_payload(msgspec.structs.replace(payload, messages=(*payload.messages[:-1], last)))
    con.execute("UPDATE inbox SET payload = ?, fetch_until = NULL WHERE id = ?", (body, of.row))
    return True


class AttachmentTable(Tables):
    """Messages that wait for their files."""

    async def waiting(self, limit: int) -> list[tuple[int, str]]:
        """Rows that wait, with their accounts."""
        return await self._read(waiting, limit)

    async def wait_again(self, wait_s: float) -> int:
        """Have what waits wait for so many seconds from now on. Returns how many rows that are."""
        return await self._write(wait_again, self._clock() + wait_s)

    async def unfetched(self, row: int) -> Unfetched | None:
        """A row that waits."""
        return await self._read(unfetched, row)

    async def fetched(self, of: Unfetched, parts: Sequence[Part]) -> bool:
        """Add what was fetched to a message that waits."""
        return await self._write(fetched, of, parts)
