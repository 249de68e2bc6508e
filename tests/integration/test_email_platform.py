"""The e-mail platform against a server that can go wrong at each step of a dialogue: in, out, and what is said of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from typing import Any

import pytest
import trio
import trio.testing
from email_account import NO_TLS, NOW, config

from hermes.errors import (
    AddressGone,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    StoreUnavailable,
    Unreachable,
)
from hermes.events import Activity, Address, AttachmentRef, Content, Receipt, ReplyRef
from hermes.platform import Platform, ReadsBack, Secret
from hermes.testing.census import LeakCensus, settle
from hermes.testing.fake_mail import ANNA, PASSWORD, TRUSTED, FakeMail, letter, open_fake_mail
from hermes.testing.fake_mail_wire import Fault
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.email import platform

TO = Address("email", ANNA)
HELLO = Content(text="hello")


@asynccontextmanager
async def connected(fake: FakeMail, **more: Any) -> AsyncIterator[Platform]:
    memory = more.pop("memory", None)
    async with (
        open_test_host("email", memory=memory, clock=lambda: NOW, tls=NO_TLS) as host,
        platform.open(config(fake, **more), host) as found,
    ):
        yield found


@asynccontextmanager
async def receiving(found: Platform, inbox: RecordingInbox) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.receive, inbox, dict(inbox.cursors))
        await inbox.until(lambda: inbox.cursors)
        yield
        nursery.cancel_scope.cancel()


# --- sending: nothing but the answer to the end of a mail leaves a doubt

STEPS = ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA")
CUT, HANG, GARBAGE = Fault(cut=True), Fault(hang=True), Fault(raw=b"\x00\xff<html>\r\n")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("fault", "raises"),
    [
        (CUT, Unreachable),
        (HANG, Unreachable),
        (GARBAGE, PlatformProtocolError),
        (Fault(answer=b"421 4.3.2 down"), PlatformUnavailable),
    ],
    ids=["cut", "hang", "garbage", "421"],
)
async def test_whatever_goes_wrong_before_the_end_was_not_sent(
    step: str, fault: Fault, raises: type[PlatformError], clock: trio.testing.MockClock
) -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        fake.fail(f"smtp {step}", fault)
        clock.autojump_threshold = 0.2 if fault.hang else float("inf")
        with pytest.raises(raises) as caught:
            await found.send(TO, HELLO, key="k", reply=None)
        if isinstance(caught.value, Unreachable):
            assert not caught.value.sent
        assert not fake.accepted
        await found.send(TO, HELLO, key="k", reply=None)
        assert fake.texts() == ["hello"]


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(rate=1.0)


@pytest.mark.parametrize("fault", [CUT, HANG, GARBAGE], ids=["cut", "hang", "garbage"])
@pytest.mark.parametrize("done", [True, False])
async def test_without_an_answer_to_the_end_it_may_have_been_sent_and_is_looked_for(
    fault: Fault, done: bool, clock: trio.testing.MockClock
) -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        fake.keeps_copies = True
        fake.fail("smtp message", replace(fault, done=done))
        clock.autojump_threshold = 0.2 if fault.hang else float("inf")
        with pytest.raises(SendUncertain):
            await found.send(TO, HELLO, key="k1", reply=None)
        assert isinstance(found, ReadsBack)
        if not done:
            with pytest.raises(PlatformUnavailable, match="may yet"):
                await found.find(TO, key="k1", since=1_600_000_000.0)
        clock.jump(20)
        receipt = await found.find(TO, key="k1", since=1_600_000_000.0)
        assert (receipt is not None) == done == bool(fake.accepted)


@pytest.mark.parametrize(
    ("step", "answer", "raises", "facts"),
    [
        ("AUTH", b"535 5.7.8 no", PlatformRefused, {}),
        ("AUTH", b"454 4.7.0 later", RateLimited, {"scope": "account"}),
        ("MAIL", b"550 5.7.60 not as you", PlatformRefused, {}),
        ("MAIL", b"552 5.3.4 too large", SendRejected, {}),
        ("MAIL", b"550 5.4.5 daily quota", RateLimited, {"scope": "account", "retry_after_s": 3600.0}),
        ("MAIL", b"452 4.3.1 no room", PlatformUnavailable, {}),
        ("RCPT", b"550 5.1.1 nobody", AddressGone, {}),
        ("RCPT", b"550 nobody", AddressGone, {}),
        ("RCPT", b"550 5.7.1 policy", SendRejected, {}),
        ("RCPT", b"552 5.2.2 full", SendRejected, {}),
        ("RCPT", b"450 4.2.0 greylisted", RateLimited, {"scope": "address"}),
        ("RCPT", b"451 4.7.1 greylisted", RateLimited, {"scope": "address", "retry_after_s": 300.0}),
        ("DATA", b"554 5.5.1 no", SendRejected, {}),
        ("DATA", b"451 4.3.0 later", PlatformUnavailable, {}),
        ("message", b"554 5.7.1 spam", SendRejected, {}),
        ("message", b"451 4.3.0 later", PlatformUnavailable, {}),
        ("message", b"334 what", PlatformProtocolError, {}),
    ],
)
async def test_an_answer_of_smtp_says_how(
    step: str, answer: bytes, raises: type[PlatformError], facts: dict[str, Any]
) -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        fake.fail(f"smtp {step}", Fault(answer=answer))
        with pytest.raises(raises) as caught:
            await found.send(TO, HELLO, key="k", reply=None)
        assert type(caught.value) is raises
        assert {name: getattr(caught.value, name) for name in facts} == facts
        assert PASSWORD not in str(caught.value)
        assert not fake.accepted


async def test_what_cannot_be_sent_is_not_tried() -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        before = len(fake.requests)
        for chat in ("not an address", "a@b>\r\nRCPT TO:<c@d", "ä@b.test", "a@b.test, c@d.test"):
            with pytest.raises(SendRejected):
                await found.send(Address("email", chat), HELLO, key="k", reply=None)
        assert len(fake.requests) == before
        fake.extensions[0] = "SIZE 100"
        with pytest.raises(SendRejected, match="the server takes 100"):
            await found.send(TO, HELLO, key="k", reply=None)
        receipt = await _sent(fake, found)
        with pytest.raises(SendRejected):
            await found.edit(receipt, HELLO)
        await found.signal(TO, Activity(kind="typing"))


async def _sent(fake: FakeMail, found: Platform) -> Any:
    fake.extensions[0] = "SIZE 0"
    return await found.send(TO, HELLO, key="k", reply=None)


async def test_a_server_without_login_and_one_with_another_way_are_used() -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        fake.extensions[-1] = "AUTH LOGIN"
        await found.send(TO, HELLO, key="k", reply=None)
        fake.extensions[-1] = "AUTH XOAUTH2"
        with pytest.raises(PlatformRefused, match="XOAUTH2"):
            await found.send(TO, HELLO, key="k", reply=None)


# --- copies


async def test_a_copy_is_kept_and_found_and_one_that_is_not_there_says_nothing() -> None:
    async with open_fake_mail() as fake, connected(fake, sent_copy="append") as found:
        receipt = await found.send(TO, HELLO, key="k1", reply=None)
        (copy,) = fake.mailboxes["Sent"].mails
        assert copy.raw == fake.accepted[0].raw
        assert copy.flags == {"\\Seen"}
        assert isinstance(found, ReadsBack)
        assert await found.find(TO, key="k1", since=0.0) == receipt
        with pytest.raises(SendUncertain):
            await found.find(TO, key="k2", since=0.0)
        fake.mailboxes["Sent"].special = ""
        assert await found.find(TO, key="k1", since=0.0) == receipt
        del fake.mailboxes["Sent"]
        with pytest.raises(SendUncertain, match="no folder"):
            await found.find(TO, key="k1", since=0.0)
        await found.send(TO, HELLO, key="k3", reply=None)


@pytest.mark.parametrize("fault", [CUT, HANG, Fault(answer=b"NO [OVERQUOTA] full")], ids=["cut", "hang", "no"])
@pytest.mark.parametrize("step", ["greeting", "AUTHENTICATE", "APPEND"])
async def test_a_copy_that_cannot_be_kept_costs_little_and_no_mail(
    fault: Fault, step: str, clock: trio.testing.MockClock
) -> None:
    async with open_fake_mail() as fake, connected(fake, sent_copy="append") as found:
        fake.fail(f"imap {step}", fault)
        clock.autojump_threshold = 0.2 if fault.hang else float("inf")
        began = trio.current_time()
        await found.send(TO, HELLO, key="k1", reply=None)
        assert trio.current_time() - began < 10
        assert fake.texts() == ["hello"]


async def test_nobody_keeps_copies_and_nobody_can_tell() -> None:
    async with open_fake_mail() as fake, connected(fake, sent_copy="none") as found:
        assert not found.capabilities.finds
        assert isinstance(found, ReadsBack)
        with pytest.raises(SendUncertain):
            await found.find(TO, key="k", since=0.0)


@pytest.mark.parametrize("hangs", [False, True], ids=["a copy is made", "no copy can be made"])
async def test_a_cancel_after_the_mail_was_accepted_is_still_a_success(
    clock: trio.testing.MockClock, *, hangs: bool
) -> None:
    receipts: list[Receipt] = []
    async with open_fake_mail() as fake, connected(fake, sent_copy="append") as found:
        if hangs:
            fake.fail("imap APPEND", Fault(hang=True))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def end() -> None:
                    await fake.until(lambda: "imap APPEND" in fake.requests)
                    scope.cancel()
                    clock.autojump_threshold = 0.05

                nursery.start_soon(end)
                receipts.append(await found.send(TO, HELLO, key="k", reply=None))
        assert receipts  # it was told, and not cancelled
        assert len(fake.mailboxes["Sent"].mails) == (0 if hangs else 1)


# --- receiving


async def test_a_conversation_goes_on_after_everything_that_programs_leave_out() -> None:
    memory = TestMemory()
    async with open_fake_mail() as fake, connected(fake, memory=memory) as found:
        inbox = RecordingInbox(account="email")
        async with receiving(found, inbox):
            fake.arrive(letter("one", number="m1", subject="The plan"))
            await inbox.until(lambda: len(inbox.events) == 1)
            first = inbox.events[0]
            await found.send(first.address, Content(text="first"), key="r1", reply=first.reply)
            later = ReplyRef(token=first.reply.token if first.reply else None)
            await found.send(first.address, Content(text="second part"), key="r2", reply=later)
            await found.send(first.address, Content(text="a notice"), key="r3", reply=None)
            for each in fake.accepted:
                assert str(each.message["Subject"]) == "Re: The plan"
                assert str(each.message["References"]) == "<m1@people.test>"
            ours = str(fake.accepted[1].message["Message-ID"])
            fake.arrive(letter("two", number="m2", subject="Re: The plan", heads=f"In-Reply-To: {ours}\n"))
            fake.arrive(letter("three", number="m3", subject="Re: The plan", heads="In-Reply-To: <m2@people.test>\n"))
            fake.arrive(letter("four", number="m4", subject="Re: The plan"))
            fake.arrive(letter("other", number="m5", subject="The plan"))
            await inbox.until(lambda: len(inbox.events) == 5)
        threads = [event.address.thread for event in inbox.events]
        assert threads[:4] == threads[:1] * 4
        assert threads[4] != threads[0]
        assert inbox.events[1].quoted is not None
        assert inbox.events[1].quoted.ours


async def test_what_was_there_before_is_the_past_and_what_came_meanwhile_is_answered() -> None:
    async with open_fake_mail() as fake:
        fake.arrive(letter("old", number="old"))
        inbox = RecordingInbox(account="email")
        async with connected(fake) as found, receiving(found, inbox):
            pass
        fake.arrive(letter("meanwhile", number="m1"))
        async with connected(fake) as found, receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert [event.id for event in inbox.events] == ["m1@people.test"]
        async with connected(fake, mailbox="Archive & öther") as found:
            other = RecordingInbox(account="email", cursors=inbox.cursors)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.receive, other, dict(other.cursors))
                await other.until(lambda: other.cursors != inbox.cursors)
                nursery.cancel_scope.cancel()
            assert not other.events


async def test_a_mailbox_that_was_made_anew_is_read_again_and_nothing_is_answered_twice() -> None:
    now = 1_700_000_000.0
    async with open_fake_mail() as fake:
        fake.arrive(letter("ancient", number="ancient"), at=now - 30 * 86_400)
        inbox = RecordingInbox(account="email")
        async with connected(fake) as found, receiving(found, inbox):
            fake.arrive(letter("one", number="m1"), at=now)
            await inbox.until(lambda: inbox.events)
        fake.arrive(letter("two", number="m2"), at=now + 60)
        fake.inbox.renew()
        before = dict(inbox.cursors)
        async with connected(fake) as found, receiving(found, inbox):
            await inbox.until(lambda: inbox.cursors != before)
            fake.arrive(letter("three", number="m3"), at=now + 120)
            await inbox.until(lambda: len(inbox.events) == 3)
        assert {event.id for event in inbox.events} == {f"m{number}@people.test" for number in (1, 2, 3)}
        assert b"1001" in inbox.cursors["mailbox"]


async def test_many_mails_are_committed_in_batches() -> None:
    async with open_fake_mail() as fake:
        inbox = RecordingInbox(account="email")
        async with connected(fake) as found:
            async with receiving(found, inbox):
                pass
            for number in range(50):
                fake.arrive(letter(f"{number}", number=f"m{number}"))
            async with receiving(found, inbox):
                await inbox.until(lambda: len(inbox.events) == 50)
        assert [event.id for event in inbox.events] == [f"m{number}@people.test" for number in range(50)]
        assert [len(batch) for batch in inbox.batches] == [0, 20, 20, 10]


async def test_what_cannot_be_read_and_what_is_large_stop_nothing() -> None:
    async with open_fake_mail() as fake:
        inbox = RecordingInbox(account="email")
        async with connected(fake, max_message_bytes=200_000) as found, receiving(found, inbox):
            fake.arrive(b"\x00\xff\xfe")
            fake.arrive(b"")
            fake.arrive(letter("x" * 150_000, number="big"))
            fake.arrive(letter("x" * 250_000, number="huge"))
            fake.arrive(letter("not sure", number="f1", trusted=False))
            fake.arrive(
                letter("\xff\xff", number="odd", heads="Content-Type: text/plain; charset=idna\n").encode("latin-1")
            )
            fake.arrive(letter("fine", number="m1"))
            await inbox.until(lambda: len(inbox.events) == 3)
        ((because, sample),) = inbox.quarantined
        assert "a mail that cannot be read" in because
        assert isinstance(sample, bytes)
        assert len(sample) <= 1000
        big, huge, fine = inbox.events
        assert len(big.text) > 100_000
        assert "too large to be read" in huge.text
        assert fine.text.endswith("fine")


async def test_where_there_is_no_idle_the_mailbox_is_looked_through() -> None:
    async with open_fake_mail() as fake:
        fake.capabilities.remove("IDLE")
        inbox = RecordingInbox(account="email")
        async with connected(fake, poll_s=0.01) as found, receiving(found, inbox):
            fake.arrive(letter("one", number="m1"))
            await inbox.until(lambda: inbox.events)
        assert "imap IDLE" not in fake.requests
        assert inbox.promises["imap"] > 0


async def test_idle_is_cut_into_slices_and_a_lost_hint_costs_one(clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake:
        inbox = RecordingInbox(account="email")
        async with connected(fake, idle_s=100.0) as found, receiving(found, inbox):
            await fake.until(lambda: "imap IDLE" in fake.requests)
            await trio.testing.wait_all_tasks_blocked(0.05)
            fake.inbox.add(letter("unseen", number="m1").replace("\n", "\r\n").encode(), 0.0)  # nobody is told
            clock.autojump_threshold = 0.05
            await inbox.until(lambda: inbox.events)
            assert 100 <= trio.current_time() < 200


async def test_a_connection_that_has_died_unseen_is_found(clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake, connected(fake, idle_s=100.0) as found:
        fake.fail("imap IDLE", Fault(hang=True))
        clock.autojump_threshold = 0.05
        with pytest.raises(PlatformUnavailable, match="did not answer in time"):
            await found.receive(RecordingInbox(account="email"), {})
        assert trio.current_time() < 130


@pytest.mark.parametrize("step", ["UID SEARCH", "UID FETCH", "UID STORE", "IDLE"])
@pytest.mark.parametrize(
    ("fault", "raises"),
    [(CUT, Unreachable), (GARBAGE, PlatformProtocolError), (Fault(answer=b"* BYE down"), PlatformUnavailable)],
    ids=["cut", "garbage", "bye"],
)
async def test_whatever_goes_wrong_while_receiving_nothing_is_lost(
    step: str, fault: Fault, raises: type[PlatformError]
) -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        inbox = RecordingInbox(account="email")
        async with receiving(found, inbox):
            pass
        fake.arrive(letter("one", number="m1"))
        fake.fail(f"imap {step}", fault)
        with pytest.raises(raises):
            await found.receive(inbox, dict(inbox.cursors))
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert [event.id for event in inbox.events] == ["m1@people.test"]


async def test_what_could_not_be_committed_stays_unread() -> None:
    async with open_fake_mail() as fake, connected(fake) as found:
        inbox = RecordingInbox(account="email")
        async with receiving(found, inbox):
            pass
        fake.arrive(letter("one", number="m1"))
        inbox.unavailable = True
        with pytest.raises(StoreUnavailable):
            await found.receive(inbox, dict(inbox.cursors))
        assert fake.inbox.mails[0].flags == set()


# --- files


async def test_files_are_fetched_up_to_a_bound_and_while_they_are_what_they_were() -> None:
    content = b"x\r\n" * 300_000
    both = MIMEMultipart("mixed", None, [MIMEApplication(content)])
    async with open_fake_mail() as fake, connected(fake) as found:
        fake.arrive(both.as_bytes())
        ref = AttachmentRef(kind="document", ref=f"1000/1/1/b/{len(content)}")
        async with found.fetch(ref, max_bytes=len(content)) as pieces:
            assert b"".join([piece async for piece in pieces]) == content

        async def refused(wanted: str, most: int = 10_000_000) -> str:
            with pytest.raises(SendRejected) as caught:
                async with found.fetch(AttachmentRef(kind="document", ref=wanted), max_bytes=most) as pieces:
                    async for _ in pieces:
                        pass
            return str(caught.value)

        assert "larger" in await refused("1000/1/1/b/", 1000)
        assert "more than" in await refused(ref.ref, 1000)
        assert "made anew" in await refused("999/1/1/b/5")
        assert "not there" in await refused("1000/77/1/b/5")
        assert "other bytes" in await refused("1000/1/1/b/5")
        assert "no file" in await refused("1000/1/1 BODY[]/b/5")
        assert fake.inbox.mails[0].flags == set()


# --- the account itself


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"authserv_id": None}, "authserv_id"),
        ({"address": "nobody"}, "address"),
        ({"imap_host": "imap.example.org"}, "in the clear"),
        ({"smtp_host": "smtp.example.org"}, "in the clear"),
        ({"imap_security": "starttls"}, "no STARTTLS"),
        ({"smtp_security": "starttls"}, "no STARTTLS"),
        ({"password": Secret("wrong")}, "does not let us in"),
        ({"mailbox": "Nowhere"}, "Nowhere"),
    ],
)
async def test_what_cannot_work_is_refused_in_words(more: dict[str, Any], words: str) -> None:
    async with open_fake_mail() as fake:
        with pytest.raises(PlatformRefused, match=words):
            async with connected(fake, **more):
                pass


async def test_what_was_said_before_tls_is_not_believed() -> None:
    async with open_fake_mail() as fake:
        fake.fail("imap STARTTLS", Fault(answer=b"OK go on\r\n* PREAUTH we know you"))
        with pytest.raises(PlatformProtocolError, match="before TLS"):
            async with connected(fake, imap_security="starttls"):
                pass


async def test_a_check_shows_whose_word_could_be_taken() -> None:
    assert platform.check is not None
    async with open_fake_mail() as fake, open_test_host("email", tls=NO_TLS) as host:
        empty = await platform.check(config(fake, authserv_id=None), host)
        assert any("send the mailbox a mail" in line for line in empty.missing)
        fake.arrive(letter("one", number="m1"))
        found = await platform.check(config(fake, authserv_id=None), host)
        assert any(f"{TRUSTED} (1)" in fact for fact in found.facts)
        assert any("authserv_id" in line for line in found.missing)
        assert any(
            "none of the latest" in line
            for line in (await platform.check(config(fake, authserv_id="x.test"), host)).missing
        )
        assert any(
            "anybody" not in line and "whoever" in line
            for line in (await platform.check(config(fake, authserv_id="none"), host)).missing
        )
        assert (await platform.check(config(fake), host)).missing == ()
        assert not fake.accepted
        assert fake.inbox.mails[0].flags == set()


@pytest.mark.wall_clock_s(60)
async def test_five_hundred_failed_attempts_leave_nothing() -> None:
    ways: list[Callable[[FakeMail], None]] = [
        lambda fake: fake.fail("imap greeting", CUT),
        lambda fake: fake.fail("imap greeting", GARBAGE),
        lambda fake: fake.fail("imap AUTHENTICATE", Fault(answer=b"NO [UNAVAILABLE] later")),
        lambda fake: fake.fail("imap SELECT", CUT),
        lambda fake: fake.fail("smtp greeting", Fault(answer=b"421 4.3.2 down")),
        lambda fake: fake.fail("smtp AUTH", CUT),
        lambda fake: fake.fail("imap IDLE", CUT),
        lambda fake: fake.fail("imap UID SEARCH", CUT),
    ]
    async with open_fake_mail() as fake, open_test_host("email", tls=NO_TLS) as host:
        settled: LeakCensus | None = None
        for number in range(500):
            ways[number % len(ways)](fake)
            with pytest.raises(PlatformError):
                async with platform.open(config(fake), host) as found:
                    await found.receive(RecordingInbox(account="email"), {})
            if number == 49:
                settled = LeakCensus.take()
        assert settled is not None
        baseline = settled
        assert await settle(lambda: LeakCensus.take().growth_since(baseline), 5.0) == []
        await fake.until(lambda: fake.connections == {"imap": 0, "smtp": 0})
