"""What was written while no socket to Slack was there is read from histories: all of it, in order, and nobody waits for it too long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.errors import PlatformRefused, StoreUnavailable
from hermes.events import InboundEvent
from hermes.platform import EMPTY, CommandSpec, Secret
from hermes.testing import no_leaks
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.fake_slack import ALICE, BOB, BOT, CHANNEL, DM, PRIVATE, FakeSlack, Fault, open_fake_slack
from hermes.testing.host import RecordingInbox, open_test_host
from hermes.testing.inbox import receiving
from platforms.slack import SlackConfig
from platforms.slack import platform as spec

COMMANDS = (CommandSpec(name="new", help="Begin."),)
SOON_S = 2.8  # Slack wants its acknowledgements in three


@pytest.fixture
def clock() -> MockClock:
    """Time that passes fast; the sockets are real, so it may not jump."""
    return MockClock(rate=25.0)


def by_trio() -> float:
    """The time of the service and of the host, as fast as the test's."""
    return 1_800_000_000.0 + trio.current_time()


def limited(seconds: int, of: str = "history") -> Fault:
    """An answer to one request for a history."""
    return Fault(path=f"conversations.{of}", answer=answer_json({"ok": False}, 429, {"retry-after": str(seconds)}))


@dataclass(slots=True)
class World:
    """A Slack, and what one account has committed over all its connections."""

    slack: FakeSlack
    inbox: RecordingInbox

    @asynccontextmanager
    async def connected(self, **settings: Any) -> AsyncIterator[list[Exception]]:
        """The account receives beside the block; what that raises is in the list."""
        config = SlackConfig(
            bot_token=Secret(self.slack.bot_token), app_token=Secret(self.slack.app_token), base_url=self.slack.base_url,
            **settings,
        )  # fmt: skip
        async with (
            open_test_host("slack", commands=COMMANDS, clock=self.slack.clock) as host,
            spec.open(config, host) as platform,
            receiving(platform, self.inbox) as raised,
        ):
            yield raised

    async def say_and_hear(self, *texts: str, chat: str = DM, **more: Any) -> list[str]:
        """Say it, and wait until all is acknowledged; the stamps."""
        stamps = [self.slack.say(text, chat, **more)["ts"] for text in texts]
        await self.acknowledged(*stamps)
        return stamps

    async def acknowledged(self, *stamps: str) -> None:
        """Wait for these acknowledgements."""
        await self.slack.until(lambda: set(stamps) <= set(self.slack.sockets.acknowledged))

    async def heard(self, *texts: str) -> None:
        """Wait for these events."""
        await self.inbox.until(lambda: set(texts) <= set(self.texts))

    def while_away(self, *texts: str, chat: str = DM, **more: Any) -> list[str]:
        """Say what Slack will not bring any more; the stamps."""
        self.slack.gives_up = True
        stamps = [self.slack.say(text, chat, **more)["ts"] for text in texts]
        self.slack.sockets.waiting.clear()
        return stamps

    @property
    def texts(self) -> list[str]:
        """What was received."""
        return [each.text for each in self.inbox.events]


@asynccontextmanager
async def world(inbox: RecordingInbox | None = None, **settings: Any) -> AsyncIterator[World]:
    async with no_leaks(), open_fake_slack(clock=by_trio, **settings) as slack:
        yield World(slack, inbox or RecordingInbox(account="slack"))


# --- what is read


async def test_what_slack_gave_up_bringing_is_read_from_the_histories() -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("one")
            (root,) = await on.say_and_hear(f"<@{BOT}> two", chat=CHANNEL)
            await on.say_and_hear("chatter", chat=CHANNEL)
        on.while_away("missed, direct")
        on.while_away("missed, in the thread", chat=CHANNEL, thread_ts=root)
        on.while_away("missed, in the channel", chat=CHANNEL)
        (others,) = on.while_away("their own", chat=CHANNEL)
        on.while_away("in a thread of others", chat=CHANNEL, thread_ts=others)
        repeats = on.inbox.repeats
        on.slack.add_message(CHANNEL, user=BOT, bot_id="B0HERMES", text="ours")
        async with on.connected():
            await on.inbox.until(lambda: len(on.texts) == 7)
            await on.say_and_hear("and on")
        missed = {each.text: each for each in on.inbox.events[3:]}
        assert set(missed) == {
            "missed, direct", "missed, in the thread", "missed, in the channel", "their own", "and on",
        }  # fmt: skip
        assert on.inbox.repeats == repeats
        assert missed["missed, in the thread"].to_us
        assert missed["missed, in the thread"].address.thread == root
        assert not missed["missed, in the channel"].to_us


