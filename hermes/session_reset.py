"""When a conversation begins anew by itself: after a silence, or each day at an hour. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Literal

from hermes.settings import SessionResetConfig

Reset = Literal["idle", "daily"]


def reset_due(config: SessionResetConfig, last_at: float, now: float, zone: tzinfo | None = None) -> Reset | None:
    """Why a conversation is over when somebody writes now, or None while it goes on.

    Args:
        config: what the owner chose.
        last_at, now: when it last went on, and when the message came; seconds since the epoch.
        zone: of the hour; None = of this machine.
    """
    if config.mode in ("idle", "both") and now - last_at >= config.idle_minutes * 60:
        return "idle"
    if config.mode in ("daily", "both") and last_at < _last_turn_of_day(config.at_hour, now, zone) <= now:
        return "daily"
    return None


def _last_turn_of_day(hour: int, now: float, zone: tzinfo | None) -> float:
    """The newest moment, not after now, at which the clock on the wall showed the hour; an hour that a clock change leaves out
    is the moment of the change."""
    today = datetime.fromtimestamp(now, zone).replace(hour=hour, minute=0, second=0, microsecond=0, fold=0)
    return today.timestamp() if today.timestamp() <= now else (today - timedelta(days=1)).timestamp()


def reset_text(reset: Reset, config: SessionResetConfig) -> str:
    """What is said where a conversation began anew, so that nobody wonders why it is not remembered."""
    why = (
        f"after {_span(config.idle_minutes)} of silence" if reset == "idle" else f"as every day at {config.at_hour}:00"
    )
    return f"A new conversation begins, {why}. /sessions lists the ones before, /resume goes on with one."


def _span(minutes: int) -> str:
    for size, name in ((1440, "day"), (60, "hour")):
        if minutes % size == 0:
            return f"{minutes // size} {name}{'s' * (minutes != size)}"
    return f"{minutes} minute{'s' * (minutes != 1)}"
