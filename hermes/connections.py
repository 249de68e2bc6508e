"""Connections: every configured account is kept connected, each by a supervisor of its own that disturbs nobody else.

An account's supervisor runs one generation after the other and decides by `hermes.backoff` what comes between two.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import trio

from hermes.accounts import AccountRecord, AccountTable
from hermes.backoff import Failure, History, Outcome, Park, decide
from hermes.errors import AccountDown
from hermes.generation import AccountPlan, Generation, Parts
from hermes.observe.logs import get_log
from hermes.platform import Host, Inbox, Platform
from hermes.receiving import Gate
from hermes.settings import SupervisionConfig

__all__ = ["AccountPlan", "Connections", "open_connections"]

log = get_log(__name__)

STARTS_AT_ONCE = 4  # connections being opened at the same time, over all accounts
SPREAD_S = 0.1  # for each account beyond those, at the start
GATE_S = 10.0  # for `receive` to end once it was cancelled


class _Account:
    """What one supervisor has in hand."""

    def __init__(self, plan: AccountPlan, record: AccountRecord) -> None:
        self.plan = plan
        self.record = record
        self.removed = False
        self.renewed = False  # it is to be another one at its service
        self.history = History()
        self.generation: Generation | None = None
        self.changed = trio.lowlevel.ParkingLot()  # unparked when it is connected, or will not be any more
        self._wait: trio.CancelScope | None = None

    def wake(self) -> bool:
        """End a wait between two generations; returns whether there was one."""
        if self._wait is None:
            return False
        self._wait.cancel("woken")
        return True

    async def wait(self, until: Callable[[], Awaitable[object]]) -> bool:
        """Wait for something, or to be woken; returns whether it was what was waited for."""
        try:
            with trio.CancelScope() as self._wait:
                await until()
                return True
            return False
        finally:
            self._wait = None


class Connections:
    """The accounts and their connections. Use `open_connections()`.

    Attributes:
        table: what each account does, since when and why.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        settings: Callable[[], SupervisionConfig],
        host: Callable[[AccountPlan], AbstractAsyncContextManager[Host]],
        stop_by: Callable[[], float],
        store_ready: Callable[[], Awaitable[None]],
        release: Callable[[str], None],
        renewed: Callable[[str], None],
        rng: random.Random,
    ) -> None:
        self.table = AccountTable()
        self._nursery = nursery
        self._release = release
        self._renewed = renewed
        self._starts = trio.Semaphore(STARTS_AT_ONCE)
        self._parts = Parts(
            settings=settings, host=host, stop_by=stop_by, store_ready=store_ready, gate=lambda: self._gate,
            starts=self._starts, rng=rng,
        )  # fmt: skip
        self._accounts: dict[str, _Account] = {}
        self._gate: Gate | None = None
        self._closing = False

    # For those who send.

    def lease(self, account: str) -> AbstractAsyncContextManager[Platform]:
        """The use of an account's connection, for one piece of work: a send, an edit, a file to fetch.

        A holder that shields itself is not held up by this: when the connection is to be left, also because everything
        is cancelled, the body may go on for `send_grace_s` and is then cancelled by the lease's own scope, inside the
        shield.

        Raises:
            AccountDown: nobody is connected now.
            LeaseEnded: on leaving: the body was cancelled because the connection is left. What was under way is uncertain.
        """
        found = self._accounts.get(account)
        generation = found.generation if found is not None else None
        platform = generation.leased if generation is not None else None
        if generation is None or platform is None:
            raise self._down(account)
        return generation.leases.hold(platform)

    async def connected(self, account: str) -> None:
        """Wait until the account has a connection that can be leased; it may be gone again by the time it is asked for.

        Raises:
            AccountDown: it will not have one: it is not configured (any more), or all of this is being left.
        """
        await trio.lowlevel.checkpoint()
        while True:
            found = self._accounts.get(account)
            if found is None or found.removed or self._closing:
                raise self._down(account)
            if found.generation is not None and found.generation.leased is not None:
                return
            await found.changed.park()

    # For the gateway.

    @asynccontextmanager
    async def receiving(
        self,
        inbox_for: Callable[[str, int], Inbox],
        cursors_for: Callable[[str], Awaitable[Mapping[str, bytes]]],
    ) -> AsyncIterator[None]:
        """The gate: while inside, every connection receives.

        Args:
            inbox_for: account and number of the generation -> where its events are committed.
            cursors_for: account -> what its deliveries committed last. Each is asked before each run of `receive`.

        Lifetime: exit = no `receive` runs any more and no inbox takes anything; connections stay, for those who send.
        Cancellation: the same; shielded, with a deadline.
        """
        if self._gate is not None:
            raise RuntimeError("the gate is open already")
        gate = self._gate = Gate(inbox_for, cursors_for)
        self._interrupt_all()
        try:
            yield
        finally:
            self._gate = None
            self._interrupt_all()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GATE_S) as bound:
                await gate.all_ended()
            gate.close()
            if bound.cancelled_caught:
                log.error("account.receives_on", runs=len(gate.runs))

    def apply(self, plans: Mapping[str, AccountPlan]) -> None:
        """Take over a configuration: changed accounts get a new generation, removed ones end, added ones start.

        Args:
            plans: account id -> how it is configured; what is left out is removed.
        """
        if self._closing:
            return
        now = trio.current_time()
        added = [name for name in plans if name not in self._accounts]
        for name, found in self._accounts.items():
            plan = plans.get(name)
            if plan is None:
                self._remove(found)
            else:
                self._change(found, plan, now)
        for name in added:
            plan = plans[name]
            record = AccountRecord(name, plan.spec.name, required=plan.required, now=now)
            account = self._accounts[name] = _Account(plan, record)
            self.table.add(record)
            spread_s = self._parts.rng.uniform(0.0, SPREAD_S * len(added)) if len(added) > STARTS_AT_ONCE else 0.0
            self._nursery.start_soon(self._supervise, account, spread_s, name=f"account {name}")

    def retry(self, account: str) -> bool:
        """Try again now, whatever the account waits for, a parked one too; returns whether there was anything to try."""
        found = self._accounts.get(account)
        if found is None or found.removed or not found.plan.enabled:
            return False
        if found.generation is not None:
            return found.generation.hurry()
        found.history = History()
        return found.wake()

    # Plain steps.

    def _change(self, found: _Account, plan: AccountPlan, now: float) -> None:
        same = plan.connects_like(found.plan) and not found.removed
        found.renewed = found.renewed or plan.identity != found.plan.identity
        found.plan, found.removed = plan, False
        found.record.required = plan.required
        if same:
            return
        found.record.platform = plan.spec.name
        found.history = History()
        if found.generation is not None:
            found.generation.end("changed")
        else:
            self._let_go(found)
            found.record.begin_anew(now, enabled=plan.enabled)
            found.wake()

    def _let_go(self, found: _Account) -> None:
        """Nothing of an account as it was is open any more."""
        self._release(found.plan.account)
        if found.renewed or found.removed:
            found.renewed = False
            self._renewed(found.plan.account)

    def _remove(self, found: _Account) -> None:
        found.removed = True
        if found.generation is not None:
            found.generation.end("removed")
        found.wake()
        found.changed.unpark_all()

    def _close(self) -> None:
        """Ask every generation to end; nobody is connected any more from here on."""
        self._closing = True
        for found in self._accounts.values():
            if found.generation is not None:
                found.generation.end("stopping")
            found.wake()
            found.changed.unpark_all()

    def _interrupt_all(self) -> None:
        for found in self._accounts.values():
            if found.generation is not None:
                found.generation.interrupt()

    def _down(self, account: str) -> AccountDown:
        if self._closing:
            return AccountDown(account, "stopping")
        record, found = self.table.get(account), self._accounts.get(account)
        if record is None or found is None or found.removed:
            return AccountDown(account, "removed", "it is not configured")
        status = record.status(trio.current_time())
        return AccountDown(account, status.state, status.reason)

    # The supervisor of one account.

    async def _supervise(self, found: _Account, spread_s: float) -> None:
        """Keep an account connected until it is removed or all is left. An error out of this is a bug of the core."""
        try:
            await found.wait(partial(trio.sleep, spread_s))
            while not (found.removed or self._closing):
                if not found.plan.enabled:
                    found.record.begin_anew(trio.current_time(), enabled=False)
                    await found.wait(trio.sleep_forever)
                    continue
                if await found.wait(self._starts.acquire):
                    await self._connect(found)
        finally:
            self._let_go(found)
            if self._accounts.get(found.plan.account) is found:
                del self._accounts[found.plan.account]
            self.table.remove(found.record)
            found.changed.unpark_all()

    async def _connect(self, found: _Account) -> None:
        """One generation, for which a start is held, and the wait after it."""
        if found.removed or self._closing or not found.plan.enabled:  # in the very step in which the start was granted
            self._starts.release()
            return
        started = _Once(self._starts.release, found.changed.unpark_all)
        generation = Generation(found.plan, found.record, self._parts, started)
        found.generation = generation
        found.record.attempt()
        try:
            failure = await generation.run()
        finally:
            started()
            found.generation = None
        now = trio.current_time()
        if generation.ending is not None:
            self._let_go(found)
        if generation.ending is not None or failure is None:
            found.record.begin_anew(now)
            return
        await self._after(found, generation, failure, now)

    async def _after(self, found: _Account, generation: Generation, failure: Failure, now: float) -> None:
        settings, record = self._parts.settings(), found.record
        if failure.kind == "store":
            record.waits_for_store(failure.reason, now)
            spread_s = self._parts.rng.uniform(0.0, settings.backoff_base_s)

            async def until() -> None:
                await trio.sleep(spread_s)
                await self._parts.store_ready()

            await found.wait(until)
            return
        outcome = Outcome(failure=failure, up_s=generation.up_s, progressed=record.progressed)
        found.history, then = decide(found.history, outcome, now=now, rng=self._parts.rng, settings=settings)
        record.waits(failure, then, now)
        seconds = then.probe_after_s if isinstance(then, Park) else then.delay_s
        say = log.error if isinstance(then, Park) else log.warning
        say(
            "account.parked" if isinstance(then, Park) else "account.waits",
            account=record.account, kind=failure.kind, reason=failure.reason, generation=record.generation, next_s=seconds,
        )  # fmt: skip
        await found.wait(partial(trio.sleep, math.inf if seconds is None else seconds))


