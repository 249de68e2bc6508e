"""What the head of a mail says. Pure, and unmoved by whatever stands there (RFC 5322, RFC 2047).

Only what is beyond doubt is an address: one From, one mailbox, plain ASCII. What parsers could read in two ways is nobody.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

MAX_ID = 250  # characters of a Message-ID
MAX_IDS = 50  # of one header
MAX_SUBJECT = 250
MAX_HEADER = 20_000  # characters of one
MAX_FROM = 2000
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
_SPEC = rf"{_ATEXT}(?:\.{_ATEXT})*@{_DOMAIN}"
_BARE = re.compile(rf"\s*<?({_SPEC})>?\s*\Z")
_NAMED = re.compile(rf'\s*("(?:[^"\\]|\\.)*"|[^"<>@,;:\\()\[\]]*)\s*<({_SPEC})>\s*\Z', re.DOTALL)
_ID = re.compile(r"<([^<>\s\x00-\x20\x7f-\uffff]{1,250})>")
_RE = re.compile(
    r"\s*(?:(?:re|aw|antw|sv|vs|odp|res|ref|rif|r|fw|fwd|wg|tr|vl)\s*(?:\[\d+\])?\s*[:\uff1a]\s*)+", re.IGNORECASE
)


def texts(message: Message, name: str) -> list[str]:
    """Every header of this name as it came, on one line each."""
    return [" ".join(str(each)[:MAX_HEADER].split()) for each in message.get_all(name, [])]


def text(message: Message, name: str) -> str:
    """The first header of this name; empty without one."""
    found = texts(message, name)
    return found[0] if found else ""


def words(raw: str, most: int) -> str:
    """A header's words with their encodings undone, on one line."""
    try:
        pieces = decode_header(raw)
    except (HeaderParseError, ValueError):
        pieces = [(raw, None)]
    said = "".join(
        piece if isinstance(piece, str) else _decoded(piece, charset or "utf-8") for piece, charset in pieces
    )
    said = "".join(each if each.isprintable() else " " for each in said)
    return " ".join(said.split())[:most]


def _decoded(piece: bytes, charset: str) -> str:
    try:
        return piece.decode(charset, "replace")
    except (LookupError, ValueError):
        return piece.decode("latin-1")


def subject(message: Message) -> str:
    """The subject in words."""
    return words(text(message, "subject"), MAX_SUBJECT)


def plain_subject(said: str) -> str:
    """A subject without what answers and forwards put before it."""
    return _RE.sub("", said, count=1).strip()


def answers(said: str) -> bool:
    """Whether a subject begins as that of an answer."""
    return _RE.match(said) is not None


def sender(message: Message) -> tuple[str, str] | None:
    """The address in lower case and the name of who wrote; None if that is not beyond doubt."""
    found = message.get_all("from", [])
    if len(found) != 1 or len(str(found[0])) > MAX_FROM:
        return None
    raw = re.sub(r"\r?\n(?=[ \t])", "", str(found[0]))
    if (bare := _BARE.match(raw)) is not None and raw.count("<") == raw.count(">"):
        return _address(bare[1], "")
    if (named := _NAMED.match(raw)) is not None:
        name = named[1].strip()
        if name.startswith('"'):
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
        return _address(named[2], words(name, 200))
    return None


def _address(found: str, name: str) -> tuple[str, str] | None:
    if len(found.rpartition("@")[0]) > 64 or len(found) > 254:
        return None
    return found.lower(), name


def is_address(found: str) -> bool:
    """Whether this is an address that a mail can be sent to: plain ASCII, and nothing but an address."""
    return re.fullmatch(_SPEC, found) is not None and len(found) <= 254


def ids(message: Message, name: str) -> tuple[str, ...]:
    """The Message-IDs in a header, without their brackets; of many the first and the last ones."""
    found = tuple(_ID.findall(" ".join(texts(message, name))))
    return found if len(found) <= MAX_IDS else (found[0], *found[1 - MAX_IDS :])


def own_id(message: Message) -> str:
    """The mail's Message-ID without its brackets; empty if it has none."""
    found = ids(message, "message-id")
    return found[0] if found else ""
