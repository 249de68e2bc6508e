"""Receiving from the fake Slack: acknowledged after the commit, over renewed sockets, through silence, cuts and outages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.errors import (
    HermesError,
    PlatformConflict,
    PlatformRefused,
    PlatformUnavailable,
    StoreUnavailable,
)
from hermes.events import Address, Button, Content
from hermes.platform import CommandSpec, Platform, Secret
from hermes.testing import no_leaks
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.fake_slack import ALICE, BOB, BOT, CHANNEL, DM, OTHER_TEAM, FakeSlack, Fault, open_fake_slack
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.slack import SlackConfig
from platforms.slack import platform as spec

COMMANDS = (CommandSpec(name="stop", help="End it."), CommandSpec(name="new", help="Begin."))


@pytest.fixture
def clock() -> MockClock:
    """Time that passes fast, for what takes seconds by the protocol; the sockets are real, so it may not jump."""
    return MockClock(rate=25.0)


@dataclass(slots=True)
class Bench:
    """A platform that is open, and what is around it."""

    slack: FakeSlack
    platform: Platform
    inbox: RecordingInbox

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[list[Exception]]:
        """`receive` runs beside the block; what it raises is in the list."""
        raised: list[Exception] = []

        async def run() -> None:
            try:
                await self.platform.receive(self.inbox, dict(self.inbox.cursors))
            except HermesError as exc:
                raised.append(exc)
                self.inbox.left("receive")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield raised
            nursery.cancel_scope.cancel()

    async def received(self, count: int) -> None:
        """Wait for so many events."""
        await self.inbox.until(lambda: len(self.inbox.events) >= count)

    async def acknowledged(self, count: int) -> None:
        """Wait for so many acknowledgements."""
        await self.slack.until(lambda: len(self.slack.sockets.acknowledged) >= count)

    @property
    def texts(self) -> list[str]:
        """What was received."""
        return [each.text for each in self.inbox.events]


@asynccontextmanager
async def opened(
    slack: FakeSlack,
    inbox: RecordingInbox | None = None,
    bot: str | None = None,
    memory: TestMemory | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    config = SlackConfig(
        bot_token=Secret(bot or slack.bot_token), app_token=Secret(slack.app_token), base_url=slack.base_url, **settings
    )
    async with open_test_host("slack", commands=COMMANDS, clock=slack.clock, memory=memory) as host:
        async with spec.open(config, host) as platform:
            yield Bench(slack, platform, inbox or RecordingInbox(account="slack"))


@asynccontextmanager
async def bench(world: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Bench]:
    async with no_leaks(), open_fake_slack(**(world or {})) as slack, opened(slack, **settings) as found:
        yield found


async def test_messages_mentions_edits_commands_and_buttons_arrive_once_and_are_acknowledged_after_the_commit() -> None:
    async with bench() as on, on.receiving():
        direct = on.slack.say("hello &amp; welcome")
        mention = on.slack.say(f"<@{BOT}> what about <@{BOB}>?", CHANNEL)  # comes as two events
        await on.received(2)
        on.slack.change(direct, "hello, and welcome")
        on.slack.command("/hermes", "new a title")
        sent = await on.platform.send(
            Address("slack", DM),
            Content(text="?", dialect="slack", buttons=((Button("Yes", "yes:1"),),)),
            key="k",
            reply=None,
        )
        on.slack.press(DM, on.slack.messages[DM][sent.message_id])
        on.slack.say("!stop")
        await on.received(6)
        await on.acknowledged(7)
        one, two, three, four, five, six = on.inbox.events
        assert (one.text, one.chat_kind, one.to_us, one.sender.name) == ("hello & welcome", "dm", True, "Alice")
        assert (two.text, two.address.thread, two.to_us) == ("what about @Bob?", mention["ts"], True)
        assert (three.kind, three.edits, three.text) == ("edited", direct["ts"], "hello, and welcome")
        assert (four.text, four.address) == ("/new a title", Address("slack", CHANNEL))
        assert (five.kind, five.text) == ("button", "yes:1")
        assert six.text == "/stop"
        assert not on.slack.sockets.waiting
        assert len(on.slack.asked("users.info")) == 2  # each name is asked once


async def test_nothing_is_acknowledged_before_it_is_committed(clock: MockClock) -> None:
    async with bench() as on, on.receiving():
        on.inbox.hold = trio.Event()
        message = on.slack.say("wait for it")
        await on.slack.until(lambda: on.slack.sockets.sent)
        await trio.sleep(1)
        assert (on.slack.sockets.acknowledged, on.texts) == ([], [])
        on.inbox.hold.set()
        await on.acknowledged(1)
        assert on.slack.sockets.acknowledged == [message["ts"]]


async def test_a_store_that_is_away_is_nobodys_fault_and_slack_brings_it_again() -> None:
    async with bench() as on:
        on.inbox.unavailable = True
        async with on.receiving() as raised:
            on.slack.say("later")
            await on.inbox.until(lambda: raised)
        assert isinstance(raised[0], StoreUnavailable)
        on.inbox.unavailable = False
        async with on.receiving():
            await on.received(1)
            await on.acknowledged(1)
        assert on.texts == ["later"]


async def test_a_new_socket_is_there_before_the_old_one_goes_and_both_are_read(clock: MockClock) -> None:
    async with bench() as on, on.receiving():
        for number in range(3):
            on.slack.say(f"before {number}")
            await on.slack.until(lambda: on.slack.sockets.connections == 1)
            on.slack.sockets.renew("warning" if number % 2 else "refresh_requested")
            on.slack.say(f"at the old one {number}")
            await on.slack.until(lambda: on.slack.sockets.connections == 2)
            on.slack.say(f"at one of the two {number}")
            on.slack.say(f"at the other {number}")
            await on.received(4 * (number + 1))
            if number % 2:
                on.slack.sockets.close(leaving=True)
            await on.slack.until(lambda: on.slack.sockets.connections == 1)
        assert len(set(on.texts)) == 12
        assert on.slack.sockets.opened == 4
        assert on.slack.sockets.most == 2
        await on.acknowledged(12)
        assert max(on.slack.sockets.took) < 3
        assert on.inbox.repeats == 0


async def test_what_comes_over_two_sockets_and_again_is_one_event() -> None:
    async with bench(world={"duplicates": True}) as on, on.receiving():
        await on.slack.until(lambda: on.slack.sockets.connections)
        on.slack.sockets.renew()
        await on.slack.until(lambda: on.slack.sockets.connections == 2)
        on.slack.say("twice")
        on.slack.say(f"<@{BOT}> four times", CHANNEL)
        on.slack.sockets.again()
        await on.acknowledged(6)
        assert sorted(on.texts) == ["four times", "twice"]


async def test_a_socket_that_slack_ends_at_once_again_and_again_is_an_outage(clock: MockClock) -> None:
    async with bench() as on, on.receiving() as raised:
        while not raised:
            on.slack.sockets.renew()
            with trio.move_on_after(1):
                await on.slack.until(lambda: raised)
        assert "soon after its beginning" in str(raised[0])


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        ({"type": "disconnect", "reason": "link_disabled"}, PlatformRefused, "Socket Mode is switched off"),
        ({"type": "disconnect", "reason": "too_many_websockets"}, PlatformConflict, "ten programs"),
        ((1006, ""), PlatformUnavailable, "closed"),
        ((1001, "away"), PlatformUnavailable, "closed"),
    ],
)
async def test_an_end_has_its_meaning(frame: Any, error: type[HermesError], words: str) -> None:
    async with bench() as on, on.receiving() as raised:
        await on.slack.until(lambda: on.slack.sockets.connections)
        if isinstance(frame, tuple) and frame[0] == 1006:
            await on.slack.sockets.drop()
        else:
            on.slack.sockets.tell(frame)
        await on.inbox.until(lambda: raised)
        assert isinstance(raised[0], error)
        assert words in str(raised[0])


async def test_frames_that_are_none_are_left_out_and_strange_payloads_acknowledged() -> None:
    async with bench() as on, on.receiving() as raised:
        await on.slack.until(lambda: on.slack.sockets.connections)
        for frame in ("{", b"\xff\xfe", "[]", '{"type": 5}', {"type": "of the future"}, {"type": "events_api"}):
            on.slack.sockets.tell(frame)
        for kind, payload in (
            ("slash_commands", {"token": "secret", "response_url": "secret"}), ("events_api", {}),
            ("events_api", {"event": {"type": "message", "ts": "x"}}), ("slash_commands", {"text": 1}),
            ("interactive", {"type": "view_submission", "user": {"id": ALICE}}), ("interactive", []), ("of the future", {}),
        ):  # fmt: skip
            on.slack.sockets.dispatch(kind, payload, "strange")  # type: ignore[arg-type]
        on.slack.say("x" * 10_000)
        await on.acknowledged(8)
        assert not raised
        assert "secret" not in str(on.inbox.quarantined)
        assert [len(each) for each in on.texts] == [10_000]
        assert len(on.inbox.quarantined) == 9  # what can be read and is nothing to us is not among them


async def test_a_black_hole_is_found_by_pings_that_nobody_answers(clock: MockClock) -> None:
    async with bench(ping_s=2) as on, on.receiving() as raised:
        await on.inbox.until(lambda: "heartbeat" in on.inbox.promises)
        assert on.inbox.promises["heartbeat"] == 16.0
        on.slack.sockets.black_hole()
        with trio.fail_after(10):
            await on.inbox.until(lambda: raised)
        assert "does not answer" in str(raised[0])


async def test_after_a_long_silence_a_new_socket_shows_whether_events_flow(clock: MockClock) -> None:
    async with bench(quiet_s=10) as on, on.receiving() as raised:
        await on.inbox.until(lambda: on.inbox.promises.get("event") == 80.0)
        on.slack.forwards = False  # it is deaf, and answers pings
        on.slack.say("nobody hears")
        await on.slack.until(lambda: on.slack.sockets.opened == 2)
        assert on.slack.sockets.most == 2
        on.slack.forwards = True
        await on.slack.until(lambda: on.slack.sockets.opened == 3)
        await on.received(1)
        assert not raised
        on.slack.fail(Fault(path="connections.open", answer=Answered(status=502)))
        await on.inbox.until(lambda: raised)
        assert isinstance(raised[0], PlatformUnavailable)


async def test_a_socket_without_a_hello_is_given_up(clock: MockClock) -> None:
    async with bench(timeout_s=3) as on:
        on.slack.greets = False
        with pytest.raises(PlatformUnavailable, match="hello"):
            await on.platform.receive(on.inbox, {})


async def test_the_address_that_came_with_the_opening_is_used_once_and_only_while_it_is_fresh() -> None:
    async with bench() as on:
        async with on.receiving():
            await on.slack.until(lambda: on.slack.sockets.connections)
        assert len(on.slack.asked("connections.open")) == 1
        async with on.receiving():
            await on.slack.until(lambda: on.slack.sockets.opened == 2)
        assert len(on.slack.asked("connections.open")) == 2


# --- after an outage


async def test_what_slack_gave_up_bringing_is_read_from_the_histories() -> None:
    async with no_leaks(), open_fake_slack() as slack:
        inbox = RecordingInbox(account="slack")
        async with opened(slack, inbox) as on, on.receiving():
            slack.say("one")
            root = slack.say(f"<@{BOT}> two", CHANNEL)
            slack.say("chatter", CHANNEL)
            await on.received(3)
            await on.acknowledged(4)
        slack.gives_up = True
        slack.say("missed, direct")
        slack.say("missed, in the thread", CHANNEL, thread_ts=root["ts"])
        slack.say("missed, in the channel", CHANNEL)
        slack.say("in a thread of others", CHANNEL, thread_ts=slack.say("their own", CHANNEL)["ts"])
        slack.sockets.waiting.clear()
        repeats = inbox.repeats
        slack.add_message(CHANNEL, user=BOT, bot_id="B0HERMES", text="ours")
        async with opened(slack, inbox) as on, on.receiving():
            await on.received(7)
            slack.say("and on")
            await on.received(8)
        missed = {each.text: each for each in inbox.events[3:]}
        assert set(missed) == {
            "missed, direct",
            "missed, in the thread",
            "missed, in the channel",
            "their own",
            "and on",
        }
        assert inbox.repeats == repeats
        assert missed["missed, in the thread"].to_us
        assert missed["missed, in the thread"].address.thread == root["ts"]
        assert not missed["missed, in the channel"].to_us


def limited(seconds: int) -> Fault:
    """An answer to one request for a history."""
    return Fault(path="conversations.history", answer=answer_json({"ok": False}, 429, {"retry-after": str(seconds)}))


def by_trio() -> float:
    """The time of the service and of the host, as fast as the test's."""
    return 1_800_000_000.0 + trio.current_time()


