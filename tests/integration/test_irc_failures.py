"""IRC on bad days: refused, cut, flooded, silent, put out, and what is made up for afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.errors import (
    AddressGone,
    ConnectionEnded,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendUncertain,
    leaves,
)
from hermes.events import Address, Content
from hermes.platform import Platform, Secret
from hermes.testing import LeakCensus, RecordingInbox, open_test_host
from hermes.testing.census import settle
from hermes.testing.fake_irc import MODERN, PLAIN, FakeIrc, open_fake_irc
from hermes.testing.fake_irc_commands import kick
from platforms.irc import IrcConfig
from platforms.irc import platform as spec

BOTH = pytest.mark.parametrize("offered", [MODERN, PLAIN], ids=["modern", "plain"])


def config(irc: FakeIrc, **more: Any) -> IrcConfig:
    given = {"channels": ("#den",), "flood_burst": 1000, "flood_interval_s": 0.001}
    return IrcConfig(server="127.0.0.1", port=irc.port, tls=False, nick="hermes", **{**given, **more})


@asynccontextmanager
async def connected(irc: FakeIrc, **more: Any) -> AsyncIterator[Platform]:
    async with open_test_host("irc", clock=irc.clock) as host, spec.open(config(irc, **more), host) as platform:
        yield platform


async def say(platform: Platform, chat: str = "friend", text: str = "hello") -> str:
    return (await platform.send(Address("irc", chat), Content(text=text), key="k", reply=None)).message_id


async def receives(platform: Platform, inbox: RecordingInbox | None = None) -> PlatformError:
    """Receive until it fails; why."""
    inbox = inbox or RecordingInbox(account="irc")
    with pytest.raises((PlatformError, ExceptionGroup)) as raised:
        await platform.receive(inbox, dict(inbox.cursors))
    (error,) = leaves(raised.value)
    assert isinstance(error, PlatformError)
    return error


async def test_it_logs_in_before_anything_else() -> None:
    async with open_fake_irc() as irc, connected(irc, sasl_password=Secret("secret")):
        assert irc.asked.index("AUTHENTICATE") < irc.asked.index("JOIN #den")
        client = irc.client()
        assert client is not None
        assert client.account == "hermes"


@BOTH
async def test_what_is_said_beside_the_welcome_is_heard(offered: Collection[str]) -> None:
    async with open_fake_irc(offered) as irc:
        irc.waiting = ("before its last line", "right behind it")
        inbox = RecordingInbox(account="irc")
        async with connected(irc) as platform, trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, inbox, {})
            await inbox.until(lambda: len(inbox.events) >= 2)
            nursery.cancel_scope.cancel()
        assert [each.text for each in inbox.events] == ["before its last line", "right behind it"]


@pytest.mark.parametrize(
    ("offered", "password", "raises"),
    [
        (MODERN, "wrong", PlatformRefused),
        (MODERN, "x" * 300, PlatformRefused),  # a name and password of several lines
        (MODERN - {"sasl"}, "secret", PlatformUnavailable),
        (PLAIN, "secret", PlatformUnavailable),
    ],
)
async def test_who_cannot_log_in_does_not_come_in(
    offered: Collection[str], password: str, raises: type[PlatformError]
) -> None:
    async with open_fake_irc(offered) as irc:
        with pytest.raises(raises) as raised:
            async with connected(irc, sasl_password=Secret(password)):
                pass
        assert password not in str(raised.value)
        assert "JOIN #den" not in irc.asked


@BOTH
async def test_a_connection_that_is_cut_ends_everything_that_uses_it(offered: Collection[str]) -> None:
    async with open_fake_irc(offered) as irc, connected(irc) as platform:
        irc.day = "hang"
        found: list[PlatformError] = []

        async def sends() -> None:
            with pytest.raises(PlatformError) as raised:
                await say(platform)
            found.append(raised.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sends)
            await irc.until(lambda: irc.asked[-1].startswith(("PRIVMSG", "PING")))
            irc.cut(words="Closing Link: (Killed by a collision)")
        assert isinstance(found[0], SendUncertain)  # it may have been shown
        assert "collision" in str(found[0])
        with pytest.raises(ConnectionEnded):
            await say(platform)  # nothing of this one can have left
        assert isinstance(await receives(platform), ConnectionEnded)


async def test_a_ban_is_no_reason_to_try_again() -> None:
    async with open_fake_irc() as irc, connected(irc) as platform:
        irc.cut(words="Closing Link: (K-Lined: no bots)")
        error = await receives(platform)
        assert isinstance(error, PlatformRefused)
        assert "no bots" in str(error)


@BOTH
async def test_a_server_that_falls_silent_is_found_out(offered: Collection[str]) -> None:
    clock = MockClock(autojump_threshold=0.05)

    async def main() -> None:
        async with open_fake_irc(offered) as irc, connected(irc) as platform:
            irc.day = "hang"
            began = trio.current_time()
            assert isinstance(await receives(platform), ConnectionEnded)
            assert trio.current_time() - began <= 60 + 32

    await _in_time(main, clock)


@BOTH
async def test_no_more_is_written_than_a_strict_server_bears(offered: Collection[str]) -> None:
    clock = MockClock(autojump_threshold=0.05)

    async def main() -> None:
        async with open_fake_irc(offered) as irc:
            irc.flood = 6
            async with connected(irc, flood_burst=5, flood_interval_s=2.0, channels=()) as platform:
                limits, scopes = 0, set[str]()
                texts = [f"part {number}" for number in range(12)]
                texts.append("\n".join(f"line {number}" for number in range(20)))
                while texts:
                    try:
                        await say(platform, text=texts[0])
                        del texts[0]
                    except RateLimited as limit:
                        limits += 1
                        scopes.add(limit.scope)
                        await trio.sleep(limit.retry_after_s)
                assert limits > 3
                assert scopes == {"account"}
                assert irc.shown["friend"] == [
                    *(f"part {number}" for number in range(12)), *(f"line {number}" for number in range(20))
                ]  # fmt: skip
                assert irc.connections == 1

    await _in_time(main, clock)


async def _in_time(main: Any, clock: MockClock) -> None:
    """Run on a clock of its own, in a thread: this test's own stands."""
    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))


