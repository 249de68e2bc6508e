"""An `Inbox` for tests: a store in memory with the rules of the real one, and everything that a platform told it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import trio

from hermes.accounts import Promises
from hermes.errors import HermesError, StoreUnavailable
from hermes.events import InboundEvent
from hermes.inbound import BadEvent, check_event
from hermes.platform import EMPTY, Platform

MAX_NAME, MAX_VALUE = 100, 4096  # of a cursor
Moment = Literal["asked", "committed"]


class RecordingInbox:
    """An `Inbox` whose store is a list: events once each, cursors, what was promised, and who left.

    Args:
        kept: the events of an earlier one, as a restart would find them.
        cursors: likewise.
        account: whose inbox it is; events of others are breaches. None: of any.

    Attributes:
        events: what was committed, repeats absorbed, in order.
        batches: for each committed delivery the keys of its events, repeats included; the newest thousand.
        deliveries: how many calls of `deliver` were committed.
        repeats: events that were there already.
        cursors: as committed last.
        promises: path -> the last `next_within_s`.
        departed: what `left` was called with.
        quarantined: what `quarantine` was called with.
        breaches: what the contract does not allow and was asked for all the same.
        unavailable: whether `deliver` raises StoreUnavailable now.
        hold: `deliver` waits for this before it commits, where it is set.
        at: called at each moment of a delivery, before and after its commit; a scope that it cancels ends `deliver` there.
    """

    def __init__(
        self,
        kept: tuple[InboundEvent, ...] = (),
        cursors: Mapping[str, bytes] = EMPTY,
        *,
        account: str | None = None,
    ) -> None:
        self.events = list(kept)
        self.batches: list[tuple[str, ...]] = []
        self.deliveries = 0
        self.repeats = 0
        self.cursors = dict(cursors)
        self.promises: dict[str, float] = {}
        self.departed: list[str] = []
        self.quarantined: list[tuple[str, object]] = []
        self.breaches: list[str] = []
        self.unavailable = False
        self.hold: trio.Event | None = None
        self.at: Callable[[Moment], None] = lambda _: None
        self._account = account
        self._keys = {event.key for event in kept}
        self._kept_promises = Promises()
        self._lot = trio.lowlevel.ParkingLot()

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = EMPTY) -> frozenset[str]:
        """Commit, as the contract says.

        Raises:
            StoreUnavailable: `unavailable` is set; nothing was committed.

        Cancellation: before the commit nothing is kept; after it, as with a store that answers too late, everything is.
        """
        self.at("asked")
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        if self.unavailable:
            raise StoreUnavailable("busy")
        fresh = self._commit(events, cursors)
        self._lot.unpark_all()
        self.at("committed")
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return fresh

    def _commit(self, events: tuple[InboundEvent, ...], cursors: Mapping[str, bytes]) -> frozenset[str]:
        fresh = frozenset(event.key for event in events) - self._keys
        for event in events:
            try:
                check_event(event, event.address.account if self._account is None else self._account)
            except BadEvent as error:
                self._breach(f"an event that {error}")
            if event.key in self._keys:
                self.repeats += 1
            else:
                self._keys.add(event.key)
                self.events.append(event)
        for name, value in cursors.items():
            if not 1 <= len(name) <= MAX_NAME or len(value) > MAX_VALUE:
                self._breach(f"a cursor {name[:MAX_NAME]!r} out of bounds")
        self.cursors.update(cursors)
        self.deliveries += 1
        self.batches[:] = [*self.batches[-999:], tuple(event.key for event in events)]
        return fresh

    def alive(self, path: str, *, next_within_s: float) -> None:
        """Remember the promise. Raises ValueError for more than the contract allows."""
        try:
            self._kept_promises.keep(path, next_within_s, trio.current_time())
        except ValueError as error:
            self._breach(str(error))
            raise
        self.promises[path] = next_within_s
        self._lot.unpark_all()

    def left(self, event_id: str) -> None:
        """Remember who left."""
        self.departed.append(event_id)
        self._lot.unpark_all()

    def quarantine(self, because: str, sample: object) -> None:
        """Remember what could not be read."""
        if not because or not isinstance(sample, (str, bytes, dict, list, int, float, type(None))):
            self._breach(f"a sample {type(sample).__name__}, set aside because {because!r}")
        self.quarantined.append((because, sample))
        self._lot.unpark_all()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for something that this inbox is told."""
        while not fact():
            await self._lot.park()

    def _breach(self, what: str) -> None:
        if what not in self.breaches:
            self.breaches.append(what)


@asynccontextmanager
async def receiving(platform: Platform, inbox: RecordingInbox) -> AsyncIterator[list[Exception]]:
    """`receive`, from what the inbox has committed on, beside the block; the errors that it raises are in the list."""
    raised: list[Exception] = []

    async def run() -> None:
        try:
            await platform.receive(inbox, dict(inbox.cursors))
        except HermesError as exc:
            raised.append(exc)
            inbox.left("receive")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield raised
        nursery.cancel_scope.cancel()
