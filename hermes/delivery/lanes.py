"""Which lanes run: a task per busy Address, so many an account; what waits for a time, a connection or room has no task.

State changes are plain functions. A hint that is lost (no room, an account that is down, a process that died) costs a sweep,
never a part: the rows are the truth.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Collection
from itertools import count

import trio

from hermes.delivery.lane import Lane, Rest
from hermes.delivery.limits import Limits, Method
from hermes.errors import AccountDown, StoreUnavailable
from hermes.events import Address
from hermes.observe.logs import get_log
from hermes.settings import DeliveryConfig
from hermes.store import Store

log = get_log(__name__)

MAX_RUNNING = 32  # lanes of one account that have a task
MAX_READY = 256  # addresses of one account that wait for room; what is beyond is found again in the rows
MAX_TIMED = 10_000  # addresses that wait for a time
PAGE = 128  # addresses of one account that a sweep takes up at once

WaitConnected = Callable[[str], Awaitable[None]]


class _Account:
    """The lanes of one account.

    Attributes:
        running: those that have a task.
        ready: addresses that wait for room, in order.
        down: it has no connection; a task waits for one.
        more: there may be rows of addresses that are not known here.
        after: how far the sweep has got, as chat and thread.
        falls: how often its connection was gone without anything shown in between.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.running: dict[Address, Lane] = {}
        self.ready: dict[Address, None] = {}
        self.down = False
        self.more = False
        self.after: tuple[str, str] | None = None
        self.falls = 0


