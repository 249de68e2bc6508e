"""Sending a mail, keeping a copy of it, and looking for one whose acceptance nobody heard."""

from __future__ import annotations

import logging
from functools import partial

import trio

from hermes.errors import (
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    SendError,
    SendRejected,
    SendUncertain,
)
from hermes.platform import Address, Content, Host, Receipt, ReplyRef
from platforms.email import headers
from platforms.email.compose import Letter, compose, message_id
from platforms.email.config import EmailConfig, copies, domain_of
from platforms.email.imap import open_imap, sent_mailbox
from platforms.email.imap_syntax import quoted
from platforms.email.smtp import open_smtp
from platforms.email.threads import bucket, our_id, read_known, read_token, tie_in

log = logging.getLogger(__name__)

COPY_S = 4.0  # for a copy after a mail was accepted: it is a known success, which a cancel must not make doubtful
LARGE = 131_072  # bytes of a file that is not encoded between two steps of everybody else
MOST_DOUBTS = 256


class Doubts:
    """When the latest attempt at each mail ended that may have been accepted: from then on its copy has time to appear.

    The beginning of the first attempt, which the core knows, says nothing of that: handing a mail over may take minutes, and it may
    have been tried again since. What was tried before the account was opened had ended by then.
    """

    def __init__(self) -> None:
        self._ended: dict[str, float] = {}
        self._others = trio.current_time()

    def note(self, key: str) -> None:
        """An attempt has ended now."""
        self._ended.pop(key, None)
        self._ended[key] = trio.current_time()
        if len(self._ended) > MOST_DOUBTS:
            self._others = self._ended.pop(next(iter(self._ended)))

    def age_s(self, key: str) -> float:
        """How long ago the latest attempt ended, at least."""
        return trio.current_time() - self._ended.get(key, self._others)


async def send(
    to: Address,
    content: Content,
    *,
    key: str,
    reply: ReplyRef | None,
    config: EmailConfig,
    host: Host,
    doubts: Doubts,
) -> Receipt:
    """Have a mail accepted by our SMTP server.

    Raises:
        SendUncertain: it may have been.
        PlatformError: it was not.

    Cancellation: what the server has accepted is a success all the same.
    """
    if not headers.is_address(to.chat):
        raise SendRejected(f"{to.chat[:100]!r} is no address that a mail can be sent to")
    letter = await _letter(to, content, key, reply, host)
    if content.file is None or content.file.size_bytes <= LARGE:
        message = compose(letter, config)
    else:
        message = await trio.to_thread.run_sync(partial(compose, letter, config))
    async with open_smtp(config, host) as smtp:
        try:
            await smtp.submit(config.address, to.chat, message)
        finally:
            doubts.note(key)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + COPY_S):
            await smtp.leave()
            await _keep_copy(message, config, host)
    return Receipt(message_id=message_id(letter, config), address=to)


async def _letter(to: Address, content: Content, key: str, reply: ReplyRef | None, host: Host) -> Letter:
    tie = read_token(reply.token) if reply is not None else None
    if tie is None and to.thread is not None:
        tie = tie_in(read_known(await host.memory.get(bucket(to.chat))), to.chat, to.thread)
    answered = reply.message_id if reply is not None else None
    return Letter(
        to=to.chat, content=content, key=key, thread=to.thread, tie=tie, at=host.clock(),
        reply_to=answered if answered is not None and len(answered) <= headers.MAX_ID else None,
    )  # fmt: skip


async def _keep_copy(message: bytes, config: EmailConfig, host: Host) -> None:
    """Put a copy where people look for what was sent. Raises nothing: the mail is on its way."""
    if copies(config) != "append":
        return
    try:
        async with open_imap(config, host, timeout_s=min(COPY_S, config.timeout_s)) as imap:
            mailbox = await sent_mailbox(imap, config)
            if mailbox is not None:
                await imap.append(mailbox, message)
    except PlatformError as error:
        log.info("there is no copy of what was sent: %s", error)


async def find(to: Address, *, key: str, config: EmailConfig, host: Host, doubts: Doubts) -> Receipt | None:
    """Look for a mail of ours in the folder of what was sent.

    Raises:
        SendUncertain: what is not there may have been sent all the same.
        PlatformError: the folder cannot be looked through now.
    """
    keeper = copies(config)
    if keeper == "none":
        raise SendUncertain("nobody keeps copies of what is sent")
    name = our_id(key, to.thread, domain_of(config))
    async with open_imap(config, host) as imap:
        mailbox = await sent_mailbox(imap, config)
        if mailbox is None:
            raise SendUncertain("there is no folder of what was sent")
        try:
            await imap.select(mailbox)
        except PlatformRefused as error:
            raise SendUncertain(str(error)) from None
        if await imap.search(b"HEADER Message-ID " + quoted(f"<{name}>")):
            return Receipt(message_id=name, address=to)
    if keeper == "append":  # it may have been accepted, and its copy lost
        raise SendUncertain("no copy was kept")
    if (left_s := config.sent_copy_s - doubts.age_s(key)) > 0:
        raise PlatformUnavailable("a copy may yet be made", retry_after_s=left_s)
    return None


def as_unavailable(error: SendError) -> PlatformUnavailable:
    """An error of a send where nothing was sent: it is the connection that cannot be had."""
    return PlatformUnavailable(str(error), retry_after_s=getattr(error, "retry_after_s", None))
