"""How much may be written now: a token bucket, filled again with time. Plain; the clock is an argument.

Servers cut off who writes faster than they allow: RFC 1459, section 8.10, lets five lines through at once and then one each two
seconds, and most still do something like it.
"""

from __future__ import annotations

TINY = 1e-6  # of a line: what rounding leaves


class Bucket:
    """Lines that may be written.

    Args:
        burst: at once.
        interval_s: seconds for each further one.
        now: the time.
    """

    def __init__(self, burst: int, interval_s: float, now: float) -> None:
        self.burst = burst
        self.interval_s = interval_s
        self._level = float(burst)
        self._at = now

    def take(self, now: float) -> None:
        """Count one line; what was urgent may owe."""
        self._fill(now)
        self._level -= 1.0

    def wait_s(self, lines: int, now: float) -> float:
        """How long until so many lines may be written at once; more than a burst are never asked for."""
        self._fill(now)
        missing = min(lines, self.burst) - self._level
        return missing * self.interval_s if missing > TINY else 0.0

    def _fill(self, now: float) -> None:
        self._level = min(float(self.burst), self._level + (now - self._at) / self.interval_s)
        self._at = now
