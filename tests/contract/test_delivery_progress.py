"""A turn that takes long says so in one line, in the message that becomes its reply; typing ends with the turn, whatever hangs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from hermes.delivery.progress import Progress, line
from hermes.platform import Capabilities
from hermes.store.live_parts import LiveRow
from hermes.testing.delivering import A, Place, open_delivering
from hermes.testing.fake_platform import Mood

LIVE = Capabilities(edits=True, drafts=True, typing_every_s=4.0)
LINE = {"progress": "line"}


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def typed(place: Place) -> list[float]:
    return place.platform.asked("a", "signal")


async def test_one_line_is_edited_in_place_and_becomes_the_reply(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
            progress.began("1", "terminal")
            await trio.sleep(59)
            assert place.platform.texts("a") == []
            await place.until_shown("*still working, 1 min, running terminal*")
            await trio.sleep(120)
            await place.until_shown("*still working, 3 min, running terminal*")
            progress.ended("1")
            await trio.sleep(60)
            await place.until_shown("*still working, 4 min*")
        await place.finish(A, "t", "the answer")
        await place.until("sent")
        assert place.platform.texts("a") == ["the answer"]
        assert len(place.platform.asked("a", "send")) == 1


async def test_words_come_before_the_line_and_new_ones_take_its_place(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
            pieces = ["I look", " into it"]
            progress.words(pieces)
            pieces.clear()  # a tool begins
            progress.began("1", "search_files")
            await trio.sleep(61.5)
            await place.until_shown(
                "I look\n\n*still working, 1 min, running search_files*".replace("look", "look into it")
            )
            progress.words(["Found"])
            await place.until_shown("Found")
            await trio.sleep(30)
            assert place.platform.texts("a") == ["Found"]


async def test_a_turn_that_ends_when_its_line_is_due_says_nothing_more(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            progress = Progress(live, after_s=60.0, every_s=60.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(progress.run)  # it is due
                await progress.close(cut=False)
            await trio.sleep(10)  # while the reply is committed
        assert place.platform.texts("a") == []


async def test_a_reply_that_is_being_written_needs_no_line(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
            pieces: list[str] = []
            for number in range(200):
                pieces.append(f"{number} ")
                progress.words(pieces)
                await trio.sleep(1)
                assert "still" not in "".join(place.platform.texts("a"))


async def test_nothing_is_said_by_default_and_nothing_where_nothing_can_be_edited(
    tmp_path: Path, clock: MockClock
) -> None:
    for number, (can, settings) in enumerate(((LIVE, {}), (Capabilities(), LINE))):
        home = tmp_path / str(number)
        home.mkdir()
        async with open_delivering(home, clock, capabilities=can, **settings) as place:
            async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live):
                await trio.sleep(600)
            assert place.platform.messages == {}


@pytest.mark.parametrize("said", ["", "I look"])
async def test_a_turn_that_is_cut_takes_its_line_back(tmp_path: Path, clock: MockClock, said: str) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        with trio.CancelScope() as scope:
            async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
                progress.words([said])
                await trio.sleep(62)
                assert "still working" in place.platform.texts("a")[0]
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert place.platform.texts("a") == [said or "…"]
        await place.cut("t")
        assert await place.states() == ["sent"]


async def test_words_that_were_not_shown_yet_leave_no_line_behind_when_the_turn_is_cut(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        with trio.CancelScope() as scope:
            async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
                await place.until_shown("*still working, 1 min*")
                progress.words(["Found"])
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert place.platform.texts("a") == ["Found"]
        await place.cut("t")
        assert await place.states() == ["sent"]


async def test_a_line_that_is_on_its_way_when_the_turn_is_cut_is_taken_back(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place, trio.open_nursery() as nursery:
        gate = trio.Event()

        async def answers() -> None:
            await trio.sleep(1)
            gate.set()

        with trio.CancelScope() as scope:
            async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
                progress.words(["I look"])
                await place.until_shown("I look")
                place.platform.next("a", Mood(gate=gate))
                await place.until_shown("I look\n\n*still working, 1 min*")
                nursery.start_soon(answers)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert place.platform.texts("a") == ["I look"]


async def test_a_line_whose_row_is_being_opened_when_the_turn_is_cut_is_never_sent(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        opens, opening, cut = place.store.outbox.open_live, trio.Event(), trio.Event()

        async def open_live(*args: Any, **more: Any) -> LiveRow | None:
            row = await opens(*args, **more)
            opening.set()
            with trio.CancelScope(shield=True):
                await cut.wait()
            return row

        monkeypatch.setattr(place.store.outbox, "open_live", open_live)
        async with place.delivery.open_live(A, turn_id="t") as live:
            with trio.CancelScope() as scope:
                async with place.delivery.open_progress(live):
                    await opening.wait()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            cut.set()
            await trio.testing.wait_all_tasks_blocked()  # as typing has its time to end
        assert place.platform.calls == []


async def test_a_turn_that_is_cut_long_after_its_line_waits_for_nothing(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        with trio.CancelScope() as scope:
            async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live) as progress:
                await place.until_shown("*still working, 1 min*")
                progress.words(["Found"])
                await place.until_shown("Found")
                progress.words(["Found", " more"])
                began = trio.current_time()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert trio.current_time() == began
        assert place.platform.texts("a") == ["Found"]


async def test_a_line_that_cannot_be_taken_back_costs_a_bound(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, **LINE) as place:
        with trio.CancelScope() as scope:
            async with place.delivery.open_live(A, turn_id="t") as live, place.delivery.open_progress(live):
                await trio.sleep(62)
                place.platform.next("a", *[Mood(gate=trio.Event())] * 5)
                began = trio.current_time()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert trio.current_time() - began <= 3


async def test_typing_ends_with_the_turn_though_a_draft_hangs(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with (
            place.delivery.open_live(A, turn_id="t") as live,
            place.delivery.open_typing(A),
            place.delivery.open_progress(live) as progress,
        ):
            await trio.sleep(9)
            shown = len(typed(place))
            assert shown == 3
            place.platform.next("a", Mood(gate=trio.Event()))
            progress.words(["words"])
            await trio.sleep(1.5)
            over = trio.current_time()
        assert trio.current_time() - over > 4  # the draft's receipt was waited for
        assert all(at <= over for at in typed(place))


async def test_a_sign_that_hangs_is_given_up_and_holds_up_no_end(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        place.platform.next("a", *[Mood(gate=trio.Event())] * 3)
        async with place.delivery.open_typing(A):
            await trio.sleep(2)
            over = trio.current_time()
        assert trio.current_time() - over < 0.1
        await trio.sleep(60)
        assert len(typed(place)) == 1


@pytest.mark.parametrize(
    ("seconds", "running", "words"),
    [
        (5.9, (), "*still working, 5 s*"), (60, ("a",), "*still working, 1 min, running a*"),
        (3599, ("a", "a", "b"), "*still working, 59 min, running a, b*"),
        (200, ("a", "b", "c", "d", "e"), "*still working, 3 min, running a, b, c and 2 more*"),
    ],
)  # fmt: skip
def test_the_line(seconds: float, running: tuple[str, ...], words: str) -> None:
    assert line(seconds, running) == words
