"""A mail server for tests: a mailbox by IMAP, submission by SMTP, on the loopback, with bad days on request.

In a test: `async with open_fake_mail() as mail:`, then `mail.arrive(letter)` and look at `mail.accepted`. That it behaves like a
mail server is proven by the clients of Python's library, imaplib and smtplib, which are run against it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import Message
from functools import partial

import trio

from hermes.testing.fake_mail_imap import serve_imap
from hermes.testing.fake_mail_smtp import serve_smtp
from hermes.testing.fake_mail_wire import Fault, Line

USER, PASSWORD = "agent@hermes.test", "fake-password"
TRUSTED = "mx.hermes.test"
ANNA = "anna@people.test"


@dataclass(slots=True)
class Stored:
    """A mail in a mailbox."""

    uid: int
    raw: bytes
    at: float
    flags: set[str] = field(default_factory=set)


class Mailbox:
    """Mails by ascending UID."""

    def __init__(self, validity: int, special: str = "") -> None:
        self.validity = validity
        self.special = special
        self.next_uid = 1
        self.mails: list[Stored] = []

    def add(self, raw: bytes, at: float, *flags: str) -> Stored:
        """Put a mail in."""
        stored = Stored(self.next_uid, raw, at, set(flags))
        self.next_uid += 1
        self.mails.append(stored)
        return stored

    def renew(self) -> None:
        """Make it anew with the same mails in another order: UIDs mean nothing any more."""
        self.validity += 1
        old, self.mails, self.next_uid = self.mails[::-1], [], 1
        for each in old:
            self.add(each.raw, each.at, *each.flags)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A mail that was submitted."""

    sender: str
    recipient: str
    raw: bytes

    @property
    def message(self) -> Message:
        """It, parsed."""
        return message_from_bytes(self.raw, policy=policy.default)


class FakeMail:
    """The servers of one user.

    Attributes:
        imap_port, smtp_port: where they are.
        mailboxes: by name.
        accepted: what was submitted, in order.
        keeps_copies: the SMTP server puts a copy into `Sent` itself.
        capabilities: what the IMAP server offers; `extensions`: the SMTP server.
        faults: `imap <command>`, `smtp <command>`, `imap greeting`, `smtp greeting`, `smtp message` -> what the next of it gets;
            `standing`: the same for all of it until it is taken away; `*` for every one of both.
        refused: recipient -> the answer it gets.
        poison: asked with the UID and the items of each FETCH: what that mail gets in place of its bytes, if anything.
        requests: every connection and command.
        connections: open now, by protocol.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.imap_port = self.smtp_port = 0
        self.clock = clock
        self.mailboxes = {"INBOX": Mailbox(1000), "Sent": Mailbox(2000, "\\Sent"), "Archive & öther": Mailbox(3000)}
        self.accepted: list[Accepted] = []
        self.keeps_copies = False
        self.capabilities = ["IMAP4rev1", "IDLE", "SPECIAL-USE", "AUTH=PLAIN", "LITERAL+"]
        self.extensions = ["SIZE 30000000", "8BITMIME", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN"]
        self.user, self.password = USER, PASSWORD
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.standing: dict[str, Fault] = {}
        self.refused: dict[str, bytes] = {}
        self.poison: Callable[[int, str], Fault | None] | None = None
        self.requests: deque[str] = deque(maxlen=100_000)
        self.connections = {"imap": 0, "smtp": 0}
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def inbox(self) -> Mailbox:
        """The mailbox INBOX."""
        return self.mailboxes["INBOX"]

    def arrive(self, raw: bytes | str, *, at: float | None = None) -> int:
        """A mail comes. Returns its UID."""
        data = raw.encode() if isinstance(raw, str) else raw
        stored = self.inbox.add(
            data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), self.clock() if at is None else at
        )
        self.changed()
        return stored.uid

    def changed(self) -> None:
        """Tell those who wait that something did."""
        self._changed.unpark_all()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for something that the servers see."""
        while not fact():
            await self._changed.park()

    async def change(self) -> None:
        """Wait until something changes."""
        await self._changed.park()

    def accept(self, sender: str, recipient: str, raw: bytes) -> None:
        """A mail was submitted."""
        self.accepted.append(Accepted(sender, recipient, raw))
        if self.keeps_copies:
            self.mailboxes["Sent"].add(raw, self.clock(), "\\Seen")
        self.changed()

    def fail(self, what: str, *faults: Fault) -> None:
        """Have the next ones of a command get these."""
        self.faults[what].extend(faults)

    def fault(self, what: str) -> Fault | None:
        """What a command gets now, if anything."""
        self.requests.append(what)
        self.changed()
        if self.faults[what]:
            return self.faults[what].popleft()
        return self.standing.get(what) or self.standing.get("*")

    def texts(self) -> list[str]:
        """The texts of what was submitted, in order."""
        return [text_of(each.message) for each in self.accepted]


def text_of(message: Message) -> str:
    """The first plain text of a mail."""
    for part in message.walk():
        if part.get_content_type() == "text/plain" and part.get_content_disposition() != "attachment":
            found = part.get_payload(decode=True)
            assert isinstance(found, bytes)
            return found.decode("utf-8").replace("\r\n", "\n").removesuffix("\n")
    return ""


def letter(
    text: str,
    *,
    number: str,
    sender: str = ANNA,
    name: str = "Anna",
    subject: str = "Hello",
    trusted: bool = True,
    heads: str = "",
) -> str:
    """A mail of somebody, as it lies in the mailbox.

    Args:
        number: of its Message-ID, `<number@people.test>`.
        trusted: the trusted server found that it is from whom it says.
        heads: more lines for its head.
    """
    domain = sender.rpartition("@")[2]
    verdict = f"dmarc=pass header.from={domain}" if trusted else f"dmarc=fail header.from={domain}"
    return (
        f"Return-Path: <{sender}>\nAuthentication-Results: {TRUSTED}; {verdict}\nReceived: from there by {TRUSTED}\n"
        f"From: {name} <{sender}>\nTo: {USER}\nSubject: {subject}\nMessage-ID: <{number}@people.test>\n"
        f"Date: Tue, 14 Nov 2023 22:13:20 +0000\n{heads}"
        f'MIME-Version: 1.0\nContent-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 8bit\n\n{text}\n'
    )


@asynccontextmanager
async def open_fake_mail(clock: Callable[[], float] = lambda: 1_700_000_000.0) -> AsyncIterator[FakeMail]:
    """Serve IMAP and SMTP on ports of the loopback while inside."""
    mail = FakeMail(clock)
    async with trio.open_nursery() as nursery:
        (imap,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        (smtp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        mail.imap_port, mail.smtp_port = (each.socket.getsockname()[1] for each in (imap, smtp))
        await nursery.start(trio.serve_listeners, partial(_serve, mail, "imap", serve_imap), [imap])
        await nursery.start(trio.serve_listeners, partial(_serve, mail, "smtp", serve_smtp), [smtp])
        try:
            yield mail
        finally:
            nursery.cancel_scope.cancel("the test is over")


async def _serve(
    mail: FakeMail, name: str, serve: Callable[[FakeMail, Line], object], stream: trio.SocketStream
) -> None:
    mail.connections[name] += 1
    try:
        async with stream:
            await serve(mail, Line(stream, name, mail.fault))  # type: ignore[misc]
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client left
    finally:
        mail.connections[name] -= 1
        mail.changed()
