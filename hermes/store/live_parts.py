"""Parts of a reply that is being written: shown before the turn ends, made to agree with what it said when it has.

A row is committed before its first draft is sent, its receipt as soon as it is known; drafts themselves are not durable. The
transaction that ends the turn gives the rows their content, and their address's lane makes the chat agree.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from hermes.events import (
    Address,
    Receipt,
    ReplyRef,
    StoredContent,
    decode_receipt,
    encode_content,
    encode_receipt,
)
from hermes.store import addresses, outbox
from hermes.store.addresses import OPEN, at
from hermes.store.outbox import DRAFT, LEFT_OVER, SHORTENED, Added

CUT = "cut"  # the reason of rows whose turn ended without a last word
MAX_LIVE = 20  # parts of one reply that are shown while it is written; the rest comes with its end
_OF_TURN = f"turn_id = ? AND {OPEN} AND state = 'live'"


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A part that is being written."""

    id: int
    key: str
    address: Address


def open_live(
    con: sqlite3.Connection,
    address: Address,
    content: StoredContent,
    *,
    reply: ReplyRef | None,
    source: str,
    turn_id: str,
    boot_id: str,
    now: float,
) -> LiveRow | None:
    """Commit that a part is about to be shown; None where nobody is any more."""
    place = addresses.reserve(con, address, 1, now)
    if place.gone is not None:
        return None
    key = outbox.new_key(now, place.first)
    ((row,),) = con.execute(
        "INSERT INTO outbox (key, account, chat, thread, seq, source, turn_id, content, reply, state, boot_id, tried_at,"
        " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'live', ?, ?, ?) RETURNING id",
        (
            key, *at(place.address), place.first, source, turn_id, encode_content(content),
            outbox.stored_reply(reply), boot_id, now, now,
        ),
    ).fetchall()  # fmt: skip
    return LiveRow(row, key, place.address)


def shown(con: sqlite3.Connection, row: int, receipt: Receipt) -> None:
    """Remember what the service returned for a draft."""
    con.execute(
        f"UPDATE outbox SET receipt = ?, doubtful = 0 WHERE id = ? AND {OPEN} AND state = 'live'",
        (encode_receipt(receipt), row),
    )


def doubt(con: sqlite3.Connection, row: int) -> None:
    """Remember that a draft may be shown of which nothing is known."""
    con.execute(
        f"UPDATE outbox SET doubtful = ? WHERE id = ? AND receipt IS NULL AND {OPEN} AND state = 'live'", (DRAFT, row)
    )


def finish_live(
    con: sqlite3.Connection,
    address: Address,
    parts: Sequence[StoredContent],
    *,
    reply: ReplyRef | None,
    source: str,
    turn_id: str,
    now: float,
    resumes: str | None = None,
) -> Added:
    """Give a turn's reply its content, in the transaction that ends the turn: what is shown is edited, the rest is sent.

    Args:
        parts: the whole reply; the shown ones that are left over are shortened.
        reply: what it answers.
        resumes: the turn that died while it wrote this reply; what it showed is edited, too.

    Without anything live it is `outbox.add`.
    """
    if resumes is not None:
        take_over(con, resumes, turn_id, None)
    rows = con.execute(
        f"SELECT id, account, chat, thread, key, receipt IS NOT NULL, doubtful FROM outbox WHERE {_OF_TURN} ORDER BY seq",
        (turn_id,),
    ).fetchall()
    if not rows:
        return outbox.add(con, address, parts, reply=reply, source=source, turn_id=turn_id, now=now)
    for number, (row, account, chat, thread, _, has_receipt, doubtful) in enumerate(rows):
        here = addresses.of(account, chat, thread)
        place = addresses.reserve(con, here, 1, now)
        is_shown = bool(has_receipt) and place.address == here  # what a chat shows from which they moved stays there
        if place.gone is not None:
            outbox.end(con, row, "rejected", place.gone, now)
        elif number >= len(parts):
            _leave_over(con, row, is_shown, now)
        else:  # what is not in the chat yet has no place there: it comes after what was committed since
            con.execute(
                "UPDATE outbox SET state = ?, content = ?, created_at = ?, boot_id = NULL, chat = ?,"
                " receipt = CASE WHEN ? THEN receipt END, seq = CASE WHEN ? THEN seq ELSE ? END WHERE id = ?",
                (
                    "ambiguous" if doubtful else "pending", encode_content(parts[number]), now, place.address.chat,
                    is_shown, is_shown, place.first, row,
                ),
            )  # fmt: skip
    rest = outbox.add(
        con,
        place.address,
        parts[len(rows) :],
        reply=outbox.reply_for(reply, 1),
        source=source,
        turn_id=turn_id,
        now=now,
    )
    return Added(address=place.address, keys=(*(each[4] for each in rows[: len(parts)]), *rest.keys), gone=place.gone)


def _leave_over(con: sqlite3.Connection, row: int, is_shown: bool, now: float) -> None:
    """A part whose text went into those before it: shortened if it is shown, else over."""
    if is_shown:
        con.execute(
            "UPDATE outbox SET state = 'pending', source = ?, content = ?, created_at = ?, boot_id = NULL WHERE id = ?",
            (LEFT_OVER, encode_content(SHORTENED), now, row),
        )
    else:
        outbox.end(con, row, "rejected", LEFT_OVER, now)


def end_live(con: sqlite3.Connection, turn_id: str, now: float) -> int:
    """End what a turn that was cut was writing: what is shown stays as it is. Returns how many parts that were."""
    return _cut(con, _OF_TURN, turn_id, now)


def end_orphans(con: sqlite3.Connection, boot_id: str, now: float) -> int:
    """The same for the turns of dead processes, of which a draft without a receipt may be shown."""
    orphans = f"boot_id != ? AND {OPEN} AND state = 'live'"
    con.execute(f"UPDATE outbox SET doubtful = ? WHERE receipt IS NULL AND {orphans}", (DRAFT, boot_id))
    return _cut(con, orphans, boot_id, now)


def _cut(con: sqlite3.Connection, which: str, value: str, now: float) -> int:
    return con.execute(
        "UPDATE outbox SET state = CASE WHEN receipt IS NULL THEN 'rejected' ELSE 'sent' END, reason = ?, finished_at = ?"
        f" WHERE {which}",
        (CUT, now, value),
    ).rowcount


def take_over(
    con: sqlite3.Connection, dead: str, turn_id: str, boot_id: str | None
) -> list[tuple[LiveRow, Receipt | None]]:
    """Go on with what another turn was writing when it was cut: its parts are live again, and this turn's.

    Args:
        dead: the turn that was cut.
        boot_id: the process that goes on writing; None if nothing more is shown before the end.

    Returns: the parts in order, with the receipts of those that are shown.
    """
    con.execute(
        "UPDATE outbox SET state = 'live', reason = NULL, finished_at = NULL, turn_id = ?, boot_id = ?"
        " WHERE turn_id = ? AND reason = ? AND state IN ('sent', 'rejected')",
        (turn_id, boot_id, dead, CUT),
    )
    found = con.execute(
        f"SELECT id, key, account, chat, thread, receipt FROM outbox WHERE {_OF_TURN} ORDER BY seq", (turn_id,)
    ).fetchall()
    return [
        (LiveRow(row, key, addresses.of(account, chat, thread)), _decoded(receipt))
        for row, key, account, chat, thread, receipt in found
    ]


def _decoded(receipt: bytes | None) -> Receipt | None:
    return None if receipt is None else decode_receipt(receipt)
