"""Messages that wait or are being answered, for whoever shows signs on them. Plain functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from hermes.events import Address
from hermes.intake import HTTP, decode_payload
from hermes.store.inbox import OPEN


@dataclass(frozen=True, slots=True)
class Awaited:
    """A message: its row, where it is, and the service's id of it."""

    row: int
    address: Address
    message_id: str


def awaited(con: sqlite3.Connection, limit: int) -> list[tuple[int, str]]:
    """Rows and accounts of messages that have no final state, those that came first, first."""
    found = con.execute(
        f"SELECT id, account FROM inbox WHERE {OPEN} AND kind = 'message' AND account != ? ORDER BY id LIMIT ?",
        (HTTP, limit),
    )
    return found.fetchall()


def placed(con: sqlite3.Connection, rows: Collection[int]) -> list[Awaited]:
    """Where the messages of some rows are; those that have no id of the service are left out."""
    marks = ", ".join("?" * len(rows))
    found = con.execute(
        f"SELECT id, account, chat, thread, payload FROM inbox WHERE id IN ({marks}) ORDER BY id",
        tuple(rows),
    )
    messages = []
    for row, account, chat, thread, payload in found.fetchall():
        try:
            message_id = decode_payload(payload).message_id
        except msgspec.DecodeError:  # written by another version
            continue
        if message_id is not None:
            messages.append(Awaited(row, Address(account, chat, thread), message_id))
    return messages
