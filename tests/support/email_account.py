"""The mailbox that tests of e-mail use, and the clock on its wall."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Any

from hermes.platform import Secret
from hermes.testing.fake_mail import PASSWORD, TRUSTED, USER, FakeMail
from platforms.email.config import EmailConfig

NOW = 1_700_000_000.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # quickly made; it believes nobody, and is asked by nobody


def config(fake: FakeMail, **more: Any) -> EmailConfig:
    """The account of a fake, whose SMTP service makes the copies unless said otherwise."""
    plain = EmailConfig(
        address=USER, password=Secret(PASSWORD), imap_host="127.0.0.1", imap_port=fake.imap_port, imap_security="none",
        smtp_host="127.0.0.1", smtp_port=fake.smtp_port, smtp_security="none", authserv_id=TRUSTED, sent_copy="server",
    )  # fmt: skip
    return replace(plain, **more)


@dataclass(slots=True)
class Watch:
    """A clock that a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now
