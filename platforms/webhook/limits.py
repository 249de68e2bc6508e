"""What is remembered of calls to tell repetitions from replays, and how many are taken in. Plain; the time is an argument."""

from __future__ import annotations

from collections import OrderedDict

MAX_MARKS = 10_000


class Seen:
    """Signatures of the last while, and under which name each came.

    Most services sign no name: somebody who has recorded a call could send it again under another one.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._marks: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def is_replay(self, mark: str, own_id: str, now: float) -> bool:
        """Whether a signature came under another name before; it is remembered. Without a signature nothing can be said.

        Args:
            now: seconds on a clock that never goes back.
        """
        while self._marks and (
            len(self._marks) > MAX_MARKS or next(iter(self._marks.values()))[1] <= now - self._window_s
        ):
            self._marks.popitem(last=False)
        if not mark:
            return False
        return self._marks.setdefault(mark, (own_id, now))[0] != own_id


class Rate:
    """So many calls a minute, some of them at once."""

    def __init__(self, per_minute: int) -> None:
        self._per_s = per_minute / 60.0
        self._most = float(per_minute)
        self._left = self._most
        self._at: float | None = None

    def wait_s(self, now: float) -> float:
        """Zero, and one call is counted; else how long until one more is taken."""
        if self._at is not None:
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._per_s
