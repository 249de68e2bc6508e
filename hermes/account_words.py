"""How an account does, in words for people: the same for `hermes status` and for `/platforms`. Pure.

It reads the plain values of a status, which may come from a gateway of another version: what is not there is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

PATHS: Mapping[str, str] = MappingProxyType({"deliver": "heard", "send": "sent", "poll": "polled"})


def describe_account(state: Mapping[str, Any]) -> list[str]:
    """Lines for one account: what it does, when it showed life, what waits. The first stands for itself."""
    return [_state(state), *_signs(state), *_waiting(state)]


def _state(state: Mapping[str, Any]) -> str:
    words = str(state.get("words") or state.get("state") or "unknown")
    since = _number(state, "since_s")
    if since is not None:
        words += f", for {duration(since)}"
    generation, restarts = _number(state, "generation"), _number(state, "restarts")
    more = []
    if generation:
        more.append(f"connection {generation:.0f}")
    if restarts:
        more.append("1 failed" if restarts == 1 else f"{restarts:.0f} failed")
    return words + (f" ({', '.join(more)})" if more else "")


def _signs(state: Mapping[str, Any]) -> Iterator[str]:
    progress = state.get("progress_s")
    if not isinstance(progress, Mapping):
        return
    ages = [(str(path), age) for path, age in progress.items() if _is_number(age)]
    if ages:
        yield "last: " + ", ".join(f"{PATHS.get(path, path)} {duration(age)} ago" for path, age in ages)


def _waiting(state: Mapping[str, Any]) -> Iterator[str]:
    waits = []
    if count := _number(state, "waiting"):
        what = "1 message waits for its answer" if count == 1 else f"{count:.0f} messages wait for their answers"
        waits.append(what + _oldest(state, "waiting_oldest_s"))
    if count := _number(state, "to_send"):
        what = "1 part is to be sent" if count == 1 else f"{count:.0f} parts are to be sent"
        waits.append(what + _oldest(state, "to_send_oldest_s"))
    if count := _number(state, "undelivered"):
        waits.append(f"{count:.0f} did not arrive (hermes outbox list)")
    if waits:
        yield "; ".join(waits)


def _oldest(state: Mapping[str, Any], name: str) -> str:
    age = _number(state, name)
    return f", the oldest for {duration(age)}" if age is not None else ""


def _number(state: Mapping[str, Any], name: str) -> float | None:
    value = state.get(name)
    return value if _is_number(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter, such as `3 h 5 min`."""
    whole = max(0, int(min(seconds, 1e12)))
    for size, unit, smaller, small_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"
