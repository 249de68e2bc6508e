"""Delivery: from committed parts to messages that somebody sees, in order, through limits, outages and restarts.

`hermes.store.outbox` says what is committed when; this says when what is requested. docs/explanation/delivery.md tells why.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import trio

from hermes.delivery.content import MARK_ROOM, FindFile
from hermes.delivery.lane import Lane, Lease, Parts
from hermes.delivery.lanes import Lanes, WaitConnected
from hermes.delivery.later import Beside, Later
from hermes.delivery.limits import Limits
from hermes.delivery.live import DraftTimes, LiveReply, Render
from hermes.delivery.progress import Progress
from hermes.delivery.receipts import Receipts
from hermes.delivery.signs import FIRST_AFTER_S, Typing
from hermes.errors import AccountDown
from hermes.events import Address, ReplyRef, StoredContent, StoredFile
from hermes.observe.logs import get_log
from hermes.platform import Capabilities
from hermes.settings import DeliveryConfig
from hermes.store import Store
from hermes.store.outbox import Added
from hermes.store.outbox_upkeep import OutboxRecovered

__all__ = ["MARK_ROOM", "Delivery", "DeliveryStatistics", "LiveReply", "Progress", "open_delivery"]

log = get_log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStatistics:
    """How many lanes run, how many addresses wait for room or a time, what was shown since the start."""

    running: int
    waiting: int
    shown: int


class Delivery:
    """The lanes; see `open_delivery`. `recovered` says what the last process had left."""

    def __init__(
        self, nursery: trio.Nursery, store: Store, lanes: Lanes, parts: Parts, render: Render, times: DraftTimes,
        recovered: OutboxRecovered, settings: Callable[[], DeliveryConfig], receipts: Receipts,
    ) -> None:  # fmt: skip
        self.recovered = recovered
        self._nursery = nursery
        self._store = store
        self._lanes = lanes
        self._parts = parts
        self._render = render
        self._times = times
        self._settings = settings
        self._receipts = receipts
        self._later = Later()
        self.shown = 0
        nursery.start_soon(self._later.run)

    def wake(self, address: Address) -> None:
        """Something was committed for an address. A hint, synchronous; a sweep finds what nobody was woken for."""
        self._lanes.wake(address)
        self._receipts.wake()  # what it answers has ended

    def accepted(self) -> None:
        """Messages were accepted, which wait now: they may get a sign of that. A hint, synchronous."""
        self._receipts.wake()

    def begin_anew(self, account: str) -> None:
        """An account is another one at its service from now on, so that nothing of what limited the former one holds. Synchronous."""
        self._lanes.begin_anew(account)

    async def post(
        self, address: Address, parts: Sequence[StoredContent], *, reply: ReplyRef | None = None, source: str
    ) -> Added:
        """Commit parts that belong to no other transaction, and wake their lane.

        Raises:
            StoreUnavailable: nothing was committed.
        """
        added = await self._store.outbox.add(address, parts, reply=reply, source=source)
        if added.gone is None:
            self.wake(added.address)
        return added

    async def retry(self, key: str) -> bool:
        """Send a part after all that was rejected or is held; False if there is no such part."""
        address = await self._store.outbox.retry(key)
        if address is not None:
            self.wake(address)
        return address is not None

    def open_live(
        self,
        address: Address,
        *,
        reply: ReplyRef | None = None,
        turn_id: str,
        source: str = "turn",
        resumes: str | None = None,
    ) -> AbstractAsyncContextManager[LiveReply]:
        """Show a reply while it is written.

        Args:
            reply: what it answers.
            turn_id: whose reply it is; its end calls `hermes.store.live_parts.finish_live` or `end_live`, after this block.
            resumes: the turn that died while it wrote the same reply: what it showed is written on.

        Lifetime: nothing is shown before the first `update`; exit = no draft is requested any more, what was shown is
        committed. Where the service shows no drafts nothing happens at all.
        """
        can = self._capabilities(address.account)
        live = LiveReply(
            address, reply, turn_id, source, can=can or Capabilities(), parts=self._parts, times=self._times,
            render=self._render, resumes=resumes,
        )  # fmt: skip
        when: float | None = None
        if can is not None and can.drafts and can.edits:
            when = live.first_at if resumes is None else trio.current_time()
        return Beside(live, self._later, when, self._beginning(live.run, "draft", address), lambda _: live.close())

    def open_progress(self, live: LiveReply) -> AbstractAsyncContextManager[Progress]:
        """Say in a reply that is being written that it takes long, where `delivery.progress` asks for that.

        Lifetime: exit = the line is written no more; it is taken back if the block did not end by itself, for then no reply may follow.
        """
        how = self._settings()
        progress = Progress(live, how.progress_after_s if how.progress == "line" else None, how.progress_every_s)
        when = None if progress.after_s is None else trio.current_time() + progress.after_s
        begin = self._beginning(progress.run, "progress", live.address)
        return Beside(progress, self._later, when, begin, lambda cut: progress.close(cut=cut))

    def open_typing(self, address: Address) -> AbstractAsyncContextManager[None]:
        """Show that we type while inside.

        Lifetime: exit = it is not shown again; the service lets it fade.
        """
        can = self._capabilities(address.account)
        every_s = can.typing_every_s if can is not None else 0.0
        typing = Typing(address, every_s, self._parts)
        when = trio.current_time() + FIRST_AFTER_S if every_s > 0 else None
        return Beside(None, self._later, when, self._beginning(typing.run, "typing", address), lambda _: typing.close())

    def _beginning(self, run: Callable[[], Awaitable[None]], what: str, address: Address) -> Callable[[], None]:
        return lambda: self._nursery.start_soon(run, name=f"{what} {address}")

    def statistics(self) -> DeliveryStatistics:
        """A snapshot for metrics and status; what waits in the store is `Store.outbox.counts`."""
        return DeliveryStatistics(running=self._lanes.running, waiting=self._lanes.waiting, shown=self.shown)

    def _capabilities(self, account: str) -> Capabilities | None:
        try:
            return self._parts.capabilities(account)
        except AccountDown:
            return None


def _no_files(_: StoredFile) -> None:
    return None


async def _recover(store: Store) -> OutboxRecovered:
    """Take over what dead processes left."""
    recovered = await store.outbox.recover()
    if recovered.doubtful or recovered.edits or recovered.live:
        log.info("delivery.recovered", doubtful=recovered.doubtful, edits=recovered.edits, live=recovered.live)
    return recovered


def _limits(settings: Callable[[], DeliveryConfig], rng: random.Random) -> Limits:
    return Limits(trio.current_time, lambda: (settings().backoff_base_s, settings().backoff_max_s), rng)


@asynccontextmanager
async def open_delivery(
    store: Store,
    *,
    lease: Lease,
    wait_connected: WaitConnected,
    capabilities: Callable[[str], Capabilities],
    settings: Callable[[], DeliveryConfig],
    flush_by: Callable[[], float],
    render: Render,
    find_file: FindFile = _no_files,
    accounts: Callable[[], Collection[str]] | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Delivery]:
    """Deliver what is in the outbox, and what comes.

    Args:
        lease: the use of an account's connection, for one request; raises AccountDown, and LeaseEnded on leaving.
        wait_connected: returns when an account may be leased; raises AccountDown if it will not, as far as is known.
        capabilities: what an account can do, connected or not; raises AccountDown for one that is not there.
        settings: asked each time; the store reads `ambiguous` and `expire_s` from its own configuration.
        flush_by: the absolute time until which the exit sends what it can, asked when the block is left.
        render: an unfinished reply to parts, for drafts.
        find_file: where the bytes of a stored file are; None if it is gone.
        accounts: which are configured: what waits for others is held. Without it nothing is.
        rng: spreads what backs off.

    Lifetime: enter = what dead processes left is taken over; what waits is being looked for. Exit = what can be sent until
    `flush_by` is sent, of accounts that are up; then the lanes are cancelled, each with its part written as what it is.

    Raises:
        StoreUnavailable: what was left could not be taken over.
    """
    recovered = await _recover(store)
    async with trio.open_nursery() as nursery:
        limits = _limits(settings, random.Random() if rng is None else rng)

        def sent(address: Address) -> None:
            delivery.shown += 1
            lanes.sent(address)

        parts = Parts(
            store=store, lease=lease, capabilities=capabilities, find_file=find_file, limits=limits,
            wake=lambda address: lanes.wake(address), sent=sent,
        )  # fmt: skip
        lanes = Lanes(
            nursery, store, limits, make=lambda address: Lane(address, parts), wait_connected=wait_connected,
            settings=settings, accounts=accounts,
        )  # fmt: skip
        times = DraftTimes(lambda: settings().edit_interval_s)
        receipts = Receipts(nursery, parts, settings)
        delivery = Delivery(nursery, store, lanes, parts, render, times, recovered, settings, receipts)
        nursery.start_soon(lanes.sweep)
        nursery.start_soon(lanes.keep_time)
        try:
            await receipts.begin()
            nursery.start_soon(receipts.run)
            yield delivery
            await lanes.flush(flush_by())
            await receipts.close(flush_by())
        finally:
            lanes.open = False
            nursery.cancel_scope.cancel("delivery is over")
