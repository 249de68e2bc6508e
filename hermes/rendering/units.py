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
# Ends of sentences and phrases in scripts that put no spaces between words.
UNSPACED = "\u3002\uff01\uff1f\uff0c\u3001\uff1b\uff1a"
_JOINER = "\u200d"
_DIRECTIONS = frozenset(("LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI"))


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
    used = boundary = index = flags = 0
    for index, character in enumerate(text):
        before = flags
        flags = flags + 1 if "\U0001f1e6" <= character <= "\U0001f1ff" else 0
        if index and not (before % 2 and flags) and not _joined(text[index - 1], character):
            boundary = index
        used += cost if character.isascii() and not character.isalnum() else size(character, unit)
        if used > room:
            return boundary or max(index, 1)
    return len(text)


def _joined(before: str, character: str) -> bool:
    """Whether a character belongs to the one before it; of flags, the caller keeps count."""
    if character < "\x80" and before < "\x80":
        return False
    # Cut off, what begins a direction or ends what others began (a direction, a tag) would stand alone and unseen.
    if before == _JOINER or unicodedata.bidirectional(before) in _DIRECTIONS:
        return True
    if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"):
        return True
    if unicodedata.combining(before) == 9:  # a virama: the consonant after it is written into the one before
        return True
    code = ord(character)
    # Skin tones; vowels and finals of a Korean syllable written in its parts.
    return 0x1F3FB <= code <= 0x1F3FF or 0x1160 <= code <= 0x11FF
