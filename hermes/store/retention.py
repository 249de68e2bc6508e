"""What is forgotten, and when. Each sweep removes a bounded number of rows, so that no write waits long behind it."""

from __future__ import annotations

import sqlite3

from hermes.ids import id_before
from hermes.settings import RetentionConfig
from hermes.store import sessions

BATCH = 500


def sweep(con: sqlite3.Connection, settings: RetentionConfig, now: float) -> int:
    """Remove what is past its time, at most a batch of each kind. Returns how many rows went; call again while it is not 0."""
    gone = 0
    for (session_id,) in _expired_sessions(con, settings, now):
        gone += sessions.delete(con, session_id)
    finished = now - max(settings.finished_rows_s, settings.dedup_s)
    gone += con.execute(
        "DELETE FROM idempotency WHERE (principal, route, key) IN"
        " (SELECT principal, route, key FROM idempotency WHERE created_at < ? LIMIT ?)",
        (now - settings.idempotency_s, BATCH),
    ).rowcount
    gone += con.execute(
        "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE created_at < ? LIMIT ?)",
        (now - settings.responses_s, BATCH),
    ).rowcount
    old = "SELECT event_id FROM inbox WHERE finished_at IS NOT NULL AND accepted_at < ? AND finished_at < ? ORDER BY id LIMIT ?"
    gone += con.execute(f"DELETE FROM run_events WHERE event_id IN ({old})", (finished, finished, BATCH)).rowcount
    gone += con.execute(
        f"DELETE FROM inbox WHERE finished_at IS NOT NULL AND event_id IN ({old})", (finished, finished, BATCH)
    ).rowcount
    gone += con.execute(
        "DELETE FROM turns WHERE id IN (SELECT id FROM turns WHERE id < ? AND ended_at IS NOT NULL LIMIT ?)",
        (id_before("turn", finished), BATCH),
    ).rowcount
    return gone


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
