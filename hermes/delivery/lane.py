"""A lane: the parts of one Address, one after the other, each under a lease of its own.

What is being attempted is in two fields that are set without an await, so that at every await it is known what the row must say
if the task ends there: nothing was requested (it waits again), something was (it is in doubt), or the answer is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import trio

from hermes.delivery.content import FindFile, to_content
from hermes.delivery.limits import Limits
from hermes.delivery.outcomes import judge, retry_after, storable
from hermes.errors import (
    AccountDown,
    LeaseEnded,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    StoreUnavailable,
    leaves,
)
from hermes.events import Address, Receipt
from hermes.observe.logs import get_log
from hermes.platform import Capabilities, Platform, ReadsBack
from hermes.store import Store
from hermes.store.outbox import Advance, Ended, Method, Part

log = get_log(__name__)
T = TypeVar("T")

LAST_WORDS_S = 5.0
SEND_S = 310.0  # the contract's kit allows a platform 300 for whatever it does

Lease = Callable[[str], AbstractAsyncContextManager[Platform]]


class Rest(Enum):
    """Why a lane ended: nothing waits any more, it may not send now, its account has no connection."""

    NOTHING = "nothing"
    LIMITED = "limited"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every lane works with.

    Args:
        store: where the parts are.
        lease: the use of an account's connection.
        capabilities: what an account's service can do, connected or not.
        find_file: where a file's bytes are.
        limits: what may be requested when.
        wake: told of an address at which something waits.
        sent: told of an address at which something was shown.
    """

    store: Store
    lease: Lease
    capabilities: Callable[[str], Capabilities]
    find_file: FindFile
    limits: Limits
    wake: Callable[[Address], None]
    sent: Callable[[Address], None]