async def test_long_histories_are_read_page_by_page_and_a_limit_is_waited_for(clock: MockClock) -> None:
    async with no_leaks(), open_fake_slack(page=10, clock=by_trio) as slack:
        inbox = RecordingInbox(account="slack")
        async with opened(slack, inbox) as on, on.receiving():
            slack.say("first")
            slack.say("first there", CHANNEL)
            await on.received(2)
        slack.gives_up = True
        for number in range(35):
            slack.say(f"missed {number}")
        slack.say("missed there", CHANNEL)
        slack.sockets.waiting.clear()
        async with opened(slack, inbox) as on, on.receiving() as raised:
            slack.fail(limited(20))
            asked = len(slack.asked("conversations.history"))
            await on.received(38)
            assert not raised
            assert len(slack.asked("conversations.history")) - asked == 6  # the refused one, one, and four pages
        assert [each.text for each in inbox.events if each.text.startswith("missed ") and each.text[7:].isdigit()] == [
            f"missed {number}" for number in range(35)
        ]
        assert slack.sockets.opened == 2


@pytest.mark.parametrize("stops", [False, True])
async def test_while_histories_cannot_be_read_what_comes_is_acknowledged_in_time_and_nothing_missed_is_lost(
    clock: MockClock, stops: bool
) -> None:
    async with no_leaks(), open_fake_slack(clock=by_trio) as slack:
        inbox = RecordingInbox(account="slack")
        async with opened(slack, inbox) as on, on.receiving():
            slack.say("first")
            slack.say("first there", CHANNEL)
            await on.received(2)
            await on.acknowledged(2)
        slack.gives_up = True
        for chat in (DM, CHANNEL):
            slack.say("missed", chat)
        slack.sockets.waiting.clear()
        async with opened(slack, inbox) as on:
            slack.fail(limited(40))
            async with on.receiving() as raised:
                await slack.until(lambda: slack.faults == [])
                before = dict(inbox.cursors)
                begun = trio.current_time()
                now = [slack.say("now"), slack.say("now there", CHANNEL), slack.say("and now")]
                slack.command("/hermes", "new")
                await on.received(6)
                await on.acknowledged(6)
                assert trio.current_time() - begun < 3
                assert on.texts[2:] == ["now", "now there", "and now", "/new"]
                assert inbox.cursors == before  # nothing is passed over
                if not stops:
                    await on.received(8)
            if stops:
                async with opened(slack, inbox) as on, on.receiving():
                    await on.received(8)
        assert not raised
        assert sorted(on.texts[6:]) == ["missed", "missed"]
        for event in now[1:]:
            assert (
                event["ts"].encode() in inbox.cursors["channels"]
            )  # once read, the place is read up to what came meanwhile
        assert inbox.repeats == 3  # they are in the histories, too


