"""A reply that is shown while it is written. Drafts are hints: coalesced, limited, dropped; the end of the turn is the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from hermes.delivery.content import to_content
from hermes.delivery.lane import Parts, patiently
from hermes.delivery.limits import Method
from hermes.delivery.outcomes import judge, retry_after, storable
from hermes.errors import AccountDown, LeaseEnded, RateLimited, StoreUnavailable, leaves
from hermes.events import Address, Content, Receipt, ReplyRef, StoredContent
from hermes.observe.logs import get_log
from hermes.platform import Capabilities, Platform
from hermes.store.live_parts import MAX_LIVE, LiveRow
from hermes.store.outbox import reply_for

log = get_log(__name__)

Render = Callable[[str, Capabilities], Sequence[StoredContent]]

FINISH_S = 5.0  # for a draft whose first request is on its way when the turn ends: its receipt is wanted
RECORD_S = 5.0
QUIET_S = 2.0  # after a draft that could not be shown; doubled each time
LONGEST_QUIET_S = 60.0
MOST_CHATS = 1000


class DraftTimes:
    """When the next draft may be shown in each chat."""

    def __init__(self, interval_s: Callable[[], float]) -> None:
        self.interval_s = interval_s
        self._next: dict[tuple[str, str], float] = {}
        self._queues: dict[tuple[str, str], dict[object, None]] = {}  # who waits for that time, in order

    def next_at(self, address: Address) -> float:
        """The time of the next one; past means now."""
        return self._next.get((address.account, address.chat), 0.0)

    def is_next(self, address: Address, who: object) -> bool:
        """Whether nobody in the chat waits for its next draft for longer; from here on who asks waits, until it `leaves`."""
        queue = self._queues.setdefault((address.account, address.chat), {})
        queue.setdefault(who)
        return next(iter(queue)) is who

    def leaves(self, address: Address, who: object) -> None:
        """It draws now, or has nothing to draw."""
        chat = (address.account, address.chat)
        if (queue := self._queues.get(chat)) is not None:
            queue.pop(who, None)
            if not queue:
                del self._queues[chat]

    def drew(self, address: Address) -> None:
        """A draft was requested now."""
        now = trio.current_time()
        if len(self._next) >= MOST_CHATS:
            self._next = {chat: when for chat, when in self._next.items() if when > now}
        self._next[address.account, address.chat] = now + self.interval_s()


@dataclass(slots=True)
class _Shown:
    """A part of the reply: its row, what the service returned for it, what it shows."""

    row: LiveRow
    receipt: Receipt | None = None
    content: StoredContent | None = None
    recorded: bool = True


class LiveReply:
    """One reply being written. `update` says what it is so far.

    Attributes:
        address: where it is shown.
        first_at: before this time nothing is drawn, unless it is a reply that was shown before.
    """

    def __init__(
        self, address: Address, reply: ReplyRef | None, turn_id: str, source: str, *, can: Capabilities, parts: Parts,
        times: DraftTimes, render: Render, resumes: str | None,
    ) -> None:  # fmt: skip
        self.address = address
        self._reply = reply
        self._turn_id = turn_id
        self._source = source
        self._can = can
        self._parts = parts
        self._times = times
        self._render = render
        self._resumes = resumes
        self._text = ""
        self._drawn = ""
        self._drawing: str | None = None  # what a request that is under way shows
        self._rows: list[_Shown] = []
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._sending = False  # the first request of a part may have left
        self._over = False
        self.first_at = self._quiet_until = (
            trio.current_time() + times.interval_s()
        )  # a quick reply is shown once, whole
        self._failures = 0
        self._drew = trio.Event()  # set when something was drawn, and made anew
        self.ended = trio.Event()

    @property
    def drawn(self) -> str:
        """The text that is shown, as far as is known."""
        return self._drawn

    def update(self, text: str) -> None:
        """The reply is this text now; a later one replaces it, whether it was shown or not. Synchronous.

        Args:
            text: all of it so far, as the model writes it.
        """
        self._text = text
        if text != self._drawn:
            self._wake.set()

    async def settle(self, text: str, within_s: float) -> None:
        """Have this text shown in place of what is, where anything is, before the reply is closed; shielded and bounded.

        Where nothing is shown nothing will be.

        Args:
            within_s: seconds that this may take.
        """
        self.update(text)
        if not self._sending and all(each.receipt is None for each in self._rows):
            self._over = True  # nothing is there, and nothing is to come
        with trio.move_on_after(within_s, shield=True):
            while not (self._over or self.ended.is_set() or (self._drawn == text and self._drawing in (None, text))):
                await self._drew.wait()

    async def close(self) -> None:
        """Stop drawing: what is being edited is left, what is being sent for the first time is waited for, within a bound."""
        self._over = True
        if not self._sending:
            self._scope.cancel("the reply is over")
        with trio.move_on_after(FINISH_S, shield=True):
            await self.ended.wait()
        self._scope.cancel("the reply is over")
        with trio.move_on_after(RECORD_S, shield=True):
            await self.ended.wait()

    async def run(self) -> None:
        """Draw what there is, as often as the chat allows; returns when the reply is over or drafts are of no use."""
        try:
            with self._scope:
                if self._resumes is not None:
                    await self._take_over(self._resumes)
                while not self._over:
                    await self._until_due()
                    await self._draw()
                    self._drew.set()
                    self._drew = trio.Event()
        finally:
            # Shielded and bounded inside.
            await self._record_late()  # noqa: ASYNC102
            self.ended.set()
            self._drew.set()

    async def _take_over(self, dead: str) -> None:
        store = self._parts.store
        found = await patiently(store, lambda: store.outbox.take_over(dead, self._turn_id))
        self._rows = [_Shown(row, receipt) for row, receipt in found]
        if any(each.receipt is None for each in self._rows):
            self._over = True  # it may be shown, and cannot be edited: the end decides

    async def _until_due(self) -> None:
        """Wait for something to draw, and for the time to: in a chat in turn."""
        try:
            while not await self._is_due():
                pass
        finally:
            self._times.leaves(self.address, self)

    async def _is_due(self) -> bool:
        """One look: True if it may be drawn now; else False, after a wait."""
        while self._text == self._drawn or not self._text.strip():
            self._times.leaves(self.address, self)
            self._wake = trio.Event()
            await self._wake.wait()
        method: Method = "edit" if self._rows and self._rows[-1].receipt is not None else "send"
        due = max(self._parts.limits.free_at(self.address, method), self._quiet_until)
        if due > trio.current_time():  # it keeps nobody else waiting
            self._times.leaves(self.address, self)
        else:
            due, first = self._times.next_at(self.address), self._times.is_next(self.address, self)
            if first and due <= trio.current_time():
                return True
        await trio.sleep_until(due)  # where the time has come for another one: a step, in which that one draws
        return False

    async def _draw(self) -> None:
        """Make one request: the first part that does not show what it should."""
        text = self._text
        contents = self._render(text, self._can)[:MAX_LIVE]
        number = next(
            (n for n, each in enumerate(contents) if n >= len(self._rows) or self._rows[n].content != each), None
        )
        if number is None:
            self._drawn = text
            return
        self._times.drew(self.address)
        self._drawing = text
        try:
            async with self._parts.lease(self.address.account) as platform:
                if number == len(self._rows):
                    await self._open(contents[number], first=number == 0)
                if not self._over:
                    await self._show(platform, number, contents[number])
            if [each.content for each in self._rows] == list(contents):
                self._drawn = text
        except (AccountDown, StoreUnavailable, LeaseEnded):  # a row that is in doubt is written down as such by then
            self._be_quiet(None)
        finally:
            self._drawing = None

    async def _open(self, content: StoredContent, *, first: bool) -> None:
        row = await self._parts.store.outbox.open_live(
            self.address, content, reply=self._reply if first else None, source=self._source, turn_id=self._turn_id
        )
        if row is None:  # nobody is there any more
            self._over = True
        else:
            self.address = row.address
            self._rows.append(_Shown(row))

    async def _show(self, platform: Platform, number: int, stored: StoredContent) -> None:
        part, content = self._rows[number], to_content(stored, self._parts.find_file, marked=False, final=False)
        method: Method = "send" if part.receipt is None else "edit"
        await trio.lowlevel.checkpoint_if_cancelled()
        if content is None or not self._parts.limits.is_free(part.row.address, method):
            self._over = self._over or content is None
            return
        try:
            if part.receipt is not None:
                part.receipt = await platform.edit(part.receipt, content)
            else:
                await self._send(platform, number, content)
        except Exception as error:  # noqa: BLE001  # a plugin's hook
            self._failed(part, method, error)
        else:
            part.content = stored
            self._failures = 0

    async def _send(self, platform: Platform, number: int, content: Content) -> None:
        """Show a part for the first time, and write down what came of it, also when this is being cancelled."""
        part, doubtful = self._rows[number], True
        self._sending = True
        try:
            reply = reply_for(self._reply, number)
            part.receipt = storable(await platform.send(part.row.address, content, key=part.row.key, reply=reply))
            part.recorded = False
        except Exception as error:
            doubtful = judge(error).how in ("uncertain", "bug")
            raise
        finally:
            with trio.move_on_after(RECORD_S, shield=True):
                if part.receipt is not None:
                    await self._record(part, part.receipt)
                elif doubtful:
                    await self._doubt(part)
            self._sending = False

    async def _record(self, part: _Shown, receipt: Receipt) -> None:
        try:
            await self._parts.store.outbox.shown(part.row.id, receipt)
            part.recorded = True
        except StoreUnavailable as error:
            log.warning("delivery.not_written", address=str(self.address), error=error)

    async def _doubt(self, part: _Shown) -> None:
        """It may be shown, and nothing is known that could be edited: the end of the turn decides."""
        self._over = True
        try:
            await self._parts.store.outbox.doubt(part.row.id)
        except StoreUnavailable as error:
            log.warning("delivery.not_written", address=str(self.address), error=error)

    async def _record_late(self) -> None:
        """Receipts that could not be written before."""
        with trio.move_on_after(RECORD_S, shield=True):
            for part in self._rows:
                if not part.recorded and part.receipt is not None:
                    await self._record(part, part.receipt)

    def _failed(self, part: _Shown, method: Method, error: Exception) -> None:
        verdict = judge(error)
        for each in leaves(error):
            if isinstance(each, RateLimited):
                self._parts.limits.limit(part.row.address, method, each)
                return  # what is latest by then is drawn
        log.info("delivery.draft_failed", address=str(self.address), how=verdict.how, error=error)
        if verdict.how in ("again", "uncertain") and not self._over:
            self._be_quiet(retry_after(error))
        else:
            self._over = True

    def _be_quiet(self, asked_s: float | None) -> None:
        self._failures += 1
        pause = min(QUIET_S * 2.0 ** min(self._failures - 1, 16), LONGEST_QUIET_S)
        self._quiet_until = trio.current_time() + max(pause, asked_s or 0.0)