async def test_what_was_said_while_we_were_away_comes_once_and_in_order() -> None:
    async with open_fake_irc() as irc, open_test_host("irc", clock=irc.clock) as host:
        inbox = RecordingInbox(account="irc")

        async def until(count: int) -> None:
            async with spec.open(config(irc), host) as platform, trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, inbox, dict(inbox.cursors))
                await inbox.until(lambda: len(inbox.events) >= count)
                nursery.cancel_scope.cancel()

        irc.say("before our time")
        async with spec.open(config(irc), host) as platform, trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, inbox, {})
            await inbox.until(lambda: inbox.cursors)
            irc.say("live")
            await inbox.until(lambda: inbox.events)
            nursery.cancel_scope.cancel()
        for number in range(250):
            irc.say(f"away {number}", to="#den" if number % 3 else "hermes")
        await until(251)
        assert [event.text for event in inbox.events] == ["live", *(f"away {number}" for number in range(250))]
        assert inbox.repeats == 0


async def test_what_was_said_while_we_were_away_is_lost_where_nobody_keeps_it() -> None:
    async with open_fake_irc(PLAIN) as irc:
        irc.say("nobody hears this")
        async with connected(irc) as platform, trio.open_nursery() as nursery:
            inbox = RecordingInbox(account="irc")
            nursery.start_soon(platform.receive, inbox, {})
            await irc.until(lambda: irc.client())
            irc.say("but this")
            await inbox.until(lambda: inbox.events)
            assert [event.text for event in inbox.events] == ["but this"]
            assert inbox.cursors == {}
            nursery.cancel_scope.cancel()


@BOTH
async def test_a_server_that_asks_whether_we_are_there_is_answered_although_no_more_may_be_written(
    offered: Collection[str],
) -> None:
    async with open_fake_irc(offered=offered) as irc:
        async with connected(irc, flood_burst=3, flood_interval_s=3600.0) as platform:
            with pytest.raises(RateLimited):
                await say(platform)
            irc.tell("hermes", "PING :token 7")
            await irc.until(lambda: "PONG token 7" in irc.asked)


async def test_lines_leave_room_for_the_host_that_we_are_shown_with_now() -> None:
    async with open_fake_irc() as irc, connected(irc) as platform:
        host = "a-cloak-of-a-network." * 3
        irc.tell("hermes", f":irc.test 396 hermes {host} :is now your visible host")
        await say(platform, text="hello")  # its answer comes after that
        await say(platform, text="word " * 300)
        longest = max(len(text) for text in irc.shown["friend"])
        assert 512 - 40 < len(f":hermes!~hermes@{host} PRIVMSG friend :\r\n") + longest <= 512


