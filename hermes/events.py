"""What people do on a messaging service, and what is sent to them: the values between platforms and the core. No I/O.

All of it is frozen. What is stored is msgspec's JSON of these structs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

ChatKind = Literal["dm", "group", "channel"]
EventKind = Literal["message", "edited", "button", "moved"]
AttachmentKind = Literal["image", "audio", "voice", "video", "document", "sticker"]

MAX_ID = 512  # characters of an id that a service may give; a longer one is not one
_SAFE = "@:.+!$*"
_PLAIN = re.compile(r"[A-Za-z0-9_.\-~@:+!$*]*")  # what `quote` leaves as it is


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where to reply: an account, a chat of it, and a thread (a forum topic) of the chat where there is one."""

    account: str
    chat: str
    thread: str | None = None

    def __str__(self) -> str:
        return ":".join((self.account, self.chat) if self.thread is None else (self.account, self.chat, self.thread))


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did something.

    Args:
        id: the service's stable id; the only thing that access is judged by.
        name: what the person calls itself: shown, never trusted.
        bot: a program.
    """

    id: str
    name: str = ""
    bot: bool = False


class AttachmentRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file that a message carries, not fetched yet. All but `kind` and `ref` is what the service or the sender claims.

    Args:
        kind: how the service offers it.
        ref: how its own platform finds it again, such as a file id or a link.
        name: the file's name.
        media_type: such as `image/jpeg`.
        size_bytes: None where nobody said.
    """

    kind: AttachmentKind
    ref: str
    name: str = ""
    media_type: str = ""
    size_bytes: int | None = None


class Quoted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message that another one answers; `ours` if we wrote it."""

    message_id: str
    text: str = ""
    sender: Person | None = None
    ours: bool = False


class ReplyRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer is tied to what it answers.

    Args:
        message_id: the message to answer.
        token: a right to answer that the service gave out, such as a Discord interaction's; None where it needs none.
        until: seconds since the epoch at which the token is void.
    """

    message_id: str | None = None
    token: str | None = None
    until: float | None = None


class InboundEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something a person did.

    Args:
        id: the service's own; unique within (account, chat, kind), the same at each repetition, 1 to 512 characters.
        address: where it happened and where the answer goes.
        chat_kind: a conversation with one person, of several, or a channel that is published to.
        sender: who.
        kind: `message`; `edited` = the message `edits` has this text now (`id` is of the edit); `button` = one of ours was
            pressed; `moved` = the chat has another id from now on, which `text` holds.
        edits: for `edited`: the id of the message.
        text: the words, with markup as plain text; a command begins with `/`; for `button` what the button carries.
        to_us: it speaks to us beyond doubt: by mention, as an answer to us, by a command of ours.
        reply: how to tie the answer to it; None = to nothing.
        quoted: what it answers.
        attachments: in their order.
        at: seconds since the epoch by the service's clock; None if it says none.
        album: parts of one message share it.
        continues: more of the same message is likely to follow: it is as long as the service allows.
        attended: somebody waits on a connection for the answer.
    """

    id: str
    address: Address
    chat_kind: ChatKind
    sender: Person
    kind: EventKind = "message"
    edits: str | None = None
    text: str = ""
    to_us: bool = False
    reply: ReplyRef | None = None
    quoted: Quoted | None = None
    attachments: tuple[AttachmentRef, ...] = ()
    at: float | None = None
    album: str | None = None
    continues: bool = False
    attended: bool = False

    @property
    def key(self) -> str:
        """The event's name in the whole gateway."""
        return event_key(self.address.account, self.address.chat, self.kind, self.id)


def event_key(account: str, chat: str, kind: str, event_id: str) -> str:
    """One name for what is unique only as a tuple: the same for the same four, and for no others."""
    return "/".join(
        [each if _PLAIN.fullmatch(each) else quote(each, safe=_SAFE) for each in (account, chat, kind, event_id)]
    )


class Button(msgspec.Struct, frozen=True, omit_defaults=True):
    """A button under a message; pressed, it comes back as an event of kind `button` with `data` (at most 64 bytes)."""

    text: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundFile:
    """A file to send: its bytes are at `path`, which the sender only reads."""

    path: Path
    name: str
    media_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One part, as it is to be seen: rendered for its service and short enough for it.

    Args:
        text: in `dialect`; with a file, its caption.
        dialect: how the text is marked up; `plain` is not.
        buttons: rows of buttons.
        file: one file, or None.
        silent: no sound, no notification.
        final: what is shown is complete; False for a reply that is still being written.
        failed: it says why there is no reply.
    """

    text: str = ""
    dialect: str = "plain"
    buttons: tuple[tuple[Button, ...], ...] = ()
    file: OutboundFile | None = None
    silent: bool = False
    final: bool = True
    failed: bool = False


class StoredFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of the home's blobs, by its SHA-256 in hexadecimal digits."""

    digest: str
    name: str
    media_type: str
    size_bytes: int


class StoredContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part as its outbox row holds it; like Content, with the file by its digest."""

    text: str = ""
    dialect: str = "plain"
    buttons: tuple[tuple[Button, ...], ...] = ()
    file: StoredFile | None = None
    silent: bool = False
    failed: bool = False


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the service returned for a message that it shows: what an edit needs.

    Args:
        message_id: the service's own.
        address: where it is; not always where it was sent to.
        extra: what else its platform needs, in its own form; at most 1,000 characters.
    """

    message_id: str
    address: Address
    extra: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A sign that is no message.

    Args:
        kind: `typing`, which the service ends by itself after a while; `reaction`, on the message of `reply`.
        emoji: of a reaction; None takes ours back.
        reply: which message.
    """

    kind: Literal["typing", "reaction"]
    emoji: str | None = None
    reply: ReplyRef | None = None


encode_event = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(InboundEvent).decode
encode_content = msgspec.json.Encoder().encode
decode_content = msgspec.json.Decoder(StoredContent).decode
encode_receipt = msgspec.json.Encoder().encode
decode_receipt = msgspec.json.Decoder(Receipt).decode
encode_reply = msgspec.json.Encoder().encode
decode_reply = msgspec.json.Decoder(ReplyRef).decode
