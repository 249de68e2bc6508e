"""What a person wrote on a messaging service, as the model will read it. Pure.

A name, a file name and a quoted text are whatever a stranger typed: they are put on one line, shortened and set in brackets
that they cannot close.
"""

from __future__ import annotations

import msgspec

from hermes.attached import is_sound
from hermes.events import MAX_ID, AttachmentRef, InboundEvent
from hermes.intake import Payload
from hermes.messages import Message, Text

MAX_TEXT = 200_000  # characters of one message; services allow far less
MAX_NAME = 64
MAX_QUOTED = 500
MAX_FILES = 32
MAX_REF = 4096
NOT_HEARD = "; it was not transcribed, and nobody here has heard it"
_FLAT = str.maketrans({"[": "(", "]": ")", "\n": " ", "\r": " ", "\t": " ", "\u2028": " ", "\u2029": " "})


class BadEvent(ValueError):
    """An event that is none; the text says why, for the log and for whoever reads the quarantine."""


def check_event(event: InboundEvent, account: str) -> None:
    """Whether an event can be kept at all.

    Raises:
        BadEvent: it is of another account, it or its chat has no id or one of more than 512 characters, or its text is longer
            than any service allows, or cannot be written down (half of a surrogate pair).
    """
    if event.address.account != account:
        raise BadEvent("it names another account")
    for what, value in (("id", event.id), ("chat", event.address.chat), ("sender", event.sender.id)):
        if not value or len(value) > 512:
            raise BadEvent(f"its {what} is {'missing' if not value else 'too long'}")
    if event.address.thread is not None and not 0 < len(event.address.thread) <= 512:
        raise BadEvent("its thread is no id")
    if len(event.text) > MAX_TEXT:
        raise BadEvent(f"its text has more than {MAX_TEXT} characters")
    try:
        msgspec.json.encode(event)
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError):
        raise BadEvent("its text cannot be encoded") from None


def to_payload(event: InboundEvent, *, named: bool, hears: bool = False) -> Payload:
    """The durable content of a message.

    Args:
        event: of kind `message` or `edited`.
        named: several people speak in this conversation, so that the model must be told who this is.
        hears: what is spoken will be put in words; otherwise the model is told that nobody has heard it.
    """
    lines: list[str] = []
    if event.quoted is not None and event.quoted.text:
        quoted = flat(event.quoted.text, MAX_QUOTED)
        whose = "your message" if event.quoted.ours else _whose(event.quoted.sender.name if event.quoted.sender else "")
        lines.append(f"[answers {whose}: {quoted}]")
    lines += [
        f"[{describe_file(each)}{'' if hears or not is_sound(each) else NOT_HEARD}]"
        for each in event.attachments[:MAX_FILES]
    ]
    if len(event.attachments) > MAX_FILES:
        lines.append(f"[and {len(event.attachments) - MAX_FILES} more files]")
    said = f"[{flat(event.sender.name, MAX_NAME) or 'somebody'}] {event.text}" if named else event.text
    return Payload(
        messages=(Message(role="user", parts=(Text("\n".join((*lines, said)).rstrip()),)),),
        attachments=tuple(each for each in event.attachments[:MAX_FILES] if len(each.ref) <= MAX_REF),
        message_id=_shown_as(event),
    )


def _shown_as(event: InboundEvent) -> str | None:
    """The message that a sign can be shown on."""
    shown = event.reply.message_id if event.reply is not None else None
    return shown if shown is not None and 0 < len(shown) <= MAX_ID else None


def _whose(name: str) -> str:
    return f"a message of {flat(name, MAX_NAME)}" if name.strip() else "a message"


def describe_file(file: AttachmentRef) -> str:
    """A file in words: its kind, and what its sender says of it."""
    size = f"{file.size_bytes:,} bytes" if file.size_bytes is not None and file.size_bytes >= 0 else ""
    claims = [flat(each, MAX_NAME) for each in (file.name, file.media_type)]
    return ", ".join(each for each in (file.kind, *claims, size) if each)


def flat(text: str, most: int) -> str:
    """Text of a stranger on one line, at most so long, without what ends a bracket."""
    cut = " ".join(text[: 4 * most].translate(_FLAT).split())
    printable = "".join(each for each in cut if each.isprintable())
    return printable if len(printable) <= most else printable[: most - 1] + "…"
