"""Messages that are kept and begun by one transaction, ended at each step: whoever receives, the session, the gateway, the person.

Nothing acknowledged is lost, a cursor never runs ahead of its messages, no row is `live` without somebody who ends it, and
every place among the detached turns comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from lone_messages import BEN, KEY, message, moved_by, quiet, receiving, rest, rows_of, states, taken

from hermes.events import InboundEvent
from hermes.intake import FINAL_ROW_STATES
from hermes.reception import AccountInbox
from hermes.settings import HttpConfig, SessionsConfig
from hermes.testing import cancel_at_every_step
from hermes.testing.cancellation import Way
from hermes.testing.injection import Ending
from hermes.testing.spine import Spine

ONE_AT_ONCE = HttpConfig(max_concurrent_turns=1)
EVENTS = (message(1), message(2, "8", sender=BEN), message(3), message(4))


class Day:
    """Messages come one by one, to two conversations that have one place for a turn; one comes twice, the last to an idle session."""

    def __init__(self, home: Path, *, drain_s: float) -> None:
        self.homes = home
        self.drain_s = drain_s
        self.lives = 0
        self.at_once = 0  # turns that were begun with the commit of their message, in all lives
        self.acknowledged: set[str] = set()
        self.spine: Spine | None = None
        self.receiver: trio.CancelScope | None = None
        self.asked = trio.Event()

    @property
    def home(self) -> Path:
        return self.homes / str(self.lives)

    async def __call__(self) -> None:
        self.lives += 1
        self.home.mkdir()
        self.acknowledged.clear()
        self.asked = trio.Event()
        settings = SessionsConfig(busy="queue", max_live=2)
        try:
            async with receiving(self.home, sessions=settings, http=ONE_AT_ONCE, drain_s=self.drain_s) as (
                spine,
                inbox,
            ):
                self.spine = spine
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.person, spine)
                    with trio.CancelScope() as self.receiver:
                        for event in EVENTS:
                            await self.deliver(inbox, event)
                        await self.deliver(inbox, EVENTS[0])
                        while not rest(spine):
                            await spine.sessions._live.ended.park()
                        await self.deliver(inbox, message(5))  # to an idle session
                    nursery.cancel_scope.cancel()
                while not rest(spine):
                    await spine.sessions._live.ended.park()
                assert taken(spine) == 0
                if spine.sessions._live.open:  # what was kept is over, whoever was cancelled
                    assert set(await states(spine)) <= set(FINAL_ROW_STATES)
        finally:
            self.spine = self.receiver = None

    async def deliver(self, inbox: AccountInbox, event: InboundEvent) -> None:
        await inbox.deliver(event, cursors=moved_by(int(event.id)))
        self.acknowledged.add(event.key)

    async def person(self, spine: Spine) -> None:
        """Says stop when that is asked for."""
        await self.asked.wait()
        await spine.sessions.stop(KEY, "the stop")

    def cancel_receiver(self) -> None:
        if self.receiver is not None:
            self.receiver.cancel()

    def end_admission(self) -> None:
        if self.spine is not None:
            self.spine.sessions._live.open = False
            self.spine.sessions._live.nudge_all()

    def forget(self) -> None:
        if self.spine is not None:
            self.spine.sessions.forget(KEY)

    def wake(self) -> None:
        if self.spine is not None:
            self.spine.sessions.wake(KEY)

    def say_stop(self) -> None:
        self.asked.set()

    async def check(self) -> None:
        """What it left, and a second start to which the service tells everything again."""
        tables = "SELECT name FROM sqlite_master WHERE name = 'turns'"
        if not (self.home / "hermes.db").exists() or not rows_of(self.home, tables):
            assert not self.acknowledged
            return
        assert rows_of(self.home, "SELECT id FROM turns WHERE state = 'running'") == []
        assert rows_of(self.home, "SELECT id FROM inbox WHERE state = 'live'") == []
        kept = {event for (event,) in rows_of(self.home, "SELECT event_id FROM inbox")}
        assert self.acknowledged <= kept
        for (last,) in rows_of(self.home, "SELECT value FROM cursors"):
            assert {event.key for event in (*EVENTS, message(5)) if event.id == last.decode()} <= kept
        begun = "SELECT count(*) FROM turns JOIN inbox USING (event_id) WHERE started_at = accepted_at"
        self.at_once += rows_of(self.home, begun)[0][0]
        async with receiving(self.home, sessions=SessionsConfig(busy="queue"), http=ONE_AT_ONCE) as (spine, inbox):
            for event in (*EVENTS, message(5), message(6)):
                await inbox.deliver(event, cursors=moved_by(int(event.id)))
            await quiet(spine)
            rows = dict(await spine.rows("SELECT event_id, state FROM inbox"))
            assert set(rows) == {event.key for event in (*EVENTS, message(5), message(6))}
            assert set(rows.values()) <= {"answered", "stopped"}
            assert rows[message(6).key] == rows[EVENTS[1].key] == "answered"
            replies = await spine.rows("SELECT turn_id FROM outbox WHERE source = 'turn'")
            assert len(replies) == list(rows.values()).count("answered")  # each is answered once


@pytest.mark.wall_clock_s(400)
@pytest.mark.parametrize("drain_s", [5.0, 0.0], ids=["drained", "cut"])
async def test_messages_begun_with_their_commit_end_at_every_step(
    tmp_path: Path, drain_s: float, seed: int, full: bool, record: Callable[..., None]
) -> None:
    day = Day(tmp_path, drain_s=drain_s)
    ways: tuple[Way, ...] = (
        "cancel", "deadline", "sibling", Ending("the receiver is cancelled", day.cancel_receiver),
        Ending("admission ends", day.end_admission), Ending("the session is let go", day.forget),
        Ending("a wake", day.wake), Ending("the person says stop", day.say_stop),
    )  # fmt: skip
    report = await cancel_at_every_step(day, check=day.check, ways=ways, stride=1 if full else 4, seeds=(seed % 997,))
    what = f"lone messages, begun with their commit, {'drained' if drain_s else 'cut'}"
    print(f"{what}: {report.runs} endings in {report.steps} steps, ways {', '.join(report.ways)}")
    record("Cancellation matrix", what, steps=report.steps, endings=report.runs, ways=", ".join(report.ways))
    assert report.runs > 20
    assert day.at_once > report.runs  # in most lives several