async def test_replies_to_a_mention_that_was_missed_are_read(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first", chat=CHANNEL)
        (root,) = on.while_away(f"<@{BOT}> missed", chat=CHANNEL)
        on.while_away("missed, below it", chat=CHANNEL, thread_ts=root)
        on.slack.gives_up = False
        on.slack.say("just now", CHANNEL, thread_ts=root)  # is to us, because of what was missed
        async with on.connected():
            await on.heard("just now")
        assert on.texts == ["first", "missed", "missed, below it", "just now"]
        assert all(each.to_us for each in on.inbox.events[1:])


@pytest.mark.parametrize("stops", [False, True])
async def test_replies_to_a_mention_that_was_missed_are_read_whatever_came_in_its_thread_before(
    clock: MockClock, stops: bool
) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first", chat=CHANNEL)
        (root,) = on.while_away(f"<@{BOT}> missed", chat=CHANNEL)
        on.while_away("missed, below it", chat=CHANNEL, thread_ts=root)
        async with on.connected():
            on.slack.fail(limited(10), limited(20, "replies"))
            await on.say_and_hear(f"<@{BOT}> hello?", chat=CHANNEL, thread_ts=root)
            assert on.texts == ["first", "hello?"]
            await on.heard("missed")
            assert "missed, below it" not in on.texts
            if not stops:
                await on.heard("missed, below it")
        if stops:
            async with on.connected():
                await on.heard("missed, below it")
        assert all(each.to_us for each in on.inbox.events[1:])


async def test_what_a_deaf_socket_did_not_bring_is_read_when_another_shows_itself(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first")
        async with on.connected(quiet_s=10, backfill_pages=1) as raised:
            await on.say_and_hear("second")
            on.slack.forwards = False
            on.while_away("missed")
            await on.heard("missed")
            assert on.slack.sockets.opened == 3
            assert not raised


async def test_long_histories_are_read_page_by_page_and_a_limit_is_waited_for(clock: MockClock) -> None:
    async with world(page=10) as on:
        async with on.connected():
            await on.say_and_hear("first")
            await on.say_and_hear("first there", chat=CHANNEL)
        missed = [f"missed {number}" for number in range(35)]
        on.while_away(*missed)
        on.while_away("missed there", chat=CHANNEL)
        async with on.connected() as raised:
            on.slack.fail(limited(20))
            asked = len(on.slack.asked("conversations.history"))
            await on.heard(*missed, "missed there")
            assert len(on.slack.asked("conversations.history")) - asked == 6  # the refused one, one, and four pages
            assert not raised
        assert [text for text in on.texts if text in missed] == missed


@pytest.mark.parametrize("stops", [False, True])
async def test_a_place_is_read_from_where_it_was_although_newer_ones_take_its_room(
    clock: MockClock, stops: bool
) -> None:
    async with world() as on:
        (root,) = on.while_away(f"<@{BOT}> begin", chat=CHANNEL)
        (old,) = on.while_away("years ago", chat=CHANNEL, thread_ts=root)
        lines = [f"{CHANNEL}:{root} {old}"]
        while len("\n".join(lines)) < 4096 - 30:  # no more room
            lines.append(f"C0FULL:1.{len(lines):06} 1.000000")
        on.inbox.cursors.update(channels=f"{CHANNEL} {old}".encode(), threads="\n".join(lines).encode())
        on.while_away("missed", chat=CHANNEL, thread_ts=root)
        going_on = {"chat": CHANNEL, "thread_ts": root}
        async with on.connected(backfill_pages=1000):
            on.slack.fail(limited(15), limited(1, "replies"))
            if stops:  # whoever is heard keeps the room
                await on.say_and_hear("going on", **going_on)
            await on.say_and_hear(f"<@{BOT}> one more", f"<@{BOT}> and one more", chat=CHANNEL)
            await on.say_and_hear("and on", **going_on)
            if not stops:
                await on.heard("missed")
        if stops:
            assert "missed" not in on.texts
            async with on.connected(backfill_pages=1000):
                await on.heard("missed")
        assert "years ago" not in on.texts
        assert all(each.to_us for each in on.inbox.events)


# --- in time


@pytest.mark.parametrize("stops", [False, True])
async def test_while_histories_cannot_be_read_what_comes_is_acknowledged_in_time_and_nothing_missed_is_lost(
    clock: MockClock, stops: bool
) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first")
            await on.say_and_hear("first there", chat=CHANNEL)
        for chat in (DM, CHANNEL):
            on.while_away("missed", chat=chat)
        on.slack.fail(limited(40))
        async with on.connected() as raised:
            await on.slack.until(lambda: not on.slack.faults)
            before = dict(on.inbox.cursors)
            on.slack.sockets.took.clear()
            now = [on.slack.say(text, chat)["ts"] for text, chat in (("now", CHANNEL), ("now", DM), ("and now", DM))]
            on.slack.command("/hermes", "new")
            await on.heard("/new")
            await on.acknowledged(*now)
            await on.slack.until(lambda: len(on.slack.sockets.took) == 4)
            assert max(on.slack.sockets.took) < SOON_S
            assert on.texts[2:] == ["now", "now", "and now", "/new"]
            for name in ("channels", "threads"):  # nothing is passed over
                assert set(on.inbox.cursors[name].splitlines()) == set(before[name].splitlines())
            if not stops:
                await on.inbox.until(lambda: len(on.texts) == 8)
        if stops:
            async with on.connected():
                await on.inbox.until(lambda: len(on.texts) == 8)
        assert not raised
        assert on.texts[6:] == ["missed", "missed"]
        for stamp in (now[0], now[2]):  # once it is read, a place is read up to what came meanwhile
            assert stamp.encode() in on.inbox.cursors["channels"]
        assert on.inbox.repeats == 3  # they are in the histories, too


async def test_a_message_waits_for_what_was_missed_in_its_own_place_and_for_no_other() -> None:
    threads = 30
    async with world() as on:
        async with on.connected():
            roots = await on.say_and_hear(*(f"<@{BOT}> number {n}" for n in range(threads)), chat=CHANNEL)
        on.while_away("missed", chat=CHANNEL)
        on.while_away(
            "missed there", chat=CHANNEL, thread_ts=roots[0]
        )  # the one heard least recently would be read last
        before = len(on.slack.asked("conversations."))
        said: list[str] = []

        def speak(moment: str) -> None:
            if moment == "asked" and not said:  # by what was missed in the channel, which is read first
                said.append(on.slack.say("and now", CHANNEL, thread_ts=roots[0])["ts"])

        on.inbox.at = speak
        async with on.connected():
            await on.slack.until(lambda: said and said[0] in on.slack.sockets.acknowledged)
            assert len(on.slack.asked("conversations.")) - before < threads // 2
            assert on.texts[threads:] == ["missed", "missed there", "and now"]
            await on.slack.until(lambda: len(on.slack.asked("conversations.")) - before == 1 + threads)


async def test_a_place_that_somebody_speaks_in_is_read_next_also_when_nobody_waits_any_more(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            roots = await on.say_and_hear(*(f"<@{BOT}> number {n}" for n in range(10)), chat=CHANNEL)
        async with on.connected():
            on.slack.fail(limited(20))
            await on.say_and_hear("one", chat=CHANNEL)  # uses the patience up
            await on.say_and_hear("two", chat=CHANNEL, thread_ts=roots[0])
            await on.slack.until(lambda: on.slack.asked("conversations.replies"))
            assert roots[0].encode() in on.slack.asked("conversations.replies")[0].body


async def test_a_store_that_is_slow_with_a_long_history_lets_others_in_between(clock: MockClock) -> None:
    class Slow(RecordingInbox):
        async def deliver(self, *events: InboundEvent, cursors: Any = EMPTY) -> int:
            await trio.sleep(0.002 * len(events))
            return await super().deliver(*events, cursors=cursors)

    async with world(Slow(account="slack")) as on:
        async with on.connected():
            await on.say_and_hear("first")
        for number in range(2500):
            on.slack.add_message(DM, text=f"missed {number}", user=ALICE)
        on.slack.sockets.took.clear()
        async with on.connected():
            await on.heard("missed 0")
            on.slack.command("/hermes", "new")
            await on.slack.until(lambda: on.slack.sockets.took)
            assert max(on.slack.sockets.took) < SOON_S
            assert "missed 2499" not in on.texts
            await on.heard("missed 2499")


async def test_names_that_do_not_come_hold_up_one_message_and_not_each(clock: MockClock) -> None:
    async with world() as on, on.connected():
        await on.slack.until(lambda: on.slack.sockets.connections)
        on.slack.fail(Fault(path="users.info", answer=Answered(hang=True), times=50))
        for number in range(5):
            on.slack.say(f"number {number}", user=ALICE if number % 2 else BOB)
        on.slack.command("/hermes", "new")
        await on.slack.until(lambda: len(on.slack.sockets.took) == 6)
        assert max(on.slack.sockets.took) < SOON_S


# --- what goes wrong


class FailsOnce(RecordingInbox):
    """A store that is away once, when a certain message comes; it takes until `go` to say so."""

    def __init__(self, at: str) -> None:
        super().__init__(account="slack")
        self.fails_at = at
        self.asked, self.go = trio.Event(), trio.Event()

    async def deliver(self, *events: InboundEvent, cursors: Any = EMPTY) -> int:
        if self.fails_at in [each.text for each in events] and not self.asked.is_set():
            self.asked.set()
            await self.go.wait()
            raise StoreUnavailable("busy")
        return await super().deliver(*events, cursors=cursors)


@pytest.mark.parametrize("waits_for", ["address", "hello"])
async def test_a_history_whose_commit_failed_is_read_again_and_nothing_is_committed_beyond_it(
    clock: MockClock, waits_for: str
) -> None:
    inbox = FailsOnce("missed")
    async with world(inbox) as on:
        async with on.connected():
            await on.say_and_hear("first")
        on.while_away("missed")
        async with on.connected(timeout_s=15) as raised:
            await inbox.asked.wait()
            if waits_for == "address":
                on.slack.fail(Fault(path="connections.open", answer=Answered(hang=True)))
            on.slack.greets = waits_for != "hello"
            on.slack.sockets.renew()
            on.slack.gives_up = False
            on.slack.say("elsewhere", PRIVATE)
            await trio.sleep(3)  # it waits until it may be committed
            inbox.go.set()
            failed = trio.current_time()
            await inbox.until(lambda: raised)
            assert isinstance(raised[0], StoreUnavailable)
            assert waits_for == "address" or trio.current_time() - failed < 10
        on.slack.greets = True
        async with on.connected():
            await on.heard("missed", "elsewhere")


async def test_a_message_whose_commit_failed_is_not_passed_over_by_a_history(clock: MockClock) -> None:
    inbox = FailsOnce("now")
    async with world(inbox) as on:
        async with on.connected():
            await on.say_and_hear("first")
            await on.say_and_hear("first there", chat=PRIVATE)
        on.while_away("missed")
        nothing = answer_json({"ok": True, "messages": []})
        on.slack.fail(Fault(path="conversations.history", answer=nothing), limited(2))
        asked = len(on.slack.asked("conversations.history"))
        async with on.connected() as raised:
            await on.slack.until(lambda: not on.slack.faults)
            on.slack.say("now", PRIVATE)
            await inbox.asked.wait()
            await on.slack.until(lambda: len(on.slack.asked("conversations.history")) == asked + 3)
            await trio.sleep(1)  # what was missed waits until it may be committed
            inbox.go.set()
            await inbox.until(lambda: raised)
        async with on.connected():
            await on.heard("now", "missed")
        assert sorted(on.texts) == ["first", "first there", "missed", "now"]


async def test_histories_that_cannot_be_had_now_are_read_when_they_can_and_disturb_no_socket(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first")
        on.while_away("missed")
        async with on.connected() as raised:
            for answer in (
                Answered(status=502),
                Answered(hang=True),
                answer_json({"ok": False, "error": "internal_error"}),
            ):
                on.slack.fail(Fault(path="conversations.history", answer=answer))
            await on.heard("missed")
            assert not raised
            assert on.slack.sockets.opened == 2


async def test_a_history_that_can_never_be_read_is_counted_and_passed_over(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first")
        on.while_away("missed")
        on.slack.fail(Fault(path="conversations.history", answer=Answered(body=b"hotel"), times=50))
        async with on.connected() as raised:
            await on.inbox.until(lambda: on.inbox.quarantined)
            await on.say_and_hear("now")
            assert not raised
        assert len(on.inbox.quarantined) == 1
        assert len(on.slack.asked("conversations.history")) == 8  # for half of it each time


async def test_a_page_that_is_too_large_is_read_in_pieces(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first")
        missed = [str(number) for number in range(5)]
        on.while_away(*missed)
        on.slack.fail(Fault(path="conversations.history", answer=Answered(body=b"x" * 8_388_609), times=7))
        async with on.connected() as raised:
            await on.heard(*missed)
            assert not raised
        assert on.texts[1:] == missed
        assert not on.inbox.quarantined


async def test_a_token_that_is_refused_meanwhile_ends_it(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first")
        refused = answer_json({"ok": False, "error": "token_revoked"})
        on.slack.fail(Fault(path="conversations.history", answer=refused))
        async with on.connected() as raised:
            await on.inbox.until(lambda: raised)
            assert isinstance(raised[0], PlatformRefused)


async def test_what_may_be_mended_is_kept_and_what_is_gone_forgotten(clock: MockClock) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first", chat=CHANNEL)
            await on.say_and_hear("first")
            await on.say_and_hear("first", chat=PRIVATE)  # is read first
        lost = b"T0OTHER/C0GENERAL 1.000000"  # of a workspace whose token was taken out
        on.inbox.cursors["channels"] = lost + b"\n" + on.inbox.cursors["channels"]
        on.inbox.cursors["threads"] = f"{DM}:1.000000 1.000000".encode()
        on.slack.channels[CHANNEL]["member"] = False
        on.while_away("missed")
        lacks = answer_json({"ok": False, "error": "missing_scope", "needed": "groups:history"})
        on.slack.fail(Fault(path="conversations.history", answer=lacks))
        async with on.connected() as raised:
            await on.heard("missed")
            await on.inbox.until(lambda: not on.inbox.cursors["threads"])
            await on.say_and_hear("now")
            assert not raised
        assert on.inbox.cursors["channels"].startswith(lost)
        assert PRIVATE.encode() in on.inbox.cursors["channels"]
        assert CHANNEL.encode() + b" " not in on.inbox.cursors["channels"].replace(lost, b"")


async def test_pages_are_bounded_and_a_place_that_is_not_read_counts_as_read_up_to_what_came_meanwhile(
    clock: MockClock,
) -> None:
    async with world() as on:
        async with on.connected():
            await on.say_and_hear("first there", chat=CHANNEL)
            await on.say_and_hear("first")
        async with on.connected(backfill_pages=1):
            on.slack.fail(limited(10))
            (now,) = await on.say_and_hear("now", chat=CHANNEL)
            assert now.encode() not in on.inbox.cursors["channels"]
            await on.inbox.until(lambda: now.encode() in on.inbox.cursors["channels"])
        assert len(on.slack.asked("conversations.history")) == 2
        on.while_away("missed")
        async with on.connected(backfill_pages=0):
            await on.say_and_hear("and now")
        assert len(on.slack.asked("conversations.history")) == 2
        assert "missed" not in on.texts
