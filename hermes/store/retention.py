"""What is forgotten, and when. Each sweep removes a bounded number of rows, so that no write waits long behind it."""

from __future__ import annotations

import sqlite3

from hermes.ids import id_before
from hermes.settings import RetentionConfig
from hermes.store import outbox_upkeep, sessions

BATCH = 500


def sweep(con: sqlite3.Connection, settings: RetentionConfig, now: float) -> int:
    """Remove what is past its time, at most a batch of each kind. Returns how many rows went; call again while it is not 0."""
    gone = 0
    for (session_id,) in _expired_sessions(con, settings, now):
        gone += sessions.delete(con, session_id)
    # A key stands for its row and its turn: without them it would be free, and its request run again.
    finished = now - max(settings.finished_rows_s, settings.dedup_s, settings.idempotency_s)
    gone += con.execute(
        "DELETE FROM idempotency WHERE (principal, route, key) IN"
        " (SELECT principal, route, key FROM idempotency WHERE created_at < ? LIMIT ?)",
        (now - settings.idempotency_s, BATCH),
    ).rowcount
    gone += con.execute(
        "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE created_at < ? LIMIT ?)",
        (now - settings.responses_s, BATCH),
    ).rowcount
    older = (_first_row_since(con, finished), finished, BATCH)
    old = "FROM inbox WHERE id < ? AND finished_at < ? ORDER BY id LIMIT ?"
    gone += con.execute(f"DELETE FROM run_events WHERE event_id IN (SELECT event_id {old})", older).rowcount
    gone += con.execute(f"DELETE FROM inbox WHERE id IN (SELECT id {old})", older).rowcount
    gone += con.execute(
        "DELETE FROM turns WHERE id IN (SELECT id FROM turns WHERE id < ? AND ended_at IS NOT NULL LIMIT ?)",
        (id_before("turn", finished), BATCH),
    ).rowcount
    return gone + outbox_upkeep.forget(con, settings, now)


def _expired_sessions(con: sqlite3.Connection, settings: RetentionConfig, now: float) -> list[tuple[str]]:
    quiet = "NOT EXISTS (SELECT 1 FROM inbox i WHERE i.session_key = s.key AND i.state IN ('pending', 'live'))"
    expired = con.execute(
        f"SELECT id FROM sessions s WHERE expires_at IS NOT NULL AND expires_at < ? AND {quiet} LIMIT ?", (now, BATCH)
    ).fetchall()
    if settings.sessions_days and len(expired) < BATCH:
        expired += con.execute(
            f"SELECT id FROM sessions s WHERE expires_at IS NULL AND updated_at < ? AND {quiet} LIMIT ?",
            (now - settings.sessions_days * 86_400, BATCH - len(expired)),
        ).fetchall()
    return expired


def _first_row_since(con: sqlite3.Connection, at: float) -> int:
    """The id of the first row accepted at or after a time; rows are accepted in the order of their ids.

    Halving finds it in a few steps, where a search by time would read the whole table at every sweep.
    """
    low, last = con.execute("SELECT (SELECT min(id) FROM inbox), (SELECT max(id) FROM inbox)").fetchone()
    if last is None:
        return 0
    high = last + 1
    while low < high:
        middle = (low + high) // 2
        found = con.execute(
            "SELECT id, accepted_at FROM inbox WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1", (middle, high)
        ).fetchone()
        if found is None or found[1] >= at:
            high = middle
        else:
            low = found[0] + 1
    return int(low)
