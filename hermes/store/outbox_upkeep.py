"""The outbox as a whole: what dead processes left, what is too old, what sweeps look for, what a person may do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from hermes.events import Address, decode_content
from hermes.settings import RetentionConfig
from hermes.store import addresses, live_parts
from hermes.store.addresses import OPEN, WAITING
from hermes.store.outbox import APPROVED, DOUBT, DRAFT

BATCH = 500
EXCERPT = 200
CRASHED = "the gateway stopped while this was being sent"
REMOVED = "account removed"
DROPPED = "dropped by a person"
# Rejected and no loss: what they held is shown by others, or was never meant to stand alone.
DEAD = "state IN ('rejected', 'held') AND reason NOT IN ('cut', 'left over')"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRecovered:
    """What the last process had left: parts that may be shown, edits to repeat, replies that were being written."""

    doubtful: int
    edits: int
    live: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A part as a person sees it in a list. `text` is the beginning of it, or its file's name."""

    key: str
    address: Address
    source: str
    state: str
    reason: str | None
    attempts: int
    created_at: float
    finished_at: float | None
    text: str


def recover(con: sqlite3.Connection, boot_id: str, now: float) -> OutboxRecovered:
    """Take over from dead processes, once, before anything is sent: what they were sending may be shown."""
    of_others = f"{OPEN} AND state = 'sending' AND boot_id != ?"
    edits = con.execute(
        f"UPDATE outbox SET state = 'pending', boot_id = NULL WHERE {of_others} AND receipt IS NOT NULL", (boot_id,)
    ).rowcount
    doubtful = con.execute(
        "UPDATE outbox SET state = 'ambiguous', boot_id = NULL, reason = ?,"
        f" doubtful = CASE doubtful WHEN {DRAFT} THEN {DRAFT} ELSE {DOUBT} END WHERE {of_others}",
        (CRASHED, boot_id),
    ).rowcount
    return OutboxRecovered(doubtful=doubtful, edits=edits, live=live_parts.end_orphans(con, boot_id, now))


def expire(con: sqlite3.Connection, before: float, now: float) -> int:
    """Hold parts that wait since before a time, a bounded batch. Returns how many."""
    return _hold(con, "created_at <= ?", before, "expired", now)


def hold_removed(con: sqlite3.Connection, accounts: Collection[str], now: float) -> int:
    """Hold what waits for accounts other than these. Returns how many parts."""
    return sum(
        _hold(con, "account = ?", account, REMOVED, now) for account in open_accounts(con) if account not in accounts
    )


def _hold(con: sqlite3.Connection, which: str, value: str | float, reason: str, now: float) -> int:
    return con.execute(
        "UPDATE outbox SET state = 'held', reason = ?, finished_at = ?"
        f" WHERE id IN (SELECT id FROM outbox WHERE {which} AND {WAITING} LIMIT ?)",
        (reason, now, value, BATCH),
    ).rowcount


def open_accounts(con: sqlite3.Connection) -> list[str]:
    """Accounts for which something waits."""
    return [account for (account,) in con.execute(f"SELECT DISTINCT account FROM outbox WHERE {WAITING}")]


def open_addresses(con: sqlite3.Connection, account: str, after: tuple[str, str] | None, limit: int) -> list[Address]:
    """Addresses of an account for which something waits, in their order, a page of them.

    Args:
        after: chat and thread (`""` = none) of the last one of the page before.
    """
    found = con.execute(
        f"SELECT DISTINCT chat, thread FROM outbox WHERE account = ? AND (chat, thread) > (?, ?) AND {WAITING}"
        " ORDER BY chat, thread LIMIT ?",
        (account, *(after or ("", "")), limit),
    ).fetchall()
    return [addresses.of(account, chat, thread) for chat, thread in found]


