"""How an account does, as a person reads it and as a machine does."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from hermes.account_metrics import account_readings
from hermes.account_words import describe_account
from hermes.accounts import AccountRecord
from hermes.backoff import Failure, Retry
from hermes.store import backlog
from hermes.store.backlog import Backlog, backlogs
from hermes.store.schema import M001, M002

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_what_a_person_wants_to_know_is_said() -> None:
    waits = "2 messages wait for their answers, the oldest for 1 min 1 s"
    assert describe_account(
        {
            "words": "connected",
            "since_s": 185.0,
            "generation": 3,
            "restarts": 2,
            "progress_s": {"server": 12.4, "deliver": 3700.0, "send": 5},
            "waiting": 2,
            "waiting_oldest_s": 61.0,
            "to_send": 1,
            "to_send_oldest_s": 4.0,
            "undelivered": 3,
        }
    ) == [
        "connected, for 3 min 5 s (connection 3, 2 failed)",
        "last: server 12 s ago, heard 1 h 1 min ago, sent 5 s ago",
        f"{waits}; 1 part is to be sent, the oldest for 4 s; 3 did not arrive (hermes outbox list)",
    ]


def test_what_is_not_there_is_left_out() -> None:
    assert describe_account({}) == ["unknown"]
    assert describe_account({"state": "parked", "waiting": 0, "to_send": 0, "progress_s": {}}) == ["parked"]


@given(
    st.dictionaries(
        st.sampled_from(["words", "state", "since_s", "generation", "restarts", "progress_s", "waiting", "to_send"]),
        VALUES,
    )
)
def test_a_gateway_of_another_version_is_understood_as_far_as_it_goes(state: dict[str, object]) -> None:
    assert all(isinstance(line, str) for line in describe_account(state))


def test_each_account_has_its_numbers() -> None:
    good, bad = (AccountRecord(name, "irc", required=True, now=0.0) for name in ("good", "bad"))
    good.attempt()
    good.up(1.0)
    good.heard("server", 4.0)
    bad.attempt()
    bad.waits(Failure(kind="unavailable", reason="away"), Retry(5.0), 2.0)
    rows = {"bad": Backlog(waiting=1, waiting_oldest_s=7.0, to_send=2, to_send_oldest_s=3.0, undelivered=4)}
    found = {
        name: dict(read())
        for name, _, read in account_readings(lambda: [good.status(10.0), bad.status(10.0)], lambda: rows)
    }
    assert found == {
        "works": {"good": 1.0, "bad": 0.0},
        "state": {"good/connected": 1.0, "bad/retrying": 1.0},
        "state_seconds": {"good": 9.0, "bad": 8.0},
        "generation": {"good": 1.0, "bad": 1.0},
        "restarts": {"good": 0.0, "bad": 1.0},
        "progress_age_seconds": {"good/server": 6.0},
        "waiting": {"good": 0.0, "bad": 1.0},
        "waiting_oldest_seconds": {"good": 0.0, "bad": 7.0},
        "to_send": {"good": 0.0, "bad": 2.0},
        "to_send_oldest_seconds": {"good": 0.0, "bad": 3.0},
        "undelivered": {"good": 0.0, "bad": 4.0},
    }


def test_what_waits_is_counted_by_account_without_looking_at_what_is_done() -> None:
    con = sqlite3.connect(":memory:")
    for script in (M001, M002):
        con.executescript(script)
    inbox = (
        ("a", "pending", "message"),
        ("a", "live", "message"),
        ("a", "pending", "command"),
        ("b", "answered", "message"),
    )
    for account, state, kind in inbox:
        con.execute(
            "INSERT INTO inbox (account, chat, event_id, kind, session_key, seq, mode, source, principal, busy, may_change,"
            " accepted_at, state) VALUES (?, 'c', hex(randomblob(8)), ?, 'k', 1, 'm', 's', 'p', 'queue', 0, 90.0, ?)",
            (account, kind, state),
        )
    outbox = (("a", "pending", None), ("b", "held", "expired"), ("b", "rejected", "cut"), ("b", "sent", None))
    for account, state, reason in outbox:
        con.execute(
            "INSERT INTO outbox (key, account, chat, seq, source, content, state, reason, created_at)"
            " VALUES (hex(randomblob(8)), ?, 'c', 1, 's', x'7b7d', ?, ?, 95.0)",
            (account, state, reason),
        )
    assert dict(backlogs(con, 100.0)) == {
        "a": Backlog(waiting=2, waiting_oldest_s=10.0, to_send=1, to_send_oldest_s=5.0),
        "b": Backlog(undelivered=1),
    }
    queries = (backlog.OF_INBOX, backlog.OF_OUTBOX, backlog.OF_DEAD)
    plans = [row[3] for sql in queries for row in con.execute(f"EXPLAIN QUERY PLAN {sql}")]
    con.close()
    assert not [plan for plan in plans if plan.startswith("SCAN") and "INDEX" not in plan]
