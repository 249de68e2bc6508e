"""E-mail: a mailbox read by IMAP (RFC 9051, RFC 3501), answers submitted by SMTP (RFC 5321, RFC 6409)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hermes.platform import CheckReport, Host, Platform, PlatformSpec
from platforms.email.config import CAPABILITIES, EmailConfig, mistakes

__all__ = ["platform"]


@asynccontextmanager
async def _open(config: EmailConfig, host: Host) -> AsyncIterator[Platform]:
    from platforms.email.connection import open_email  # reading what a platform is loads nothing more

    async with open_email(config, host) as found:
        yield found


async def _check(config: EmailConfig, host: Host) -> CheckReport:
    from platforms.email.checking import check

    return await check(config, host)


platform = PlatformSpec(
    name="email",
    config=EmailConfig,
    capabilities=CAPABILITIES,
    secrets=("address",),
    help="A mailbox of its own for the agent. The password is the mailbox's, or an app password where the provider has those.",
    open=_open,
    check=_check,
    environment={
        "EMAIL_ADDRESS": "address",
        "EMAIL_PASSWORD": "password",
        "EMAIL_IMAP_HOST": "imap_host",
        "EMAIL_SMTP_HOST": "smtp_host",
        "EMAIL_AUTHSERV_ID": "authserv_id",
        "EMAIL_ALLOWED_USERS": "allowed_users",
    },
    access={"dm_policy": "allowlist"},
    mistakes=mistakes,
)
