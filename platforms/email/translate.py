"""A mail as an event: pure (RFC 5322, RFC 2045).

A mail is whatever somebody sent: nothing in it is believed but what our own server found out about it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import Message
from typing import TypeVar

from hermes.errors import PlatformProtocolError
from hermes.events import Address, AttachmentRef, InboundEvent, Person, Quoted, ReplyRef
from platforms.email import headers
from platforms.email.authentication import authenticated
from platforms.email.automatic import why_automatic
from platforms.email.body import files_of, leaves_of, text_of
from platforms.email.config import EmailConfig
from platforms.email.quotes import own_words
from platforms.email.threads import Head, Known, is_ours, remembered, thread_of, tie_of, token

T = TypeVar("T")
TOO_LARGE = "is too large to be read"
BROKEN = "cannot be read: the mail server does not hand it out"
TOO_DEEP = "cannot be read: too much in it is in something else"
MAX_NESTING = 100  # the library looks at each line once for each part that it is in
_NESTING = re.compile(rb"^content-type:\s*(?:multipart|message)/", re.IGNORECASE | re.MULTILINE)
_HEAD_ENDS = re.compile(rb"\r?\n\r?\n")
_FLAT = str.maketrans({"[": "(", "]": ")"})


@dataclass(frozen=True, slots=True)
class Passed:
    """A mail that is no event, and why not."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail as the mailbox has it.

    Args:
        message: the mail, or its head alone.
        raw_digest: of all bytes that were read.
        where: `<uidvalidity>/<uid>`.
        at: when it came, in seconds since the epoch.
        too_large: its size in bytes, where only its head was read.
        why_not: why only its head was.
    """

    message: Message
    raw_digest: str
    where: str
    at: float | None = None
    too_large: int | None = None
    why_not: str = TOO_LARGE


def open_mail(
    raw: bytes,
    config: EmailConfig,
    *,
    where: str,
    at: float | None = None,
    too_large: int | None = None,
    why_not: str = TOO_LARGE,
) -> tuple[Mail, Person] | Passed:
    """A mail and the person who wrote it to us; why it is passed over, if none did, or if that is not sure.

    Raises:
        PlatformProtocolError: it is nothing that the library of Python can read.
    """

    digest = hashlib.sha256(raw).hexdigest()[:32]
    if len(_NESTING.findall(raw)) > MAX_NESTING:
        too_large, why_not = len(raw), TOO_DEEP
        raw = _HEAD_ENDS.split(raw, 1)[0] + b"\r\n\r\n"

    def read() -> tuple[Mail, Person] | Passed:
        message = message_from_bytes(raw, policy=policy.compat32)
        sender = _sender(message, config)
        if isinstance(sender, Passed):
            return sender
        return Mail(
            message=message, raw_digest=digest, where=where, at=at, too_large=too_large, why_not=why_not
        ), sender

    return _readable(read)


def _readable(read: Callable[[], T]) -> T:
    """What the library's parsers say of strange mails, by one name."""
    try:
        return read()
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError, MessageError) as error:
        raise PlatformProtocolError(f"a mail that cannot be read: {type(error).__name__}: {error}") from error


def _sender(message: Message, config: EmailConfig) -> Person | Passed:
    if why := why_automatic(message, config.address.lower()):
        return Passed(f"written by no person: {why}")
    found = headers.sender(message)
    if found is None:
        return Passed("its From line is not one address")
    address, name = found
    if config.authserv_id is None or not authenticated(message, address, config.authserv_id):
        return Passed("nobody knows whether it is from whom it says")
    return Person(address, name[:100])


def translate(mail: Mail, sender: Person, known: Sequence[Known], *, account: str) -> tuple[InboundEvent, list[Known]]:
    """The event that a person's mail is, and what is to be remembered of the sender's conversations afterwards.

    Args:
        mail: what came.
        sender: of `who_wrote`.
        known: what is remembered of conversations.
        account: ours.

    Raises:
        PlatformProtocolError: it is nothing that the library of Python can read.
    """
    return _readable(lambda: _translate(mail, sender, known, account))


def _translate(mail: Mail, sender: Person, known: Sequence[Known], account: str) -> tuple[InboundEvent, list[Known]]:
    message = mail.message
    head = head_of(mail, sender.id)
    thread = thread_of(head, known)
    files: tuple[AttachmentRef, ...] = ()
    if mail.too_large is not None:
        said = f"[a mail of {mail.too_large:,} bytes, which {mail.why_not}]"
    else:
        leaves = leaves_of(message)
        said, files = own_words(text_of(leaves)), files_of(leaves, mail.where)
    related = head.answers or head.references
    event = InboundEvent(
        id=head.id,
        address=Address(account, sender.id, thread),
        chat_kind="dm",
        sender=sender,
        text=_with_subject(said, head, begins=not related),
        to_us=True,
        reply=ReplyRef(message_id=head.id, token=token(tie_of(head))),
        quoted=Quoted(message_id=related[-1], ours=is_ours(related[-1])) if related else None,
        attachments=files,
        at=mail.at,
    )
    return event, remembered(known, thread, head)


def head_of(mail: Mail, sender: str) -> Head:
    """What a mail says of its place. One without a Message-ID is called by its content, which is the same each time it is read."""
    message = mail.message
    return Head(
        id=headers.own_id(message) or f"{mail.raw_digest}@none.invalid",
        sender=sender,
        subject=headers.subject(message),
        references=headers.ids(message, "references"),
        answers=headers.ids(message, "in-reply-to")[:5],
    )


def _with_subject(said: str, head: Head, *, begins: bool) -> str:
    """The words, with the subject before them where it is new; a command stays one."""
    said = said.strip()
    subject = head.subject.translate(_FLAT)
    if said.startswith("/"):
        return said
    if not said:
        return head.subject
    return f"[subject: {subject}]\n{said}" if subject and begins else said