async def test_a_place_that_is_not_read_at_all_counts_as_read_up_to_what_came_meanwhile(clock: MockClock) -> None:
    async with no_leaks(), open_fake_slack(clock=by_trio) as slack:
        inbox = RecordingInbox(account="slack")
        async with opened(slack, inbox) as on, on.receiving():
            slack.say("first there", CHANNEL)
            slack.say("first")
            await on.received(2)
        slack.sockets.waiting.clear()
        async with opened(slack, inbox, backfill_pages=1) as on, on.receiving():
            slack.fail(limited(10))
            now = slack.say("now", CHANNEL)["ts"].encode()
            await on.received(3)
            assert now not in inbox.cursors["channels"]
            await inbox.until(lambda: now in inbox.cursors["channels"])
        assert len(slack.asked("conversations.history")) == 2


async def test_a_message_waits_for_what_was_missed_in_its_own_place_and_for_no_other() -> None:
    threads = 30
    async with no_leaks(), open_fake_slack() as slack:
        inbox = RecordingInbox(account="slack")
        async with opened(slack, inbox) as on, on.receiving():
            roots = [slack.say(f"<@{BOT}> number {n}", CHANNEL)["ts"] for n in range(threads)]
            await on.received(threads)
            await on.acknowledged(2 * threads)
        slack.gives_up = True
        slack.say("missed", CHANNEL)
        slack.say("missed there", CHANNEL, thread_ts=roots[0])  # the one heard least recently would be read last
        slack.sockets.waiting.clear()
        before = len(slack.asked("conversations."))
        said: list[str] = []

        def speak(moment: str) -> None:
            if moment == "asked" and not said:  # by what was missed in the channel, which is read first
                said.append(slack.say("and now", CHANNEL, thread_ts=roots[0])["ts"])

        inbox.at = speak
        async with opened(slack, inbox, backfill_pages=100) as on, on.receiving():
            await slack.until(lambda: said and said[0] in slack.sockets.acknowledged)
            assert len(slack.asked("conversations.")) - before < threads // 2
            assert on.texts[threads:] == ["missed", "missed there", "and now"]
            await slack.until(lambda: len(slack.asked("conversations.")) - before == 1 + threads)


