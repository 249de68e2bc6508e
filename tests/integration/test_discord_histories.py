"""What was missed on Discord: histories that fail, are limited or too large, and what comes while they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.errors import StoreUnavailable
from hermes.platform import Platform, Secret
from hermes.testing import no_leaks
from hermes.testing.fake_discord import ALICE, BOT, CHANNEL, DM, FakeDiscord, Fault, open_fake_discord
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.host import RecordingInbox, open_test_host
from hermes.testing.inbox import receiving
from platforms.discord import DiscordConfig
from platforms.discord import platform as spec
from platforms.discord.cursors import MAX_CHANNELS, Newest
from platforms.discord.gateway import Connection
from platforms.discord.happenings import Happenings
from platforms.discord.receiving import Account, Receiving
from platforms.discord.wire import Message, User

HISTORY = r"/messages$"
LIMIT = answer_json({"message": "slow", "retry_after": 3.0, "global": False}, 429)
NOT_NOW = answer_json({"message": "500: Internal Server Error", "code": 0}, 500)
TOO_LARGE = Answered(body=b" " * 8_500_000)


@pytest.fixture
def clock() -> MockClock:
    """Time that passes fast; the sockets are real, so it may not jump."""
    return MockClock(rate=25.0)


class Bench:
    """A Discord, an inbox, and runs of `receive`."""

    def __init__(self, discord: FakeDiscord, platform: Platform) -> None:
        self.discord = discord
        self.platform = platform
        self.inbox = RecordingInbox()

    @asynccontextmanager
    async def live(self) -> AsyncIterator[list[Exception]]:
        """`receive` beside the block, which begins when a session lives."""
        async with receiving(self.platform, self.inbox) as raised:
            await self.discord.until(lambda: self.discord.gateway.live)
            yield raised
        await self.discord.until(lambda: not self.discord.gateway.connections)

    async def hears(self, *channels: str) -> None:
        """Something is said in each, heard and committed; then the session is lost."""
        async with self.live():
            for channel in channels:
                self.discord.say("before", channel)
            await self.until(len(channels))
        self.discord.gateway.sessions.clear()

    async def until(self, count: int) -> None:
        """Wait for so many events."""
        await self.inbox.until(lambda: len(self.inbox.events) >= count)

    def texts(self) -> list[str]:
        """What was committed, without what was heard before."""
        return [each.text for each in self.inbox.events if each.text != "before"]


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    async with no_leaks(), open_fake_discord() as discord:
        config = DiscordConfig(token=Secret(discord.token), base_url=discord.base_url, **settings)
        async with open_test_host("discord", clock=trio.current_time) as host, spec.open(config, host) as platform:
            yield Bench(discord, platform)


@pytest.mark.parametrize(
    "answer",
    [NOT_NOW, TOO_LARGE, Answered(body=b"{}"), answer_json({"message": "400: Bad Request", "code": 50035}, 400)],
    ids=["5xx", "too large", "no list", "400"],
)
async def test_one_history_that_cannot_be_read_ends_no_connection_and_holds_up_no_other(
    clock: MockClock, answer: Answered
) -> None:
    async with bench() as on:
        await on.hears(CHANNEL, DM)
        on.discord.add_message(DM, ALICE, "lost for now")
        on.discord.add_message(CHANNEL, ALICE, "missed")
        on.discord.fail(Fault(answer=answer, method="GET", path=f"/{DM}/messages$", times=1000))
        async with on.live() as raised:
            await on.until(3)
            on.discord.say("live", CHANNEL)
            await on.until(4)
            assert raised == []
        assert on.texts() == ["missed", "live"]
        assert len(on.discord.gateway.identifies) == 2


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(DM)
        for number in range(3):
            on.discord.add_message(DM, ALICE, f"missed {number}")
        on.discord.fail(Fault(answer=TOO_LARGE, method="GET", path=HISTORY, times=3))
        async with on.live() as raised:
            await on.until(4)
            assert raised == []
        assert on.texts() == ["missed 0", "missed 1", "missed 2"]


async def test_a_history_that_could_not_be_had_is_read_later(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(DM)
        on.discord.add_message(DM, ALICE, "missed")
        on.discord.fail(Fault(answer=NOT_NOW, method="GET", path=HISTORY, times=3))
        async with on.live() as raised:
            await on.until(2)
            await on.inbox.until(lambda: on.inbox.cursors["missed"] == b"")
            assert raised == []


async def test_commands_and_messages_come_in_while_histories_are_limited(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(CHANNEL, DM)
        on.discord.add_message(DM, ALICE, "missed")
        on.discord.fail(
            Fault(answer=answer_json({"retry_after": 3000.0, "global": False}, 429), path=f"/{DM}{HISTORY}")
        )
        async with on.live() as raised:
            await on.discord.until(lambda: on.discord.asked("GET", f"/{DM}{HISTORY}"))
            on.discord.say("live")
            on.discord.command("status")
            await on.discord.until(lambda: on.discord.asked("POST", "/callback$"))
            assert raised == []
            assert on.texts() == ["live", "/status"]
        # What was committed meanwhile is no proof that what came before it is read.
        assert on.inbox.cursors["missed"]
        clock.jump(3000)
        async with on.live():
            await on.inbox.until(lambda: "missed" in on.texts())


async def test_each_of_many_histories_is_read_though_each_is_limited(clock: MockClock) -> None:
    async with bench() as on:
        channels = [str(700 + number) for number in range(6)]
        for channel in channels:
            on.discord.add_channel(channel, 0)
        await on.hears(*channels)
        for channel in channels:
            on.discord.add_message(channel, ALICE, f"missed in {channel}")
            on.discord.fail(Fault(answer=LIMIT, method="GET", path=f"/{channel}{HISTORY}"))
        async with on.live() as raised:
            await on.until(12)
            assert raised == []
        assert len(on.discord.gateway.paths) == 3  # the second said that its session is over


async def test_a_channel_first_heard_while_histories_are_unread_is_remembered(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(DM)
        on.discord.fail(Fault(answer=LIMIT, method="GET", path=HISTORY))
        async with on.live():
            await on.discord.until(lambda: on.discord.asked("GET", HISTORY))
            on.discord.say("first", CHANNEL)
            await on.until(2)
        on.discord.gateway.sessions.clear()
        on.discord.add_message(CHANNEL, ALICE, "missed")
        async with on.live():
            await on.until(3)
        assert on.texts() == ["first", "missed"]


async def test_a_channel_first_heard_in_a_replay_with_histories_unread_is_remembered(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(DM)
        async with on.live():
            await on.inbox.until(lambda: on.inbox.cursors.get("missed") == b"")
        on.inbox.cursors["missed"] = b"1"  # as a process that was killed while it read
        on.discord.say("first", CHANNEL)
        async with on.live():
            await on.until(2)
            await on.inbox.until(lambda: on.inbox.cursors.get("missed") == b"")
        on.discord.gateway.sessions.clear()
        on.discord.add_message(CHANNEL, ALICE, "missed")
        async with on.live():
            await on.until(3)
        assert on.texts() == ["first", "missed"]


async def test_what_was_not_committed_is_counted_by_no_other_commit() -> None:
    """A message whose commit failed is not behind us because a history is committed next."""
    async with bench() as on:
        await on.hears(CHANNEL)
        async with open_test_host("discord") as host:
            account = Account(
                host=host,
                config=DiscordConfig(token=Secret("t")),
                rest=None,  # type: ignore[arg-type]
                me=BOT,
                gateway="",
                happenings=Happenings(None, "discord", BOT, auto_thread=False, follow_threads=False),  # type: ignore[arg-type]
            )
            one = Receiving(account, on.inbox, on.inbox.cursors)
        heard = one.newest.of(CHANNEL)
        link = Connection(None, account.config, None)  # type: ignore[arg-type]
        missed = Message(id=str(heard + 9), channel_id=CHANNEL, author=User(id=ALICE))
        on.inbox.unavailable = True
        with pytest.raises(StoreUnavailable):
            await one._commit(link, 7, message=missed)
        on.inbox.unavailable = False
        await one._commit_read([], [(DM, 5)])
        assert Newest(on.inbox.cursors["newest"]).of(CHANNEL) == heard
        assert Newest(on.inbox.cursors["newest"]).of(DM) == 5


async def test_histories_that_are_long_in_reading_break_no_promise(clock: MockClock) -> None:
    """The gateway is heard while histories are read: acknowledged heartbeats are promised anew."""
    async with bench() as on:
        on.discord.heartbeat_s = 2.0
        await on.hears(DM)
        promised: list[float] = []
        alive = on.inbox.alive

        def heard(path: str, *, next_within_s: float) -> None:
            promised.append(trio.current_time())
            alive(path, next_within_s=next_within_s)

        on.inbox.alive = heard  # type: ignore[method-assign]
        on.discord.fail(Fault(answer=Answered(hang=True), method="GET", path=HISTORY))
        async with on.live():
            await on.discord.until(lambda: on.discord.asked("GET", HISTORY))
            since = len(promised)
            await on.inbox.until(lambda: len(promised) > since + 3)
        assert promised[since + 3] - promised[since] < 4 * 2 * on.discord.heartbeat_s


@pytest.mark.parametrize("gone", ["deleted", "not read"])
async def test_what_no_history_brought_is_no_proof_of_deafness(clock: MockClock, gone: str) -> None:
    async with bench(quiet_s=20.0, backfill_pages=0 if gone == "not read" else 250) as on:
        await on.hears(DM)
        missed = on.discord.add_message(DM, ALICE, "missed")
        if gone == "deleted":
            del on.discord.messages[DM][missed["id"]]  # Discord goes on to name it as the newest
        async with on.live() as raised:
            first = len(on.discord.asked("GET", f"/channels/{DM}$"))
            await on.discord.until(lambda: raised or len(on.discord.asked("GET", f"/channels/{DM}$")) > first + 3)
            assert raised == []
            on.discord.forwards = False
            on.discord.say("nobody hears this")
            await on.inbox.until(lambda: raised)
            assert "does not tell us about" in str(raised[0])


async def test_a_message_that_cannot_be_read_is_no_proof_of_deafness(clock: MockClock) -> None:
    async with bench(quiet_s=20.0) as on, on.live() as raised:
        on.discord.say("one")
        await on.until(1)
        on.discord.say("garbage", attachments=[{"id": [], "filename": None}])
        await on.inbox.until(lambda: on.inbox.quarantined)
        await on.discord.until(lambda: raised or len(on.discord.asked("GET", f"/channels/{DM}$")) > 3)
        assert raised == []


async def test_an_unread_channel_gives_no_room_to_others(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(DM)
        on.discord.add_message(DM, ALICE, "missed")
        on.discord.fail(
            Fault(answer=answer_json({"retry_after": 3000.0, "global": False}, 429), path=f"/{DM}{HISTORY}")
        )
        async with on.live():
            await on.discord.until(lambda: on.discord.asked("GET", f"/{DM}{HISTORY}"))
            for number in range(MAX_CHANNELS + 1):
                on.discord.add_channel(str(2000 + number), 0)
                on.discord.say("elsewhere", str(2000 + number))
            await on.until(MAX_CHANNELS + 2)
        assert "missed" not in on.texts()
        clock.jump(3000)
        async with on.live():
            await on.inbox.until(lambda: "missed" in on.texts())
        assert len(on.texts()) == MAX_CHANNELS + 2


async def test_a_thread_that_began_in_what_was_missed_is_read_too(clock: MockClock) -> None:
    async with bench() as on:
        await on.hears(CHANNEL)
        origin = on.discord.add_message(CHANNEL, ALICE, "let us talk", flags=1 << 5)
        origin["thread"] = on.discord.add_channel(origin["id"], 11, name="a talk", parent=CHANNEL)
        on.discord.add_message(origin["id"], ALICE, "<@1000> are you there?")
        async with on.live():
            await on.until(3)
        assert on.texts() == ["let us talk", "are you there?"]
        assert on.inbox.events[-1].address.thread == origin["id"]


async def test_a_place_that_nobody_will_tell_of_ends_no_connection() -> None:
    async with bench() as on:
        await on.hears(CHANNEL)
        on.discord.fail(
            Fault(
                answer=answer_json({"message": "400: Bad Request", "code": 50035}, 400),
                path=f"/channels/{DM}$",
                times=9,
            )
        )
        async with on.live() as raised:
            on.discord.say("hello")
            await on.inbox.until(lambda: raised or on.texts())
            assert raised == []
