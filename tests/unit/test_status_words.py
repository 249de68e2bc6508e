"""What `hermes status` says to a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.cli.status_words import describe, duration

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORKING = {
    "status": "ready",
    "version": "0.1.0",
    "uptime_s": 185.2,
    "listening": ["127.0.0.1:8642"],
    "home": "/home/ann/.hermes-gateway",
    "model": {"name": "small", "api": "chat_completions", "base_url": "http://127.0.0.1:1/v1"},
    "checks": {"store": "ok", "listener": "ok"},
    "sessions": {"live": 2, "turning": 1, "waiting": 0},
    "config": {"error": None, "after_restart": [], "warnings": []},
}


def test_a_working_gateway_takes_a_few_lines() -> None:
    assert describe(WORKING) == [
        "ready · hermes 0.1.0 · up 3 min 5 s",
        "serves    http://127.0.0.1:8642",
        "home      /home/ann/.hermes-gateway",
        "model     small at http://127.0.0.1:1/v1 (chat_completions)",
        "sessions  2 live, 1 in a turn",
    ]


def test_what_does_not_work_is_said() -> None:
    lines = describe(
        {
            **WORKING,
            "checks": {"store": "unavailable (full)"},
            "config": {"error": "http.port: must be a number", "after_restart": ["http"], "warnings": ["odd"]},
            "recovered": {"turns_cut": 3, "rows_interrupted": 2, "rows_resumed": 1},
            "accounts": {"telegram": {"state": "parked"}, "irc": {"state": "connected"}},
        }
    )
    assert lines[0].endswith(" · 1 of 2 accounts not connected")
    assert "store     unavailable (full)" in lines
    assert "account   telegram: parked" in lines
    assert "config    refused, the one before holds: http.port: must be a number" in lines
    assert "config    holds after a restart: http" in lines
    assert "last stop 3 turns were cut: 2 interrupted, 1 resumed" in lines
    assert "note      odd" in lines
    one = describe({"recovered": {"turns_cut": 1, "rows_interrupted": 1}})
    assert one[-1] == "last stop 1 turn was cut: 1 interrupted, 0 resumed"


@given(st.dictionaries(st.sampled_from([*WORKING, "mode", "accounts", "recovered"]), JSON))
def test_it_describes_whatever_a_gateway_of_another_version_says(status: dict[str, object]) -> None:
    assert all(isinstance(line, str) for line in describe(status))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
