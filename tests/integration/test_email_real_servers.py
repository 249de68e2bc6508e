"""E-mail through a real Dovecot and a real Exim: TLS in both ways, IDLE, threads, files, what is refused, what is read back."""

from __future__ import annotations

import email
import email.policy
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.errors import AddressGone, PlatformRefused, RateLimited, SendRejected, Unreachable
from hermes.events import Address, Content, OutboundFile
from hermes.platform import Host, Platform, ReadsBack, Secret
from hermes.testing.census import LeakCensus, settle
from hermes.testing.fake_mail import PASSWORD, TRUSTED, USER
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from hermes.testing.real_mail import PERSON, RealMail, real_mail, why_not
from platforms.email import platform
from platforms.email.config import EmailConfig

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs"), pytest.mark.wall_clock_s(90)]
SENT = "Gesendete Ämter & mehr"
FILE = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def mail() -> Iterator[RealMail]:
    with tempfile.TemporaryDirectory(prefix="hermes-mail-") as name:
        here = Path(name)
        here.chmod(0o755)
        with real_mail(here) as servers:
            yield servers


def config(mail: RealMail, **more: Any) -> EmailConfig:
    plain = EmailConfig(
        address=USER, password=Secret(PASSWORD), name="Hermes, the agent", imap_host="127.0.0.1", imap_port=mail.imaps,
        smtp_host="127.0.0.1", smtp_port=mail.smtps, authserv_id=TRUSTED,
    )  # fmt: skip
    return replace(plain, **more)


def starttls(mail: RealMail, **more: Any) -> EmailConfig:
    return config(
        mail, imap_port=mail.imap, imap_security="starttls", smtp_port=mail.smtp, smtp_security="starttls", **more
    )


@asynccontextmanager
async def host_of(tls: ssl.SSLContext, memory: TestMemory | None = None) -> AsyncIterator[Host]:
    async with open_test_host("email", tls=tls, memory=memory) as host:
        yield host


@asynccontextmanager
async def connected(mail: RealMail, settings: EmailConfig | None = None) -> AsyncIterator[Platform]:
    async with host_of(mail.tls) as host, platform.open(settings or config(mail), host) as found:
        yield found


def letter(text: str, *, number: str, sender: str = PERSON, **heads: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Message-ID"] = f"Anna Ä <{sender}>", USER, f"<{number}@people.test>"
    made["Subject"] = heads.pop("subject", "A question")
    for name, value in heads.items():
        made[name.replace("_", "-")] = value
    made.set_content(text)
    return made


async def written(mail: RealMail, made: EmailMessage) -> None:
    await trio.to_thread.run_sync(lambda: mail.write(made.as_bytes(), sender=str(made["Return-Path"] or PERSON)))


async def delivered(mail: RealMail, key: str) -> EmailMessage:
    """What a person got with this key."""
    while True:
        for raw in mail.delivered():
            if f"<{key}.".encode() in raw:
                found = email.message_from_bytes(raw, policy=email.policy.default)
                assert isinstance(found, EmailMessage)
                return found
        await trio.sleep(0.02)


@pytest.mark.parametrize("settings", [config, starttls], ids=["tls", "starttls"])
async def test_a_conversation_with_a_file_each_way(mail: RealMail, settings: Any, tmp_path: Path) -> None:
    name = settings.__name__
    before = LeakCensus.take()
    async with connected(mail, settings(mail)) as found, trio.open_nursery() as nursery:
        inbox = RecordingInbox(account="email")
        nursery.start_soon(found.receive, inbox, {})
        await inbox.until(lambda: inbox.cursors)
        first = letter("What is in the file?\n-- \nAnna", number=f"{name}1")
        first.add_attachment(FILE, maintype="application", subtype="x-stuff", filename="für Dich.bin")
        await written(mail, first)
        await inbox.until(lambda: inbox.events)
        event = inbox.events[0]
        assert (event.id, event.sender.id, event.sender.name) == (f"{name}1@people.test", PERSON, "Anna Ä")
        assert event.text == "[subject: A question]\nWhat is in the file?"
        (ref,) = event.attachments
        assert (ref.name, ref.media_type, ref.size_bytes) == ("für Dich.bin", "application/x-stuff", len(FILE))
        async with found.fetch(ref, max_bytes=len(FILE)) as pieces:
            assert b"".join([piece async for piece in pieces]) == FILE
        path = tmp_path / "out"
        path.write_bytes(FILE[::-1])
        file = OutboundFile(path=path, name="antwört.bin", media_type="application/x-stuff", size_bytes=len(FILE))
        text = "Jawohl, ümläute 🙂\n.a dot\nFrom here\n" + "long " * 500
        receipt = await found.send(event.address, Content(text=text, file=file), key=f"{name}k1", reply=event.reply)
        got = await delivered(mail, f"{name}k1")
        assert str(got["Message-ID"]) == f"<{receipt.message_id}>"
        assert str(got["In-Reply-To"]) == f"<{name}1@people.test>"
        assert str(got["Subject"]) == "Re: A question"
        assert str(got["Auto-Submitted"]) == "auto-replied"
        assert [each.addr_spec for each in got["From"].addresses] == [USER]
        assert [each.display_name for each in got["From"].addresses] == ["Hermes, the agent"]
        body, attached = got.get_body(), list(got.iter_attachments())
        assert body is not None
        assert body.get_content().rstrip("\n") == text
        assert [(each.get_filename(), each.get_content()) for each in attached] == [("antwört.bin", FILE[::-1])]
        answer = letter(
            f"And now?\n\nOn Tuesday, Hermes <{USER}> wrote:\n> Jawohl\n> ...", number=f"{name}2", subject="Re: A question",
            In_Reply_To=str(got["Message-ID"]), References=f"{got['References']} {got['Message-ID']}",
        )  # fmt: skip
        await written(mail, answer)
        await inbox.until(lambda: len(inbox.events) == 2)
        assert inbox.events[1].text == "And now?"
        assert inbox.events[1].address == event.address
        assert isinstance(found, ReadsBack)
        assert await found.find(event.address, key=f"{name}k1", since=0.0) == receipt
        nursery.cancel_scope.cancel()
    assert await settle(lambda: LeakCensus.take().growth_since(before), 5.0) == []


async def test_a_restart_goes_on_where_it_was_and_mails_are_marked_as_read(mail: RealMail) -> None:
    memory, inbox = TestMemory(), RecordingInbox(account="email")

    async def receive(until: int, marked: str | None = None) -> None:
        async with host_of(mail.tls, memory) as host, platform.open(config(mail), host) as found:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.receive, inbox, dict(inbox.cursors))
                await inbox.until(lambda: len(inbox.events) >= until and inbox.cursors)
                while marked and await trio.to_thread.run_sync(unseen, mail, marked):  # noqa: ASYNC110  # of another process
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()

    await receive(0)
    for number in range(3):
        await written(mail, letter(f"while you were away {number}", number=f"away{number}"))
    await receive(3)
    assert [event.id for event in inbox.events] == [f"away{number}@people.test" for number in range(3)]
    await written(mail, letter("later", number="later"))
    await receive(4, marked="later@people.test")
    assert inbox.events[3].id == "later@people.test"
    assert inbox.repeats <= 3


