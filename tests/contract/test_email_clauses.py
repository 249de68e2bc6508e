"""E-mail keeps the contract of platforms, clause by clause."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from hermes.events import AttachmentRef, InboundEvent
from hermes.platform import Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses
from hermes.testing.clauses.bench import EPOCH
from hermes.testing.fake_mail import ANNA, PASSWORD, TRUSTED, USER, FakeMail, letter, open_fake_mail
from hermes.testing.fake_mail_wire import Fault
from platforms.email import platform
from platforms.email.config import EmailConfig
from platforms.email.headers import own_id
from platforms.email.translate import Passed, open_mail, translate

FILE = bytes(range(256)) * 1200
DAYS: dict[Switch, dict[str, Fault]] = {
    "refuse": {
        "imap AUTHENTICATE": Fault(answer=b"NO [AUTHENTICATIONFAILED] invalid credentials"),
        "smtp AUTH": Fault(answer=b"535 5.7.8 authentication credentials invalid"),
    },
    "fail": {
        "imap greeting": Fault(answer=b"* BYE [UNAVAILABLE] going down"),
        "smtp greeting": Fault(answer=b"421 4.3.2 going down"),
    },
    "garbage": {"imap greeting": Fault(raw=b"<html>\r\n"), "smtp greeting": Fault(raw=b"<html>\r\n")},
    # A mail is handed over in many steps; what is taken and never answered is the last.
    "hang": {"imap greeting": Fault(hang=True), "smtp message": Fault(hang=True)},
    "lose": {"imap greeting": Fault(cut=True), "smtp message": Fault(cut=True, done=True)},
    "limit": {
        "imap greeting": Fault(answer=b"* BYE [LIMIT] too many"),
        "smtp greeting": Fault(answer=b"421 4.7.0 too many"),
    },
    "reject": {"smtp RCPT": Fault(answer=b"550 5.1.1 no such user")},
}


class Service:
    """The fake as the kit wants to see it."""

    chat = ANNA
    switches: tuple[Switch, ...] = (*DAYS, "repeat")

    def __init__(self, fake: FakeMail) -> None:
        self.fake = fake
        self._number = 0
        self._repeat = False
        both = MIMEMultipart("mixed", None, [MIMEText("see the file"), MIMEApplication(FILE)])
        both["From"] = ANNA
        fake.arrive(both.as_bytes())

    def post(self, text: str) -> str:
        self._number += 1
        for _ in range(2 if self._repeat else 1):
            self.fake.arrive(letter(text, number=f"n{self._number}"))
        return f"n{self._number}@people.test"

    def shown(self) -> Sequence[str]:
        return self.fake.texts()

    def acknowledged(self) -> set[str]:
        from email import message_from_bytes

        return {own_id(message_from_bytes(each.raw)) for each in self.fake.inbox.mails if "\\Seen" in each.flags}

    def requests(self) -> Sequence[str]:
        return list(self.fake.requests)

    def set(self, switch: Switch | None) -> None:
        self._repeat = switch == "repeat"
        self.fake.standing = dict(DAYS.get(switch, {})) if switch is not None else {}


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    async with open_fake_mail(lambda: EPOCH) as fake:
        fake.keeps_copies = True
        yield Service(fake)


def config(service: Service, host: TestHost) -> EmailConfig:
    return EmailConfig(
        address=USER, password=Secret(PASSWORD), imap_host="127.0.0.1", imap_port=service.fake.imap_port, imap_security="none",
        smtp_host="127.0.0.1", smtp_port=service.fake.smtp_port, smtp_security="none", authserv_id=TRUSTED, sent_copy="server",
    )  # fmt: skip


def config_that_polls(service: Service, host: TestHost) -> EmailConfig:
    service.fake.keeps_copies = False
    return replace(config(service, host), idle=False, poll_s=5.0, sent_copy="append")


SAMPLE_CONFIG = EmailConfig(
    address=USER, password=Secret("x"), imap_host="h", smtp_host="h", authserv_id="mx.hermes.test"
)


def translated(sample: bytes) -> Sequence[InboundEvent]:
    opened = open_mail(sample, SAMPLE_CONFIG, where="1/1", at=1.0)
    if isinstance(opened, Passed):
        return []
    mail, sender = opened
    event, _ = translate(mail, sender, [], account="kit")
    return [event]


SAMPLES = {path.stem: path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("samples/email/*.eml"))}
SIZE = len(FILE)
SUBJECT = Subject(
    spec=platform,
    service=open_service,
    config=config,
    samples={"a letter": letter("hello", number="n1").encode(), **SAMPLES},
    translate=translated,
    file=(AttachmentRef(kind="document", ref=f"1000/1/2/b/{SIZE}"), FILE),
    endings=30,
)


POLLS = replace(SUBJECT, config=config_that_polls, endings=15)
OF_POLLS = [clause for clause in check_platform_clauses() if clause.name in ("receive", "deliver", "send")]


@pytest.mark.wall_clock_s(120)
@pytest.mark.parametrize("clause", check_platform_clauses())
def test_email_keeps(clause: Clause) -> None:
    try:
        clause(SUBJECT)
    except AssertionError as breach:
        pytest.fail(str(breach))


@pytest.mark.wall_clock_s(120)
@pytest.mark.parametrize("clause", OF_POLLS)
def test_email_without_idle_keeps(clause: Clause) -> None:
    try:
        clause(POLLS)
    except AssertionError as breach:
        pytest.fail(str(breach))