async def test_a_thread_whose_room_was_taken_meanwhile_is_not_read_from_its_beginning() -> None:
    async with no_leaks(), open_fake_slack() as slack:
        inbox = RecordingInbox(account="slack")
        root = slack.say(f"<@{BOT}> begin", CHANNEL)["ts"]
        old = slack.say("years ago", CHANNEL, thread_ts=root)["ts"]
        slack.sockets.waiting.clear()
        slack.gives_up = True
        slack.say(f"<@{BOT}> another", CHANNEL)
        slack.sockets.waiting.clear()
        lines = [f"{CHANNEL}:{root} {old}"]
        while len("\n".join(lines)) < 4096 - 30:  # no more room
            lines.append(f"C0FULL:1.{len(lines):06} 1.000000")
        inbox.cursors.update(channels=f"{CHANNEL} {old}".encode(), threads="\n".join(lines).encode())
        async with opened(slack, inbox, backfill_pages=1000) as on, on.receiving():
            await on.received(1)
            slack.say(f"<@{BOT}> at last", CHANNEL, thread_ts=root)  # waits until its thread is read, or passed over
            await inbox.until(lambda: "at last" in on.texts)
        assert on.texts == ["another", "at last"]


async def test_places_that_cannot_be_read_any_more_are_forgotten_and_pages_are_bounded() -> None:
    async with no_leaks(), open_fake_slack() as slack:
        inbox = RecordingInbox(account="slack")
        async with opened(slack, inbox) as on, on.receiving():
            slack.say("first", CHANNEL)
            slack.say("first")
            await on.received(2)
        slack.channels[CHANNEL]["member"] = False
        slack.gives_up = True
        slack.say("missed")
        slack.sockets.waiting.clear()
        async with opened(slack, inbox) as on, on.receiving():
            await on.received(3)
            await inbox.until(lambda: b"C0GENERAL" not in inbox.cursors["channels"])
            slack.say("now")
            await on.received(4)
        slack.say("missed again")
        slack.sockets.waiting.clear()
        asked = len(slack.asked("conversations."))
        async with opened(slack, inbox, backfill_pages=0) as on, on.receiving():
            slack.say("and now")
            await on.received(5)
        assert len(slack.asked("conversations.")) == asked