class Lane:
    """One address that is busy. `wakes` counts hints that there is something; `blocked` is the method it waits for."""

    def __init__(self, address: Address, parts: Parts) -> None:
        self.address = address
        self.wakes = 0
        self.blocked: Method | None = None
        self._seen = -1
        self._parts = parts
        self._part: Part | None = None  # claimed, and not settled
        self._begun = False  # its request may have left
        self._ended: Ended | None = None  # how its attempt ended, not committed yet

    @property
    def woken(self) -> bool:
        """Whether there may be something that it has not looked at."""
        return self.wakes != self._seen

    async def run(self) -> Rest:
        """Send what waits. Returns when there is nothing more, or nothing may be sent.

        Cancellation: what was under way is written as what it is: in doubt, or not begun.
        """
        try:
            while True:
                rest = await self._next()
                if rest is None:
                    continue
                if self._part is not None:
                    await patiently(self._parts.store, self._settle)
                if rest is not Rest.NOTHING or not self.woken:
                    return rest
        finally:
            # Shielded and bounded inside.
            await self._last_words()  # noqa: ASYNC102

    async def _next(self) -> Rest | None:
        """One part under one lease; None to go on with the next."""
        if not self._parts.limits.free_methods(self.address):
            return Rest.LIMITED
        try:
            async with self._parts.lease(self.address.account) as platform:
                return await self._one(platform)
        except (AccountDown, LeaseEnded):
            return Rest.DOWN

    async def _one(self, platform: Platform) -> Rest | None:
        self._seen = self.wakes
        self.blocked = None
        step = await patiently(self._parts.store, self._advance)
        if step.part is None:
            self.blocked = step.blocked
            return Rest.LIMITED if step.blocked is not None else Rest.NOTHING
        self._part = part = step.part
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._parts.limits.is_free(self.address, part.method):  # somebody else was told so meanwhile
            self._ended = Ended(part=part, how="again", reason="limited")
        else:
            self._ended = await self._attempt(platform, part)
        over = self._ended.how == "sent" and not self._ended.part.then_edit
        return Rest.NOTHING if over and step.last and not self.woken else None  # nothing to look for, and to lease

    async def _attempt(self, platform: Platform, part: Part) -> Ended:
        """Make the one request of an attempt, unless an earlier one is found to be shown. Returns what came of it."""
        receipt: Receipt | None = None
        try:
            with trio.move_on_after(SEND_S) as scope:  # one that never ends would hold its lane for ever
                receipt, part = await look_back(platform, part)
                if receipt is None:
                    content = to_content(part.content, self._parts.find_file, marked=part.marked)
                    if content is None:
                        return Ended(part=part, how="rejected", reason="its file is not there any more")
                    self._begun = True
                    if part.receipt is not None:
                        receipt = await platform.edit(part.receipt, content)
                    else:
                        receipt = await platform.send(part.address, content, key=part.key, reply=part.reply)
        except Exception as error:  # noqa: BLE001  # a plugin's hook
            return self._failed(part, error)
        if scope.cancelled_caught or receipt is None:
            words = f"it did not end within {SEND_S:g} s"
            return self._failed(part, SendUncertain(words) if self._begun else PlatformUnavailable(words))
        self._parts.limits.succeeded(part.address)
        self._parts.sent(part.address)
        return Ended(part=part, how="sent", receipt=storable(receipt))

    def _failed(self, part: Part, error: Exception) -> Ended:
        """What a failure means for the part, and for what may be requested next."""
        found, limits = judge(error), self._parts.limits
        ended = Ended(part=part, how=found.how, reason=found.reason, moved_to=found.moved_to)
        limited = [each for each in leaves(error) if isinstance(each, RateLimited)]
        for each in limited:
            limits.limit(part.address, part.method, each)
        if not limited and ended.how in ("again", "uncertain", "bug"):
            limits.failed(part.address, retry_after(error))
        where, key = str(part.address), part.key
        if ended.how == "bug":
            log.error("delivery.bug", error=error, address=where, key=key, attempt=part.attempts)
        elif ended.how == "again":
            log.info("delivery.waits", address=where, key=key, reason=ended.reason)
        else:
            log.warning("delivery.failed", address=where, key=key, how=ended.how, reason=ended.reason)
        return ended

    async def _advance(self) -> Advance:
        can = self._parts.capabilities(self.address.account)
        step = await self._parts.store.outbox.advance(
            self.address, self._how(), deduplicates=can.deduplicates, edits=can.edits,
            methods=self._parts.limits.free_methods(self.address), finds=can.finds,
        )  # fmt: skip
        self._settled(step.moved)
        for reason in step.held:
            log.warning("delivery.held", address=str(self.address), reason=reason)
        return step

    async def _settle(self) -> None:
        ended = self._how()
        if ended is not None:
            self._settled(await self._parts.store.outbox.settle(ended))

    def _how(self) -> Ended | None:
        """What is to be written of the part in hand."""
        if self._part is None or self._ended is not None:
            return self._ended
        if self._begun:
            return Ended(part=self._part, how="uncertain", reason="ended while it was being sent")
        return Ended(part=self._part, how="again", reason="ended before it was sent")

    def _settled(self, moved: Sequence[Address]) -> None:
        self._part = self._ended = None
        self._begun = False
        for address in moved:
            self._parts.wake(address)

    async def _last_words(self) -> None:
        """Write what is in hand when the task ends; at the next start recovery stands in for what could not be written."""
        if self._part is None:
            return
        with trio.move_on_after(LAST_WORDS_S, shield=True):
            try:
                await self._settle()
            except StoreUnavailable as error:
                log.warning("delivery.not_written", address=str(self.address), error=error)


async def look_back(platform: Platform, part: Part) -> tuple[Receipt | None, Part]:
    """Ask the service for what is in doubt: the receipt of what it shows, or the part as it is to be sent now.

    Raises:
        SendRejected: nobody can tell, and what is in doubt is to be held.
        PlatformError: it cannot be asked now.
    """
    if part.since is None:
        return None, part
    assert isinstance(platform, ReadsBack), "its capabilities say `finds`, and it has no such method"
    try:
        receipt = await platform.find(part.address, key=part.key, since=part.since)
    except SendUncertain as error:
        if part.hold:
            raise SendRejected(f"the service cannot tell ({error})") from None
        return None, replace(part, then_edit=False)
    return receipt, part if receipt is not None else replace(part, marked=False, then_edit=False)


async def patiently(store: Store, call: Callable[[], Awaitable[T]]) -> T:
    """Call the store until it works, waiting while it is unavailable."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await store.database.wait_available()
