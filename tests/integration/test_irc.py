"""IRC over real sockets: the same tests against the fake, with IRCv3 and without, and against real servers with two clients."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.errors import AddressGone, PlatformUnavailable, RateLimited, SendRejected
from hermes.events import Address, Content, InboundEvent, ReplyRef
from hermes.platform import Platform
from hermes.testing import RecordingInbox, open_test_host
from hermes.testing.fake_irc import MODERN, PLAIN, open_fake_irc
from hermes.testing.irc_person import IrcPerson, open_irc_person
from hermes.testing.real_irc import found, open_inspircd, open_ngircd
from platforms.irc import IrcConfig
from platforms.irc import platform as spec

# InspIRCd lets nobody in before a tick of each second, so that what ngIRCd and the fake show as well waits for the whole run.
FULL = os.environ.get("HERMES_FULL") == "1"
SERVERS = ("fake-modern", "fake-plain", "ngircd", "inspircd")
EACH = (
    *SERVERS[:3],
    pytest.param("inspircd", marks=pytest.mark.skipif(not FULL, reason="part of the whole run: .ci/full")),
)
LABELLED = ("fake-modern", "inspircd")


@asynccontextmanager
async def server(kind: str) -> AsyncIterator[int]:
    """A server of this kind; its port."""
    if kind.startswith("fake"):
        async with open_fake_irc(MODERN if kind == "fake-modern" else PLAIN) as fake:
            yield fake.port
    else:
        if found(kind) is None:
            pytest.skip(f"{kind} is not installed (apt-get install {kind})")
        with tempfile.TemporaryDirectory() as folder:
            opens = open_ngircd if kind == "ngircd" else open_inspircd
            async with opens(Path(folder)) as port:
                yield port


def config(port: int, **more: Any) -> IrcConfig:
    given = {"channels": ("#den",), "flood_burst": 1000, "flood_interval_s": 0.001, "rejoin_s": 0.2, "renick_s": 0.2}
    return IrcConfig(server="127.0.0.1", port=port, tls=False, nick="hermes", **{**given, **more})


@asynccontextmanager
async def connected(port: int, **more: Any) -> AsyncIterator[tuple[Platform, RecordingInbox]]:
    """Our account, receiving."""
    inbox = RecordingInbox(account="irc")
    async with open_test_host("irc") as host, spec.open(config(port, **more), host) as platform:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, inbox, {})
            yield platform, inbox
            nursery.cancel_scope.cancel()


async def say(platform: Platform, chat: str, text: str, reply: ReplyRef | None = None) -> str:
    return (await platform.send(Address("irc", chat), Content(text=text), key="k", reply=reply)).message_id


async def heard(inbox: RecordingInbox, count: int) -> list[InboundEvent]:
    await inbox.until(lambda: len(inbox.events) >= count)
    return inbox.events


async def in_channel(person: IrcPerson, nick: str = "hermes") -> None:
    """Wait until somebody has joined, as this person sees it."""
    await person.until(lambda: any(f":{nick}!" in line and " JOIN " in line for line in person.lines))


@pytest.mark.parametrize("kind", SERVERS)
async def test_two_people_and_we_talk_in_private_and_in_a_channel(kind: str) -> None:
    async with server(kind) as port, open_irc_person(port, "alice") as alice, open_irc_person(port, "bob") as bob:
        await alice.join("#den")
        await bob.join("#den")
        async with connected(port) as (platform, inbox):
            await alice.say("hermes", "hello, in private")
            (private,) = await heard(inbox, 1)
            assert (private.chat_kind, private.text, private.sender.name) == ("dm", "hello, in private", "alice")
            await say(platform, private.address.chat, "hello to you", private.reply)
            await alice.until(lambda: alice.texts("alice"))
            assert alice.texts("alice") == ["hello to you"]
            await bob.say("#den", "hermes: and in public?")
            asked = (await heard(inbox, 2))[1]
            assert (asked.address.chat, asked.text, asked.to_us) == ("#den", "and in public?", True)
            shown = await say(platform, "#den", "there as well", asked.reply)
            for person in (alice, bob):
                await person.until(lambda person=person: "bob: there as well" in person.texts("#den"))
            await alice.say("#den", "between us")
            await bob.say("#den", "\x01ACTION nods\x01")
            events = await heard(inbox, 4)
            assert [(event.text, event.to_us) for event in events[2:]] == [("between us", False), ("* bob nods", False)]
            await alice.write("NOTICE hermes :never to be answered")
            await alice.write("PRIVMSG hermes :\x01VERSION\x01")
            await alice.say("hermes", "last")
            assert (await heard(inbox, 5))[4].text == "last"
            assert len({shown, *(event.id for event in inbox.events)}) == 6
            assert not inbox.breaches


@pytest.mark.parametrize("kind", EACH)
async def test_long_words_arrive_whole_in_lines_that_the_server_cuts_nowhere(kind: str) -> None:
    async with server(kind) as port, open_irc_person(port, "alice") as alice:
        await alice.join("#den")
        async with connected(port, username="longername") as (platform, _):
            text = "\n".join(("wörter und 👩‍👩‍👧 " * 40, "x" * 1500, "end"))
            await say(platform, "#den", text)
            await alice.until(lambda: alice.texts("#den")[-1:] == ["end"])
            assert "".join("".join(alice.texts("#den")).split()) == "".join(text.split())
            assert 480 < alice.longest <= 512


@pytest.mark.parametrize("kind", EACH)
async def test_what_cannot_be_shown_is_said_at_once(kind: str) -> None:
    async with server(kind) as port, connected(port) as (platform, _):
        with pytest.raises(AddressGone):
            await say(platform, "nobody", "hello")
        with pytest.raises((AddressGone, SendRejected)):
            await say(platform, "#elsewhere", "hello")
        for odd in ("two words", "x\r\nQUIT", ":y", "", "#" + "x" * 600):
            with pytest.raises(SendRejected):
                await say(platform, odd, "hello")
        with pytest.raises(SendRejected):
            await say(platform, "#den", "\x02\x02\n ")
        assert await say(platform, "#den", "still there")


@pytest.mark.parametrize("kind", SERVERS)
async def test_sends_of_many_tasks_are_each_answered_for_themselves(kind: str) -> None:
    async with server(kind) as port, open_irc_person(port, "alice") as alice:
        await alice.join("#den")
        outcomes: dict[str, str] = {}
        async with connected(port) as (platform, _):

            async def one(target: str, text: str) -> None:
                try:
                    await say(platform, target, text)
                    outcomes[text] = "shown"
                except AddressGone:
                    outcomes[text] = "gone"

            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(one, ("#den", "nobody", "alice")[number % 3], f"text {number}")
            assert outcomes == {f"text {number}": "gone" if number % 3 == 1 else "shown" for number in range(60)}
            await alice.until(lambda: len(alice.heard) >= 40)
            assert {text for *_, text in alice.heard} == {text for text, how in outcomes.items() if how == "shown"}


@pytest.mark.parametrize("renick_s", [0.05, 3600.0], ids=["asked for", "seen to be left"])
@pytest.mark.parametrize("kind", EACH)
async def test_a_taken_nick_is_got_back_when_it_is_left(kind: str, renick_s: float) -> None:
    async with server(kind) as port:
        async with open_irc_person(port, "alice") as alice:
            await alice.join("#den")
            async with open_irc_person(port, "hermes") as ghost:
                await ghost.join("#den")
                async with connected(port, renick_s=renick_s) as (_, inbox):
                    await in_channel(alice, "hermes_")
                    await alice.say("hermes_", "who are you?")
                    assert (await heard(inbox, 1))[0].to_us
                    await ghost.write("QUIT")
                    await alice.until(
                        lambda: any(line.startswith(":hermes_!") and " NICK " in line for line in alice.lines)
                    )
                    await alice.say("#den", "hermes: and now?")
                    assert (await heard(inbox, 2))[1].to_us


@pytest.mark.parametrize("kind", EACH[2:])
async def test_whoever_is_put_out_of_a_channel_comes_back(kind: str) -> None:
    async with server(kind) as port, open_irc_person(port, "alice") as alice:
        await alice.join("#den")
        async with connected(port) as (platform, _):
            await in_channel(alice)
            before = sum(" JOIN " in line for line in alice.lines)
            await alice.write("KICK #den hermes :out")
            await alice.until(lambda: sum(" JOIN " in line for line in alice.lines) > before)
            await say(platform, "#den", "back again")
            await alice.until(lambda: "back again" in alice.texts("#den"))
            await alice.write("MODE #den +b hermes!*@*")
            await alice.write("KICK #den hermes :for good")
            with pytest.raises((AddressGone, RateLimited)):
                for _ in range(50):
                    await say(platform, "#den", "not any more")
                    await trio.sleep(0.01)  # until the kick has come; what was said before it was shown


async def test_codes_that_a_channel_blocks_are_left_out() -> None:
    async with server("inspircd") as port, open_irc_person(port, "alice") as alice:
        await alice.join("#den")
        await alice.write("MODE #den +c")
        async with connected(port) as (platform, _):
            await say(platform, "#den", "\x02bold\x02 words")
            await alice.until(lambda: alice.texts("#den"))
            assert alice.texts("#den") == ["bold words"]


@pytest.mark.parametrize("kind", EACH)
async def test_a_check_says_what_is_missing_and_writes_to_nobody(kind: str) -> None:
    async with server(kind) as port, open_irc_person(port, "alice") as alice, open_test_host("irc") as host:
        await alice.join("#den")
        assert spec.check is not None
        report = await spec.check(config(port), host)
        assert report.identity == "hermes (not logged in)"
        assert any("not encrypted" in each for each in report.missing)
        assert any("keeps nothing" in each for each in report.facts) == (
            not any("chathistory" in each for each in report.facts)
        )
        assert not any("keeps nothing" in each for each in report.missing)  # nobody can mend that
        assert any("who is logged in" in each for each in report.missing) == (kind not in LABELLED)
        await alice.say("alice", "to myself")
        await alice.until(lambda: alice.heard)
        assert not any(":hermes!" in line for line in alice.lines)


async def test_nobody_at_the_port_is_a_reason_to_try_again() -> None:
    from hermes.testing import refusing_port

    with refusing_port() as port:
        with pytest.raises(PlatformUnavailable):
            async with connected(port):
                pass
