"""Receiving from the fake Slack: acknowledged after the commit, over renewed sockets, through silence, cuts and outages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing
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
from hermes.testing.fake_http import Answered
from hermes.testing.fake_slack import ALICE, BOB, BOT, CHANNEL, DM, OTHER_TEAM, FakeSlack, Fault, open_fake_slack
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from hermes.testing.inbox import receiving
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

    def receiving(self) -> AbstractAsyncContextManager[list[Exception]]:
        """`receive` runs beside the block; what it raises is in the list."""
        return receiving(self.platform, self.inbox)

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


async def test_a_name_that_cannot_be_had_delays_nothing(clock: MockClock) -> None:
    async with bench() as on, on.receiving():
        on.slack.fail(
            Fault(path="users.info", answer=Answered(hang=True)), Fault(path="users.info", answer=Answered(status=500))
        )
        on.slack.say("one")
        await on.received(1)
        await trio.sleep(3)  # for so long nobody is asked
        on.slack.say("two")
        on.slack.say("three")
        await on.received(3)
        assert [each.sender.name for each in on.inbox.events] == ["", "", "Alice"]


async def test_nothing_is_committed_after_a_bug_by_which_an_event_was_lost() -> None:
    found: list[Bench] = []
    with pytest.raises(BaseExceptionGroup):
        async with bench() as on:
            found.append(on)
            broken, deliver = trio.Event(), on.inbox.deliver

            async def breaks(*events: Any, **more: Any) -> Any:
                if any(each.text == "lost" for each in events):
                    await broken.wait()
                    raise KeyError("a bug")
                return await deliver(*events, **more)

            on.inbox.deliver = breaks  # type: ignore[method-assign]
            async with on.receiving():
                await on.slack.until(lambda: on.slack.sockets.connections)
                on.slack.sockets.renew()
                await on.slack.until(lambda: on.slack.sockets.connections == 2)
                on.slack.say("lost")  # over one of the two
                on.slack.say("after it")
                await trio.testing.wait_all_tasks_blocked(0.05)
                broken.set()
                await trio.sleep_forever()
    assert found[0].texts == []
