"""A mailbox with something in it that goes wrong each time: it costs nobody else's mail, and is not lost by a bad hour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from email_account import NO_TLS, NOW, Watch, config

from hermes.errors import PlatformError, PlatformUnavailable
from hermes.events import InboundEvent
from hermes.platform import EMPTY, Platform
from hermes.testing.fake_mail import FakeMail, letter, open_fake_mail
from hermes.testing.fake_mail_wire import Fault
from hermes.testing.host import RecordingInbox, open_test_host
from hermes.testing.inbox import receiving
from platforms.email import platform


@asynccontextmanager
async def connected(fake: FakeMail, watch: Watch | None = None, **more: Any) -> AsyncIterator[Platform]:
    async with (
        open_test_host("email", clock=watch or Watch(), tls=NO_TLS) as host,
        platform.open(config(fake, **more), host) as found,
    ):
        yield found


async def begun(found: Platform) -> RecordingInbox:
    """An inbox of an account that has begun to read."""
    inbox = RecordingInbox(account="email")
    async with receiving(found, inbox):
        await inbox.until(lambda: inbox.cursors)
    return inbox


async def runs(found: Platform, inbox: RecordingInbox) -> Exception:
    """A run of `receive` up to its error."""
    with pytest.raises(PlatformError) as caught:
        await found.receive(inbox, dict(inbox.cursors))
    return caught.value


def ids(inbox: RecordingInbox) -> list[str]:
    return [event.id.partition("@")[0] for event in inbox.events]


@pytest.mark.parametrize("answer", [b"NO [UNAVAILABLE] later", b"NO [SERVERBUG] internal error", b"NO what?"])
@pytest.mark.parametrize("item", [0, 1], ids=["its size", "its bytes"])
async def test_a_mail_that_the_server_cannot_read_for_a_moment_is_read_later(answer: bytes, item: int) -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        inbox = await begun(found)
        fake.arrive(letter("one", number="m1"))
        fake.faults["imap UID FETCH"].extend([Fault(answer=b"OK nothing", done=True)] * item + [Fault(answer=answer)])
        assert isinstance(await runs(found, inbox), PlatformUnavailable)
        assert not inbox.quarantined
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert ids(inbox) == ["m1"]


class Poisoned:
    """A mail server with one mail at whose bytes it breaks."""

    def __init__(self, fake: FakeMail, uid: int, fault: Fault, *, heads: bool = False) -> None:
        self.fake, self.uid, self.fault, self.heads = fake, uid, fault, heads
        self.tries = 0
        fake.poison = self.look

    def look(self, uid: int, items: str) -> Fault | None:
        if uid != self.uid or "BODY" not in items or ("HEADER" in items and not self.heads):
            return None
        self.tries += 1
        return self.fault


FAULTS = [
    Fault(cut=True),
    Fault(raw=b"* 2 FETCH (UID 2 BODY[] (((\r\n"),
    Fault(answer=b"NO it is broken"),
    Fault(answer=b"BAD it is broken"),
    Fault(answer=b"* BYE internal error"),
    Fault(raw=b"* 2 FETCH (UID 2 BODY[] {99000000}\r\n"),
]
NAMES = ["cut", "garbage", "no", "bad", "bye", "another size"]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
async def test_a_mail_that_breaks_each_connection_is_set_aside_and_told_of(fault: Fault) -> None:
    watch = Watch()
    async with open_fake_mail() as fake, connected(fake, watch) as found:
        inbox = await begun(found)
        for number in (1, 2, 3):
            fake.arrive(letter(f"{number}", number=f"m{number}"))
        poisoned = Poisoned(fake, 2, fault)
        await runs(found, inbox)
        assert ids(inbox) == ["m1"]  # what came before it need not be read again
        for _ in range(2):
            await runs(found, inbox)
        async with receiving(found, inbox) as raised:
            await inbox.until(lambda: len(inbox.events) == 2)
            fake.arrive(letter("4", number="m4"))
            await inbox.until(lambda: len(inbox.events) == 3)
        assert not raised
        assert ids(inbox) == ["m1", "m3", "m4"]
        assert poisoned.tries == 3
        for _ in range(2):
            watch.now += 3600
            await runs(found, inbox)
        watch.now += 3600
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 4)
        assert ids(inbox)[-1] == "m2"
        assert "cannot be read" in inbox.events[-1].text
        assert poisoned.tries == 5
        assert not inbox.quarantined


async def test_a_mail_that_was_set_aside_is_read_when_the_server_has_mended_it() -> None:
    watch = Watch()
    async with open_fake_mail() as fake, connected(fake, watch) as found:
        inbox = await begun(found)
        fake.arrive(letter("1", number="m1"))
        fake.arrive(letter("2", number="m2"))
        Poisoned(fake, 1, Fault(cut=True))
        for _ in range(3):
            await runs(found, inbox)
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        fake.poison = None
        watch.now += 3600
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 2)
        assert ids(inbox) == ["m2", "m1"]
        assert inbox.events[1].text.endswith("1")


async def test_a_mail_of_which_nothing_can_be_had_is_given_up_once_others_were_read() -> None:
    watch = Watch()
    async with open_fake_mail() as fake, connected(fake, watch) as found:
        inbox = await begun(found)
        fake.arrive(letter("1", number="m1"))
        poisoned = Poisoned(fake, 1, Fault(cut=True), heads=True)
        for _ in range(15):
            await runs(found, inbox)
            watch.now += 3600
        assert not inbox.quarantined  # it may be the server
        fake.arrive(letter("2", number="m2"))
        await runs(found, inbox)
        assert len(inbox.quarantined) == 1
        async with receiving(found, inbox):
            fake.arrive(letter("3", number="m3"))
            await inbox.until(lambda: len(inbox.events) == 2)
        assert ids(inbox) == ["m2", "m3"]
        assert poisoned.tries == 16
        assert fake.inbox.mails[0].flags == set()


async def test_no_mail_is_lost_while_it_may_be_the_server() -> None:
    watch = Watch()
    async with open_fake_mail() as fake, connected(fake, watch) as found:
        inbox = await begun(found)
        for number in range(60):
            fake.arrive(letter(f"{number}", number=f"m{number}"))
        fake.poison = lambda _uid, items: Fault(cut=True) if "BODY" in items else None
        for _ in range(200):
            await runs(found, inbox)
        assert len(inbox.cursors["aside"]) <= 4096
        assert not inbox.quarantined
        fake.poison, watch.now = None, NOW + 7200
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 60)


# --- the mailbox itself


async def test_a_mail_from_the_future_does_not_hide_what_comes_to_a_mailbox_that_is_made_anew() -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        inbox = await begun(found)
        async with receiving(found, inbox):
            fake.arrive(letter("1", number="m1"), at=NOW + 10 * 365 * 86_400)
            await inbox.until(lambda: inbox.events)
        fake.arrive(letter("2", number="m2"), at=NOW + 60)
        fake.inbox.renew()
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 2)
        assert ids(inbox) == ["m1", "m2"]


async def test_what_was_answered_long_ago_is_not_read_again_in_a_mailbox_that_is_made_anew() -> None:
    watch = Watch()
    async with open_fake_mail() as fake, connected(fake, watch) as found:
        inbox = await begun(found)
        async with receiving(found, inbox):
            fake.arrive(letter("1", number="m1"), at=NOW)
            await inbox.until(lambda: inbox.events)
        watch.now += 30 * 86_400  # by now nobody knows that it was committed
        later = RecordingInbox(cursors=inbox.cursors, account="email")
        fake.arrive(letter("2", number="m2"), at=NOW + 1)
        fake.inbox.renew()
        async with receiving(found, later):
            await later.until(lambda: later.events)
        assert ids(later) == ["m2"]


async def test_a_mailbox_that_is_made_anew_while_it_is_open_is_opened_again() -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        inbox = await begun(found)
        async with receiving(found, inbox):
            fake.arrive(letter("1", number="m1"))
            await inbox.until(lambda: inbox.events)
        async with receiving(found, inbox) as raised:
            await fake.until(lambda: fake.requests[-1] == "imap IDLE")
            fake.inbox.renew()
            fake.fail("imap UID SEARCH", Fault(answer=b"* OK [UIDVALIDITY 1001] other numbers"))
            fake.arrive(letter("2", number="m2"))
            await inbox.until(lambda: raised)
        assert "made anew" in str(raised)
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 2)


async def test_a_mail_that_is_seen_after_one_with_a_larger_number_is_read() -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        inbox = await begun(found)
        async with receiving(found, inbox):
            for number in range(1, 4):
                fake.arrive(letter(f"{number}", number=f"m{number}"))
            await inbox.until(lambda: len(inbox.events) == 3)
            late = [fake.inbox.add(letter(str(n), number=f"m{n}").encode(), NOW) for n in (4, 5)]
            del fake.inbox.mails[-2:]  # they are being put in
            fake.arrive(letter("6", number="m6"))
            await inbox.until(lambda: len(inbox.events) == 4)
            fake.inbox.mails.insert(3, late[1])
            fake.arrive(letter("7", number="m7"))
            await inbox.until(lambda: len(inbox.events) == 6)
        fake.inbox.mails.insert(3, late[0])
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 7)
        assert ids(inbox) == ["m1", "m2", "m3", "m6", "m5", "m7", "m4"]
        assert inbox.repeats == 0


# --- a slow connection


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(rate=1.0)


class Slow(trio.abc.Stream):
    """A stream of some kilobytes a second."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.sleep(4)
        return await self.stream.receive_some(min(max_bytes or 32_768, 32_768))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


