"""Sessions: session key → mailbox → at most one Turn.

A session has a task only while it is live: it takes rows up one after another, keeps the agent for a while when there are none, and
ends in one step that sees no new wake. Rows are the truth; `wake` is a hint, and a sweep finds what a lost hint left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from hermes.agents import Agent, Agents
from hermes.ending import Cut
from hermes.errors import RequestError, StoreUnavailable
from hermes.feed import Feed
from hermes.ids import new_id
from hermes.intake import CallEvent, Ended, Failure, Intake, TextEvent, TurnEnd
from hermes.observe.logs import get_log
from hermes.settings import SessionsConfig
from hermes.store import Store
from hermes.store.rows import Accepted, Claim, Next, Settled
from hermes.turn import Turn

log = get_log(__name__)

WAKE_BATCH = 32  # mailboxes that one sweep wakes; the next sweep follows at once while there are more
FULL_SWEEP_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsStatistics:
    """How many sessions live, turn and wait, and what the live ones hold."""

    live: int
    turning: int
    waiting: int
    attended: int
    history_bytes: int
    evicted: int


class LiveSession:
    """A session that has a task: its wakes, its turn, its agent's history."""

    __slots__ = ("agent", "evicting", "idle_since", "key", "lot", "seen", "turn", "wakes")

    def __init__(self, key: str) -> None:
        self.key = key
        self.wakes = 1
        self.seen = 0
        self.turn: Turn | None = None
        self.agent: Agent | None = None
        self.idle_since: float | None = None
        self.evicting = False
        self.lot = trio.lowlevel.ParkingLot()

    def nudge(self) -> None:
        """Let the task look again."""
        self.lot.unpark_all()


