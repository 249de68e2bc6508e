"""Whether the database can be written now, as its last writes showed, and the probe that finds out when it can."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from hermes.errors import StoreUnavailable
from hermes.store.faults import Reason

PROBE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Outage:
    """Why writes fail, and since when (the store's clock, seconds since the epoch)."""

    reason: Reason
    detail: str
    since: float


class Availability:
    """The state, and who waits for it to change. Used from the trio thread only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._outage: Outage | None = None
        self._changed = trio.Event()

    @property
    def outage(self) -> Outage | None:
        """None while writes succeed."""
        return self._outage

    def failed(self, fault: StoreUnavailable) -> None:
        """A write failed for a reason of the store. `since` is kept while one outage lasts, whatever its reasons."""
        since = self._clock() if self._outage is None else self._outage.since
        if self._outage is None or self._outage.reason != fault.reason:
            self._outage = Outage(fault.reason, str(fault), since)
            self._tell()

    def succeeded(self) -> None:
        """A write reached the file."""
        if self._outage is not None:
            self._outage = None
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_available(self) -> None:
        """Return when writes succeed, at once if they do."""
        await trio.lowlevel.checkpoint()
        while self._outage is not None:
            await self._changed.wait()

    async def probe_while_unavailable(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Try a write each second while writes fail; runs until cancelled. Nothing but recovery depends on it."""
        while True:
            while self._outage is None:
                await self._changed.wait()
            await trio.sleep(PROBE_INTERVAL_S)
            if self._outage is not None:
                try:
                    await probe()
                except StoreUnavailable:
                    continue
