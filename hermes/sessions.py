"""Sessions: session key → mailbox → at most one Turn.

A session has a task only while it is live: it takes rows up one after another, keeps its agent for a while when there are none, and
ends in one step that sees no new wake. Rows are the truth; `wake` is a hint, and a sweep finds what a lost hint left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from hermes.agents import Agents
from hermes.ending import Cut
from hermes.errors import RequestError, StoreUnavailable
from hermes.feed import Feed
from hermes.feeds import Feeds
from hermes.ids import new_id
from hermes.intake import HTTP, Intake
from hermes.live import LiveSession, LiveSet
from hermes.observe.logs import get_log
from hermes.settings import SessionsConfig
from hermes.store import Store
from hermes.store.rows import Accepted, Claim, Next
from hermes.turn import Turn

log = get_log(__name__)

T = TypeVar("T")
Begin = Callable[[str, frozenset[str], bool], Awaitable[tuple[T, Next | None]]]

WAKE_BATCH = 32  # mailboxes that one sweep wakes; the next sweep follows soon while there are more
FULL_SWEEP_PAUSE_S = 1.0
DOORS_S = 10.0  # for commits that have begun when everything is cancelled
CUT_S = 10.0  # for turns that were cut: their tools go, their end is written


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsStatistics:
    """How many sessions live, turn and wait, and what the live ones hold."""

    live: int
    turning: int
    waiting: int
    attended: int
    history_bytes: int
    evicted: int


class Sessions:
    """The mailboxes' doors and the tasks behind them; see `open_sessions`."""

    def __init__(
        self, nursery: trio.Nursery, store: Store, agents: Agents, settings: Callable[[], SessionsConfig]
    ) -> None:
        self._store = store
        self._agents = agents
        self._settings = settings
        self._live = LiveSet(
            lambda session: nursery.start_soon(self._live_session, session, name=f"session {session.key}"),
            lambda: settings().max_live, lambda: settings().max_live_bytes,
        )  # fmt: skip
        self._feeds = Feeds()
        self._attended: Counter[str] = Counter()
        self._attending = 0
        self._detached_slots = trio.CapacityLimiter(max(1, agents.max_turns))
        self._cutting = False

    @contextmanager
    def admitting(self) -> Iterator[None]:
        """While inside, events are accepted and turns begin; afterwards those that run may finish."""
        self._live.open = True
        try:
            yield
        finally:
            self._live.open = False
            self._live.nudge_all()

    @asynccontextmanager
    async def attend(self, intake: Intake) -> AsyncIterator[tuple[Feed, Accepted]]:
        """Commit an event and follow it; when the last one who follows an attended event leaves, its turn is ended.

        Raises:
            RequestError: 429 too many turns, 503 draining, and what `Store.inbox.accept` raises.
            StoreUnavailable: nothing was accepted.

        Lifetime: enter = committed; exit = left.
        """
        self._check_open()
        if self._attending >= self._agents.max_turns:
            words = f"{self._agents.max_turns} requests are being answered"
            raise RequestError(429, words, code="rate_limit_exceeded", kind="rate_limit_error", retry_after_s=1)
        feed = self._feeds.make(intake)
        self._count(intake.session_key, 1)
        accepted: Accepted | None = None
        try:
            accepted = await self._commit(intake)
            if not accepted.fresh:
                feed = self._feeds.join(feed, accepted)
            feed.readers += 1
            yield feed, accepted
        finally:
            self._count(intake.session_key, -1)
            if accepted is None:
                self._feeds.drop(feed)
            elif feed.readers and self._feeds.leave(feed):
                self._was_left(feed)

    async def accept(self, intake: Intake) -> Accepted:
        """Commit a detached event; it runs whether anybody follows or not. Raises as `attend` does."""
        self._check_open()
        accepted = await self._store.inbox.accept(intake)
        if accepted.fresh:
            self._interrupt_for(intake)
            self._live.wake(intake.session_key)
        return accepted

    async def begin(
        self, key: str, commit: Begin[T], *, attended: bool, newer: Callable[[], str] | None = None
    ) -> T | None:
        """Commit something and begin its turn in the same transaction, where its session has nothing else to do.

        Args:
            key: the mailbox.
            commit: from the new turn's id, who has left, and whether the session has its history, to what was committed and begun.
            attended: somebody waits for it. What nobody waits for takes its place among the detached turns first, lets no other
                session go, and leaves alone one whose first row waits for more parts of itself.
            newer: gives the event's id, if it interrupts a turn of an older one: the oldest that waits is begun, woken for or not.

        Returns: what was committed, before the turn has run; None if nothing was, because the session is busy, or as many turns
            run as may.

        Cancellation: what was begun is handed to the session's task all the same.
        """
        if not self._live.open or (attended and self._live.turning >= self._agents.max_turns):
            return None
        session = self._live.reserve(key, gently=not attended)
        if session is None:
            return None
        if not attended and not session.take_place(self._detached_slots):
            self._live.release(session, None)
            return None
        handed: Next | None = None
        try:
            done, handed = await commit(new_id("turn"), self._left(), session.remembers)
            if newer is not None and handed is not None and handed.more and (session.running or session.newer):
                session.newer = newer()  # also than one whose commit was heard of first, and whose turn this is
        finally:
            if handed is None:
                session.give_back()
            self._live.release(session, handed)
        return done

    def delivered(self, rows: Sequence[Intake], *, begun: bool = False) -> None:
        """Rows that a messaging service brought were committed: look at their mailboxes, unless their turn has begun."""
        for intake in rows:
            if intake.mode == "attended":
                self._feeds.awaited[intake.event_id] = intake.session_key
            if not begun:
                self._interrupt_for(intake)
                self._live.wake(intake.session_key)

    def renamed(self, former: str, key: str) -> None:
        """What waited in a mailbox is in another from now on; it is looked for when a turn that runs for the former one is over."""
        self._live.renamed(former, key)

    def left(self, event_id: str) -> None:
        """Nobody waits any more for the attended event of a platform: end its turn, or its row before it begins."""
        turn = next((each for each in self._live.turns() if each.claim.rows[-1].event_id == event_id), None)
        if turn is not None:
            turn.interrupt(Cut(reason="left"))
        elif (key := self._feeds.awaited.get(event_id)) is not None:  # one that has ended needs no end
            self._feeds.left.add(event_id)
            self._live.wake(key)

    def wake(self, key: str) -> None:
        """Something may wait in this mailbox; a hint."""
        self._live.wake(key)

    def feed_of(self, event_id: str) -> Feed | None:
        """The feed of an event that is waiting or in a turn in this process."""
        return self._feeds.get(event_id)

    @contextmanager
    def following(self, event_id: str, key: str) -> Iterator[Feed]:
        """Keep the feed of a detached event while inside; it is made if no turn has begun to tell it.

        Whoever follows looks at the row *after* entering: a row that is not over then will end this feed, and a row that
        is over may never.

        Args:
            event_id: the row.
            key: its mailbox.
        """
        feed = self._feeds.follow(event_id, key)
        try:
            yield feed
        finally:
            self._feeds.leave(feed)

    async def stop(self, key: str, by: str, before: int | None = None) -> int:
        """End the turn of a session and every row accepted before now. Returns how many rows that were.

        Args:
            by: the event that says so.
            before: its row, where it has one: what was accepted after it goes on.
        """
        return (await self._stop(key, by, before))[0]

    async def quiet(self, key: str, by: str) -> int:
        """Stop as `stop` does, and wait until what was stopped has its end written. Returns how many rows ended."""
        ended, live = await self._stop(key, by)
        while self._live.answers(key, live):
            await self._live.ended.park()
        return ended

    async def _stop(self, key: str, by: str, before: int | None = None) -> tuple[int, frozenset[str]]:
        settled, live = await self._store.inbox.stop(key, by, before)
        for each in settled:
            self._feeds.tell(each)
        turn = self._live.stop(key, live, by)
        if turn is not None and turn.interrupt(Cut(reason="stopped", by=by)):
            return len(settled) + len(turn.claim.rows), live
        return len(settled), live

    async def stop_event(self, event_id: str, key: str) -> bool:
        """End one event of a mailbox, waiting or in a turn. False when no turn of it runs (yet: then it ends as it begins)."""
        settled = await self._store.inbox.stop_one(event_id)
        if settled is not None:
            self._feeds.tell(settled)
            return True
        turn = self._live.stop(key, (event_id,), event_id)
        return turn is not None and turn.interrupt(Cut(reason="stopped", by=event_id))

    def is_turning(self, key: str) -> bool:
        """Whether a turn of this session runs now."""
        return self._live.turn_of(key) is not None

    def forget(self, key: str) -> None:
        """Let go of what a live session remembers (its rows changed under it); overrides are rows and still hold."""
        self._live.forget(key)

    def statistics(self) -> SessionsStatistics:
        """A snapshot for metrics and status."""
        return SessionsStatistics(
            live=len(self._live),
            turning=self._live.turning,
            waiting=self._live.waiting,
            attended=self._attending,
            history_bytes=self._live.history_bytes,
            evicted=self._live.evicted,
        )

    async def _commit(self, intake: Intake) -> Accepted:
        """Commit an attended event, and begin its turn in the same transaction where its session has nothing else to do."""
        session = self._live.reserve(intake.session_key)
        handed: Next | None = None
        try:
            if session is None:
                accepted = await self._store.inbox.accept(intake)
            else:
                accepted, handed = await self._store.inbox.accept_and_take_up(
                    intake, new_id("turn"), self._left(), remembers=session.remembers
                )
        finally:
            if session is not None:
                self._live.release(session, handed)
        if self._live.closed:
            raise _stopping()  # nobody can answer it any more; the next start says what became of it
        if session is None and accepted.fresh:
            self._live.wake(intake.session_key)
        return accepted

    def _left(self) -> frozenset[str]:
        return frozenset(self._feeds.left) if self._feeds.left else _NOBODY

    def _count(self, key: str, change: int) -> None:
        self._attending += change
        self._attended[key] += change
        if not self._attended[key]:
            del self._attended[key]

    def _check_open(self) -> None:
        if not self._live.open:
            raise _stopping()

    def _was_left(self, feed: Feed) -> None:
        """Nobody waits any more: end the turn, or let the session's task end the row."""
        turn = self._live.turn_of(feed.session_key)
        if turn is not None and turn.feed is feed:
            turn.interrupt(Cut(reason="left"))
        else:
            self._feeds.left.add(feed.event_id)
            self._live.wake(feed.session_key)

    def _interrupt_for(self, intake: Intake) -> None:
        """What a new message does to the turn that runs, by the session's policy; a caller's turn is never interrupted."""
        if intake.busy != "interrupt":
            return
        turn = self._live.newer(intake.session_key, intake.event_id)
        if turn is not None and turn.claim.rows[0].mode != "attended":
            turn.interrupt(Cut(reason="restarted" if turn.untouched else "superseded", by=intake.event_id))

    async def _live_session(self, session: LiveSession) -> None:
        """The task of a live session."""
        try:
            while self._live.open or session.handed is not None:
                if session.handed is None:  # what a door hands over it saw before the wakes that came since
                    session.seen = session.wakes
                more = await self._look(session)
                if more or session.woken:
                    continue
                if not await self._idle(session):
                    break
        finally:
            try:
                # Shields what it waits for, and the end that it writes.
                await self._end_handed(session)  # noqa: ASYNC102
            finally:
                self._live.end(session)

    async def _end_handed(self, session: LiveSession) -> None:
        """This task is being cancelled while a door begins a turn for it: that turn is ended like any other."""
        if session.reserved:
            with trio.move_on_after(DOORS_S, shield=True):
                while session.reserved:
                    await session.lot.park()
        if session.handed is not None:
            with trio.CancelScope() as scope:
                scope.cancel("ending")
                await self._look_handed(session)

    async def _look(self, session: LiveSession) -> bool:
        """Take up the mailbox's next row and run its turn. Returns whether there is more."""
        if session.handed is not None:
            return await self._look_handed(session)
        if self._attended[session.key]:
            return await self._look_now(session)
        async with self._detached_slots:
            return await self._look_now(session) if self._live.open else False

    async def _look_handed(self, session: LiveSession) -> bool:
        """Run what a door began, in the place that it took for it."""
        try:
            return await self._look_now(session)
        finally:
            session.give_back()

    async def _look_now(self, session: LiveSession) -> bool:
        found, session.handed = session.handed, None
        if found is None:
            found = await self._take_up(session)
        for settled in found.settled:
            self._feeds.tell(settled)
            if settled.told is not None:
                self._agents.replies.wake(settled.told)
        newer, session.newer = session.newer, None
        session.held_s = found.held_s
        if found.claim is None:
            return found.more
        left = found.claim.rows[-1].event_id in self._feeds.left  # after its begin was asked for
        feed = self._feeds.begin(found.claim)
        turn = session.turn = Turn(found.claim, feed)
        try:
            if left or (feed.mode == "attended" and not feed.readers and found.claim.rows[-1].account == HTTP):
                turn.interrupt(Cut(reason="left"))
            elif self._cutting or feed.end is not None:  # its reader was told that nothing is begun any more
                turn.interrupt(Cut(reason="draining"))
            elif (by := session.stops.pop(feed.event_id, None)) is not None:
                turn.interrupt(Cut(reason="stopped", by=by))
            elif (found.more or session.woken) and feed.mode != "attended" and _newer(newer, found.claim):
                turn.interrupt(Cut(reason="restarted", by=newer or ""))
            session.stops.clear()
            session.agent = await self._agents.run(turn, None if session.evicting else session.agent)
        finally:
            session.turn = None
            self._live.ended.unpark_all()
            self._feeds.over(feed)
        if found.claim.session.expires_at is not None:
            session.evicting = True
        return found.more

    async def _take_up(self, session: LiveSession) -> Next:
        while True:
            try:
                return await self._store.turns.take_up(
                    session.key, new_id("turn"), self._left(), remembers=session.remembers
                )
            except StoreUnavailable:
                await self._store.database.wait_available()

    async def _idle(self, session: LiveSession) -> bool:
        """Wait for a wake. Returns False when the session is to end: evicted, idle too long, or the gateway drains."""
        self._live.becomes_idle(session)
        try:
            held_s = session.held_s
            with trio.move_on_after(held_s or self._settings().idle_ttl_s):
                while session.reserved or not session.woken:
                    if not session.reserved and (session.evicting or not self._live.open):
                        return False
                    await session.lot.park()
            # A door is about to hand something over: a look into the mailbox now would begin a second turn beside it.
            while session.reserved:
                await session.lot.park()
            return session.woken or held_s > 0.0
        finally:
            self._live.stirs(session)

    async def sweep(self) -> None:
        """Find mailboxes that hold rows nobody was woken for, a batch at a time; never returns."""
        while True:
            try:  # beyond those that have a task or wait for room: they may have more to do for long
                keys = await self._store.inbox.waiting_keys(WAKE_BATCH + len(self._live) + self._live.waiting)
            except StoreUnavailable:
                keys = []
            keys = [key for key in keys if key not in self._live or self._live.rests(key)][:WAKE_BATCH]
            for key in keys:
                self._live.wake(key)
            await trio.sleep(FULL_SWEEP_PAUSE_S if len(keys) == WAKE_BATCH else self._settings().sweep_s)

    async def drain(self, by: float) -> int:
        """Let running turns finish until a time, then end them. Returns how many were cut.

        Args:
            by: absolute, on trio's clock.
        """
        self._feeds.end_not_begun()
        with trio.move_on_at(by):
            while len(self._live):
                await self._live.ended.park()
        self._cutting = True
        return sum(turn.interrupt(Cut(reason="draining")) for turn in self._live.turns())

    async def close_doors(self) -> None:
        """Wait for events that are being committed together with their turn: each gets its session's task, which ends it."""
        try:
            while self._live.doors:
                await self._live.ended.park()
        finally:
            self._live.closed = True


