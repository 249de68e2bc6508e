"""Lines of the protocol, in and out. Pure.

Sources: RFC 2812, section 2.3; IRCv3, "Message Tags".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MAX_LINE = 512  # bytes with the line's end, without tags
MAX_TAGS = 8191  # bytes of the tags that a server may send
MAX_PARAMS = 15
_COMMAND = re.compile(r"(?:[A-Za-z]{1,32}|[0-9]{3})\Z")
_FORBIDDEN = re.compile(r"[\0\r\n]")
_ESCAPES = {":": ";", "s": " ", "\\": "\\", "r": "\r", "n": "\n"}
_ESCAPED = {value: "\\" + key for key, value in _ESCAPES.items()}
EMPTY: Mapping[str, str] = MappingProxyType({})


class BadLine(ValueError):
    """Bytes that are no line of the protocol, or words that cannot be put into one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Args:
        command: in capitals, or three digits.
        params: what follows it.
        source: who it is from: `nick!user@host` or a server's name; empty = the server itself.
        tags: IRCv3's, unescaped.
    """

    command: str
    params: tuple[str, ...] = ()
    source: str = ""
    tags: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    @property
    def nick(self) -> str:
        """The nick of its source."""
        return self.source.partition("!")[0]

    def param(self, index: int) -> str:
        """One of the parameters; empty if there is none."""
        return self.params[index] if -len(self.params) <= index < len(self.params) else ""

    @property
    def words(self) -> str:
        """The last parameter: in an answer, its text for people."""
        return self.params[-1] if self.params else ""


def parse(raw: bytes) -> Line:
    """The line that these bytes are, without their line end.

    What is not UTF-8 is read as Latin-1, which has a letter for each byte; but for UTF-8 that a server has cut inside its last
    character, which is left out.

    Raises:
        BadLine: they are none.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        kept = raw[: error.start]
        was_cut = (
            error.reason == "unexpected end of data" and not kept.isascii()
        )  # Latin-1 may end in such a byte as well
        text = kept.decode() if was_cut else raw.decode("latin-1")
    text = text.replace("\0", "")
    tags = EMPTY
    if text.startswith("@"):
        said, _, text = text[1:].partition(" ")
        tags = MappingProxyType(dict(_tag(each) for each in said.split(";") if each))
        text = text.lstrip(" ")
    source = ""
    if text.startswith(":"):
        source, _, text = text[1:].partition(" ")
    head, colon, trailing = text.lstrip(" ").partition(" :")
    words = [word for word in head.split(" ") if word]
    if not words or not _COMMAND.match(words[0]):
        raise BadLine("there is no command in it")
    params = [*words[1:], trailing] if colon else words[1:]
    if len(params) > MAX_PARAMS:
        raise BadLine("it has too many parameters")
    return Line(words[0].upper(), tuple(params), source, tags)


def _tag(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if "\\" not in value:
        return name, value
    return name, re.sub(r"\\(.?)", lambda found: _ESCAPES.get(found[1], found[1]), value)


def build(command: str, *params: str, tags: Mapping[str, str] = EMPTY) -> bytes:
    """A line of ours with its end.

    Args:
        command: its command.
        params: all but the last without blanks, not empty, and not beginning with a colon.
        tags: IRCv3's.

    Raises:
        BadLine: a parameter cannot be one, or the line has more than 512 bytes.
    """
    *middle, last = params or ("",)
    for each in middle:
        if not each or " " in each or each.startswith(":") or _FORBIDDEN.search(each):
            raise BadLine(f"{each[:40]!r} cannot be a parameter")
    if _FORBIDDEN.search(last):
        raise BadLine("it has more than one line")
    colon = ":" if not last or " " in last or last.startswith(":") else ""
    text = " ".join((command, *middle, colon + last)) if params else command
    raw = text.encode("utf-8", "replace") + b"\r\n"
    if len(raw) > MAX_LINE:
        raise BadLine(f"it has {len(raw)} bytes, and a line has {MAX_LINE} at most")
    if not tags:
        return raw
    said = ";".join(f"{name}={_escaped(value)}" if value else name for name, value in tags.items())
    return b"@" + said.encode() + b" " + raw


def _escaped(value: str) -> str:
    return "".join(_ESCAPED.get(letter, letter) for letter in value)
