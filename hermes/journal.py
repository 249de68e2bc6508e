"""The journal of one turn's steps, in the store. While the store is unavailable it waits: nothing runs uncommitted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from hermes.errors import StoreUnavailable
from hermes.feed import Feed
from hermes.intake import encode_event
from hermes.messages import Message
from hermes.store import Store
from hermes.store.rows import Claim
from hermes.store.steps import JournalCall

T = TypeVar("T")
See = Callable[[Sequence[Message]], Awaitable[Sequence[Message]]]


async def as_they_are(messages: Sequence[Message]) -> Sequence[Message]:
    """Messages that a model sees as they are stored."""
    return messages


class TurnJournal:
    """Commits the steps of one turn; see `hermes.agent.loop.Journal`.

    Args:
        claim: the turn.
        feed: what was told so far; for a detached run it is kept with the steps.
        changing: called when a call with side effects is about to run.
        see: gives messages that steer the turn as the model is to see them.
    """

    def __init__(
        self, claim: Claim, feed: Feed, store: Store, changing: Callable[[], None], see: See = as_they_are
    ) -> None:
        self._claim = claim
        self._feed = feed
        self._store = store
        self._changing = changing
        self._see = see

    async def open(self, number: int, message: Message, calls: Sequence[JournalCall]) -> tuple[Message, ...]:
        """Commit an assistant's message and its calls."""
        events = events_to_keep(self._claim, self._feed)
        whole = await self._patiently(lambda: self._store.steps.open(self._claim, number, message, calls, events))
        if events:
            self._feed.stored = events[-1][0]
        if any(call.changes and call.started for call in calls):
            self._changing()
        return whole

    async def start(self, number: int, position: int) -> None:
        """Commit that a call begins."""
        await self._patiently(lambda: self._store.steps.start_call(self._claim.turn_id, number, position))
        self._changing()

    async def finish(self, number: int, position: int, result: Message) -> tuple[Message, ...]:
        """Commit a result. The call has happened, so the write is shielded; waiting for a store that is down is not."""
        turn_id, session_id = self._claim.turn_id, self._claim.session.id
        return await self._patiently(
            lambda: self._store.steps.finish_call(turn_id, session_id, number, position, result), shield=True
        )

    async def steered(self) -> Sequence[Message]:
        """Take in what was said to steer this turn."""
        return await self._see(await self._patiently(lambda: self._store.turns.steer(self._claim)))

    async def _patiently(self, call: Callable[[], Awaitable[T]], *, shield: bool = False) -> T:
        while True:
            try:
                with trio.CancelScope(shield=shield):
                    return await call()
            except StoreUnavailable:
                await self._store.database.wait_available()


def events_to_keep(claim: Claim, feed: Feed) -> list[tuple[int, bytes]]:
    """The events of a detached run that the database does not have yet."""
    if claim.rows[-1].source != "runs":
        return []
    return [(number, encode_event(event)) for number, event in feed.unstored()]
