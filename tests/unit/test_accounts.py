"""The table of accounts as plain state: what follows from what was observed, and what people read of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.accounts import MAX_PATHS, AccountRecord, AccountTable, Promises, State, all_required_work
from hermes.backoff import BUGS_MOST, BUGS_WINDOW_S, FINALITY, Failure, Kind, Park, Retry
from hermes.connections import STARTS_AT_ONCE
from hermes.generation import CLOSE_S, RECEIVE_TRIES
from hermes.leases import CUT_S

AWAY = Failure(kind="unavailable", reason="no answer")


def record(name: str = "a", *, required: bool = True) -> AccountRecord:
    return AccountRecord(name, "fake", required=required, now=0)


def up(now: float = 10) -> AccountRecord:
    one = record()
    one.attempt()
    one.up(now)
    return one


def test_each_state_has_words_and_knows_since_when() -> None:
    seen: dict[State, str] = {}

    def note(one: AccountRecord, now: float) -> tuple[State, float]:
        status = one.status(now)
        seen[status.state] = status.words
        return status.state, status.since_s

    one = record()
    assert note(one, 5) == ("connecting", 5)
    one.attempt()
    one.waits(AWAY, Retry(30), 5)
    assert note(one, 15) == ("retrying", 10)
    one.attempt()
    one.waits(AWAY, Retry(30), 20)
    assert note(one, 25) == ("retrying", 20)  # one trouble, not two
    assert one.status(25).restarts == 2
    one.attempt()
    one.up(30)
    assert note(one, 31) == ("connected", 1)
    one.receive_failed(Failure(kind="conflict", reason="another poller"), 40)
    assert note(one, 42) == ("conflict", 2)
    one.heard("poll", 43)
    one.receive_failed(AWAY, 50)
    one.receive_failed(AWAY, 55)
    assert note(one, 57) == ("degraded", 7)
    one.waits(Failure(kind="unavailable", reason="no sign of poll", path="poll"), Retry(1), 60)
    one.up(61)
    assert note(one, 65) == ("deaf", 5)
    one.stopping(70, "removed")
    assert note(one, 71) == ("stopping", 1)
    one.waits(Failure(kind="refused", reason="bad token"), Park("refused", None), 80)
    assert note(one, 81) == ("parked(refused)", 1)
    one.waits(Failure(kind="bug", reason="KeyError"), Park("bug", 600), 90)
    assert note(one, 95) == ("parked(bug)", 5)
    one.begin_anew(100, enabled=False)
    assert note(one, 100) == ("disabled", 0)
    assert set(seen) == set(get_args(State))
    assert seen["retrying"] == "not connected, trying again: no answer; next attempt in 25 s"
    assert seen["degraded"] == "connected, but receiving fails: no answer"
    assert seen["parked(bug)"].endswith("KeyError; next attempt in 595 s")
    assert seen["parked(refused)"] == (
        "refused by the service: bad token; tried again when its section changes, or by `hermes platform retry a`"
    )


def test_troubles_with_receiving_are_over_when_it_has_gone_on_for_long_enough_and_deafness_is_not() -> None:
    one = up()
    one.receive_failed(AWAY, 10)
    one.receives(40)
    assert one.status(39).state == "degraded"
    assert one.status(40).state == "connected"
    one.waits(Failure(kind="unavailable", reason="silent", path="poll"), Retry(1), 50)
    one.up(51)
    one.receives(81)
    assert one.status(100).state == "deaf"
    one.heard("heartbeat", 101)
    assert one.status(101).state == "deaf"  # pings are answered, and still no events
    one.heard("deliver", 102)
    assert one.status(102).state == "deaf"  # a cursor was committed
    one.brought()
    assert one.status(102).state == "connected"


def test_sends_that_fail_are_a_trouble_until_one_is_answered() -> None:
    one = up()
    one.send_failed("502", 20)
    one.send_failed("502", 30)
    assert (one.status(35).state, one.status(35).send_failing_s) == ("degraded", 15)
    one.sent(36)
    assert (one.status(36).state, one.status(36).send_failing_s) == ("connected", None)
    assert one.status(40).progress_s == {"send": 4}


def test_readiness_excuses_what_was_refused_what_is_disabled_and_what_is_not_required() -> None:
    table = AccountTable()
    good, refused, disabled, optional = (
        record(name, required=name != "optional") for name in ("good", "refused", "disabled", "optional")
    )
    for each in (good, refused, disabled, optional):
        table.add(each)
    good.up(1)
    refused.waits(Failure(kind="refused", reason="x"), Park("refused", None), 1)
    disabled.begin_anew(1, enabled=False)
    optional.waits(AWAY, Retry(1), 1)
    assert all_required_work(table.snapshot(2))
    assert table.counts(2) == {"connected": 1, "parked(refused)": 1, "disabled": 1, "retrying": 1}
    good.waits(AWAY, Retry(1), 3)
    assert not all_required_work(table.snapshot(4))


def test_a_record_that_was_replaced_is_not_removed_by_the_one_before() -> None:
    table, old, new = AccountTable(), record(), record()
    table.add(old)
    table.add(new)
    table.remove(old)
    assert table.get("a") is new
    table.remove(new)
    assert table.get("a") is None


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.floats(0.1, 100), st.floats(0, 50)), max_size=30))
def test_the_earliest_promise_is_the_one_that_is_due(signs: list[tuple[str, float, float]]) -> None:
    promises, now, due = Promises(), 0.0, {}
    assert promises.due == math.inf
    for path, within_s, pause_s in signs:
        promises.keep(path, within_s, now)
        due[path] = now + within_s
        now += pause_s
        earliest = min(due, key=due.__getitem__)
        assert promises.due == due[earliest]
        assert promises.broken(now) == (earliest if now >= due[earliest] else None)


def test_time_in_which_the_core_keeps_the_platform_waiting_does_not_count() -> None:
    promises = Promises()
    promises.keep("poll", 10, 0)
    promises.hold(5)
    promises.hold(6)
    promises.keep("beat", 10, 8)
    assert promises.due == math.inf
    promises.release(20)
    assert promises.broken(100) is None
    promises.release(105)
    assert promises.due == 110  # five were left to it
    assert promises.broken(111) == "poll"
    promises.keep("poll", 100, 111)
    assert promises.due == 115  # of the other, ten from when it was held


def test_promises_are_bounded() -> None:
    promises = Promises()
    for number in range(MAX_PATHS):
        promises.keep(str(number), 1, 0)
    promises.keep("0", 2, 0)
    for path, within_s in (("another", 1), ("x" * 41, 1), ("", 1), ("0", 0), ("0", math.inf), ("0", math.nan)):
        with pytest.raises(ValueError, match=r"path"):
            promises.keep(path, within_s, 0)


@given(st.lists(st.text(min_size=1, max_size=40), max_size=60))
def test_a_record_holds_a_bounded_number_of_paths(paths: list[str]) -> None:
    one = up()
    for path in paths:
        one.heard(path, 11)
    one.sent(12)
    assert len(one.status(12).progress_s) <= MAX_PATHS + 3


def test_the_page_about_supervision_has_every_kind_and_state_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "supervision.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| `")]
    assert first_cells == [*FINALITY, *get_args(State)]
    assert set(FINALITY) == set(get_args(Kind))
    assert (BUGS_MOST, BUGS_WINDOW_S, CLOSE_S, CUT_S, RECEIVE_TRIES, STARTS_AT_ONCE) == (5, 600, 10, 5, 3, 4)