def counts(con: sqlite3.Connection) -> dict[str, int]:
    """How many parts are in each state that a person may want to know of: those on their way, and the dead letters."""
    found = con.execute(f"SELECT state, count(*) FROM outbox WHERE {OPEN} GROUP BY state").fetchall()
    dead = con.execute(f"SELECT state, count(*) FROM outbox WHERE {DEAD} GROUP BY state").fetchall()
    return dict(found + dead)


def listing(con: sqlite3.Connection, *, limit: int, account: str | None = None) -> list[OutboxRow]:
    """What is on its way and what did not arrive, the newest first."""
    columns = "key, account, chat, thread, source, state, reason, attempts, created_at, finished_at, content"
    mine, values = ("AND account = ?", (account,)) if account is not None else ("", ())
    found = con.execute(
        f"SELECT {columns} FROM (SELECT id, {columns} FROM outbox WHERE {OPEN} {mine}"
        f" UNION ALL SELECT id, {columns} FROM outbox WHERE {DEAD} {mine}) ORDER BY id DESC LIMIT ?",
        (*values, *values, limit),
    ).fetchall()
    return [_listed(each) for each in found]


def _listed(values: tuple[Any, ...]) -> OutboxRow:
    key, account, chat, thread, source, state, reason, attempts, created_at, finished_at, content = values
    try:
        stored = decode_content(content)
        text = stored.text or (stored.file.name if stored.file is not None else "")
    except msgspec.DecodeError:
        text = "(unreadable)"
    return OutboxRow(
        key=key, address=addresses.of(account, chat, thread), source=source, state=state, reason=reason,
        attempts=attempts, created_at=created_at, finished_at=finished_at, text=text[:EXCERPT],
    )  # fmt: skip


def retry(con: sqlite3.Connection, key: str, now: float) -> Address | None:
    """Have a part that did not arrive sent after all, behind what waits at its address; None if there is no such part.

    What may have been shown is sent with its mark, whatever `delivery.ambiguous` says; an address that was gone is believed in
    again.
    """
    found = con.execute(f"SELECT id, account, chat, thread FROM outbox WHERE key = ? AND {DEAD}", (key,)).fetchall()
    if not found:
        return None
    address = addresses.of(*found[0][1:])
    addresses.believe(con, address)
    place = addresses.reserve(con, address, 1, now)
    con.execute(
        "UPDATE outbox SET state = CASE doubtful WHEN 0 THEN 'pending' ELSE 'ambiguous' END,"
        f" doubtful = CASE doubtful WHEN 0 THEN 0 ELSE {APPROVED} END, reason = NULL, attempts = 0, receipt = NULL,"
        " tried_at = NULL, boot_id = NULL, created_at = ?, finished_at = NULL, chat = ?, seq = ? WHERE id = ?",
        (now, place.address.chat, place.first, found[0][0]),
    )
    return place.address


def drop(con: sqlite3.Connection, key: str, now: float) -> bool:
    """End a part that waits or is held, forget one that was rejected; False if there is no such part, or it is just being sent."""
    given_up = con.execute(
        "UPDATE outbox SET state = 'rejected', reason = ?, finished_at = ?"
        " WHERE key = ? AND state IN ('pending', 'ambiguous', 'held')",
        (DROPPED, now, key),
    ).rowcount
    return bool(given_up or con.execute(f"DELETE FROM outbox WHERE key = ? AND {DEAD}", (key,)).rowcount)


def state_of(con: sqlite3.Connection, key: str) -> tuple[str, str | None] | None:
    """State and reason of a part, for who waits for it."""
    found = con.execute("SELECT state, reason FROM outbox WHERE key = ?", (key,)).fetchall()
    return found[0] if found else None


def forget(con: sqlite3.Connection, settings: RetentionConfig, now: float) -> int:
    """Forget parts that ended long ago, and addresses without any; a bounded batch. Returns how many rows went."""
    gone = con.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE finished_at IS NOT NULL AND finished_at < ? LIMIT ?)",
        (now - settings.finished_rows_s, BATCH),
    ).rowcount
    return gone + addresses.forget(con, settings, now)
