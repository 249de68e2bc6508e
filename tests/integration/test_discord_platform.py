"""The Discord platform against the fake one: signing in, receiving through every kind of end, sending by its rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.errors import (
    AddressGone,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
)
from hermes.events import Activity, Address, AttachmentRef, Button, Content, OutboundFile, ReplyRef
from hermes.platform import CommandSpec, Platform, Secret
from hermes.testing import no_leaks, refusing_port
from hermes.testing.fake_discord import (
    ALICE,
    BOT,
    CHANNEL,
    DM,
    OTHER_BOT,
    THREAD,
    FakeDiscord,
    Fault,
    open_fake_discord,
)
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.discord import DiscordConfig
from platforms.discord import platform as spec
from platforms.discord.receiving import MAX_VAIN

TO = Address("discord", DM)


@pytest.fixture
def clock() -> MockClock:
    """Time that passes fast, for what takes seconds by the protocol; the sockets are real, so it may not jump."""
    return MockClock(rate=25.0)


@dataclass(slots=True)
class Bench:
    """A platform that is open, and what is around it."""

    discord: FakeDiscord
    platform: Platform
    inbox: RecordingInbox
    memory: TestMemory

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[list[BaseException]]:
        """`receive` runs beside the block; what it raises is in the list."""
        raised: list[BaseException] = []

        async def run() -> None:
            try:
                await self.platform.receive(self.inbox, dict(self.inbox.cursors))
            except Exception as exc:
                raised.append(exc)
                self.discord.touch()
                self.inbox.left("receive")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield raised
            nursery.cancel_scope.cancel()

    async def received(self, error: type[BaseException], match: str) -> BaseException:
        """What `receive` raises."""
        with pytest.raises(error, match=match) as caught:
            await self.platform.receive(self.inbox, dict(self.inbox.cursors))
        return caught.value


@asynccontextmanager
async def opened(
    discord: FakeDiscord,
    *,
    memory: TestMemory | None = None,
    inbox: RecordingInbox | None = None,
    commands: tuple[CommandSpec, ...] = (),
    **settings: Any,
) -> AsyncIterator[Bench]:
    memory = memory or TestMemory()
    config = DiscordConfig(token=Secret(settings.pop("token", discord.token)), base_url=discord.base_url, **settings)
    async with open_test_host("discord", commands=commands, memory=memory, clock=discord.clock) as host:
        async with spec.open(config, host) as platform:
            yield Bench(discord, platform, inbox or RecordingInbox(), memory)


@asynccontextmanager
async def bench(*, world: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Bench]:
    async with no_leaks(), open_fake_discord(**(world or {})) as discord, opened(discord, **settings) as found:
        yield found


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_a_bad_token_is_refused_with_words_and_one_attempt() -> None:
    async with no_leaks(), open_fake_discord() as discord:
        with pytest.raises(PlatformRefused, match="does not accept the token"):
            async with opened(discord, token="wrong"):
                pass
        assert len(discord.requests) == 1


async def test_what_is_no_discord_is_refused_and_an_outage_is_not() -> None:
    async with no_leaks(), open_fake_discord() as discord:
        discord.fail(Fault(answer=Answered(status=404, body=b"hi")))
        with pytest.raises(PlatformRefused, match="no Discord API"):
            async with opened(discord):
                pass
        for answer in (
            Answered(status=503),
            Answered(hang=True),
            Answered(cut=10),
            answer_json({"retry_after": 3}, 429),
        ):
            discord.fail(Fault(answer=answer))
            with pytest.raises(PlatformUnavailable):
                async with opened(discord, timeout_s=0.3):
                    pass


async def test_commands_are_registered_when_they_have_changed() -> None:
    memory = TestMemory()
    stop = CommandSpec(name="stop", help="End the turn.")
    async with open_fake_discord() as discord:
        for commands in ((stop,), (stop,), (stop, CommandSpec(name="model", help="Choose.", arguments="NAME"))):
            async with opened(discord, memory=memory, commands=commands):
                pass
        assert len(discord.asked("PUT", "/commands$")) == 2
        assert [each["name"] for each in discord.commands] == ["stop", "model"]
        assert discord.commands[1]["options"][0]["name"] == "arguments"


@pytest.mark.parametrize(("status", "body"), [(429, {"retry_after": 80_000.0, "global": False}), (500, {}), (403, {})])
async def test_commands_that_cannot_be_registered_hold_up_nothing_else(status: int, body: dict[str, Any]) -> None:
    async with no_leaks(), open_fake_discord() as discord:
        commands, memory = (CommandSpec(name="start", help="begins"),), TestMemory()
        discord.fail(Fault(answer=answer_json(body, status), method="PUT", path="/commands$"))
        async with opened(discord, commands=commands, memory=memory) as on, on.receiving():
            await discord.until(lambda: discord.gateway.live)
        assert discord.commands == []
        async with opened(discord, commands=commands, memory=memory):
            assert [each["name"] for each in discord.commands] == ["start"]  # the next time, it is tried again


async def test_check_says_who_we_are_and_what_is_missing_and_sends_nothing() -> None:
    async with no_leaks(), open_fake_discord(allowed_intents=1) as discord:
        config = DiscordConfig(token=Secret(discord.token), base_url=discord.base_url)
        async with open_test_host("discord") as host:
            assert spec.check is not None
            report = await spec.check(config, host)
            with pytest.raises(PlatformRefused):
                await spec.check(replace(config, token=Secret("wrong")), host)
        assert report.identity == "@hermes (id 1000)"
        assert "in 1 servers" in report.facts
        assert any("Message Content Intent is off" in line for line in report.missing)
        assert {each.method for each in discord.requests} == {"GET"}
        assert not discord.gateway.paths


async def test_that_more_connections_are_advised_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with bench(world={"shards": 3}) as on, open_test_host("discord") as host:
        assert "Discord advises 3 connections" in caplog.text
        assert spec.check is not None
        config = DiscordConfig(token=Secret(on.discord.token), base_url=on.discord.base_url)
        assert any("Discord advises 3" in line for line in (await spec.check(config, host)).missing)


# --- receiving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False])
async def test_messages_come_in_with_their_place(compress: bool) -> None:
    async with bench(compress=compress) as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        on.discord.say("hello")
        on.discord.say("<@1000> what is up?", CHANNEL)
        on.discord.say("in a post", THREAD)
        on.discord.say("from a program", CHANNEL, "901")
        await on.inbox.until(lambda: len(on.inbox.events) == 4)
        direct, mention, post, program = on.inbox.events
        assert (direct.address, direct.chat_kind, direct.to_us, direct.text) == (TO, "dm", True, "hello")
        assert (mention.address.chat, mention.address.thread, mention.to_us) == (CHANNEL, mention.id, True)
        assert mention.text == "what is up?"
        assert (post.address, post.to_us) == (Address("discord", "503", THREAD), False)
        assert program.sender.bot
        assert on.inbox.promises["heartbeat"] > 60
        assert ("compress" in on.discord.gateway.paths[0]) == compress
    assert on.discord.gateway.closes == [4000]  # which keeps the session


async def test_a_restart_resumes_from_what_was_committed() -> None:
    async with no_leaks(), open_fake_discord() as discord:
        async with opened(discord) as on, on.receiving():
            await discord.until(lambda: discord.gateway.live)
            discord.say("one")
            await on.inbox.until(lambda: len(on.inbox.events) == 1)
        discord.say("two, while we are down")
        async with opened(discord, inbox=on.inbox) as on, on.receiving():
            await on.inbox.until(lambda: len(on.inbox.events) == 2)
            discord.say("three")
            await on.inbox.until(lambda: len(on.inbox.events) == 3)
        assert [event.text for event in on.inbox.events] == ["one", "two, while we are down", "three"]
        assert (len(discord.gateway.identifies), len(discord.gateway.resumes)) == (1, 1)
        assert on.inbox.repeats == 0


async def test_what_was_not_committed_comes_again() -> None:
    async with bench() as on:
        async with on.receiving() as raised:
            await on.discord.until(lambda: on.discord.gateway.live)
            await on.inbox.until(lambda: "session" in on.inbox.cursors)
            on.inbox.unavailable = True
            on.discord.say("kept by nobody")
            await on.discord.until(lambda: raised)
        assert type(raised[0]).__name__ == "StoreUnavailable"
        assert on.inbox.events == []
        on.inbox.unavailable = False
        async with on.receiving():
            await on.inbox.until(lambda: on.inbox.events)
        assert len(on.discord.gateway.resumes) == 1


@pytest.mark.parametrize(("code", "resumes"), [(4000, True), (4008, True), (1001, True), (4007, False), (4009, False)])
async def test_a_close_is_followed_by_a_resume_or_a_new_session(code: int, resumes: bool) -> None:
    async with bench() as on:
        async with on.receiving() as raised:
            await on.inbox.until(lambda: "session" in on.inbox.cursors)
            on.discord.gateway.close(code, "why", forget=not resumes)
            await on.discord.until(lambda: raised)
        assert isinstance(raised[0], PlatformUnavailable)
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.live)
        assert len(on.discord.gateway.resumes) == (1 if resumes else 0)
        assert len(on.discord.gateway.identifies) == (1 if resumes else 2)


async def test_a_bad_token_and_missing_intents_at_the_gateway_are_refused() -> None:
    async with bench() as on:
        on.discord.allowed_intents = 1 | 1 << 9 | 1 << 12
        await on.received(PlatformRefused, "Message Content Intent.*Privileged Gateway Intents")
        on.discord.reject_auth = True
        await on.received(PlatformRefused, "does not accept the token")
        assert len(on.discord.gateway.identifies) == 2


async def test_a_reconnect_that_is_asked_for_is_made_at_once() -> None:
    async with bench() as on, on.receiving() as raised:
        await on.inbox.until(lambda: "session" in on.inbox.cursors)
        on.discord.gateway.send({"op": 7, "d": None, "s": None, "t": None})
        await on.discord.until(lambda: on.discord.gateway.resumes)
        on.discord.say("still here")
        await on.inbox.until(lambda: on.inbox.events)
        assert raised == []


async def test_a_gateway_that_asks_for_nothing_but_reconnects_is_left_to_the_core() -> None:
    async with bench() as on, on.receiving() as raised:
        for count in range(1, 10):
            await on.discord.until(
                lambda count=count: raised or (on.discord.gateway.live and len(on.discord.gateway.paths) == count)
            )
            if raised:
                break
            on.discord.gateway.send({"op": 7, "d": None, "s": None, "t": None})
        assert isinstance(raised[0], PlatformUnavailable)
        assert len(on.discord.gateway.paths) == 4
        assert len(on.discord.gateway.identifies) == 1


async def test_an_invalid_session_is_followed_by_a_new_one_and_what_was_missed_is_read(clock: MockClock) -> None:
    async with bench() as on:
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.live)
            on.discord.say("before")
            on.discord.say("before, in the channel", CHANNEL)
            await on.inbox.until(lambda: len(on.inbox.events) == 2)
        on.discord.gateway.sessions.clear()
        for number in range(130):
            on.discord.add_message(CHANNEL, "900", f"missed {number}")
        on.discord.add_message(DM, "900", "missed, alone")
        on.discord.add_message(DM, BOT, "ours")
        async with on.receiving():
            await on.inbox.until(lambda: len(on.inbox.events) == 133 and on.inbox.cursors["missed"] == b"")
            on.discord.say("after")
            await on.inbox.until(lambda: len(on.inbox.events) == 134)
        assert [each.text for each in on.inbox.events if each.address.chat == CHANNEL][1:] == [
            f"missed {number}" for number in range(130)
        ]
        assert on.inbox.repeats == 0
        assert len(on.discord.gateway.identifies) == 2


async def test_a_heartbeat_names_nothing_that_is_still_being_committed(clock: MockClock) -> None:
    async with bench(world={"heartbeat_s": 2.0}) as on, on.receiving():
        beats = on.discord.gateway.heartbeats
        await on.discord.until(lambda: len(beats) > 1)
        (session,) = on.discord.gateway.sessions.values()
        held = on.inbox.hold = trio.Event()
        on.discord.say("hello")
        before = len(beats)
        await on.discord.until(lambda: len(beats) > before + 3)
        assert all(each is None or each < session.sequence for each in beats)
        on.inbox.hold = None
        held.set()
        await on.discord.until(lambda: beats[-1] == session.sequence)
        assert [event.text for event in on.inbox.events] == ["hello"]


async def test_heartbeats_without_acknowledgement_end_the_connection_and_keep_the_session(clock: MockClock) -> None:
    async with bench(world={"heartbeat_s": 5.0, "acks": False}) as on:
        await on.received(PlatformUnavailable, "did not acknowledge")
        await on.discord.until(lambda: not on.discord.gateway.connections)
        assert on.discord.gateway.closes == [4000]
        on.discord.acks = True
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.resumes)


async def test_a_gateway_that_does_not_greet_is_left() -> None:
    async with bench(world={"greets": False}, timeout_s=0.2) as on:
        await on.received(PlatformUnavailable, "did not answer in time")
        assert "session" not in on.inbox.cursors


async def test_a_deaf_gateway_is_found_by_asking_and_what_it_kept_is_read(clock: MockClock) -> None:
    async with bench(quiet_s=20.0) as on:
        async with on.receiving() as raised:
            await on.discord.until(lambda: on.discord.gateway.live)
            on.discord.say("one")
            await on.inbox.until(lambda: len(on.inbox.events) == 1)
            await on.discord.until(lambda: len(on.discord.asked("GET", f"/channels/{DM}$")) >= 2)
            assert raised == []  # silence alone is no fault
            assert on.inbox.promises["event"] > 20
            on.discord.forwards = False
            on.discord.say("nobody hears this")
            await on.inbox.until(lambda: raised)
        assert isinstance(raised[0], PlatformUnavailable)
        assert "does not tell us about" in str(raised[0])
        assert raised[0].silent == "event"
        on.discord.forwards = True
        async with on.receiving():
            await on.inbox.until(lambda: len(on.inbox.events) == 2)
        assert on.inbox.events[1].text == "nobody hears this"


async def test_the_usual_gateway_is_tried_when_the_sessions_own_is_gone() -> None:
    with refusing_port() as nobody:
        async with bench(world={"resume_port": nobody}) as on:
            async with on.receiving() as raised:
                await on.inbox.until(lambda: "session" in on.inbox.cursors)
                await on.discord.gateway.drop()
                await on.discord.until(lambda: raised)
            async with on.receiving() as again:
                await on.discord.until(lambda: on.discord.gateway.resumes)
            assert again == []
            assert len(on.discord.gateway.identifies) == 1


async def test_identifies_are_counted_over_restarts_and_the_last_are_kept_back() -> None:
    async with bench(world={"identifies_left": 7}) as on:
        for _ in range(2):
            async with on.receiving():
                await on.discord.until(lambda: on.discord.gateway.live)
            on.inbox.cursors.clear()
            await on.discord.until(lambda: not on.discord.gateway.connections)
        refused = await on.received(PlatformUnavailable, "as many sessions as Discord allows")
        assert isinstance(refused, PlatformUnavailable)
        assert 14_000 < (refused.retry_after_s or 0) <= 14_400
        assert len(on.discord.gateway.identifies) == 2


async def test_what_is_malformed_is_left_out_and_the_rest_goes_on() -> None:
    async with bench() as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        for data in (None, {}, {"id": "x"}, {"id": "1", "channel_id": DM, "author": 7}, []):
            on.discord.gateway.dispatch("MESSAGE_CREATE", data)
            on.discord.gateway.dispatch("INTERACTION_CREATE", data)
            on.discord.gateway.dispatch("GUILD_CREATE", data)
        on.discord.gateway.dispatch("SOMETHING_NEW", {"a": 1})
        on.discord.gateway.send({"op": 77, "d": None})
        on.discord.say("fine")
        await on.inbox.until(lambda: on.inbox.events)
        assert [each.text for each in on.inbox.events] == ["fine"]
        told = {because.partition(" ")[0] for because, _ in on.inbox.quarantined}
        assert told == {"MESSAGE_CREATE", "INTERACTION_CREATE", "GUILD_CREATE"}
        assert all(sample == b"" for because, sample in on.inbox.quarantined if because.startswith("INTER"))


@pytest.mark.parametrize("rubbish", ["{", "[]", b"rubbish\x00\x00\xff\xff"])
async def test_what_is_no_frame_ends_the_connection(rubbish: Any) -> None:
    async with bench() as on, on.receiving() as raised:
        await on.discord.until(lambda: on.discord.gateway.live)
        on.discord.gateway.send(rubbish)
        await on.discord.until(lambda: raised)
        assert isinstance(raised[0], PlatformProtocolError)


@pytest.mark.parametrize("close", [None, 4000, 4002])
async def test_a_session_that_no_gateway_resumes_is_given_up(
    close: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(timeout_s=0.3) as on:
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.live)
            on.discord.say("one")
            await on.inbox.until(lambda: on.inbox.events)
        on.discord.say("two")

        def unresumed(link: Any, _: Any) -> None:
            if close is not None:
                link.outbox.send_nowait((close, "why"))

        monkeypatch.setattr(on.discord.gateway, "_resume", unresumed)
        for _ in range(MAX_VAIN):
            await on.received(PlatformUnavailable, "in time|Discord")
        async with on.receiving():
            await on.inbox.until(lambda: len(on.inbox.events) == 2)
        assert len(on.discord.gateway.resumes) == MAX_VAIN


async def test_what_can_never_be_read_is_not_resumed_for_ever() -> None:
    async with bench() as on:
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.live)
            on.discord.say("one")
            await on.inbox.until(lambda: on.inbox.events)
        (session,) = on.discord.gateway.sessions.values()
        session.sequence += 1
        session.kept.append({"op": 0, "s": session.sequence, "t": "MESSAGE_CREATE", "d": float("nan")})  # no JSON
        on.discord.say("two")
        await on.received(PlatformProtocolError, "no frame")
        async with on.receiving():
            await on.inbox.until(lambda: len(on.inbox.events) == 2)
        assert [each.text for each in on.inbox.events] == ["one", "two"]
        assert len(on.discord.gateway.identifies) == 2


async def test_a_message_that_cannot_be_read_keeps_no_other_from_being_read_later(clock: MockClock) -> None:
    async with bench() as on:
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.live)
            on.discord.say("one")
            await on.inbox.until(lambda: on.inbox.events)
        on.discord.gateway.sessions.clear()
        on.discord.say("half of a pair: \ud800")
        on.discord.say("garbage", attachments=[{"id": [], "filename": None}])
        on.discord.say("three")
        async with on.receiving():
            await on.inbox.until(lambda: len(on.inbox.events) == 3)
        assert [each.text for each in on.inbox.events] == ["one", "half of a pair: \ufffd", "three"]


async def test_what_comes_twice_is_one_event() -> None:
    async with bench(world={"duplicates": True}) as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        for text in ("one", "two"):
            on.discord.say(text)
        await on.inbox.until(lambda: on.inbox.repeats == 2)
        assert [each.text for each in on.inbox.events] == ["one", "two"]


async def test_edits_come_in_and_previews_do_not() -> None:
    async with bench() as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        message = on.discord.say("hlelo")
        on.discord.gateway.dispatch("MESSAGE_UPDATE", message)  # a preview was added
        on.discord.change(message, "hello")
        await on.inbox.until(lambda: len(on.inbox.events) == 2)
        assert [(each.kind, each.text) for each in on.inbox.events] == [("message", "hlelo"), ("edited", "hello")]


async def test_a_command_is_deferred_after_its_commit_and_its_answer_fills_the_place() -> None:
    async with bench() as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        on.inbox.hold = trio.Event()
        used = on.discord.command("model", "gpt-5")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not on.discord.asked("POST", "/callback$")
        on.inbox.hold.set()
        await on.discord.until(lambda: on.discord.interactions[used["token"]]["answer"])
        event = on.inbox.events[0]
        assert (event.text, event.to_us, event.address.chat) == ("/model gpt-5", True, CHANNEL)
        assert event.reply is not None
        assert event.reply.token == used["token"]
        sent = await on.platform.send(event.address, Content(text="done"), key="k1", reply=event.reply)
        assert on.discord.shown(CHANNEL) == ["done"]
        again = await on.platform.send(event.address, Content(text="done"), key="k1", reply=event.reply)
        assert again.message_id == sent.message_id
        await on.platform.send(event.address, Content(text="and more"), key="k2", reply=event.reply)
        assert on.discord.shown(CHANNEL) == ["done", "and more"]
        void = replace_token(event.reply)
        await on.platform.send(event.address, Content(text="late"), key="k3", reply=void)
        assert on.discord.shown(CHANNEL)[-1] == "late"


def replace_token(reply: ReplyRef) -> ReplyRef:
    return ReplyRef(token="void-token-" + "y" * 50, until=reply.until)


async def test_a_button_comes_back_with_its_data() -> None:
    async with bench() as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        rows = ((Button("Yes", "approve:1"), Button("No", "deny:1")),)
        sent = await on.platform.send(TO, Content(text="Do it?", buttons=rows), key="k", reply=None)
        shown = on.discord.messages[DM][sent.message_id]
        assert [each["label"] for each in shown["components"][0]["components"]] == ["Yes", "No"]
        pressed = on.discord.press(shown, "approve:1")
        await on.inbox.until(lambda: on.inbox.events)
        event = on.inbox.events[0]
        assert (event.kind, event.text, event.sender.id) == ("button", "approve:1", "900")
        assert event.reply == ReplyRef(message_id=sent.message_id)
        await on.discord.until(lambda: on.discord.interactions[pressed["token"]]["answer"])
        assert on.discord.interactions[pressed["token"]]["answer"] == {"type": 6}


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_send_edit_react_and_type() -> None:
    async with bench() as on:
        question = on.discord.add_message(DM, "900", "hello")
        reply = ReplyRef(message_id=question["id"])
        sent = await on.platform.send(TO, Content(text="**hi** @everyone", silent=True), key="abc", reply=reply)
        shown = on.discord.messages[DM][sent.message_id]
        assert (shown["content"], shown["flags"], shown["nonce"]) == ("**hi** @everyone", 1 << 12, "abc")
        assert shown["message_reference"]["message_id"] == question["id"]
        body = on.discord.asked("POST", "/messages$")[0].document()
        assert body["allowed_mentions"] == {"parse": [], "replied_user": False}
        assert body["enforce_nonce"] is True
        for _ in range(2):
            assert await on.platform.edit(sent, Content(text="hi")) == sent
        assert shown["content"] == "hi"
        await on.platform.signal(TO, Activity(kind="typing"))
        await on.platform.signal(TO, Activity(kind="reaction", emoji="👀", reply=reply))
        assert on.discord.typing == [DM]
        assert on.discord.reactions == [(DM, question["id"], "👀")]
        await on.platform.signal(TO, Activity(kind="reaction", reply=reply))
        assert question["reactions"] == []


async def test_an_answer_to_what_was_deleted_meanwhile_is_shown_all_the_same() -> None:
    async with bench() as on:
        await on.platform.send(TO, Content(text="well"), key="k", reply=ReplyRef(message_id="12345"))
        assert on.discord.shown() == ["well"]


async def test_a_right_to_answer_that_is_over_is_not_used() -> None:
    async with bench() as on:
        late = ReplyRef(token="t" * 50, until=on.discord.clock() - 1)
        await on.platform.send(TO, Content(text="well"), key="k", reply=late)
        assert on.discord.shown() == ["well"]
        assert not on.discord.asked("PATCH", "/webhooks/")


async def test_the_same_key_is_shown_once() -> None:
    async with bench() as on:
        on.discord.fail(Fault(method="POST", path="/messages$"))  # it takes effect, and no answer comes
        with pytest.raises(SendUncertain):
            await on.platform.send(TO, Content(text="once"), key="same", reply=None)
        assert on.discord.shown() == ["once"]
        await on.platform.send(TO, Content(text="once"), key="same", reply=None)
        assert on.discord.shown() == ["once"]


async def test_a_file_goes_with_its_caption(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"x" * 200_000)
    file = OutboundFile(path=path, name="a b.txt", media_type="text/plain", size_bytes=200_000)
    async with bench() as on:
        sent = await on.platform.send(TO, Content(text="see", file=file), key="k", reply=None)
        shown = on.discord.messages[DM][sent.message_id]
        assert (shown["content"], shown["nonce"], shown["attachments"][0]["filename"]) == ("see", "k", "a b.txt")
        assert on.discord.files[f"{shown['attachments'][0]['id']}/a b.txt"] == b"x" * 200_000


async def test_an_answer_to_a_mention_makes_its_thread() -> None:
    async with bench() as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        question = on.discord.say("<@1000> explain tides", CHANNEL)
        await on.inbox.until(lambda: on.inbox.events)
        event = on.inbox.events[0]
        for text in ("The moon", "does it"):
            receipt = await on.platform.send(event.address, Content(text=text), key=text[:3].lower(), reply=event.reply)
        assert on.discord.shown(question["id"]) == ["The moon", "does it"]
        assert on.discord.channels[question["id"]]["parent_id"] == CHANNEL
        assert "explain tides" in on.discord.channels[question["id"]]["name"]
        assert receipt.address == event.address
        await on.platform.edit(receipt, Content(text="does it all"))
        assert on.discord.shown(question["id"])[-1] == "does it all"


async def test_whoever_goes_on_in_a_thread_with_us_needs_no_more_mentions() -> None:
    """In a thread made for an answer and in a post where we were named, also after a restart, until somebody else is named."""
    async with bench() as on:
        async with on.receiving():
            await on.discord.until(lambda: on.discord.gateway.live)
            on.discord.say("nobody was named here yet", THREAD)
            question = on.discord.say("<@1000> explain tides", CHANNEL)
            on.discord.say("<@1000> and posts?", THREAD)
            await on.inbox.until(lambda: len(on.inbox.events) == 3)
            await on.platform.send(on.inbox.events[1].address, Content(text="The moon"), key="1", reply=None)
        async with on.receiving():
            for thread in (question["id"], THREAD):
                on.discord.say("and when?", thread)
                on.discord.say(f"<@{ALICE}> what do you think?", thread)
                on.discord.say("I say so too", thread, OTHER_BOT)
                on.discord.say("", thread)
            on.discord.say("something else", CHANNEL)
            await on.inbox.until(lambda: len(on.inbox.events) == 12)
        told = [(event.to_us, event.text) for event in on.inbox.events]
        again = [(True, "and when?"), (False, "@Alice what do you think?"), (False, "I say so too"), (False, "")]
        assert told == [
            (False, "nobody was named here yet"), (True, "explain tides"), (True, "and posts?"),
            *again, *again, (False, "something else"),
        ]  # fmt: skip


@pytest.mark.parametrize("settings", [{"follow_threads": False}, {"message_content": False}])
async def test_threads_are_followed_only_where_that_is_wanted_and_can_be_read(settings: dict[str, bool]) -> None:
    async with bench(**settings) as on, on.receiving():
        await on.discord.until(lambda: on.discord.gateway.live)
        on.discord.say("<@1000> hello", THREAD)
        on.discord.say("and when?", THREAD)
        await on.inbox.until(lambda: len(on.inbox.events) == 2)
        assert [event.to_us for event in on.inbox.events] == [True, False]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answer_json({"code": 10003, "message": "Unknown Channel"}, 404), AddressGone),
        (answer_json({"code": 50007, "message": "no"}, 403), AddressGone),
        (answer_json({"code": 50001, "message": "no"}, 403), AddressGone),
        (answer_json({"code": 50013, "message": "no"}, 403), SendRejected),
        (answer_json({"code": 50035, "message": "no"}, 400), SendRejected),
        (Answered(status=403, body=b"<html>"), SendRejected),
        (Answered(status=401), PlatformRefused),
        (Answered(status=500), PlatformUnavailable),
        (Answered(status=502, body=b"<html>"), PlatformUnavailable),
        (Answered(status=429, headers={"retry-after": "7"}), RateLimited),
        (Answered(body=b"not json"), SendUncertain),
        (Answered(hang=True), SendUncertain),
        (Answered(cut=40), SendUncertain),
    ],
)
async def test_every_answer_to_a_send_has_its_meaning(answer: Answered, error: type[Exception]) -> None:
    async with bench(timeout_s=0.5) as on:
        on.discord.fail(Fault(answer=answer, method="POST", path="/messages$"))
        with pytest.raises(error) as caught:
            await on.platform.send(TO, Content(text="x"), key="k", reply=None)
        assert type(caught.value) is error
        assert len(on.discord.asked("POST", "/messages$")) == 1
        assert "fake-token" not in str(caught.value)


async def test_an_empty_bucket_makes_no_request() -> None:
    async with bench(world={"bucket": (2, 60.0)}) as on:
        for number in range(2):
            await on.platform.send(TO, Content(text="x"), key=f"k{number}", reply=None)
        with pytest.raises(RateLimited) as caught:
            await on.platform.send(TO, Content(text="x"), key="k", reply=None)
        assert caught.value.scope == "address"
        assert 50 < caught.value.retry_after_s <= 60
        assert len(on.discord.asked("POST", "/messages$")) == 2
        await on.platform.send(Address("discord", CHANNEL), Content(text="x"), key="k3", reply=None)


async def test_a_global_limit_holds_everything() -> None:
    async with bench() as on:
        limit = answer_json({"message": "slow", "retry_after": 30, "global": True}, 429)
        on.discord.fail(Fault(answer=limit, method="POST", path="/messages$"))
        for to in (DM, CHANNEL):
            with pytest.raises(RateLimited) as caught:
                await on.platform.send(Address("discord", to), Content(text="x"), key="k", reply=None)
            assert caught.value.scope == "account"
        assert len(on.discord.asked("POST", "/messages$")) == 1


async def test_what_cannot_be_sent_is_refused_before_it_leaves() -> None:
    async with bench() as on:
        for content in (
            Content(text="x" * 2001),
            Content(text=" "),
            Content(text="x", buttons=((Button("a", "b"),),) * 6),
        ):
            with pytest.raises(SendRejected):
                await on.platform.send(TO, content, key="k", reply=None)
        with pytest.raises(SendRejected, match="no id"):
            await on.platform.send(Address("discord", "../x"), Content(text="x"), key="k", reply=None)
        assert not on.discord.asked("POST", "/messages$")
        await on.platform.send(TO, Content(text="😀" * 2000), key="k", reply=None)


# --- fetching --------------------------------------------------------------------------------------------------------


async def test_a_file_is_fetched_bounded_and_only_from_its_service() -> None:
    async with bench() as on:
        on.discord.files["1/a.png"] = b"x" * 100_000
        base = f"http://127.0.0.1:{on.discord.port}/attachments"
        ref = AttachmentRef(kind="image", ref=f"{base}/1/a.png")
        async with on.platform.fetch(ref, max_bytes=100_000) as pieces:
            assert b"".join([piece async for piece in pieces]) == b"x" * 100_000
        assert "authorization" not in on.discord.requests[-1].headers
        for url, most in (
            (ref.ref, 99_999),
            (f"{base}/2/b.png", 10),
            ("http://127.0.0.1:1/x", 10),
            ("file:///etc/passwd", 10),
        ):
            with pytest.raises(SendRejected):
                async with on.platform.fetch(AttachmentRef(kind="image", ref=url), max_bytes=most):
                    pass
        on.discord.fail(Fault(answer=Answered(status=500), path="/attachments/"))
        with pytest.raises(PlatformUnavailable):
            async with on.platform.fetch(ref, max_bytes=100_000):
                pass