async def test_the_doors_of_channels() -> None:
    async with open_fake_irc() as irc:
        async with connected(irc, channels=("#open", "#locked key"), rejoin_s=0.05) as platform:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, RecordingInbox(account="irc"), {})
                await say(platform, "#open")
                kick(irc, "#open", "hermes")
                await irc.until(lambda: "hermes" in irc.channels["#open"].members)
                irc.channels["#open"].banned.add("hermes")
                kick(irc, "#open", "hermes", "and stay out")
                with pytest.raises((AddressGone, RateLimited)):
                    while True:
                        await say(platform, "#open")
                while True:
                    try:
                        await say(platform, "#open")
                    except RateLimited as limit:
                        await trio.sleep(min(limit.retry_after_s, 0.05))
                    except AddressGone as gone:
                        words = str(gone)
                        break
                assert "+b" in words
                irc.channels["#open"].banned.clear()
                irc.tell("hermes", ":friend!f@h INVITE hermes #open")
                await irc.until(lambda: "hermes" in irc.channels["#open"].members)
                irc.tell("hermes", ":friend!f@h INVITE hermes #elsewhere")
                await say(platform, "#open")
                assert "JOIN #elsewhere" not in irc.asked
                nursery.cancel_scope.cancel()


async def test_a_server_that_takes_labels_back_is_asked_without() -> None:
    async with open_fake_irc() as irc, connected(irc) as platform:
        client = irc.client()
        assert client is not None
        client.capabilities.discard("labeled-response")
        irc.tell("hermes", ":irc.test CAP hermes DEL :labeled-response")
        irc.say("and that was told")
        inbox = RecordingInbox(account="irc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, inbox, {})
            await inbox.until(lambda: inbox.events)
            nursery.cancel_scope.cancel()
        assert await say(platform)


async def test_a_nick_that_services_hold_is_asked_for() -> None:
    async with open_fake_irc() as irc:
        irc.reserved.add("hermes")
        irc.people["NickServ"] = ("service@services.test", "")
        more = {"sasl_password": Secret("secret"), "regain": "regain", "renick_s": 0.02}
        async with connected(irc, **more) as platform, trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, RecordingInbox(account="irc"), {})
            await irc.until(lambda: irc.shown["NickServ"])
            assert irc.shown["NickServ"] == ["REGAIN hermes"]
            irc.reserved.clear()
            await irc.until(lambda: irc.client("hermes"))
            nursery.cancel_scope.cancel()


async def test_junk_between_lines_harms_nothing() -> None:
    async with open_fake_irc() as irc, connected(irc, accept_invites=True) as platform, trio.open_nursery() as nursery:
        inbox = RecordingInbox(account="irc")
        nursery.start_soon(platform.receive, inbox, {})
        for junk in ("", ":", "@", "\0\0", ":a!b@c", "PRIVMSG", ":a!b@c PRIVMSG", "@msgid=x :a!b@c PRIVMSG hermes", "999",
                     "BATCH",
                     "PING :a\rb", ":irc.test PING :" + "\xe9" * 480, ":a!b@c INVITE hermes :#a\rb",
                     "BATCH +x", "BATCH -y", ":s 005", ":s 433", ":x KICK", "ERR?"):  # fmt: skip
            irc.tell("hermes", junk)
            irc.tell("hermes", ":irc.test NOTICE hermes :a good line")
        irc.tell("hermes", ":a!b@c PRIVMSG hermes :" + "x" * 20_000)
        irc.tell("hermes", "@time=never;msgid=" + "y" * 3000 + " :a!b@c PRIVMSG hermes :odd tags")
        irc.say("and a good one")
        await inbox.until(lambda: any(event.text == "and a good one" for event in inbox.events))
        assert not inbox.breaches
        nursery.cancel_scope.cancel()


@pytest.mark.wall_clock_s(60)
async def test_five_hundred_failed_attempts_leave_nothing() -> None:
    async with open_fake_irc() as irc, open_test_host("irc", clock=irc.clock) as host:
        days = ("refuse", "fail", "garbage", "lose", "limit", None)

        async def attempt(number: int) -> None:
            irc.day = days[number % len(days)]  # type: ignore[assignment]
            given = {"sasl_password": Secret("wrong")} if irc.day is None else {}
            with pytest.raises(PlatformError):
                async with spec.open(config(irc, **given), host):
                    pass

        for number in range(60):
            await attempt(number)
        before = LeakCensus.take()
        for number in range(440):
            await attempt(number)
        assert not await settle(lambda: LeakCensus.take().growth_since(before), 2.0)
        irc.day = None
        async with spec.open(config(irc), host) as platform:
            assert await say(platform)
