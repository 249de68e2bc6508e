"""The live sessions as state: who has a task, who waits for room, who is let go. Plain functions, no await, no I/O.

A session ends only in one step that sees no new wake since its last look and removes itself; a wake during its closing starts the
next task after the exit. A door may *reserve* an idle session while it commits an event and begins its turn in the same transaction;
what that gave is then *handed* to the session's task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import trio

from hermes.agents import Agent
from hermes.store.rows import Next
from hermes.turn import Turn

MAX_WAITING = 10_000  # mailboxes that may wait for room in memory


class LiveSession:
    """A session that has a task, or is about to: its wakes, its turn, its agent.

    Attributes:
        wakes, seen: how often it was woken, and how often when it last looked into its mailbox.
        turn: the turn that runs.
        agent: what it remembers between turns; None to be rebuilt.
        idle: it waits for a wake.
        evicting: it is to end as soon as it is idle.
        leaving: it was idle when it was let go, and its room is given to another already.
        reserved: a door is about to hand it a turn.
        handed: what that door began in the store.
        places: where that door has taken a place for it, until what it hands over has ended; None if it has none.
        stops: events that were stopped while their turn was being begun, and by what.
        newer: the last message that interrupts and came while no turn ran.
        held_s: for how long its first row waits for more parts of itself.
        follows: the mailbox in which what waited here is now, and which is to be woken.
        running: it has a task.
    """

    __slots__ = (
        "agent",
        "evicting",
        "follows",
        "handed",
        "held_s",
        "idle",
        "key",
        "leaving",
        "lot",
        "newer",
        "places",
        "reserved",
        "running",
        "seen",
        "size_bytes",
        "stops",
        "turn",
        "wakes",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.wakes = 0
        self.seen = 0
        self.turn: Turn | None = None
        self.agent: Agent | None = None
        self.size_bytes = 0
        self.idle = False
        self.evicting = False
        self.leaving = False
        self.reserved = False
        self.handed: Next | None = None
        self.places: trio.CapacityLimiter | None = None
        self.held_s = 0.0
        self.running = False
        self.stops: dict[str, str] = {}
        self.newer: str | None = None
        self.follows: str | None = None
        self.lot = trio.lowlevel.ParkingLot()

    @property
    def remembers(self) -> bool:
        """Its next turn has the history in memory."""
        return self.agent is not None and not self.evicting

    @property
    def woken(self) -> bool:
        """There may be something to do that it has not looked at."""
        return self.wakes != self.seen or self.handed is not None

    def is_handed(self, event_id: str) -> bool:
        """Whether a door has begun a turn of this event already."""
        claim = self.handed.claim if self.handed is not None else None
        return claim is not None and any(each.event_id == event_id for each in claim.rows)

    def take_place(self, places: trio.CapacityLimiter) -> bool:
        """Take a place among the turns that run at once for what a door begins; False if it would have to wait for one."""
        try:
            places.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:
            return False
        self.places = places
        return True

    def give_back(self) -> None:
        """What a door has begun is over, or it has begun nothing: its place, if it took one, is free."""
        if self.places is not None:
            self.places.release_on_behalf_of(self)
            self.places = None


class LiveSet:
    """The sessions that live, least recently used first, within a count and a number of bytes.

    Args:
        start: starts the task of a session, synchronously.
        most: sessions that may live; asked each time.
        most_bytes: what their histories may take together; asked each time.
    """

    def __init__(
        self, start: Callable[[LiveSession], None], most: Callable[[], int], most_bytes: Callable[[], int]
    ) -> None:
        self.open = False  # whether sessions may be started
        self.closed = False  # no session can be started any more: what is begun now is for the next start to close
        self.doors = 0  # sessions that are reserved
        self.evicted = 0
        self.history_bytes = 0
        self._start = start
        self._most = most
        self._most_bytes = most_bytes
        self._live: dict[str, LiveSession] = {}  # moved to the end whenever it becomes idle
        self._leaving = 0  # idle sessions that were let go and are about to end: their room is given already
        self._waiting: dict[str, None] = {}  # keys that want a task and found no room, in order
        self.ended = trio.lowlevel.ParkingLot()  # unparked when a turn, session or reservation ends or one is idle

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: str) -> bool:
        return key in self._live or key in self._waiting

    def rests(self, key: str) -> bool:
        """Whether a session waits for nothing but a wake, which may have been lost; a door may leave it with nothing to do."""
        session = self._live.get(key)
        if session is None or session.held_s or session.woken:
            return False
        return session.idle or session.reserved

    @property
    def waiting(self) -> int:
        """Keys that wait for room."""
        return len(self._waiting)

    @property
    def turning(self) -> int:
        """Sessions in a turn."""
        return sum(each.turn is not None for each in self._live.values())

    def turn_of(self, key: str) -> Turn | None:
        """The turn of a session that runs now."""
        session = self._live.get(key)
        return session.turn if session is not None else None

    def stop(self, key: str, events: Collection[str], by: str) -> Turn | None:
        """The turn of a session, if it answers one of these events; a turn of theirs that is just being begun is noted."""
        session = self._live.get(key)
        if session is None:
            return None
        if session.turn is None:
            session.stops.update(dict.fromkeys(events, by))
            return None
        return session.turn if session.turn.claim.rows[-1].event_id in events else None

    def newer(self, key: str, event_id: str) -> Turn | None:
        """The turn of a session, which a newer message may interrupt; one that is just being begun will look at it."""
        session = self._live.get(key)
        if session is None:
            return None
        if session.turn is None and not session.is_handed(event_id):
            session.newer = event_id
        return session.turn

    def answers(self, key: str, events: Collection[str]) -> bool:
        """Whether a session is in a turn of one of these stopped events, or is just beginning one."""
        session = self._live.get(key)
        if session is None or (session.idle and not session.reserved and session.handed is None):
            return False
        if session.turn is not None:
            return session.turn.claim.rows[-1].event_id in events
        return not session.stops.keys().isdisjoint(events)

    def turns(self) -> list[Turn]:
        """Every turn that runs now."""
        return [each.turn for each in self._live.values() if each.turn is not None]

    def wake(self, key: str) -> None:
        """Something may wait in this mailbox. Counts, so that a session that is just ending starts again."""
        session = self._live.get(key)
        if session is not None:
            session.wakes += 1
            session.lot.unpark_all()
        elif self.open:
            if self._make_room():
                session = self._live[key] = LiveSession(key)
                session.wakes = 1
                self._run(session)
            elif len(self._waiting) < MAX_WAITING:  # a sweep finds the others
                self._waiting[key] = None

    def renamed(self, former: str, key: str) -> None:
        """What waited in a mailbox is in another: wake that, as soon as no turn runs for the former one."""
        session = self._live.get(former)
        if session is None or (session.idle and not session.reserved and not session.woken):
            self.wake(key)
        else:
            session.follows = key

    def nudge_all(self) -> None:
        """Let every live session look at what changed around it."""
        for session in self._live.values():
            session.lot.unpark_all()

    def reserve(self, key: str, *, gently: bool = False) -> LiveSession | None:
        """A session that has nothing to do, kept from doing or ending anything until it is released; None if there is none.

        Args:
            gently: no other one is let go for it, and one whose first row waits for more parts of itself is left alone.
        """
        session = self._live.get(key)
        if session is None:
            if not self.open or not (self._has_room() if gently else self._make_room()):
                return None
            session = self._live[key] = LiveSession(key)
        elif not session.idle or session.reserved or session.woken or session.evicting or (gently and session.held_s):
            return None
        session.reserved = True
        self.doors += 1
        return session

    def release(self, session: LiveSession, handed: Next | None) -> None:
        """Let a reserved session go on, with what was begun for it."""
        self.doors -= 1
        self.ended.unpark_all()
        session.reserved = False
        session.handed = handed
        if session.running:
            session.lot.unpark_all()
        elif session.woken and not self.closed:
            self._run(session)
        else:
            self.end(session)

    def forget(self, key: str) -> None:
        """Let a session go once it is idle; what the person chose is in its rows and still holds."""
        session = self._live.get(key)
        if session is not None:
            self._evict(session)

    def becomes_idle(self, session: LiveSession) -> None:
        """A session waits from now on: note what it holds, and let others go if that is too much."""
        session.idle = True
        self._followed(session)
        self.ended.unpark_all()
        del self._live[session.key]
        self._live[session.key] = session
        size = session.agent.size_bytes if session.agent is not None else 0
        self.history_bytes += size - session.size_bytes
        session.size_bytes = size
        if self._waiting:
            self._make_room()
        if self.history_bytes > self._most_bytes():
            self._evict_bytes()

    def stirs(self, session: LiveSession) -> None:
        """A session waits no more; one that was let go and is needed again takes its room back until it ends."""
        session.idle = False
        if session.leaving and session.woken:
            session.leaving = False
            self._leaving -= 1

    def end(self, session: LiveSession) -> None:
        """The one step in which a session ends: it removes itself, and what came meanwhile starts the next task."""
        del self._live[session.key]
        self.history_bytes -= session.size_bytes
        self._leaving -= session.leaving
        session.agent = None
        self.evicted += session.evicting
        self.ended.unpark_all()
        self._followed(session)
        if session.woken or session.held_s:  # what waits for more parts of itself is nobody else's to wake for
            self.wake(session.key)
        while self._waiting and self.open and self._make_room():
            key = next(iter(self._waiting))
            del self._waiting[key]
            self.wake(key)

    def _followed(self, session: LiveSession) -> None:
        follows, session.follows = session.follows, None
        if follows is not None:
            self.wake(follows)

    def _run(self, session: LiveSession) -> None:
        session.running = True
        self._start(session)

    def _evict(self, session: LiveSession) -> None:
        session.evicting = True
        if session.idle and not session.leaving and not session.woken and not session.reserved:
            session.leaving = True
            self._leaving += 1
        session.lot.unpark_all()

    def _has_room(self) -> bool:
        """Whether one more may live beside those that do."""
        return len(self._live) - self._leaving < self._most()

    def _make_room(self) -> bool:
        """Whether one more may live, if need be in the place of the one that has been idle longest.

        One whose first row waits for more parts of itself is about to turn: two of them would take each other's place all the while.
        """
        if self._has_room():
            return True
        for session in self._live.values():
            if session.idle and not (session.evicting or session.reserved or session.woken or session.held_s):
                self._evict(session)
                return True
        return False

    def _evict_bytes(self) -> None:
        excess = self.history_bytes - self._most_bytes()
        for session in self._live.values():
            if excess <= 0:
                return
            if session.idle and not session.evicting and not session.reserved:
                excess -= session.size_bytes
                self._evict(session)