def unseen(mail: RealMail, number: str) -> list[bytes]:
    """Which mails with this Message-ID nobody has read, by Python's library."""
    client = mail.mailbox()
    try:
        client.select("INBOX", readonly=True)
        found: list[bytes] = client.search(None, "UNSEEN", "HEADER", "Message-ID", number)[1][0].split()
        return found
    finally:
        client.logout()


async def test_who_is_not_whom_they_say_is_not_heard_whatever_their_mail_claims(mail: RealMail) -> None:
    forged = f"{TRUSTED}; dmarc=pass header.from=forged.test"
    async with connected(mail) as found, trio.open_nursery() as nursery:
        inbox = RecordingInbox(account="email")
        nursery.start_soon(found.receive, inbox, {})
        await inbox.until(lambda: inbox.cursors)
        await written(mail, letter("let me in", number="f1", sender="boss@forged.test", Authentication_Results=forged))
        await written(mail, letter("Out of office", number="auto1", Auto_Submitted="auto-replied"))
        await written(mail, letter("I am anna", number="good1"))
        await inbox.until(lambda: inbox.events)
        assert [event.id for event in inbox.events] == ["good1@people.test"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("local", "raises"), [("nobody", AddressGone), ("later", SendRejected), ("grey", RateLimited)])
async def test_a_recipient_that_is_refused_says_how(mail: RealMail, local: str, raises: type[Exception]) -> None:
    async with connected(mail) as found:
        with pytest.raises(raises):
            await found.send(Address("email", f"{local}@people.test"), Content(text="x"), key=local, reply=None)


async def test_what_is_wrong_is_refused_in_words(mail: RealMail) -> None:
    async with host_of(mail.tls) as host:
        for settings in (config(mail, password=Secret("wrong")), starttls(mail, password=Secret("wrong"))):
            with pytest.raises(PlatformRefused, match="does not let us in") as caught:
                async with platform.open(settings, host):
                    pass
            assert "wrong" not in str(caught.value)
        with pytest.raises(PlatformRefused, match="folder Nowhere"):
            async with platform.open(config(mail, mailbox="Nowhere"), host):
                pass
        with pytest.raises(PlatformRefused, match="authserv_id"):
            async with platform.open(config(mail, authserv_id=None), host):
                pass
    async with host_of(ssl.create_default_context()) as host:
        for settings in (config(mail), starttls(mail)):
            with pytest.raises(Unreachable, match=r"(?i)certificate"):
                async with platform.open(settings, host):
                    pass


async def test_a_check_says_what_is_there_and_what_is_missing(mail: RealMail) -> None:
    assert platform.check is not None
    await written(mail, letter("to be looked at", number="check1"))
    async with host_of(mail.tls) as host:
        while True:  # Exim delivers in a process of its own
            found = await platform.check(config(mail, authserv_id=None), host)
            if TRUSTED in "".join(found.facts):
                break
        assert found.identity == USER
        assert any("IDLE" in fact for fact in found.facts)
        assert any(SENT in fact for fact in found.facts)
        assert any("authserv_id" in line for line in found.missing)
        assert (await platform.check(config(mail), host)).missing == ()
