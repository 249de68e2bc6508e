"""How long a text is by a service's own count, where it may be cut, and whether anybody would see it. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Unit = Literal["utf16", "codepoint", "byte"]

_SURROGATES = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"\w")
# They have a category of letters or symbols, and no ink.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc")
_JOINER = "\u200d"
_LETTERS_END = "\u0300"  # no combining character comes before it


def size(text: str, unit: Unit) -> int:
    """Length of a text in a service's unit."""
    if unit == "codepoint" or text.isascii():
        return len(text)
    if unit == "byte":
        return len(text.encode())
    return len(text.encode("utf-16-le")) // 2


def well_formed(text: str) -> str:
    """The text without lone halves of surrogate pairs, which no service can be sent, and with plain line ends."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def is_visible(text: str) -> bool:
    """Whether there is anything to see: services refuse a message of spaces, marks and format characters alone."""
    found = _WORD.search(text)
    if found is not None and found.group() not in _BLANK and found.group().isascii():
        return True
    return any(unicodedata.category(each)[0] not in "ZCM" and each not in _BLANK for each in text)


def width(text: str) -> int:
    """Columns of a text in a monospaced font."""
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitting(text: str, room: int, cost: int, unit: Unit) -> int:
    """How many characters of a text fit, cut where a reader sees a boundary.

    Args:
        text: what does not fit as a whole.
        room: units.
        cost: units that an ASCII punctuation mark may take, escaped; what is no punctuation takes its own size.
        unit: of both.

    Returns:
        At least 1, so that cutting always ends: a single character with more marks than fit is cut between them, and only
        there. Otherwise never inside a combining sequence, a joined emoji or a flag.
    """
    used = boundary = index = 0
    for index, character in enumerate(text):
        if (index and character >= "\x80") or (index and text[index - 1] >= "\x80"):
            if not _joined(text, index):
                boundary = index
        elif index:
            boundary = index
        used += cost if character.isascii() and not character.isalnum() else size(character, unit)
        if used > room:
            return boundary or max(index, 1)
    return len(text)


def _joined(text: str, index: int) -> bool:
    """Whether the character here belongs to the one before it."""
    character, before = text[index], text[index - 1]
    if character < _LETTERS_END:
        return before == _JOINER
    if character == _JOINER or before == _JOINER or unicodedata.category(character) in ("Mn", "Mc", "Me"):
        return True
    code = ord(character)
    if 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F:  # skin tones; the letters of a tagged flag
        return True
    if 0x1160 <= code <= 0x11FF:  # vowels and finals of a Korean syllable written in its parts
        return True
    return _is_flag(character) and _flags_before(text, index) % 2 == 1


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flags_before(text: str, index: int) -> int:
    count = 0
    while count < index and count < 256 and _is_flag(text[index - 1 - count]):
        count += 1
    return count