class Lanes:
    """All lanes. `wake` may be called by anybody at any time."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        limits: Limits,
        *,
        make: Callable[[Address], Lane],
        wait_connected: WaitConnected,
        settings: Callable[[], DeliveryConfig],
        accounts: Callable[[], Collection[str]] | None,
    ) -> None:
        self.open = True
        self.changed = trio.lowlevel.ParkingLot()  # unparked when a lane ends, a time has come, a sweep was made
        self._nursery = nursery
        self._store = store
        self._limits = limits
        self._make = make
        self._wait_connected = wait_connected
        self._settings = settings
        self._configured = accounts
        self._accounts: dict[str, _Account] = {}
        self._timed: set[Address | str] = set()
        self._times: list[tuple[float, int, Address | str]] = []  # when an address, or an account, may go on
        self._number = count()
        self._earlier = trio.Event()
        self._swept = trio.Event()

    @property
    def running(self) -> int:
        """Lanes that have a task."""
        return sum(len(each.running) for each in self._accounts.values())

    @property
    def waiting(self) -> int:
        """Addresses that wait for room or for a time."""
        return len(self._timed) + sum(len(each.ready) for each in self._accounts.values())

    def wake(self, address: Address) -> None:
        """There may be something for an address. A hint: synchronous, cheap, and it may be lost."""
        if not self.open:
            return
        account = self._account(address.account)
        lane = account.running.get(address)
        if lane is not None:
            lane.wakes += 1
        elif account.down or self._limits.account_free_at(account.name) > trio.current_time():
            self._wait_for_account(account)
        elif not self._limits.is_free(address):
            self._at(self._limits.free_at(address), address)
        elif len(account.ready) < MAX_READY or address in account.ready:
            account.ready[address] = None
            self._start(account)
        else:
            account.more = True

    def sent(self, address: Address) -> None:
        """Something was shown: the account's connection works."""
        self._account(address.account).falls = 0

    def begin_anew(self, name: str) -> None:
        """An account is another one at its service: what limited the former one is over, and its rows are looked for."""
        self._limits.forget(name)
        account = self._account(name)
        account.falls, account.more, account.after = 0, True, None
        self._swept.set()

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(name)
        return account

    def _start(self, account: _Account) -> None:
        """Give tasks to those that wait for room."""
        while account.ready and len(account.running) < MAX_RUNNING:
            address = next(iter(account.ready))
            del account.ready[address]
            lane = account.running[address] = self._make(address)
            self._nursery.start_soon(self._run, account, lane, name=f"lane {address}")
        if account.more and not account.ready:
            self._swept.set()

    async def _run(self, account: _Account, lane: Lane) -> None:
        """The task of a lane, and what comes after it."""
        rest = None
        try:
            rest = await lane.run()
        finally:
            del account.running[lane.address]
            self.changed.unpark_all()
        if rest is Rest.DOWN:
            self._fell(account)
        elif rest is Rest.LIMITED:
            self._wait_for_limit(account, lane)
        elif lane.woken:
            self.wake(lane.address)
        if self.open:
            self._start(account)

    def _wait_for_limit(self, account: _Account, lane: Lane) -> None:
        if self._limits.account_free_at(account.name) > trio.current_time():
            self._wait_for_account(account)
            return
        blocked: tuple[Method, ...] = (lane.blocked,) if lane.blocked is not None else ("send", "edit")
        self._at(min(self._limits.free_at(lane.address, each) for each in blocked), lane.address)

    def _wait_for_account(self, account: _Account) -> None:
        """Its rows are looked for again when it may go on."""
        account.more = True
        account.after = None
        if not account.down:
            self._at(self._limits.account_free_at(account.name), account.name)

    def _at(self, when: float, what: Address | str) -> None:
        if what in self._timed:
            return  # it looks again then
        if len(self._timed) >= MAX_TIMED and isinstance(what, Address):
            self._account(what.account).more = True
            return
        self._timed.add(what)
        heapq.heappush(self._times, (when, next(self._number), what))
        if self._times[0][2] is what:
            self._earlier.set()

    async def keep_time(self) -> None:
        """Wake what waited for a time, when it has come; never returns."""
        while True:
            now = trio.current_time()
            while self._times and self._times[0][0] <= now:
                _, _, what = heapq.heappop(self._times)
                self._timed.discard(what)
                if isinstance(what, Address):
                    self.wake(what)
                else:
                    self._account(what).more = True
                    self._swept.set()
            self.changed.unpark_all()
            with trio.move_on_at(self._times[0][0] if self._times else float("inf")):
                await self._earlier.wait()
            if self._earlier.is_set():
                self._earlier = trio.Event()

    def _fell(self, account: _Account) -> None:
        """The account has no connection: nothing of it runs until it has one."""
        account.more = True
        account.after = None
        account.ready.clear()
        if not account.down and self.open:
            account.down = True
            self._nursery.start_soon(self._wait_for_connection, account, name=f"waits for {account.name}")

    async def _wait_for_connection(self, account: _Account) -> None:
        """Until the account may be used again."""
        try:
            if account.falls:  # it comes and goes
                base = self._settings().backoff_base_s
                await trio.sleep(min(base * 2.0 ** min(account.falls, 16), self._settings().backoff_max_s))
            account.falls += 1
            await self._wait_connected(account.name)
        except AccountDown:  # it will have none, as far as is known now
            await trio.sleep(self._settings().sweep_s)
        finally:
            account.down = False
        self._swept.set()

    async def sweep(self) -> None:
        """Find what nobody was woken for, hold what is too old or has no account any more; never returns."""
        upkeep_at = trio.current_time()
        while True:
            self._swept = trio.Event()
            try:
                if trio.current_time() >= upkeep_at:
                    upkeep_at = trio.current_time() + self._settings().sweep_s
                    held = await self._store.outbox.keep_up(self._configured() if self._configured else None)
                    if held:
                        log.warning("delivery.set_aside", parts=held)
                    for name in await self._store.outbox.open_accounts():
                        self._account(name).more = True
                for account in [each for each in self._accounts.values() if each.more]:
                    await self._take_up(account)
            except StoreUnavailable as error:
                log.warning("delivery.sweep_waits", error=error)
                await self._store.database.wait_available()
            self.changed.unpark_all()
            with trio.move_on_at(upkeep_at):
                await self._swept.wait()

    async def _take_up(self, account: _Account) -> None:
        """Wake a page of an account's addresses, if it may send and has room."""
        free_at = self._limits.account_free_at(account.name)
        if account.down or account.ready or free_at > trio.current_time():
            if free_at > trio.current_time():
                self._at(free_at, account.name)
            return
        after, account.more = account.after, False
        page = await self._store.outbox.open_addresses(account.name, after, PAGE)
        last = page[-1] if len(page) == PAGE else None
        account.after = (last.chat, last.thread or "") if last is not None else None
        account.more = account.more or last is not None
        for address in page:
            if address not in account.running:
                self.wake(address)

    def busy_until(self, by: float) -> bool:
        """Whether something can still be sent before a time: a lane runs or waits for no longer, of an account that is up."""
        usable = [each for each in self._accounts.values() if not each.down]
        names = {each.name for each in usable if self._limits.account_free_at(each.name) <= by}
        return any(each.running or ((each.ready or each.more) and each.name in names) for each in usable) or any(
            when <= by and (what if isinstance(what, str) else what.account) in names for when, _, what in self._times
        )

    async def flush(self, by: float) -> None:
        """Wait until nothing more can be sent before a time, or until then."""
        with trio.move_on_at(by):
            while self.busy_until(by):
                await self.changed.park()
