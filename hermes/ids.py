"""Ids: a kind, the time in milliseconds, randomness. They sort by time, which keeps new rows of the database together."""

from __future__ import annotations

import secrets
import time


def new_id(kind: str) -> str:
    """A new id such as `turn_0199d1f2a3c4` followed by 72 random bits in hexadecimal."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(9)}"


def id_before(kind: str, at: float) -> str:
    """A bound below every id of this kind that is made at or after a time (seconds since the epoch)."""
    return f"{kind}_{max(0, int(at * 1000)):012x}"
