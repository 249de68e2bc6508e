"""Discord's rate limits as values: what the answers' headers said, and what must wait. Pure; the clock is an argument.

Source: Discord's reference, "Rate Limits". A route's bucket is known by the hash that its answers name; it counts for each
channel, server or webhook by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hermes.errors import RateLimited

MAX_BUCKETS = 1000
MAX_WAIT_S = 86_400.0
UNNAMED_WAIT_S = 5.0  # a 429 that says nothing

Scope = Literal["address", "method", "account"]


@dataclass(frozen=True, slots=True)
class Route:
    """What limits count by.

    Args:
        name: the method and the path with its ids left out.
        major: the channel, server or webhook in it; empty if there is none.
        scope: what waits when this is limited.
    """

    name: str
    major: str = ""
    scope: Scope = "method"


@dataclass(slots=True)
class _Bucket:
    remaining: int
    until: float


class Buckets:
    """What one token may still ask for. Plain functions: nothing is awaited between looking and counting."""

    def __init__(self) -> None:
        self._hashes: dict[str, str] = {}
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._blocked_until = 0.0

    def take(self, route: Route, now: float) -> None:
        """Count one request before it is sent.

        Raises:
            RateLimited: it must not be sent yet.
        """
        if now < self._blocked_until:
            raise _limited(self._blocked_until - now, "account")
        bucket = self._buckets.get(self._key(route))
        if bucket is None:
            return
        if now >= bucket.until:
            del self._buckets[self._key(route)]
            return
        if bucket.remaining <= 0:
            raise _limited(bucket.until - now, route.scope)
        bucket.remaining -= 1

    def note(self, route: Route, headers: Mapping[str, str], now: float) -> None:
        """Keep what an answer says about its bucket."""
        name = headers.get("x-ratelimit-bucket")
        remaining = _number(headers.get("x-ratelimit-remaining"))
        after = _number(headers.get("x-ratelimit-reset-after"))
        if name is None or remaining is None or after is None:
            return
        self._hashes[route.name] = name[:100]
        key, until = self._key(route), now + min(after, MAX_WAIT_S)
        known = self._buckets.get(key)
        if known is not None and known.until > now and until <= known.until + 0.5:
            # Answers of the same window may arrive in another order than their requests were counted in.
            remaining = min(known.remaining, remaining)
        self._buckets.pop(key, None)
        self._buckets[key] = _Bucket(int(remaining), until)
        for table in (self._buckets, self._hashes):
            while len(table) > MAX_BUCKETS:
                table.pop(next(iter(table)))  # type: ignore[call-overload]  # each by its own key

    def refused(
        self, route: Route, headers: Mapping[str, str], after_s: float | None, *, everywhere: bool, now: float
    ) -> RateLimited:
        """A 429: what to raise, and nothing is sent until it is over.

        Args:
            route: of the request.
            headers: of the answer.
            after_s: what its body says; None if it is no JSON of Discord's.
            everywhere: its body says that the limit is the whole bot's.
            now: seconds.
        """
        wait = after_s if after_s is not None else _number(headers.get("retry-after"))
        wait = min(max(UNNAMED_WAIT_S if wait is None else wait, 0.05), MAX_WAIT_S)
        # An answer without Discord's own body comes from the proxy before it, which counts the address.
        if everywhere or after_s is None or headers.get("x-ratelimit-global") == "true":
            self._blocked_until = max(self._blocked_until, now + wait)
            return _limited(wait, "account")
        self.note(route, headers, now)
        self._buckets[self._key(route)] = _Bucket(0, now + wait)
        return _limited(wait, route.scope)

    def _key(self, route: Route) -> tuple[str, str]:
        return self._hashes.get(route.name, route.name), route.major


def _limited(wait_s: float, scope: Scope) -> RateLimited:
    return RateLimited(f"Discord asks to wait {wait_s:.2f} s", retry_after_s=wait_s, scope=scope)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None