_NOBODY: frozenset[str] = frozenset()


def _newer(event_id: str | None, claim: Claim) -> bool:
    """Whether the last message that interrupts waits behind this turn."""
    return event_id is not None and all(event_id != row.event_id for row in claim.rows)


def _stopping() -> RequestError:
    words = "the gateway is stopping"
    return RequestError(503, words, code="gateway_draining", kind="server_error", retry_after_s=5)


@asynccontextmanager
async def open_sessions(
    store: Store,
    agents: Agents,
    settings: Callable[[], SessionsConfig],
    *,
    drain_by: Callable[[], float],
    cut_by: Callable[[], float] = lambda: trio.current_time() + CUT_S,
    sweeps: bool = True,
) -> AsyncIterator[Sessions]:
    """Run live sessions.

    Args:
        drain_by: the absolute time until which running turns may finish, asked when the block is left.
        cut_by: the absolute time until which those that were cut may write their end, asked after the drain. What still waits
            for a store that is away is cancelled then; the next start closes it.
        sweeps: whether mailboxes that nobody wakes are looked for; what an earlier process left waits otherwise.

    Lifetime: enter = ready, nothing is begun before `admitting`; exit = turns finished or cut, each with its end written.

    Cancellation: running turns are cut and written as stopped by the gateway.
    """
    async with trio.open_nursery() as nursery:
        sessions = Sessions(nursery, store, agents, settings)
        try:
            async with trio.open_nursery() as background:
                if sweeps:
                    background.start_soon(sessions.sweep)
                yield sessions
                cut = await sessions.drain(drain_by())
                if cut:
                    log.warning("sessions.cut", turns=cut)
                background.cancel_scope.cancel()
                nursery.cancel_scope.deadline = cut_by()
        finally:
            with trio.move_on_after(DOORS_S, shield=True):
                await sessions.close_doors()
