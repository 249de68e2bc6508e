"""The text of a mail and the files in it. Pure (RFC 2045, RFC 2046, RFC 2183, RFC 3676).

The parts are numbered as IMAP numbers them (RFC 9051, section 6.4.5), so that a file can be fetched alone later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from hermes.events import AttachmentKind, AttachmentRef
from platforms.email.headers import words
from platforms.email.html_text import words_of_html

MAX_TEXT = 100_000  # characters
MAX_HTML = 2_000_000  # of them are read
MAX_FILES = 50
MAX_PARTS = 500
MAX_NESTED = 20
_SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part that has no parts, and its number."""

    number: str
    part: Message


def leaves_of(message: Message) -> list[Leaf]:
    """The parts of a mail, in order; a mail inside is one part."""
    found: list[Leaf] = []
    for leaf in _walk(message, "", 0):
        found.append(leaf)
        if len(found) == MAX_PARTS:
            break
    return found


def _walk(part: Message, number: str, depth: int) -> Iterator[Leaf]:
    inner = part.get_payload()
    if part.get_content_maintype() == "multipart" and isinstance(inner, list) and depth < MAX_NESTED:
        for at, each in enumerate(inner, 1):
            if isinstance(each, Message):
                yield from _walk(each, f"{number}.{at}" if number else str(at), depth + 1)
        return
    yield Leaf(number or "1", part)


def text_of(leaves: list[Leaf]) -> str:
    """The words of a mail: of its first plain text, else of its first HTML."""
    plain = html = None
    for leaf in leaves:
        if _is_file(leaf.part):
            continue
        kind = leaf.part.get_content_type()
        if kind == "text/plain" and plain is None:
            plain = leaf.part
        elif kind == "text/html" and html is None:
            html = leaf.part
    said = _unflowed(plain) if plain is not None else ""
    if not said.strip() and html is not None:
        said = words_of_html(_decoded(html)[:MAX_HTML])
    said = said.replace("\0", "").encode("utf-8", "replace").decode()
    return said if len(said) <= MAX_TEXT else said[:MAX_TEXT] + "\n[the rest of the mail is left out]"


def files_of(leaves: list[Leaf], ref: str) -> tuple[AttachmentRef, ...]:
    """The files of a mail.

    Args:
        leaves: its parts.
        ref: how the mail is found again; a file's own begins with it.
    """
    files: list[AttachmentRef] = []
    for leaf in leaves:
        kind = leaf.part.get_content_type()
        if not _is_file(leaf.part) or kind in _SIGNATURES:
            continue
        encoding = _encoding(leaf.part)
        if encoding is None or len(files) == MAX_FILES:
            continue
        found = _bytes(leaf.part)
        size = len(found) if found is not None else None  # how long a mail inside is, only the server knows
        files.append(
            AttachmentRef(
                kind=_kind(kind),
                ref=f"{ref}/{leaf.number}/{encoding}/{'' if size is None else size}",
                name=_name(leaf.part),
                media_type=kind if _TYPE.match(kind) else "application/octet-stream",
                size_bytes=size,
            )
        )
    return tuple(files)


def _is_file(part: Message) -> bool:
    disposition = part.get_content_disposition()
    if disposition == "attachment":
        return True
    if part.get_content_type() in ("text/plain", "text/html"):
        return bool(_name(part)) and disposition is not None
    return part.get_content_maintype() != "multipart"


def _name(part: Message) -> str:
    try:
        found = part.get_filename("")
    except (LookupError, ValueError, TypeError):
        return ""
    return re.sub(r"[/\\]+", "_", words(found, 200)) if isinstance(found, str) else ""


def _kind(media_type: str) -> AttachmentKind:
    match media_type.partition("/")[0]:
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
    return "document"


def _encoding(part: Message) -> str | None:
    """A letter for the Content-Transfer-Encoding; None for one that nobody knows."""
    found = str(part.get("content-transfer-encoding", "")).strip().lower()
    return {"base64": "b", "quoted-printable": "q", "": "n", "7bit": "n", "8bit": "n", "binary": "n"}.get(found)


def _bytes(part: Message) -> bytes | None:
    try:
        found = part.get_payload(decode=True)
    except (ValueError, LookupError, AssertionError):
        return None
    return found if isinstance(found, bytes) else None


def _decoded(part: Message) -> str:
    found = _bytes(part) or b""
    charset = part.get_content_charset("utf-8")
    for each in (charset, "utf-8"):
        try:
            return found.decode(each)
        except (LookupError, ValueError):
            continue
    return found.decode("latin-1")


def _unflowed(part: Message) -> str:
    """Plain text with the lines joined that were only wrapped (RFC 3676)."""
    said = _decoded(part).replace("\r\n", "\n").replace("\r", "\n")
    if _parameter(part, "format") != "flowed":
        return said
    drop = _parameter(part, "delsp") == "yes"
    joined: list[str] = []
    depth_before, open_before = 0, False
    for line in said.split("\n"):
        bare = line.lstrip(">")
        depth = len(line) - len(bare)
        bare = bare.removeprefix(" ")
        flows = bare.endswith(" ") and bare != "-- "
        if open_before and depth == depth_before and bare != "-- ":
            joined[-1] = (joined[-1][:-1] if drop else joined[-1]) + bare
        else:
            joined.append(">" * depth + (" " if depth else "") + bare)
        depth_before, open_before = depth, flows
    return "\n".join(line if line == "-- " else line.rstrip() for line in joined)


def _parameter(part: Message, name: str) -> str:
    found = part.get_param(name, "")
    return found.lower() if isinstance(found, str) else ""
