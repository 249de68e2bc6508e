"""What is remembered of an Address: how many parts it was sent, that nobody is there any more, where it moved to.

Plain functions inside a transaction of the writer.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from hermes.events import Address
from hermes.settings import RetentionConfig

MAX_MOVES = 8  # a chat that moved more often than that moves in a circle
MAX_REASON = 500
GONE_KEPT_S = 2_592_000.0  # after so long it is tried once more
MOVED_KEPT_S = 31_536_000.0  # lists of chats are read by it
BATCH = 500

# SQLite uses the index of open rows only for a statement that repeats the index's own condition word for word.
OPEN = "state IN ('live', 'pending', 'sending', 'ambiguous')"
WAITING = f"{OPEN} AND state IN ('pending', 'ambiguous')"
_AT = "account = ? AND chat = ? AND thread = ?"


@dataclass(frozen=True, slots=True)
class Place:
    """Where new parts go.

    Args:
        address: the address, or where its chat moved to.
        first: number of the first part.
        gone: why nobody is there; None as far as is known.
    """

    address: Address
    first: int
    gone: str | None


def at(address: Address) -> tuple[str, str, str]:
    """The columns of an address."""
    return address.account, address.chat, address.thread or ""


def of(account: str, chat: str, thread: str) -> Address:
    """An address from its columns."""
    return Address(account=account, chat=chat, thread=thread or None)


def reserve(con: sqlite3.Connection, address: Address, count: int, now: float) -> Place:
    """Take the next numbers of an address, following a chat that moved.

    Args:
        count: how many (>= 1).
    """
    for _ in range(MAX_MOVES):
        ((following, gone_at, reason, moved_to),) = con.execute(
            "INSERT INTO addresses (account, chat, thread, next_part, used_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (account, chat, thread) DO UPDATE SET next_part = next_part + ?, used_at = excluded.used_at"
            " RETURNING next_part, gone_at, gone_reason, moved_to",
            (*at(address), 1 + count, now, count),
        ).fetchall()
        if moved_to is None:
            if (
                gone_at is not None and gone_at < now - GONE_KEPT_S
            ):  # what is written to it all the time is not forgotten
                believe(con, address)
                gone_at = None
            return Place(address, following - count, None if gone_at is None else reason or "gone")
        address = Address(account=address.account, chat=moved_to, thread=address.thread)
    return Place(address, following - count, "it moved in a circle")


def gone(con: sqlite3.Connection, address: Address, reason: str, now: float) -> int:
    """Remember that nobody is there any more, and reject what waits for this address. Returns how many parts that were."""
    con.execute(
        "INSERT INTO addresses (account, chat, thread, used_at, gone_at, gone_reason) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (account, chat, thread) DO UPDATE"
        " SET gone_at = excluded.gone_at, gone_reason = excluded.gone_reason, moved_to = NULL",
        (*at(address), now, now, reason[:MAX_REASON]),
    )
    return con.execute(
        f"UPDATE outbox SET state = 'rejected', reason = ?, finished_at = ? WHERE {_AT} AND {WAITING}",
        (reason[:MAX_REASON], now, *at(address)),
    ).rowcount


def address_is_back(con: sqlite3.Connection, address: Address, at: float = math.inf) -> None:
    """Forget that a chat was gone, or moved: something came from there. Its threads are believed in again as well.

    For every inbound event but `moved`, in its transaction.

    Args:
        at: since when it is there for certain, by the wall clock, seconds. A move stays if it was later: what comes late from where
            a chat was says nothing of it, and lists of chats are read by it.
    """
    con.execute(
        "UPDATE addresses SET gone_at = NULL, gone_reason = NULL, moved_to = NULL"
        " WHERE account = ? AND chat = ? AND gone_at IS NOT NULL AND (moved_to IS NULL OR gone_at < ?)",
        (address.account, address.chat, at),
    )


def believe(con: sqlite3.Connection, address: Address) -> None:
    """Try an address again that was gone; a chat that moved is still followed."""
    con.execute(
        f"UPDATE addresses SET gone_at = NULL, gone_reason = NULL WHERE {_AT} AND moved_to IS NULL", at(address)
    )


def move(con: sqlite3.Connection, account: str, chat: str, to: str, now: float) -> list[Address]:
    """Remember that a chat has another id, and have what waits for it, and what is being written there, follow in order.

    What is shown in the old chat stays there: the parts are sent anew. A part that is being sent at this moment follows when
    its service says the same of it.

    Returns: the new addresses at which something waits now.
    """
    if chat == to:
        return []
    con.execute(
        "INSERT INTO addresses (account, chat, thread, used_at) VALUES (?, ?, '', ?)"
        " ON CONFLICT (account, chat, thread) DO NOTHING",
        (account, chat, now),
    )
    con.execute(
        "UPDATE addresses SET gone_at = ?, gone_reason = 'moved', moved_to = ? WHERE account = ? AND chat = ?",
        (now, to, account, chat),
    )
    # What moved here before has moved on: a list that has its first id still means it.
    con.execute("UPDATE addresses SET moved_to = ? WHERE account = ? AND moved_to = ?", (to, account, chat))
    con.execute(
        "UPDATE addresses SET gone_at = NULL, gone_reason = NULL, moved_to = NULL WHERE account = ? AND chat = ?",
        (account, to),
    )
    found = con.execute(
        "SELECT id, thread, state FROM outbox WHERE account = ? AND chat = ?"
        f" AND {OPEN} AND state != 'sending' ORDER BY thread, seq",
        (account, chat),
    ).fetchall()
    waiting: dict[Address, None] = {}
    for row, thread, state in found:
        new = of(account, to, thread)
        place = reserve(con, new, 1, now)
        con.execute("UPDATE outbox SET chat = ?, seq = ?, receipt = NULL WHERE id = ?", (to, place.first, row))
        if state != "live":
            waiting[new] = None
    return list(waiting)


def followed(con: sqlite3.Connection, address: Address) -> tuple[Address, ...]:
    """Where an address is now, if its chat moved: who has parts shown may know only the one that was asked from."""
    there = address
    for _ in range(MAX_MOVES):
        found = con.execute(f"SELECT moved_to FROM addresses WHERE {_AT}", at(there)).fetchone()
        if found is None or found[0] is None:
            break
        there = Address(account=there.account, chat=found[0], thread=there.thread)
    return () if there == address else (there,)


def listed_as(con: sqlite3.Connection, account: str, chat: str, lists: Collection[str]) -> str:
    """The id by which lists of chats know a chat: its own, or the one that it had when they were written."""
    if not lists or chat in lists:
        return chat
    found = con.execute(
        "SELECT chat FROM addresses WHERE account = ? AND chat IN (SELECT value FROM json_each(?)) AND thread = ''"
        " AND moved_to = ? ORDER BY gone_at DESC LIMIT 1",
        (account, json.dumps(sorted(lists)), chat),
    ).fetchone()
    return chat if found is None else str(found[0])


def is_meant(con: sqlite3.Connection, account: str, chat: str, now: float) -> None:
    """A list names a chat by this former id: remember for longer where it moved to."""
    con.execute("UPDATE addresses SET used_at = ? WHERE account = ? AND chat = ? AND thread = ''", (now, account, chat))


def forget(con: sqlite3.Connection, settings: RetentionConfig, now: float) -> int:
    """Forget addresses that were not used for long and have nothing open, a bounded batch. Returns how many."""
    return con.execute(
        "DELETE FROM addresses WHERE (account, chat, thread) IN (SELECT a.account, a.chat, a.thread FROM addresses a"
        " WHERE a.used_at < ? AND (a.gone_at IS NULL OR a.gone_at < ?)"
        " AND (a.moved_to IS NULL OR a.used_at < ?) AND NOT EXISTS (SELECT 1 FROM outbox o"
        " WHERE o.account = a.account AND o.chat = a.chat AND o.thread = a.thread"
        f" AND o.{OPEN}) LIMIT ?)",
        (now - settings.finished_rows_s, now - GONE_KEPT_S, now - MOVED_KEPT_S, BATCH),
    ).rowcount
