"""When a conversation begins anew by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.session_reset import reset_due, reset_text
from hermes.settings import SessionResetConfig

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(BERLIN))  # noqa: DTZ001  # the zone comes beside


def due(config: SessionResetConfig, last: datetime, now: datetime) -> str | None:
    return reset_due(config, last.timestamp(), now.timestamp(), BERLIN)


def at(day: int, hour: int, minute: int = 0, *, month: int = 6) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN)


@given(MOMENTS, MOMENTS)
def test_without_a_mode_a_conversation_goes_on_for_ever(last: datetime, now: datetime) -> None:
    assert due(SessionResetConfig(), last, now) is None


@pytest.mark.parametrize(
    ("mode", "last", "now", "reset"),
    [
        ("idle", at(1, 10), at(2, 9, 59), None),
        ("idle", at(1, 10), at(2, 10), "idle"),
        ("daily", at(1, 3, 59), at(1, 4), "daily"),
        ("daily", at(1, 4), at(2, 3, 59), None),
        ("daily", at(1, 23), at(2, 3), None),
        ("daily", at(1, 23), at(2, 4), "daily"),
        ("daily", at(1, 5), at(9, 3), "daily"),
        ("both", at(1, 3), at(1, 5), "daily"),
        ("both", at(1, 5), at(2, 5), "idle"),
        ("both", at(1, 5), at(1, 23), None),
        ("daily", at(2, 5), at(1, 5), None),  # a clock that was set back
    ],
)
def test_a_silence_or_the_hour_ends_it(mode: str, last: datetime, now: datetime, reset: str | None) -> None:
    config = SessionResetConfig(mode=mode)  # type: ignore[arg-type]
    assert due(config, last, now) == reset


@pytest.mark.parametrize(("month", "day", "hour"), [(3, 29, 2), (10, 25, 2)])
def test_an_hour_that_a_clock_change_leaves_out_or_repeats_comes_once(month: int, day: int, hour: int) -> None:
    config = SessionResetConfig(mode="daily", at_hour=hour)
    start = at(day, 0, month=month).timestamp()
    begun, last = 0, start
    for minute in range(0, 24 * 60, 10):
        now = start + minute * 60
        if reset_due(config, last, now, BERLIN):
            begun += 1
        last = now
    assert begun == 1


@given(MOMENTS, st.integers(0, 23), st.integers(0, 60 * 24 * 9))
def test_the_hour_ends_a_conversation_if_and_only_if_it_was_struck_between(now: datetime, hour: int, ago: int) -> None:
    now = now.replace(microsecond=0, fold=0)
    last = datetime.fromtimestamp(now.timestamp() - ago * 60, BERLIN)
    struck, day = False, last.date()
    while day <= now.date():
        moment = datetime(day.year, day.month, day.day, hour, tzinfo=BERLIN).timestamp()
        struck = struck or last.timestamp() < moment <= now.timestamp()
        day += timedelta(days=1)
    assert (due(SessionResetConfig(mode="daily", at_hour=hour), last, now) == "daily") == struck


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(1440, "after 1 day of"), (2880, "2 days"), (60, "1 hour of"), (90, "90 minutes"), (1, "1 minute of")],
)
def test_what_is_said_names_the_silence_in_plain_words(minutes: int, words: str) -> None:
    assert words in reset_text("idle", SessionResetConfig(idle_minutes=minutes))
    assert "4:00" in reset_text("daily", SessionResetConfig(idle_minutes=minutes))
