"""The fake mail server, judged by the clients of Python's library: what they accept, and how they understand what goes wrong."""

from __future__ import annotations

import imaplib
import re
import smtplib
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio

from hermes.testing.fake_mail import ANNA, PASSWORD, USER, FakeMail, letter, open_fake_mail
from hermes.testing.fake_mail_wire import Fault

T = TypeVar("T")
MAIL = "Subject: hello\r\nMessage-ID: <k.0@hermes.test>\r\n\r\n.one\r\n..\r\nlast"


async def imap(fake: FakeMail, job: Callable[[imaplib.IMAP4], T], *, known: bool = True) -> T:
    def work() -> T:
        client = imaplib.IMAP4("127.0.0.1", fake.imap_port, timeout=5)
        try:
            if known:
                client.login(USER, PASSWORD)
            return job(client)
        finally:
            client.shutdown()

    return await trio.to_thread.run_sync(work)


async def smtp(fake: FakeMail, job: Callable[[smtplib.SMTP], T], *, known: bool = True) -> T:
    def work() -> T:
        with smtplib.SMTP("127.0.0.1", fake.smtp_port, timeout=5) as client:
            if known:
                client.login(USER, PASSWORD)
            return job(client)

    return await trio.to_thread.run_sync(work)


async def test_nobody_comes_in_without_the_password() -> None:
    async with open_fake_mail() as fake:

        def wrong(client: imaplib.IMAP4) -> None:
            with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
                client.login(USER, "wrong")
            with pytest.raises(imaplib.IMAP4.error):
                client.authenticate("PLAIN", lambda _: f"\0{USER}\0wrong".encode())
            client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())

        def wrong_too(client: smtplib.SMTP) -> None:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(USER, "wrong")
            with pytest.raises(smtplib.SMTPSenderRefused):
                client.sendmail(USER, [ANNA], MAIL)
            client.user, client.password = USER, PASSWORD
            assert client.auth("LOGIN", client.auth_login)[0] == 235

        await imap(fake, wrong, known=False)
        await smtp(fake, wrong_too, known=False)


async def test_mails_are_found_read_and_marked() -> None:
    async with open_fake_mail() as fake:
        fake.arrive(letter("one", number="n1"), at=1_600_000_000)
        fake.arrive(letter("two", number="n2"))

        def job(client: imaplib.IMAP4) -> None:
            assert client.capabilities[0] == "IMAP4REV1"
            names = client.list()[1]
            assert names[1] == b'(\\HasNoChildren \\Sent) "/" "Sent"'
            assert names[2] == b'(\\HasNoChildren) "/" "Archive &- &APY-ther"'
            assert client.select("INBOX") == ("OK", [b"2"])
            assert client.response("UIDVALIDITY")[1] == [b"1000"]
            assert client.response("UIDNEXT")[1] == [b"3"]
            assert client.uid("SEARCH", "UID", "2:*")[1] == [b"2"]
            assert client.uid("SEARCH", "UID", "9:*")[1] == [b"2"]
            assert client.uid("SEARCH", "SINCE", "1-Jan-2022")[1] == [b"2"]
            assert client.uid("SEARCH", "HEADER", "Message-ID", '"<n1@people.test>"')[1] == [b"1"]
            found: list[Any] = client.uid("FETCH", "1", "(UID INTERNALDATE RFC822.SIZE FLAGS)")[1]
            assert imaplib.Internaldate2tuple(found[0]) is not None
            assert re.search(rb"UID 1 .*RFC822.SIZE (\d+) FLAGS \(\)", found[0])
            whole: list[Any] = client.uid("FETCH", "1", "(BODY.PEEK[])")[1]
            assert whole[0][1] == fake.inbox.mails[0].raw
            part: list[Any] = client.uid("FETCH", "1", "(BODY.PEEK[1]<1.2>)")[1]
            assert part[0][1] == b"ne"
            client.uid("STORE", "1,2", "+FLAGS.SILENT", "(\\Seen)")
            fake.mailboxes["INBOX"].add(b"late\r\n\r\n", 0)
            assert client.noop()[0] == "OK"
            assert client.response("EXISTS")[1][-1:] == [b"3"]
            assert client.append("Sent", "(\\Seen)", None, MAIL.encode())[0] == "OK"
            assert client.select("Nowhere")[0] == "NO"

        await imap(fake, job)
        assert [each.flags for each in fake.inbox.mails] == [{"\\Seen"}, {"\\Seen"}, set()]
        assert fake.mailboxes["Sent"].mails[0].raw == MAIL.encode()
        await fake.until(lambda: not fake.connections["imap"])


async def test_what_is_submitted_is_what_was_sent() -> None:
    async with open_fake_mail() as fake:
        fake.keeps_copies = True
        fake.refused["no@people.test"] = b"550 5.1.1 no such user"

        def job(client: smtplib.SMTP) -> None:
            assert client.sendmail(USER, [ANNA], MAIL) == {}
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail(USER, ["no@people.test"], MAIL)
            client.rset()
            assert client.docmd("NOSUCH")[0] == 502
            assert client.docmd("DATA")[0] == 503

        await smtp(fake, job)
        (accepted,) = fake.accepted
        assert (accepted.sender, accepted.recipient) == (USER, ANNA)
        assert accepted.raw == MAIL.encode() + b"\r\n"
        assert fake.mailboxes["Sent"].mails[0].raw == accepted.raw


async def test_bad_days_are_what_the_library_calls_them() -> None:
    async with open_fake_mail() as fake:
        fake.fail(
            "imap greeting", Fault(answer=b"* BYE no"), Fault(cut=True), Fault(raw=b"<html>\r\n"), Fault(hang=True)
        )
        for _ in range(3):
            with pytest.raises(imaplib.IMAP4.error):
                await imap(fake, lambda client: None)

        def short(_: object) -> None:
            imaplib.IMAP4("127.0.0.1", fake.imap_port, timeout=0.2)

        with pytest.raises(TimeoutError):
            await trio.to_thread.run_sync(short, None)
        fake.fail("smtp message", Fault(answer=b"451 4.3.0 not now"), Fault(cut=True, done=True))
        with pytest.raises(smtplib.SMTPDataError):
            await smtp(fake, lambda client: client.sendmail(USER, [ANNA], MAIL))
        assert not fake.accepted
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await smtp(fake, lambda client: client.sendmail(USER, [ANNA], MAIL))
        assert len(fake.accepted) == 1
