"""What the last process left behind: every turn that ran when it died is closed, once, before anything new begins.

The home's lock proves that every other owner is dead, so nothing is waited for.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from hermes.intake import Failure, TurnEnd, encode_end
from hermes.messages import assistant
from hermes.store import inbox, sessions, steps

REASON = "the gateway stopped while this ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """How many turns were cut, and what became of their rows."""

    turns_cut: int
    rows_interrupted: int
    rows_resumed: int


def recover(con: sqlite3.Connection, boot_id: str, now: float) -> Recovered:
    """Close the turns of dead processes.

    Attended rows end `interrupted`: nobody waits any more. Rows of people and jobs are pending again and resume from the last
    whole step; their `attempts` stand, so that a row which kills the process is set aside.
    """
    running = con.execute(
        "SELECT DISTINCT t.id, t.session_id, t.event_id, t.mode, t.started_at"
        f" FROM (SELECT turn_id FROM inbox WHERE {inbox.RUNNING}) i JOIN turns t ON t.id = i.turn_id"
        " WHERE t.state = 'running' AND t.boot_id != ?",
        (boot_id,),
    ).fetchall()
    for turn_id, session_id, event_id, mode, started_at in running:
        steps.close_open(con, turn_id, REASON, now)
        if mode == "attended":
            sessions.append(con, session_id, turn_id, [assistant(f"(interrupted: {REASON})", note="interrupted")], now)
        failure = Failure(status=503, code="interrupted", message=REASON, kind="interrupted")
        end = TurnEnd(
            event_id=event_id, session_id=session_id, turn_id=turn_id, state="interrupted", created_at=started_at,
            failure=failure,
        )  # fmt: skip
        con.execute(
            "UPDATE turns SET state = 'interrupted', ended_at = ?, outcome = ? WHERE id = ?",
            (now, encode_end(end), turn_id),
        )
    interrupted = con.execute(
        f"UPDATE inbox SET state = 'interrupted', reason = ?, finished_at = ? WHERE {inbox.OPEN} AND mode = 'attended'",
        (REASON, now),
    ).rowcount
    resumed = con.execute(
        f"UPDATE inbox SET state = 'pending', resume = 1, reason = ? WHERE {inbox.RUNNING} AND mode != 'attended'",
        (REASON,),
    ).rowcount
    return Recovered(turns_cut=len(running), rows_interrupted=interrupted, rows_resumed=resumed)
