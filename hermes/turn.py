"""One Turn: what was taken up from the mailbox → the agent loop → the one transaction that ends it.

A turn ends in exactly one way and writes it once, also when the whole process is being cancelled. It runs in its session's task;
whoever waits for it holds a feed, and may leave.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import msgspec
import trio

from hermes.agent.history import History
from hermes.agent.loop import Door, LoopEnd, LoopSettings, run_loop
from hermes.agent.validate import HistoryInvalid
from hermes.context import TurnContext
from hermes.ending import Cut, decide
from hermes.errors import HermesError, StoreError, StoreUnavailable, leaves
from hermes.failures import describe
from hermes.feed import Feed
from hermes.intake import CallEvent, Ended, Failure, StepEvent, TextEvent, ToolFinished, ToolStarted, TurnEnd, TurnEvent
from hermes.journal import See, TurnJournal, as_they_are, events_to_keep
from hermes.messages import Message, Usage
from hermes.observe.logs import get_log
from hermes.replies import Draw, Replies, reply_text
from hermes.store import Store
from hermes.store.rows import Claim
from hermes.store.steps import TurnGone
from hermes.store.turns import Finish

log = get_log(__name__)

# What encoding raises for content that no row can hold, half a surrogate pair for one.
UNFIT = (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError)


class Turn:
    """A turn that runs: what ends it from outside, and what it has shown and done so far.

    Attributes:
        committed: its end is being written, and nothing ends it in another way.
        parted: its history in memory is not what is stored any more, and is to be read again.
    """

    def __init__(self, claim: Claim, feed: Feed) -> None:
        self.claim = claim
        self.feed = feed
        self.cut: Cut | None = None
        self.committed = False
        self.parted = False
        self._shown: list[str] = []  # words of the reply that is being said
        self._touched = False  # something was shown, or may have been changed
        self._usage = Usage()
        self._draw: Draw | None = None
        self._scope = trio.CancelScope()

    @property
    def untouched(self) -> bool:
        """Nothing was shown and nothing with side effects ran: the turn can begin anew without a trace."""
        return not self._touched

    def interrupt(self, cut: Cut) -> bool:
        """End the turn from outside, synchronously. False if its end is being written or another cut was first."""
        if self.committed or self.cut is not None:
            return False
        self.cut = cut
        self._scope.cancel(cut.reason)
        return True

    async def run(
        self,
        settings: LoopSettings,
        remember: Callable[[], Awaitable[History]],
        *,
        door: Door,
        store: Store,
        timeout_s: float,
        replies: Replies,
        see: See = as_they_are,
    ) -> TurnEnd:
        """Run the loop and commit how it ended.

        Args:
            settings: what the loop works with.
            remember: gives the history; a turn that is cut meanwhile is ended like any other.
            door, store: where models are asked and where the turn is.
            timeout_s: seconds it may take, from here to its last word.
            replies: how a person on a messaging service hears of its end.
            see: gives messages that steer it as the model is to see them.

        Returns: the end as stored; the feed has it after the commit.

        Cancellation: a cancel of the process is written as `draining` before it goes on outwards.
        """
        journal = TurnJournal(self.claim, self.feed, store, self._changing, see)
        ended: LoopEnd | None = None
        failure: Failure | None = None
        history: History | None = None
        try:
            with self._scope:
                self._scope.deadline = trio.current_time() + timeout_s
                history = await remember()
                await trio.lowlevel.checkpoint_if_cancelled()  # ended before it began: no model is asked
                async with replies.showing(self.claim) as self._draw:
                    ended = await run_loop(
                        settings, history, door=door, journal=journal, emit=self._emit, spent=self._spend
                    )
            if ended is None and self.cut is None:
                self.cut = Cut(reason="deadline")
        except Exception as error:
            failure = _failed(error, settings.context)
            self.parted = failure.status == 500  # wherever a bug left the history
            if any(isinstance(each, StoreError) for each in leaves(error)):
                raise  # a database that is damaged ends the process
        finally:
            if ended is None and failure is None and self.cut is None:
                self.cut = Cut(reason="draining")
            # Shields its write itself; what it waits for while the store is down, a cancel may end.
            end = await self._close(ended, failure, store, settings.context, history, replies)  # noqa: ASYNC102
        return end

    def _emit(self, event: TurnEvent) -> None:
        if isinstance(event, TextEvent):
            self._shown.append(event.text)
            self._touched = True
            if self._draw is not None:
                self._draw.words(self._shown)
        elif isinstance(event, CallEvent):
            self._touched = True
        elif isinstance(event, (StepEvent, ToolStarted)):
            self._shown.clear()
            if isinstance(event, ToolStarted) and self._draw is not None:
                self._draw.began(event.call_id, event.name)
        elif isinstance(event, ToolFinished) and self._draw is not None:
            self._draw.ended(event.call_id)
        self.feed.push(event)

    def _spend(self, usage: Usage) -> None:
        self._usage += usage

    def _changing(self) -> None:
        self._touched = True

    async def _close(
        self,
        ended: LoopEnd | None,
        failure: Failure | None,
        store: Store,
        context: TurnContext,
        history: History | None,
        replies: Replies,
    ) -> TurnEnd:
        """Write how the turn ended, shielded, then tell the feed; after this nothing ends it any other way."""
        self.committed = True
        end: TurnEnd | None = None
        try:
            try:
                how = decide(
                    self.claim, ended=ended, failure=failure, cut=self.cut, shown="".join(self._shown),
                    events=events_to_keep(self.claim, self.feed), usage=self._usage,
                )  # fmt: skip
                end, added = await _write_end(_with_reply(how, replies), store, context)
            except UNFIT as error:  # what was said cannot be stored: the turn ends without it
                self.parted = True
                how = decide(
                    self.claim, ended=None, failure=_failed(error, context), cut=None, shown="", events=(), usage=Usage()
                )  # fmt: skip
                end, added = await _write_end(_with_reply(how, replies), store, context)
            self._remember(history, added)
        finally:
            self.feed.stored = self.feed.next_number - 1
            self.feed.push(Ended(end or _unwritten(self.claim)))
        if (address := self.claim.rows[-1].address) is not None:
            replies.wake(address)
        seconds = round(store.clock() - self.claim.started_at, 3)
        tokens = end.usage.total_tokens
        log.info("turn.ended", context, state=end.state, reason=how.reason or "", seconds=seconds, tokens=tokens)
        return end

    def _remember(self, history: History | None, added: Sequence[Message]) -> None:
        """Take what was stored at the end into the history."""
        try:
            if history is not None and not self.parted:
                history.extend(added)
        except HistoryInvalid:  # it is full: the next turn is told so when it reads it
            self.parted = True


def _with_reply(how: Finish, replies: Replies) -> Finish:
    """The end with what the person reads of it, where it is delivered and not fetched."""
    address = how.claim.rows[-1].address
    text = reply_text(how.end, how.rows) if address is not None else ""
    if address is None or not text:
        return how
    done = how.end.state == "done"
    parts = replies.parts(address, text if done else replies.typed(address, text))
    if not done:
        parts = [msgspec.structs.replace(each, failed=True) for each in parts]
    return replace(how, reply=tuple(parts))


def _unwritten(claim: Claim) -> TurnEnd:
    """What is told when the end could not be written before the process stopped; the next start closes the turn."""
    failure = Failure(
        status=503,
        code="gateway_stopped",
        message="the gateway stopped before the answer was stored",
        kind="interrupted",
    )
    return TurnEnd(
        event_id=claim.rows[-1].event_id, turn_id=claim.turn_id, session_id=claim.session.id, state="interrupted",
        created_at=claim.started_at, failure=failure,
    )  # fmt: skip


async def _write_end(how: Finish, store: Store, context: TurnContext) -> tuple[TurnEnd, Sequence[Message]]:
    """Commit the end of a turn, and tell what was added to the history by it; while the store is unavailable, wait and try again.

    Cancellation: a write that has begun is waited for. Cancelled while the store is down, it leaves the turn as it is.
    """
    while True:
        try:
            with trio.CancelScope(shield=True):
                return await store.turns.finish(how)
        except TurnGone as error:
            log.warning("turn.gone", context, error=error)
            return how.end, ()
        except StoreUnavailable as error:
            log.warning("turn.end_waits", context, error=error)
            await store.database.wait_available()


def _failed(error: Exception, context: TurnContext) -> Failure:
    found = list(leaves(error))
    known = next((each for each in found if isinstance(each, HermesError)), None)
    if known is None:
        log.error("turn.bug", context, error=error)
        return describe(found[0])
    log.warning("turn.failed", context, error=known)
    return describe(known)
