"""What an IRC server keeps while we are away: read to its end, once, whatever fails or comes meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.events import Address, Content
from hermes.testing import RecordingInbox, open_test_host
from hermes.testing.fake_irc import Client, FakeIrc, Said, open_fake_irc
from hermes.testing.service import Switch
from platforms.irc import IrcConfig, history
from platforms.irc import platform as spec
from platforms.irc import receiving as receiving_module
from platforms.irc.history import read_seen


@pytest.fixture
def clock() -> MockClock:
    """It stands until a test moves it."""
    return MockClock()


def texts(inbox: RecordingInbox) -> list[str]:
    return [event.text for event in inbox.events]


@asynccontextmanager
async def receiving(irc: FakeIrc, inbox: RecordingInbox, day: Switch | None = None, **more: Any) -> AsyncIterator[None]:
    """One connection that receives while inside; the day begins once it is welcome."""
    given = {"channels": ("#den",), "flood_burst": 1000, **more}
    config = IrcConfig(server="127.0.0.1", port=irc.port, tls=False, nick="hermes", **given)
    async with (
        open_test_host("irc", clock=irc.clock) as host,
        spec.open(config, host) as platform,
        trio.open_nursery() as nursery,
    ):
        irc.day = day
        nursery.start_soon(platform.receive, inbox, dict(inbox.cursors))
        yield
        irc.day = None
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def away() -> AsyncIterator[tuple[FakeIrc, RecordingInbox]]:
    """A server, and the inbox of an account that was there once and has heard a word."""
    async with open_fake_irc() as irc:
        inbox = RecordingInbox(account="irc")
        async with receiving(irc, inbox):
            await inbox.until(lambda: inbox.cursors)
            irc.say("live")
            await inbox.until(lambda: inbox.events)
        yield irc, inbox


async def test_what_cannot_be_told_now_is_asked_for_again(clock: MockClock) -> None:
    async with away() as (irc, inbox):
        irc.say("away")
        async with receiving(irc, inbox, "fail"):
            await irc.until(lambda: "CHATHISTORY TARGETS" in irc.asked)
            irc.say("live again")
            await inbox.until(lambda: "live again" in texts(inbox))
            irc.day = None
            clock.jump(receiving_module.ASK_AGAIN_S)
            await inbox.until(lambda: "away" in texts(inbox))
            irc.say("and on")
            await inbox.until(lambda: "and on" in texts(inbox))
        cursors = dict(inbox.cursors)
        async with receiving(irc, inbox):
            irc.say("later")
            await inbox.until(lambda: "later" in texts(inbox))
        assert sorted(texts(inbox)) == ["and on", "away", "later", "live", "live again"]
        seen = read_seen(cursors["seen"])
        assert seen is not None
        assert seen.ids == (irc.history[-2].id,)


async def test_what_could_not_be_told_in_one_connection_is_told_in_the_next() -> None:
    async with away() as (irc, inbox):
        irc.say("away")
        async with receiving(irc, inbox, "fail"):
            irc.say("live again")
            await inbox.until(lambda: "live again" in texts(inbox))
        async with receiving(irc, inbox):
            await inbox.until(lambda: "away" in texts(inbox))
        assert sorted(texts(inbox)) == ["away", "live", "live again"]


async def test_a_server_that_can_never_tell_is_given_up(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving_module, "MAX_ASKS", 2)
    async with away() as (irc, inbox):
        before = dict(inbox.cursors)
        async with receiving(irc, inbox, "fail"):
            irc.say("one")
            await inbox.until(lambda: "one" in texts(inbox))  # which comes behind the first answer
            assert inbox.cursors == before
            clock.jump(receiving_module.ASK_AGAIN_S)
            await irc.until(lambda: irc.asked.count("CHATHISTORY TARGETS") == 2)
            irc.say("two")
            await inbox.until(lambda: "two" in texts(inbox))
            assert inbox.cursors != before


async def test_a_page_that_is_not_full_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers count who came and went, and leave it out."""
    async with away() as (irc, inbox):
        for number in range(20):
            irc.say(f"away {number}", to="#den")
        as_line = irc.as_line

        def left_out(client: Client, said: Said, batch: str = "") -> str:
            return as_line(client, said, batch) if int(said.id[1:]) % 3 == 0 else "@batch=h :x!y@z JOIN #den"

        monkeypatch.setattr(history, "PAGE", 7)
        monkeypatch.setattr(irc, "as_line", left_out)
        async with receiving(irc, inbox):
            wanted = [f"away {number}" for number in range(20) if (number + 2) % 3 == 0]
            await inbox.until(lambda: texts(inbox)[-1] == wanted[-1])
        assert texts(inbox) == ["live", *wanted]


async def test_more_chats_than_are_told_of_at_once_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_TARGETS", 4)
    async with away() as (irc, inbox):
        for number in range(18):
            irc.people[f"p{number}"] = (f"~p{number}@home.test", f"p{number}")
            irc.say(f"away {number}", nick=f"p{number}")
        async with receiving(irc, inbox):
            await inbox.until(lambda: len(inbox.events) > 18)
        assert texts(inbox) == ["live", *(f"away {number}" for number in range(18))]


async def test_the_first_cursor_is_not_ahead_of_what_has_come_already() -> None:
    async with open_fake_irc() as irc, open_test_host("irc", clock=irc.clock) as host:
        config = IrcConfig(server="127.0.0.1", port=irc.port, tls=False, nick="hermes")
        inbox = RecordingInbox(account="irc")
        async with spec.open(config, host) as platform:
            for word in ("one", "two", "three"):
                irc.say(word)
            await platform.send(Address("irc", "friend"), Content(text="hello"), key="k", reply=None)  # behind them
            with trio.CancelScope() as killed:
                inbox.at = lambda moment: killed.cancel() if moment == "committed" else None
                await platform.receive(inbox, {})
        inbox.at = lambda _: None
        async with receiving(irc, inbox):
            await inbox.until(lambda: len(inbox.events) >= 3)
        assert texts(inbox) == ["one", "two", "three"]


async def test_a_first_message_without_a_sound_time_does_not_make_all_the_past_new() -> None:
    async with open_fake_irc() as irc, open_test_host("irc", clock=irc.clock) as host:
        config = IrcConfig(server="127.0.0.1", port=irc.port, tls=False, nick="hermes")
        inbox = RecordingInbox(account="irc")
        async with spec.open(config, host) as platform:
            irc.tell("hermes", "@time=0001-01-01T00:00:00.000Z;msgid=x :friend!~friend@home.test PRIVMSG hermes :hello")
            await platform.send(Address("irc", "friend"), Content(text="hello"), key="k", reply=None)  # behind it
            with trio.CancelScope() as killed:
                inbox.at = lambda moment: killed.cancel() if moment == "committed" else None
                await platform.receive(inbox, {})
        seen = read_seen(inbox.cursors["seen"])
        assert seen is not None
        assert seen.at > irc.clock() - 120