class Strict(RecordingInbox):
    """An inbox that notes promises which were not kept."""

    heard, late = 0.0, 0

    def look(self) -> None:
        self.late += bool(self.promises) and trio.current_time() - self.heard > self.promises["imap"]
        self.heard = trio.current_time()

    def alive(self, path: str, *, next_within_s: float) -> None:
        self.look()
        super().alive(path, next_within_s=next_within_s)

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = EMPTY) -> frozenset[str]:
        self.look()
        return await super().deliver(*events, cursors=cursors)


@pytest.mark.parametrize(("mails", "size"), [(1, 4_000_000), (20, 150_000)], ids=["one large", "many"])
async def test_mails_that_come_slowly_are_no_deafness(mails: int, size: int, clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake, open_test_host("email", clock=Watch(), tls=NO_TLS) as host:

        @asynccontextmanager
        async def slow(*args: Any, **more: Any) -> AsyncIterator[trio.abc.Stream]:
            async with host.tcp(*args, **more) as stream:
                yield Slow(stream)

        async with platform.open(config(fake), host) as found:
            inbox = await begun(found)
        for number in range(mails):
            fake.arrive(letter("x" * size, number=f"m{number}"))
        clock.autojump_threshold = 0.01
        async with platform.open(config(fake), replace(host, tcp=slow)) as found:
            strict = Strict(cursors=inbox.cursors, account="email")
            async with receiving(found, strict) as raised:
                await strict.until(lambda: len(strict.events) == mails or raised)
        assert not raised
        assert trio.current_time() > 300
        assert not strict.late
