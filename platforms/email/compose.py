"""What we send, as a mail: pure but for reading its file (RFC 5322, RFC 2045, RFC 2047, RFC 3834)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import encoders
from email.charset import QP, Charset
from email.header import Header
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.policy import compat32
from email.utils import formatdate

from hermes.errors import SendRejected
from hermes.platform import Content, OutboundFile
from platforms.email.config import EmailConfig, domain_of
from platforms.email.headers import answers
from platforms.email.threads import Tie, our_id

MAX_SUBJECT = 100
UNTITLED = "A message"
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*\Z")
# Each byte that a mail may have; lines end with CRLF, and "From " at the beginning of one is what it is.
_AS_SENT = compat32.clone(linesep="\r\n", max_line_length=None, mangle_from_=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is to be sent.

    Args:
        to: an address.
        content: with its text and perhaps a file.
        key: of the part; the Message-ID is made of it.
        thread: the conversation; None begins one.
        tie: how it stands in it.
        reply_to: the Message-ID of what it answers.
        at: now, in seconds since the epoch.
    """

    to: str
    content: Content
    key: str
    thread: str | None
    tie: Tie | None
    reply_to: str | None
    at: float


def message_id(letter: Letter, config: EmailConfig) -> str:
    """Its Message-ID, without brackets: the same for each attempt."""
    return our_id(letter.key, letter.thread, domain_of(config))


def compose(letter: Letter, config: EmailConfig) -> bytes:
    """The mail, in 7-bit ASCII.

    Raises:
        SendRejected: its file cannot be read, or is not as long as it was.
    """
    text = _text(letter.content.text)
    file = letter.content.file
    mail: Message
    if file is None:
        mail = text
    else:
        boundary = f"=_hermes_{letter.key}"  # neither base64 nor quoted-printable has "=_"
        mail = MIMEMultipart("mixed", boundary, [*([text] if letter.content.text else []), _attached(file)])
    for name, value in _heads(letter, config):
        mail[name] = value
    return mail.as_bytes(policy=_AS_SENT)


def _heads(letter: Letter, config: EmailConfig) -> list[tuple[str, str]]:
    ids = letter.tie.ids if letter.tie is not None else ()
    answered = letter.reply_to or (ids[-1] if ids else None)
    references = [each for each in dict.fromkeys((*ids, *((answered,) if answered else ()))) if each]
    found = [
        ("From", _named(config.name, config.address)),
        ("To", f"<{letter.to}>"),
        ("Subject", _words(_subject(letter))),
        ("Date", formatdate(letter.at)),
        ("Message-ID", f"<{message_id(letter, config)}>"),
    ]
    if answered:
        found.append(("In-Reply-To", f"<{answered}>"))
    if references:
        found.append(("References", "\r\n ".join(f"<{each}>" for each in references)))
    found += [
        ("Auto-Submitted", "auto-replied" if answered else "auto-generated"),
        ("X-Auto-Response-Suppress", "All"),
    ]
    return found


def _subject(letter: Letter) -> str:
    if letter.tie is not None and letter.tie.subject:
        return letter.tie.subject if answers(letter.tie.subject) else f"Re: {letter.tie.subject}"
    if letter.tie is not None:
        return "Re:"
    words = letter.content.text.split("\n", 1)[0] or (
        letter.content.file.name if letter.content.file is not None else ""
    )
    words = " ".join(words.split())
    return (words if len(words) <= MAX_SUBJECT else words[: MAX_SUBJECT - 1] + "…") or UNTITLED


def _words(said: str) -> str:
    """Words for a header, encoded where they must be, in lines that are not too long."""
    flat = " ".join("".join(each if each.isprintable() else " " for each in said).split())
    plain = flat.isascii() and "=?" not in flat
    return Header(flat, "us-ascii" if plain else "utf-8", maxlinelen=76, header_name="Subject").encode(linesep="\r\n")


def _named(name: str, address: str) -> str:
    flat = " ".join("".join(each if each.isprintable() else " " for each in name).split())
    if not flat:
        return address
    if flat.isascii() and "=?" not in flat:
        return '"' + flat.replace("\\", "\\\\").replace('"', '\\"') + f'" <{address}>'
    return f"{Header(flat, 'utf-8', header_name='From').encode(linesep=chr(13) + chr(10))} <{address}>"


def _text(said: str) -> Message:
    charset = Charset("utf-8")
    charset.body_encoding = QP
    part = MIMENonMultipart("text", "plain", charset="utf-8")
    lines = said.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    part.set_payload(lines if lines.endswith("\n") else lines + "\n", charset)
    return part


def _attached(file: OutboundFile) -> Message:
    try:
        data = file.path.read_bytes() if file.path.stat().st_size == file.size_bytes else None
    except OSError as error:
        raise SendRejected(f"the file cannot be read: {error.strerror or 'it is gone'}") from None
    if data is None or len(data) != file.size_bytes:
        raise SendRejected("the file is not as long as it was")
    kind = file.media_type.lower() if _TYPE.match(file.media_type) else "application/octet-stream"
    main, _, sub = kind.partition("/")
    if main in ("multipart", "message"):
        main, sub = "application", "octet-stream"
    part = MIMEBase(main, sub)
    part.set_payload(data)
    encoders.encode_base64(part)
    name = re.sub(r'[\x00-\x1f\x7f"\\/]+', "_", file.name) or "file"
    part.add_header("Content-Disposition", "attachment", filename=name if name.isascii() else ("utf-8", "", name))
    return part
