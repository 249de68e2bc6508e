"""Receipts: a reaction on a message while it waits or is being answered, taken back when it has ended, whatever its end.

The rows say what is to be shown, and every wake is a hint; what was shown is remembered here alone. What an earlier process may
have shown is found in the rows that it left open. A reaction is asked for once: what fails is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from hermes.backoff import sane_retry_after
from hermes.delivery.lane import Parts
from hermes.delivery.outcomes import judge
from hermes.errors import AccountDown, LeaseEnded, RateLimited, StoreUnavailable, leaves
from hermes.events import Activity, Address, ReplyRef
from hermes.observe.logs import get_log
from hermes.settings import DeliveryConfig

log = get_log(__name__)

EMOJI: Final = "👀"  # Telegram's list of reactions for everybody has it; Slack calls it `eyes`
FIRST_AFTER_S: Final = 0.3  # what is answered sooner needs no sign; what comes together is looked for at once
APART_S: Final = 0.3  # from one request of a chat to the next: services limit reactions more than messages
REQUEST_S: Final = 5.0
LONGEST_S: Final = 60.0  # what may not be requested for longer is dropped
LOOK_S: Final = 30.0  # a hint that was lost costs so long
KEPT_S: Final = 600.0  # for so long a reaction is remembered that cannot be taken back because its account is down
CLOSE_S: Final = 2.0
MAX_ROWS: Final = 1000  # messages that wait, of which those of accounts with reactions get one, up to
MAX_SIGNS: Final = 256
MAX_TASKS: Final = 4  # chats of one account that are asked at once

Chat = tuple[str, str]


@dataclass(slots=True)
class _Sign:
    """The reaction on one message.

    Args:
        shown: None = nobody knows.
        asked: showing it was requested, or given up.
        ended_at: the message has ended, or no reaction is wanted any more; trio's clock.
    """

    address: Address
    message_id: str
    shown: bool | None
    asked: bool = False
    ended_at: float | None = None

    @property
    def chat(self) -> Chat:
        """One request at a time is made here."""
        return self.address.account, self.address.chat

    @property
    def due(self) -> bool:
        """Whether a request is to be made for it."""
        return not self.asked if self.ended_at is None else True


class Receipts:
    """The reactions of all accounts; `open_delivery` runs it.

    Args:
        nursery: for a task for each chat that is asked.
        parts: what lanes work with; of its limits nothing is changed here.
        settings: asked each time.
    """

    def __init__(self, nursery: trio.Nursery, parts: Parts, settings: Callable[[], DeliveryConfig]) -> None:
        self._nursery = nursery
        self._parts = parts
        self._settings = settings
        self._signs: dict[int, _Sign] = {}  # by the row of the inbox, in the order in which they were found
        self._running: set[Chat] = set()
        self._down: set[str] = set()  # accounts without a connection, until the next look
        self._quiet: dict[str, float] = {}  # accounts that limit reactions, and until when
        self._looked = False
        self._looking = trio.Lock()
        self._wake = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def _wanted(self) -> bool:
        return self._settings().receipts == "reaction"

    def wake(self) -> None:
        """A message was accepted, or may have ended. A hint, synchronous."""
        if self._wanted or self._signs:
            self._wake.set()

    async def begin(self) -> None:
        """Find what an earlier process may have shown, before any of it can end."""
        if self._wanted:
            try:
                await self._look()
            except StoreUnavailable as error:
                self._wake.set()
                log.info("delivery.receipts_wait", error=error)

    async def run(self) -> None:
        """Show what is to be shown; never returns."""
        while True:
            with trio.move_on_after(LOOK_S if self._signs else float("inf")):
                await self._wake.wait()
            await trio.sleep(FIRST_AFTER_S)
            self._wake = trio.Event()
            try:
                if self._wanted or self._signs:
                    await self._look()
            except StoreUnavailable:
                self._wake.set()
                await self._parts.store.database.wait_available()

    async def close(self, by: float) -> None:
        """Take back what has ended, until a time and within a bound; what still waits keeps its reaction for the next start."""
        if not self._signs:
            return
        with trio.move_on_at(min(by, trio.current_time() + CLOSE_S)):
            try:
                await self._look()
            except StoreUnavailable:
                return
            while any(each.ended_at is not None and each.chat[0] not in self._down for each in self._signs.values()):
                await self._changed.park()

    async def _look(self) -> None:
        """Compare what is shown with the rows, and start what is to be asked."""
        async with self._looking:
            inbox, now = self._parts.store.inbox, trio.current_time()
            rows = await inbox.awaited(MAX_ROWS) if self._wanted else []
            waiting = [row for row, account in rows if row in self._signs or self._reacts(account)]
            fresh = [row for row in waiting if row not in self._signs][: max(0, MAX_SIGNS - len(self._signs))]
            for found in await inbox.placed(fresh) if fresh else ():
                self._signs[found.row] = _Sign(found.address, found.message_id, False if self._looked else None)
            self._looked = True
            ended = self._signs.keys() - waiting
            for row in ended:
                self._end(row, now)
            self._down.clear()
        self._start()

    def _end(self, row: int, now: float) -> None:
        sign = self._signs[row]
        if sign.ended_at is None:
            sign.ended_at = now
        never = sign.shown is False and sign.chat not in self._running  # nothing is on its way, either
        if never or now - sign.ended_at > KEPT_S:
            del self._signs[row]

    def _reacts(self, account: str) -> bool:
        try:
            return self._parts.capabilities(account).reactions
        except AccountDown:
            return False

    def _start(self) -> None:
        """Give tasks to chats in which something is due, so many of each account."""
        for sign in self._signs.values():
            account = sign.address.account
            if not sign.due or sign.chat in self._running or account in self._down:
                continue
            if sum(name == account for name, _ in self._running) < MAX_TASKS:
                self._running.add(sign.chat)
                self._nursery.start_soon(self._chat, sign.chat, name=f"receipts {sign.address}")
        self._changed.unpark_all()

    async def _chat(self, chat: Chat) -> None:
        """Make the requests of a chat, one after the other."""
        try:
            while chat[0] not in self._down:
                row = next((row for row, each in self._signs.items() if each.chat == chat and each.due), None)
                if row is None:
                    break
                await self._one(row)
        finally:
            self._running.discard(chat)
        self._start()

    async def _one(self, row: int) -> None:
        """Make one request as soon as it may be made, or find that it is not to be made any more."""
        sign = self._signs[row]
        account = sign.address.account
        free_at = max(self._parts.limits.free_at(sign.address, "signal"), self._quiet.get(account, 0.0))
        if free_at > trio.current_time() + LONGEST_S:
            self._settle(row, sign, off=sign.ended_at is not None)
            return
        if free_at > trio.current_time():
            await trio.sleep_until(free_at)
            return
        off = sign.ended_at is not None
        if off and sign.shown is False:
            self._settle(row, sign, off=off)
            return
        try:
            with trio.move_on_after(REQUEST_S):
                async with self._parts.lease(account) as platform:
                    before, sign.shown = sign.shown, None
                    try:
                        await platform.signal(sign.address, _reaction(sign.message_id, off=off))
                        sign.shown = not off
                    except Exception as error:  # noqa: BLE001  # a plugin's hook
                        sign.shown = None if judge(error).how in ("uncertain", "bug") else before
                        self._failed(sign.address, error)
        except AccountDown:  # nothing was asked: the next look may find it connected
            self._down.add(account)
            return
        except LeaseEnded:
            self._down.add(account)
        self._settle(row, sign, off=off)
        await trio.sleep(APART_S)

    def _settle(self, row: int, sign: _Sign, *, off: bool) -> None:
        """What was wanted of a sign was asked for, or given up."""
        sign.asked = True
        if off:
            self._signs.pop(row, None)

    def _failed(self, address: Address, error: Exception) -> None:
        """Nothing but a limit is of interest, and that only here: messages are not kept waiting by it."""
        log.debug("delivery.receipt_failed", address=str(address), error=error)
        for each in leaves(error):
            if isinstance(each, RateLimited):
                until = trio.current_time() + max(APART_S, sane_retry_after(each.retry_after_s))
                self._quiet[address.account] = max(until, self._quiet.get(address.account, 0.0))


def _reaction(message_id: str, *, off: bool) -> Activity:
    return Activity(kind="reaction", emoji=None if off else EMOJI, reply=ReplyRef(message_id=message_id))
