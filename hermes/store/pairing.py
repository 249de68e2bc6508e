"""Who was let in by the owner: codes that strangers are told, and the people for whom one was approved.

A code is of use only to the owner, who types it; so it is kept as a digest, may be guessed a few times an hour, lives for an hour
and is used once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from hermes.errors import RequestError
from hermes.store import cursors

ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # 32 letters and digits that nobody confuses
LENGTH: Final = 8
LASTS_S: Final = 3600.0
PAUSE_S: Final = 600.0  # between two codes for one person
MAX_PENDING: Final = 3  # codes of one account at the same time
MAX_WRONG: Final = 5  # wrong codes in an hour, then nobody is approved until the hour is over
_FAILED: Final = "pairing failures"
_times = msgspec.json.Decoder(list[float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A person who waits to be let in. `expires_at` is in seconds since the epoch."""

    account: str
    person: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """A person who was let in, and since when."""

    account: str
    person: str
    since: float


def is_allowed(con: sqlite3.Connection, account: str, person: str) -> bool:
    """Whether the owner let this person in."""
    return (
        con.execute("SELECT 1 FROM allowed WHERE account = ? AND person = ?", (account, person)).fetchone() is not None
    )


def offer(con: sqlite3.Connection, account: str, person: str, now: float) -> str | None:
    """A new code for a person; None if it has had one lately, or too many wait."""
    con.execute("DELETE FROM pairing_codes WHERE expires_at <= ?", (now,))
    known = con.execute(
        "SELECT made_at FROM pairing_codes WHERE account = ? AND person = ?", (account, person)
    ).fetchone()
    if known is not None and now - known[0] < PAUSE_S:
        return None
    waiting = con.execute("SELECT count(*) FROM pairing_codes WHERE account = ?", (account,)).fetchone()[0]
    if known is None and waiting >= MAX_PENDING:
        return None
    code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    con.execute(
        "INSERT OR REPLACE INTO pairing_codes (account, person, code, made_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (account, person, _digest(account, code), now, now + LASTS_S),
    )
    return code


def attempt(con: sqlite3.Connection, account: str, code: str, now: float) -> str | RequestError:
    """Let in the person who was told this code, which is used up by that.

    Returns: the person's id; or the error to be raised once this is committed, for a wrong code is counted: 404 no such code
        waits, 429 too many wrong ones in the last hour, and this one was not looked at.

    Guesses that come at the same time are counted one after the other, for each is a transaction.
    """
    failed = _failures(con, account, now)
    if len(failed) >= MAX_WRONG:
        wait_s = failed[0] + LASTS_S - now
        words = f"too many wrong codes for {account}; wait {wait_s / 60:.0f} minutes"
        return RequestError(429, words, code="pairing_locked", retry_after_s=wait_s)
    wanted = _digest(account, code.strip().upper())
    rows = con.execute(
        "SELECT person, code FROM pairing_codes WHERE account = ? AND expires_at > ?", (account, now)
    ).fetchall()
    found = [str(person) for person, kept in rows if hmac.compare_digest(kept, wanted)]
    if len(found) != 1:  # two of one code, once in a million million: neither is let in by it
        cursors.keep(con, account, _FAILED, msgspec.json.encode([*failed, now][-MAX_WRONG:]), now)
        return RequestError(404, f"no such code waits at {account}; it may have expired", code="pairing_code_unknown")
    con.execute("DELETE FROM pairing_codes WHERE account = ? AND person = ?", (account, found[0]))
    con.execute("INSERT OR REPLACE INTO allowed (account, person, since) VALUES (?, ?, ?)", (account, found[0], now))
    return found[0]


def _failures(con: sqlite3.Connection, account: str, now: float) -> list[float]:
    kept = cursors.recall(con, account, _FAILED)
    return [at for at in (_times.decode(kept) if kept is not None else []) if now - LASTS_S < at <= now]


def pending(con: sqlite3.Connection, now: float) -> list[Pending]:
    """Who waits, the one who waits longest first."""
    found = con.execute(
        "SELECT account, person, expires_at FROM pairing_codes WHERE expires_at > ? ORDER BY made_at", (now,)
    )
    return [Pending(account=account, person=person, expires_at=at) for account, person, at in found.fetchall()]


def allowed(con: sqlite3.Connection, limit: int) -> list[Allowed]:
    """Who was let in."""
    found = con.execute("SELECT account, person, since FROM allowed ORDER BY account, person LIMIT ?", (limit,))
    return [Allowed(account=account, person=person, since=since) for account, person, since in found.fetchall()]


def revoke(con: sqlite3.Connection, account: str, person: str) -> bool:
    """Let a person in no more; False if it was not. A code that waits for it is void."""
    con.execute("DELETE FROM pairing_codes WHERE account = ? AND person = ?", (account, person))
    return con.execute("DELETE FROM allowed WHERE account = ? AND person = ?", (account, person)).rowcount > 0


def _digest(account: str, code: str) -> str:
    return hashlib.sha256(f"{account}/{code}".encode()).hexdigest()
