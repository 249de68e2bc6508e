"""One account: what is known to work when it is entered, and the doors in and out.

Nothing stays open between two uses but the mailbox that is being received from: a mail is rare, and a connection that waits for one
has died unseen by the time it comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import NoReturn

import trio

from hermes.errors import PlatformRefused, SendError, SendRejected
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    Content,
    Host,
    Inbox,
    Receipt,
    ReplyRef,
)
from platforms.email import sending
from platforms.email.config import CAPABILITIES, EmailConfig, copies
from platforms.email.fetching import open_file
from platforms.email.headers import is_address
from platforms.email.imap import open_imap
from platforms.email.receiving import receive
from platforms.email.smtp import open_smtp

AT_ONCE = 4  # mails that are being sent or looked for: providers count connections
NO_SERVER = (
    "nobody knows which mails are from whom they say: set `authserv_id` to the name by which your mail server signs its"
    " Authentication-Results (`hermes platform check` shows the names in the latest mails), or to `none` if any From line is to be"
    " believed"
)


class EmailPlatform:
    """A `Platform` that reads back; see `hermes.platform`."""

    def __init__(self, config: EmailConfig, host: Host) -> None:
        self._config = config
        self._host = host
        self._doubts = sending.Doubts()
        self._dialogues = trio.CapacityLimiter(AT_ONCE)

    @property
    def capabilities(self) -> Capabilities:
        """What e-mail can do, and here."""
        return replace(CAPABILITIES, finds=copies(self._config) != "none")

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Read mails as they come."""
        await receive(inbox, cursors, config=self._config, host=self._host)

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Send a mail."""
        async with self._dialogues:
            return await sending.send(
                to, content, key=key, reply=reply, config=self._config, host=self._host, doubts=self._doubts
            )

    async def find(self, to: Address, *, key: str, since: float) -> Receipt | None:  # noqa: ARG002  # the contract's
        """Look for a mail of ours."""
        async with self._dialogues:
            return await sending.find(to, key=key, config=self._config, host=self._host, doubts=self._doubts)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:  # noqa: ARG002  # the contract's
        """Raises SendRejected: a mail that was sent stays as it is."""
        raise SendRejected("a mail that was sent stays as it is")

    async def signal(self, to: Address, activity: Activity) -> None:
        """Nothing: a mail has no signs."""

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:
        """Open the bytes of a file."""
        return open_file(self._config, self._host, attachment.ref, max_bytes)


@asynccontextmanager
async def open_email(config: EmailConfig, host: Host) -> AsyncIterator[EmailPlatform]:
    """An account whose mailbox and SMTP server are known to let us in.

    Raises:
        PlatformRefused: they do not, or the configuration cannot work.
        PlatformError: as `hermes.errors` says.
    """
    if not is_address(config.address):
        raise PlatformRefused("`address` is no plain ASCII e-mail address")
    if config.authserv_id is None:
        raise PlatformRefused(NO_SERVER)
    try:
        async with open_imap(config, host) as imap:
            await imap.select(config.mailbox, write=config.mark_seen)
        async with open_smtp(config, host) as smtp:
            await smtp.leave()
    except SendError as error:
        raise sending.as_unavailable(error) from None
    yield EmailPlatform(config, host)