class _Once:
    """Does something the first time it is called."""

    def __init__(self, *what: Callable[[], object]) -> None:
        self._what = what

    def __call__(self) -> None:
        what, self._what = self._what, ()
        for each in what:
            each()


@asynccontextmanager
async def open_connections(
    plans: Mapping[str, AccountPlan],
    *,
    settings: Callable[[], SupervisionConfig],
    host: Callable[[AccountPlan], AbstractAsyncContextManager[Host]],
    stop_by: Callable[[], float],
    store_ready: Callable[[], Awaitable[None]],
    release: Callable[[str], None] = lambda _account: None,
    renewed: Callable[[str], None] = lambda _account: None,
    rng: random.Random | None = None,
) -> AsyncIterator[Connections]:
    """Keep these accounts connected.

    Args:
        plans: account id -> how it is configured; `Connections.apply` replaces them.
        settings: the bounds in force, asked each time.
        host: what a platform may touch, opened for each generation around it and closed after it.
        stop_by: when the gateway must be gone, on trio's clock; infinite while nobody asked.
        store_ready: waits until the store can be written.
        release: told that an account has ended, or is configured otherwise; nothing of it is open then.
        renewed: told that an account is gone, or another one at its service (its token changed); nothing of it is open then.
        rng: for jitter.

    Lifetime: enter = at once; accounts connect beside, and the table shows how far they are. Exit = every generation has
    ended in its two steps, its platform's scope left. What a platform does or raises never comes out of here.
    Cancellation: leases are still given `send_grace_s` (at most until `stop_by`), then cut and waited for; then platforms
    are left, cancelled.

    Raises:
        StoreError: in a group: a platform ran into a database that cannot be used.
    """
    async with trio.open_nursery() as nursery:
        connections = Connections(
            nursery,
            settings=settings,
            host=host,
            stop_by=stop_by,
            store_ready=store_ready,
            release=release,
            renewed=renewed,
            rng=random.Random() if rng is None else rng,
        )
        connections.apply(plans)
        try:
            yield connections
        finally:
            connections._close()
