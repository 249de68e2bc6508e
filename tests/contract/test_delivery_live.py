"""A reply that is shown while it is written: one edit a second at most, and in the end the chat says what the turn said."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hermes.delivery.content import MARK
from hermes.errors import AddressGone, PlatformUnavailable, RateLimited, SendRejected, SendUncertain
from hermes.events import Address, ReplyRef, StoredContent
from hermes.platform import Capabilities
from hermes.testing.delivering import A, open_delivering
from hermes.testing.fake_platform import FakeConnections, FakePlatform, Mood, refuses, shows_and_raises

LIVE = Capabilities(edits=True, drafts=True)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_two_hundred_words_a_second_are_one_edit_a_second(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t", reply=ReplyRef(message_id="7")) as live:
            text = ""
            for number in range(1000):
                text += f"{number} "
                live.update(text)
                await trio.sleep(0.005)
        assert await place.states() == ["live"]
        await place.finish(A, "t", text + "end")
        await place.until("sent")
        assert place.platform.texts("a") == [text + "end"]
        drafts = place.platform.asked("a")[:-1]
        assert 4 <= len(drafts) <= 6
        assert all(later - earlier >= 1 for earlier, later in pairwise(drafts))
        assert len(place.platform.asked("a", "send")) == 1
        (message,) = place.platform.messages.values()
        assert message.reply == ReplyRef(message_id="7")
        assert message.content.final


async def test_replies_in_one_chat_share_one_edit_a_second(tmp_path: Path, clock: MockClock) -> None:
    """People in a group and its threads are answered at the same time; what the service counts is the chat."""
    thread = Address(account=A.account, chat=A.chat, thread="5")
    other = Address(account=A.account, chat="elsewhere")
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        open_live = place.delivery.open_live
        async with (
            open_live(A, turn_id="1") as one, open_live(thread, turn_id="2") as two, open_live(A, turn_id="3") as three,
            open_live(other, turn_id="4") as four,
        ):  # fmt: skip
            for number in range(2000):
                for live in (one, two, three, four):
                    live.update(f"as of {number}")
                await trio.sleep(0.005)
        drafts = place.platform.asked("a")
        assert all(later - earlier >= 1 for earlier, later in pairwise(drafts))
        assert 8 <= len(drafts) <= 11
        assert 8 <= len(place.platform.asked("elsewhere")) <= 11  # which waits for nobody here
        assert len(place.platform.asked("a", "send")) == 3  # each of them is shown


async def test_replies_in_one_chat_are_drawn_in_turn(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with AsyncExitStack() as stack:
            replies = [
                await stack.enter_async_context(
                    place.delivery.open_live(Address("one", chat), turn_id=f"{chat}{number}")
                )
                for chat in "abcd"
                for number in range(8)
            ]
            for number in range(95):
                for live in replies:
                    live.update(f"as of {number}")
                await trio.sleep(0.1)
        assert [len(place.platform.asked(chat, "send")) for chat in "abcd"] == [8] * 4


async def test_the_row_is_committed_before_anything_is_shown_and_the_receipt_after(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        gate = trio.Event()
        place.platform.next("a", Mood(gate=gate))
        async with place.delivery.open_live(A, turn_id="t") as live:
            await trio.sleep(5)
            assert await place.states() == []
            live.update("first")
            await trio.sleep(1)
            assert await place.rows("state, receipt, turn_id") == [("live", None, "t")]
            gate.set()
            await place.until_shown("first")
            await trio.sleep(1)
            ((receipt,),) = await place.rows("receipt")
            assert receipt is not None


async def test_nothing_is_drafted_where_the_service_cannot(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("first")
            await trio.sleep(5)
        assert place.platform.calls == []
        await place.finish(A, "t", "all")
        await place.until("sent")


async def test_longer_and_shorter_ends(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("one")
            await place.until_shown("one")
        await place.finish(A, "t", "one.", "two.", "three.")
        await place.until("sent", "sent", "sent")
        assert place.platform.texts("a") == ["one.", "two.", "three."]


async def test_parts_that_are_left_over_are_shortened(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE, part=5) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("12345abcde")
            await place.until_shown("12345", "abcde")
            live.update("12345abcdeABC")
            await place.until_shown("12345", "abcde", "ABC")
        await place.finish(A, "t", "short")
        await place.until("sent", "sent", "sent")
        assert place.platform.texts("a") == ["short", "…", "…"]


async def test_a_question_is_shown_while_the_reply_is_being_written(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("I will")
            await place.until_shown("I will")
            await place.post("May I?")
            await place.until("live", "sent")
            live.update("I will do it")
            await place.until_shown("I will do it", "May I?")
        await place.finish(A, "t", "Done", "it")
        await place.until("sent", "sent", "sent")
        assert place.platform.texts("a") == ["Done", "May I?", "it"]


async def test_a_limit_drops_drafts_and_holds_for_the_end(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("0")
            await place.until_shown("0")
            place.platform.next("a", refuses(RateLimited("flood", retry_after_s=30)))
            for number in range(20):
                await trio.sleep(0.5)
                live.update(f"{number}")
        await place.finish(A, "t", "all of it")
        await place.post("x", at=Address(account="one", chat="b"))
        await place.until("pending", "sent")
        await place.until("sent", "sent")
        limited = place.platform.asked("a")[1]
        assert [at for at in place.platform.asked("a") if limited < at < limited + 30] == []
        assert place.platform.texts("a") == ["all of it"]
        assert len(place.platform.asked("a")) == 3


async def test_drafts_wait_for_nobody_after_a_limit_when_the_reply_goes_on(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            place.platform.next("a", refuses(RateLimited("flood", retry_after_s=10)))
            live.update("early")
            await trio.sleep(5)
            live.update("late")
            await place.until_shown("late")
            assert 10 <= trio.current_time() < 12
        assert await place.rows("state, doubtful") == [("live", 0)]


@pytest.mark.parametrize("deduplicates", [False, True])
@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("ambiguous", ["resend_marked", "hold"])
async def test_a_draft_in_doubt_is_followed_by_the_whole_reply(
    tmp_path: Path, clock: MockClock, deduplicates: bool, shown: bool, ambiguous: str
) -> None:
    can = Capabilities(edits=True, drafts=True, deduplicates=deduplicates)
    async with open_delivering(tmp_path, clock, capabilities=can, ambiguous=ambiguous) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            uncertain = SendUncertain("cut")
            place.platform.next("a", shows_and_raises(uncertain) if shown else refuses(uncertain))
            live.update("dra")
            await trio.sleep(3)
            live.update("draft")
            await trio.sleep(3)
            assert len(place.platform.calls) == 1
        await place.finish(A, "t", "the reply")
        await place.until("sent")
        if deduplicates:
            assert place.platform.texts("a") == ["the reply"]
        else:
            assert place.platform.texts("a") == ["dra"] * shown + [f"{MARK}\nthe reply"]


async def test_an_edit_in_doubt_is_repeated_without_a_mark(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("draft")
            await place.until_shown("draft")
        place.platform.next("a", shows_and_raises(SendUncertain("cut")), refuses(SendUncertain("cut")))
        await place.finish(A, "t", "the reply")
        await place.until("sent")
        assert place.platform.texts("a") == ["the reply"]
        assert await place.rows("doubtful") == [(0,)]


async def test_a_draft_that_somebody_deleted_is_sent_anew(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("draft")
            await place.until_shown("draft")
        place.platform.messages.clear()
        await place.finish(A, "t", "the reply")
        await place.until("sent")
        assert place.platform.texts("a") == ["the reply"]


@pytest.mark.parametrize(
    "error", [SendRejected("bad"), AddressGone("left"), KeyError("bug"), PlatformUnavailable("502")]
)
async def test_a_draft_that_fails_disturbs_nobody(tmp_path: Path, clock: MockClock, error: Exception) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            place.platform.next("a", refuses(error))
            live.update("draft")
            await trio.sleep(1)
            live.update("draft.")
            await trio.sleep(10)
        await place.finish(A, "t", "the reply")
        await place.until("sent")
        mark = f"{MARK}\n" if isinstance(error, KeyError) else ""
        assert place.platform.texts("a") == [f"{mark}the reply"]


async def test_an_account_that_is_down_delays_drafts_and_not_the_end(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        place.connections.down("one")
        async with place.delivery.open_live(A, turn_id="t") as live:
            for number in range(10):
                live.update(f"{number}")
                await trio.sleep(10)
        assert await place.states() == []
        await place.finish(A, "t", "the reply")
        await trio.sleep(1)
        place.connections.back("one")
        began = trio.current_time()
        await place.until("sent")
        assert trio.current_time() - began < 1


async def test_a_turn_that_is_cut_leaves_what_is_shown(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("draft")
            await place.until_shown("draft")
        await place.cut("t")
        assert await place.rows() == [("sent", "cut")]
        assert await place.store.outbox.listing() == []
        assert place.platform.texts("a") == ["draft"]


async def test_a_turn_that_is_cancelled_waits_for_the_receipt_of_its_first_draft(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        gate = trio.Event()
        place.platform.next("a", Mood(gate=gate))
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as turn:
                async with place.delivery.open_live(A, turn_id="t") as live:
                    live.update("draft")
                    await place.until_shown("draft")

                    async def answer() -> None:
                        await trio.sleep(2)
                        gate.set()

                    nursery.start_soon(answer)
                    turn.cancel()
                    await trio.sleep_forever()
        assert await place.rows("receipt IS NOT NULL, doubtful") == [(1, 0)]
        await place.finish(A, "t", "(stopped)")
        await place.until("sent")
        assert place.platform.texts("a") == ["(stopped)"]


async def test_a_first_draft_that_is_never_answered_is_a_doubt(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        place.platform.next("a", Mood(gate=trio.Event()))
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("draft")
            await place.until_shown("draft")
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        await place.finish(A, "t", "all")
        await place.until("sent")
        assert place.platform.texts("a") == ["draft", f"{MARK}\nall"]


@pytest.mark.parametrize("streams_again", [False, True])
async def test_a_turn_that_is_resumed_after_a_crash_writes_on(
    tmp_path: Path, clock: MockClock, streams_again: bool
) -> None:
    platform = FakePlatform(LIVE)
    connections = FakeConnections(one=platform)
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        async with place.delivery.open_live(A, turn_id="dead") as live:
            live.update("half")
            await place.until_shown("half")
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        assert place.delivery.recovered.live == 1
        assert await place.rows() == [("sent", "cut")]
        if streams_again:
            async with place.delivery.open_live(A, turn_id="new", resumes="dead") as live:
                live.update("half of")
                await place.until_shown("half of")
        await place.finish(A, "new", "half of it", "and the rest", resumes="dead")
        await place.until("sent", "sent")
        assert platform.texts("a") == ["half of it", "and the rest"]


async def test_a_draft_without_a_receipt_is_a_doubt_after_a_crash(tmp_path: Path, clock: MockClock) -> None:
    connections = FakeConnections(one=FakePlatform(LIVE))
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        row = await place.store.outbox.open_live(
            A, StoredContent(text="half"), reply=None, source="turn", turn_id="dead"
        )
        assert row is not None
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        assert await place.rows() == [("rejected", "cut")]
        await place.finish(A, "new", "all", resumes="dead")
        await place.until("sent")
        assert place.platform.texts("a") == [f"{MARK}\nall"]


async def test_a_chat_that_moves_takes_the_reply_with_it(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=LIVE) as place:
        async with place.delivery.open_live(A, turn_id="t") as live:
            live.update("draft")
            await place.until_shown("draft")
        place.platform.next("a", refuses(AddressGone("upgraded", moved_to="new")))
        await place.finish(A, "t", "all", "of it")
        await place.until("sent", "sent")
        assert place.platform.texts("new") == ["all", "of it"]
