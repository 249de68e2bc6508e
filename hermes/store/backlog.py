"""What waits at each account: messages for an answer, parts for being sent, and what did not arrive. Read from the rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hermes.store.addresses import OPEN
from hermes.store.outbox_upkeep import DEAD


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits at one account.

    Args:
        waiting: messages that are accepted and not ended, those that are being answered among them.
        waiting_oldest_s: how long the oldest of them has waited; None if there is none.
        to_send: parts that are on their way.
        to_send_oldest_s: how long the oldest of them has waited.
        undelivered: parts that were given up, until retention forgets them.
    """

    waiting: int = 0
    waiting_oldest_s: float | None = None
    to_send: int = 0
    to_send_oldest_s: float | None = None
    undelivered: int = 0


NOTHING = Backlog()
OF_INBOX = (
    "SELECT account, count(*), min(accepted_at) FROM inbox"
    " WHERE state IN ('pending', 'live') AND kind != 'command' GROUP BY account"
)
OF_OUTBOX = f"SELECT account, count(*), min(created_at) FROM outbox WHERE {OPEN} GROUP BY account"
OF_DEAD = f"SELECT account, count(*) FROM outbox WHERE {DEAD} GROUP BY account"


def backlogs(con: sqlite3.Connection, now: float) -> Mapping[str, Backlog]:
    """Account -> what waits there, for each where anything does.

    Args:
        now: seconds since the epoch.
    """
    found: dict[str, Backlog] = {}
    for account, count, oldest in con.execute(OF_INBOX):
        found[account] = Backlog(waiting=count, waiting_oldest_s=max(0.0, now - oldest))
    for account, count, oldest in con.execute(OF_OUTBOX):
        before = found.get(account, NOTHING)
        found[account] = replace(before, to_send=count, to_send_oldest_s=max(0.0, now - oldest))
    for account, count in con.execute(OF_DEAD):
        found[account] = replace(found.get(account, NOTHING), undelivered=count)
    return found