# --- several workspaces


async def test_several_workspaces_are_told_apart_and_answered_with_their_own_tokens() -> None:
    memory = TestMemory()
    async with no_leaks(), open_fake_slack(tokens={"xoxb-two": OTHER_TEAM}) as slack:
        for bot in ("xoxb-fake-token,xoxb-two", "xoxb-two,xoxb-fake-token"):  # the order does not matter later
            async with opened(slack, bot=bot, memory=memory) as on, on.receiving():
                slack.say("here")
                slack.say("there", team=OTHER_TEAM)
                slack.say("nowhere", team="T0NOBODY")
                for team in (OTHER_TEAM, "T0NOBODY"):
                    typed = {
                        "command": "/hermes",
                        "text": "new",
                        "user_id": ALICE,
                        "channel_id": CHANNEL,
                        "team_id": team,
                    }
                    slack.sockets.dispatch(
                        "slash_commands", {**typed, "trigger_id": f"{bot} {team}"}, team, again=False
                    )
                await on.received(3)
                chats = {each.address.chat for each in on.inbox.events}
                assert chats == {DM, f"{OTHER_TEAM}/{DM}", f"{OTHER_TEAM}/{CHANNEL}"}
                assert {each.sender.id for each in on.inbox.events} == {ALICE, f"{OTHER_TEAM}/{ALICE}"}
                for to in (DM, f"{OTHER_TEAM}/{DM}"):
                    receipt = await on.platform.send(Address("slack", to), Content(text=to), key="k", reply=None)
                    await on.platform.edit(receipt, Content(text=f"{to}!"))
                await on.slack.until(lambda: not slack.sockets.waiting)  # what is nobody's is not brought for ever
                assert [each["team"] for each in slack.ours()[-2:]] == ["T0HERMES", OTHER_TEAM]
                with pytest.raises(HermesError):
                    await on.platform.send(Address("slack", "T0NOBODY/D1"), Content(text="x"), key="k", reply=None)
        with pytest.raises(PlatformRefused, match="two tokens"):
            slack.tokens["xoxb-three"] = OTHER_TEAM
            async with opened(slack, bot="xoxb-two,xoxb-three"):
                pass


async def test_an_app_that_was_removed_is_refused() -> None:
    async with bench() as on, on.receiving() as raised:
        on.slack.event({"type": "app_uninstalled"})
        await on.inbox.until(lambda: raised)
        assert isinstance(raised[0], PlatformRefused)


async def test_a_name_that_cannot_be_had_delays_nothing() -> None:
    async with bench() as on, on.receiving():
        on.slack.fail(
            Fault(path="users.info", answer=Answered(hang=True)), Fault(path="users.info", answer=Answered(status=500))
        )
        on.slack.say("one")
        on.slack.say("two")
        on.slack.say("three")
        await on.received(3)
        assert [each.sender.name for each in on.inbox.events] == ["", "", "Alice"]
