"""What has moved lately: the table from which health is computed, and nothing else decides it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MOST_PATHS = 1000


@dataclass(frozen=True, slots=True)
class Overdue:
    """A path that has not moved within its time.

    Args:
        path: its name.
        since_s: seconds since it last moved.
        within_s: seconds within which it should have.
    """

    path: str
    since_s: float
    within_s: float

    def __str__(self) -> str:
        return f"{self.path}: no progress for {self.since_s:.0f} s, expected within {self.within_s:g} s"


@dataclass(slots=True)
class _Path:
    moved_at: float
    within_s: float


class Progress:
    """Path -> when it last moved and how long that may take. Plain calls; any thread.

    A path is something that must keep moving for the gateway to be of use: `loop`, `store`, `telegram/poll`. Whoever
    moves it says so; whoever asks compares with the clock. There is no "connected" to set.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paths: dict[str, _Path] = {}

    def moved(self, path: str, *, within_s: float) -> None:
        """The path moved now, and is to move again within so many seconds (> 0; infinity: no expectation).

        Raises:
            ValueError: there are `MOST_PATHS` paths already.
        """
        entry = self._paths.get(path)
        if entry is not None:
            entry.moved_at, entry.within_s = self._clock(), within_s
        elif len(self._paths) >= MOST_PATHS:
            raise ValueError(f"{path}: more than {MOST_PATHS} paths")
        else:
            self._paths[path] = _Path(self._clock(), within_s)

    def ended(self, path: str) -> None:
        """The path is no more, as when an account is removed; nothing is expected of it."""
        self._paths.pop(path, None)

    def overdue(self) -> list[Overdue]:
        """The paths that have not moved within their time, the longest first."""
        now = self._clock()
        late = [Overdue(path, now - entry.moved_at, entry.within_s) for path, entry in self._paths.copy().items()
                if now - entry.moved_at > entry.within_s]  # fmt: skip
        return sorted(late, key=lambda item: -item.since_s)

    def since(self) -> Mapping[str, float]:
        """Path -> seconds since it last moved; for the status page and metrics."""
        now = self._clock()
        return {path: now - entry.moved_at for path, entry in self._paths.copy().items()}
