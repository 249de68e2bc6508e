"""Sizing to descriptors: whatever the limit, what may be open together fits into it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hermes.capacity import PER_COMMAND, RESERVED, fit
from hermes.settings import Config

CONFIG = Config(home=Path("/home"), workspace=Path("/home/workspace"))


def needed(config: Config) -> int:
    return config.http.max_connections + config.http.max_concurrent_turns + PER_COMMAND * config.terminal.max_commands


@given(st.integers(RESERVED + 8, 100_000))
def test_everything_fits_together(descriptors: int) -> None:
    fitted = fit(CONFIG, descriptors)
    assert needed(fitted) + RESERVED <= max(descriptors, RESERVED + 2 + PER_COMMAND)
    assert min(fitted.http.max_connections, fitted.http.max_concurrent_turns, fitted.terminal.max_commands) >= 1
    assert fitted.model.max_clients <= fitted.http.max_concurrent_turns


def test_what_fits_is_left_as_configured() -> None:
    assert fit(CONFIG, 20_000) is CONFIG
    assert fit(CONFIG, -1) is CONFIG


def test_a_small_limit_leaves_something_of_each() -> None:
    fitted = fit(CONFIG, 128)
    assert (fitted.http.max_connections, fitted.http.max_concurrent_turns, fitted.terminal.max_commands) == (50, 34, 2)