class Sessions:
    """The live sessions of the gateway; see `open_sessions`."""

    def __init__(
        self, nursery: trio.Nursery, store: Store, agents: Agents, settings: Callable[[], SessionsConfig]
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._agents = agents
        self._settings = settings
        self._live: dict[str, LiveSession] = {}
        self._waiting: dict[str, None] = {}  # keys that want a task and find no room, in order
        self._feeds: dict[str, Feed] = {}
        self._left: set[str] = set()  # attended events that nobody waits for, until their row says so
        self._attended: Counter[str] = Counter()
        self._detached_slots = trio.CapacityLimiter(max(1, agents.max_turns))
        self._admitting = False
        self._evicted = 0
        self._turn_over = trio.lowlevel.ParkingLot()

    # -- what doors use -----------------------------------------------------------------------------------------------

    @contextmanager
    def admitting(self) -> Iterator[None]:
        """While inside, events are accepted and turns begin; afterwards those that run may finish."""
        self._admitting = True
        self.wake_all_live()
        try:
            yield
        finally:
            self._admitting = False
            self.wake_all_live()

    @asynccontextmanager
    async def attend(self, intake: Intake) -> AsyncIterator[tuple[Feed, Accepted]]:
        """Commit an event and follow it; when the last one who follows an attended event leaves, its turn is ended.

        Raises:
            RequestError: 429 too many turns, 503 draining, and what `Store.inbox.accept` raises.
            StoreUnavailable: nothing was accepted.

        Lifetime: enter = committed; exit = left.
        """
        self._check_open()
        if self._attended.total() >= self._agents.max_turns:
            raise RequestError(
                429, f"{self._agents.max_turns} requests are being answered", code="rate_limit_exceeded",
                kind="rate_limit_error", retry_after_s=1,
            )  # fmt: skip
        feed = Feed(intake.event_id, intake.session_key, intake.mode)
        self._feeds[intake.event_id] = feed  # before the commit: the session's task must find it
        self._attended[intake.session_key] += 1
        accepted: Accepted | None = None
        try:
            accepted = await self._store.inbox.accept(intake)
            if not accepted.fresh:
                feed = self._join(feed, accepted)
            feed.readers += 1
            if accepted.fresh:
                self.wake(intake.session_key)
            yield feed, accepted
        finally:
            self._attended[intake.session_key] -= 1
            if not self._attended[intake.session_key]:
                del self._attended[intake.session_key]
            if accepted is None:
                self._feeds.pop(intake.event_id, None)
            elif feed.readers:
                self._leave(feed)

    async def accept(self, intake: Intake) -> Accepted:
        """Commit a detached event; it runs whether anybody follows or not. Raises as `attend` does."""
        self._check_open()
        accepted = await self._store.inbox.accept(intake)
        if accepted.fresh:
            self._interrupt_for(intake)
            self.wake(intake.session_key)
        return accepted

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
        feed = self._feeds.get(event_id)
        if feed is None:
            feed = self._feeds[event_id] = Feed(event_id, key, "detached")
        feed.readers += 1
        try:
            yield feed
        finally:
            self._leave(feed)

    async def stop(self, key: str, by: str) -> int:
        """End the turn of a session and every row accepted before now. Returns how many rows that were."""
        settled, live = await self._store.inbox.stop(key, by)
        for each in settled:
            self._tell(each)
        session = self._live.get(key)
        turn = session.turn if session is not None else None
        if turn is not None and turn.claim.rows[-1].event_id in live and turn.interrupt(Cut(reason="stopped", by=by)):
            return len(settled) + len(turn.claim.rows)
        return len(settled)

    async def quiet(self, key: str, by: str) -> int:
        """Stop as `stop` does, and wait until the turn's end is written. Returns how many rows ended."""
        ended = await self.stop(key, by)
        while self.is_turning(key):
            await self._turn_over.park()
        return ended

    async def stop_event(self, event_id: str) -> bool:
        """End one event, waiting or in a turn. False when it is over already."""
        settled = await self._store.inbox.stop_one(event_id)
        if settled is not None:
            self._tell(settled)
            return True
        for session in self._live.values():
            turn = session.turn
            if turn is not None and turn.claim.rows[-1].event_id == event_id:
                return turn.interrupt(Cut(reason="stopped", by=event_id))
        return False

    def is_turning(self, key: str) -> bool:
        """Whether a turn of this session runs now."""
        session = self._live.get(key)
        return session is not None and session.turn is not None

    def forget(self, key: str) -> None:
        """Let go of what a live session remembers (its rows changed under it); overrides are rows and still hold."""
        session = self._live.get(key)
        if session is not None:
            self._evict(session)

    def statistics(self) -> SessionsStatistics:
        """A snapshot for metrics and status."""
        return SessionsStatistics(
            live=len(self._live),
            turning=sum(each.turn is not None for each in self._live.values()),
            waiting=len(self._waiting),
            attended=self._attended.total(),
            history_bytes=sum(each.agent.size_bytes for each in self._live.values() if each.agent is not None),
            evicted=self._evicted,
        )

    # -- wake, evict, end: state changes without an await ----------------------------------------------------------------

    def wake(self, key: str) -> None:
        """Something may wait in this mailbox. Counts, so that a session that is just ending starts again."""
        session = self._live.get(key)
        if session is not None:
            session.wakes += 1
            session.nudge()
        elif len(self._live) < self._settings().max_live:
            self._start(key)
        else:
            self._waiting[key] = None
            self._evict_idle(1)

    def wake_all_live(self) -> None:
        """Let every live session look again."""
        for session in self._live.values():
            session.nudge()

    def _start(self, key: str) -> None:
        session = self._live[key] = LiveSession(key)
        self._nursery.start_soon(self._live_session, session, name=f"session {key}")

    def _evict(self, session: LiveSession) -> None:
        session.evicting = True
        session.nudge()

    def _evict_idle(self, count: int) -> None:
        """Let the sessions go that have been idle longest."""
        idle = [each for each in self._live.values() if each.idle_since is not None and not each.evicting]
        for session in sorted(idle, key=lambda each: each.idle_since or 0.0)[:count]:
            self._evict(session)

    def _bound_bytes(self) -> None:
        excess = self.statistics().history_bytes - self._settings().max_live_bytes
        idle = [each for each in self._live.values() if each.idle_since is not None and not each.evicting]
        for session in sorted(idle, key=lambda each: each.idle_since or 0.0):
            if excess <= 0:
                return
            excess -= session.agent.size_bytes if session.agent is not None else 0
            self._evict(session)

    def _ended(self, session: LiveSession) -> None:
        """The one step in which a session ends: it removes itself, and what came meanwhile starts the next task."""
        del self._live[session.key]
        self._evicted += session.evicting
        if not self._admitting:
            return
        if session.wakes != session.seen:
            self.wake(session.key)
        while self._waiting and len(self._live) < self._settings().max_live:
            key = next(iter(self._waiting))
            del self._waiting[key]
            self.wake(key)

    def _check_open(self) -> None:
        if not self._admitting:
            raise RequestError(
                503, "the gateway is stopping", code="gateway_draining", kind="server_error", retry_after_s=5
            )

    def _join(self, own: Feed, accepted: Accepted) -> Feed:
        """Follow the row that an idempotency key stands for, in place of an own one."""
        self._feeds.pop(own.event_id, None)
        if accepted.end is not None:
            return replay(accepted.end, own.session_key)
        feed = self._feeds.get(accepted.event_id)
        if feed is None:
            raise RequestError(
                409,
                "the request of this Idempotency-Key is ending; ask again",
                code="idempotency_in_flight",
                retry_after_s=1,
            )
        return feed

    def _leave(self, feed: Feed) -> None:
        feed.readers -= 1
        if feed.readers:
            return
        if (feed.end is not None or feed.mode == "attended" or not feed.begun) and self._feeds.get(
            feed.event_id
        ) is feed:
            del self._feeds[feed.event_id]
        if feed.end is not None or feed.mode != "attended":
            return
        session = self._live.get(feed.session_key)
        turn = session.turn if session is not None else None
        if turn is not None and turn.feed is feed:
            turn.interrupt(Cut(reason="left"))
        else:
            self._left.add(feed.event_id)
            self.wake(feed.session_key)

    def _interrupt_for(self, intake: Intake) -> None:
        """What a new message does to the turn that runs, by the session's policy; a caller's turn is never interrupted."""
        session = self._live.get(intake.session_key)
        turn = session.turn if session is not None else None
        if intake.busy != "interrupt" or turn is None or turn.claim.rows[0].mode == "attended":
            return
        turn.interrupt(Cut(reason="restarted" if turn.untouched else "superseded", by=intake.event_id))

    def _tell(self, settled: Settled) -> None:
        self._left.discard(settled.event_id)
        feed = self._feeds.get(settled.event_id)
        if feed is not None:
            feed.push(Ended(settled.end))
            if not feed.readers:
                del self._feeds[settled.event_id]

    # -- the task of a live session --------------------------------------------------------------------------------------

    async def _live_session(self, session: LiveSession) -> None:
        try:
            while self._admitting:
                session.seen = session.wakes
                more = await self._look(session)
                if more or session.wakes != session.seen:
                    continue
                if session.evicting or not await self._idle(session):
                    break
        finally:
            session.agent = None
            self._ended(session)

    async def _look(self, session: LiveSession) -> bool:
        """Take up the mailbox's next row and run its turn. Returns whether there is more."""
        if self._attended[session.key]:
            return await self._look_now(session)
        async with self._detached_slots:
            return await self._look_now(session)

    async def _look_now(self, session: LiveSession) -> bool:
        found = await self._take_up(session)
        for settled in found.settled:
            self._tell(settled)
        if found.claim is None:
            return found.more
        feed = self._feed_for(found.claim)
        turn = session.turn = Turn(found.claim, feed)
        try:
            if feed.mode == "attended" and not feed.readers:
                turn.interrupt(Cut(reason="left"))
            session.agent = await self._agents.run(turn, None if session.evicting else session.agent)
        finally:
            session.turn = None
            self._turn_over.unpark_all()
            if not feed.readers and self._feeds.get(feed.event_id) is feed:
                del self._feeds[feed.event_id]
        if found.claim.session.expires_at is not None:
            session.evicting = True
        return found.more

    async def _take_up(self, session: LiveSession) -> Next:
        while True:
            try:
                return await self._store.turns.take_up(session.key, new_id("turn"), frozenset(self._left))
            except StoreUnavailable:
                await self._store.database.wait_available()

    def _feed_for(self, claim: Claim) -> Feed:
        """The feed of the turn's last row; the turn's other rows are told that they were merged into it."""
        row = claim.rows[-1]
        feed = self._feeds.get(row.event_id)
        if feed is None:
            feed = self._feeds[row.event_id] = Feed(row.event_id, row.session_key, row.mode)
        feed.begin(claim.first_event)
        return feed

    async def _idle(self, session: LiveSession) -> bool:
        """Wait for a wake. Returns False when the session is to end: evicted, idle too long, or the gateway drains."""
        session.idle_since = trio.current_time()
        self._bound_bytes()
        if self._waiting:
            self._evict_idle(1)
        try:
            with trio.move_on_after(self._settings().idle_ttl_s):
                while session.wakes == session.seen and not session.evicting and self._admitting:
                    await session.lot.park()
                return session.wakes != session.seen
            return False
        finally:
            session.idle_since = None

    # -- background --------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Find mailboxes that hold rows nobody was woken for, a batch at a time; never returns."""
        while True:
            try:
                keys = await self._store.inbox.waiting_keys(WAKE_BATCH)
            except StoreUnavailable:
                keys = []
            if self._admitting:
                for key in keys:
                    if key not in self._live and key not in self._waiting:
                        self.wake(key)
            await trio.sleep(FULL_SWEEP_PAUSE_S if len(keys) == WAKE_BATCH else self._settings().sweep_s)

    async def drain(self, by: float) -> int:
        """Let running turns finish until a time, then end them. Returns how many were cut.

        Args:
            by: absolute, on trio's clock.
        """
        for feed in list(self._feeds.values()):
            if not feed.begun and feed.end is None:
                feed.push(Ended(_not_begun(feed)))
        with trio.move_on_at(by):
            while any(each.turn is not None for each in self._live.values()):
                await self._turn_over.park()
        cut = 0
        for session in self._live.values():
            cut += session.turn is not None and session.turn.interrupt(Cut(reason="draining"))
        return cut


def _not_begun(feed: Feed) -> TurnEnd:
    failure = Failure(
        status=503, code="gateway_draining", message="the gateway is stopping", kind="server_error", retry_after_s=5
    )
    return TurnEnd(event_id=feed.event_id, session_id=feed.session_key, state="interrupted", failure=failure)


def replay(end: TurnEnd, key: str) -> Feed:
    """A feed that tells again how a turn ended."""
    feed = Feed(end.event_id, key, "detached")
    if end.message is not None:
        if end.message.text:
            feed.push(TextEvent(end.message.text))
        for index, call in enumerate(end.message.tool_calls):
            feed.push(CallEvent(index, call.id, call.name, call.arguments))
    feed.push(Ended(end))
    return feed


@asynccontextmanager
async def open_sessions(
    store: Store, agents: Agents, settings: Callable[[], SessionsConfig], *, drain_by: Callable[[], float]
) -> AsyncIterator[Sessions]:
    """Run live sessions.

    Args:
        drain_by: the absolute time until which running turns may finish, asked when the block is left.

    Lifetime: enter = ready, nothing is begun before `admitting`; exit = turns finished or cut, each with its end written.

    Cancellation: running turns are cut and written as stopped by the gateway.
    """
    async with trio.open_nursery() as nursery:
        sessions = Sessions(nursery, store, agents, settings)
        async with trio.open_nursery() as background:
            background.start_soon(sessions.sweep)
            yield sessions
            cut = await sessions.drain(drain_by())
            if cut:
                log.warning("sessions.cut", turns=cut)
            background.cancel_scope.cancel()
