"""Receiving as the core runs it: the gate that allows it, the inbox of one run, and what a run's end means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from hermes.accounts import AccountRecord, Promises
from hermes.backoff import Failure, classify
from hermes.containment import contained
from hermes.errors import LeaseEnded
from hermes.events import InboundEvent
from hermes.observe.logs import get_log
from hermes.platform import EMPTY, Inbox, Platform

log = get_log(__name__)


@dataclass(eq=False, slots=True)
class Gate:
    """What receiving needs and gets from outside; while it is open, connections receive.

    Args:
        inbox_for: the inbox of an account and the number of its connection.
        cursors_for: what the account's deliveries committed last.
    """

    inbox_for: Callable[[str, int], Inbox]
    cursors_for: Callable[[str], Awaitable[Mapping[str, bytes]]]
    runs: set[RunInbox] = field(default_factory=set)
    ended: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def all_ended(self) -> None:
        """Wait until nobody receives through it."""
        while self.runs:
            await self.ended.park()

    def close(self) -> None:
        """Take nothing more, not even from a run that does not end."""
        for run in self.runs:
            run.over = True


class RunInbox:
    """The inbox of one run of `receive`: it notes progress, and does nothing once the run is over.

    Args:
        inner: where events are committed.
        record: of the account.
        scope: of the run; it ends when a promised sign does not come.
    """

    def __init__(self, inner: Inbox, record: AccountRecord, scope: trio.CancelScope) -> None:
        self.over = False
        self.progressed = False
        self.promises = Promises()
        self._inner = inner
        self._record = record
        self._scope = scope

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = EMPTY) -> frozenset[str]:
        """As the contract says.

        Raises:
            LeaseEnded: the run is over; nothing was committed.
        """
        if self.over:
            self._record.stale += 1
            log.warning("account.stale_delivery", account=self._record.account, events=len(events))
            raise LeaseEnded(self._record.account)
        self._hold()
        try:
            fresh = await self._inner.deliver(*events, cursors=cursors)
        finally:
            self._release()
        self._heard("deliver")
        if events and not self.over:
            self._record.brought()
        return fresh

    def alive(self, path: str, *, next_within_s: float) -> None:
        """As the contract says. Raises ValueError for more than it allows."""
        if self.over:
            self._record.stale += 1
            return
        self.promises.keep(path, next_within_s, trio.current_time())
        self._scope.deadline = self.promises.due
        self._heard(path)
        self._inner.alive(path, next_within_s=next_within_s)

    def left(self, event_id: str) -> None:
        """As the contract says."""
        if self.over:
            self._record.stale += 1
            return
        self._inner.left(event_id)

    def quarantine(self, because: str, sample: object) -> None:
        """As the contract says."""
        if self.over:
            self._record.stale += 1
            return
        self._inner.quarantine(because, sample)

    def _heard(self, path: str) -> None:
        if not self.over:
            self.progressed = True
            self._record.heard(path, trio.current_time())

    @contextmanager
    def kept_waiting(self) -> Iterator[None]:
        """The platform waits for us: no promise of its is broken meanwhile."""
        self._hold()
        try:
            yield
        finally:
            self._release()

    def _hold(self) -> None:
        self.promises.hold(trio.current_time())
        self._scope.deadline = self.promises.due

    def _release(self) -> None:
        self.promises.release(trio.current_time())
        if not self.over:
            self._scope.deadline = self.promises.due


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run of `receive` ended.

    Args:
        failure: None if it was interrupted from outside.
        up_s: how long it ran.
        progressed: whether anything came.
    """

    failure: Failure | None
    up_s: float
    progressed: bool


async def run_receive(
    platform: Platform,
    gate: Gate,
    record: AccountRecord,
    scope: trio.CancelScope,
    *,
    begins: Callable[[RunInbox], None],
) -> RunEnd:
    """Run `receive` once, in this task, until it fails, falls silent, or `scope` is cancelled; `begins` is told its inbox before.

    Cancellation: passes through; the inbox is dead by then.
    """
    began = trio.current_time()
    inbox = RunInbox(gate.inbox_for(record.account, record.generation), record, scope)

    async def receive() -> None:
        with scope:
            cursors = await gate.cursors_for(record.account)
            await platform.receive(inbox, cursors)

    begins(inbox)
    gate.runs.add(inbox)
    record.listens(inbox.promises)
    try:
        error = await contained(receive)
    finally:
        inbox.over = True
        record.listens(None)
        gate.runs.discard(inbox)
        gate.ended.unpark_all()
    now = trio.current_time()
    silent = inbox.promises.broken(now) if scope.cancel_called else None
    return RunEnd(_failure_of(error, scope, silent, record.account), now - began, inbox.progressed)


def _failure_of(
    error: BaseException | None, scope: trio.CancelScope, silent: str | None, account: str
) -> Failure | None:
    failure = classify(error) if error is not None else None
    if failure is not None and (failure.kind == "refused" or not scope.cancel_called):
        return failure
    if error is not None:  # what broke while it was being ended
        log.warning("account.receive_cleanup_failed", account=account, error=error)
    if silent is not None:
        return Failure(kind="unavailable", reason=f"no sign of {silent} in the time it had promised", path=silent)
    if scope.cancel_called:
        return None
    return Failure(kind="bug", reason="its platform stopped receiving without an error")
