"""Text to lines of so many bytes, and the codes inside it. Pure.

Codes: modern.ircdocs.horse, "IRC Formatting".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TOGGLES = "\x02\x11\x1d\x1e\x1f\x16"  # bold, monospace, italics, struck, underlined, reversed
RESET = "\x0f"
_CODES = re.compile(
    r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|\x04(?:[0-9A-Fa-f]{6}(?:,[0-9A-Fa-f]{6})?)?|[\x00-\x08\x0b-\x1f\x7f]"
)
_BEHIND = re.compile(r"[\u0300-\u036f\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")  # belongs to the character before it


def bare(text: str) -> str:
    """Text without codes and other control characters."""
    return _CODES.sub("", text)


def wire_lines(text: str, room: int) -> tuple[str, ...]:
    """A text as lines for the wire: each of its own lines, cut between words where it is too long.

    What is bold or otherwise marked over the end of a line is so again in the next.

    Args:
        text: with codes or without.
        room: UTF-8 bytes of a line at most, at least 40.

    Returns:
        The lines that show anything.
    """
    found: list[str] = []
    marked = ""
    for line in text.replace("\r", "\n").replace("\0", "").split("\n"):
        for piece in _cut(line, room, marked):
            shown = marked + piece
            marked = _marked(marked, piece)
            if bare(piece).strip():
                found.append(shown)
    return tuple(found)


def _marked(before: str, text: str) -> str:
    """The codes that are on after a text."""
    on = list(before)
    for letter in text:
        if letter == RESET:
            on.clear()
        elif letter in TOGGLES:
            on.remove(letter) if letter in on else on.append(letter)
    return "".join(on)


def _cut(line: str, room: int, marked: str) -> Iterator[str]:
    """A line in pieces that have room with the codes that they begin with."""
    while True:
        left = room - len(marked)
        raw = line.encode("utf-8", "replace")
        if len(raw) <= left:
            yield line
            return
        head = raw[:left].decode("utf-8", "ignore")
        end = _word_end(line, head)
        piece = line[:end]
        yield piece.rstrip(" ")
        marked = _marked(marked, piece)
        line = line[end:].lstrip(" ")


def _word_end(line: str, head: str) -> int:
    """Where to cut: after the last word that fits whole, else between two characters as people see them."""
    if line[len(head)] == " ":
        return len(head)
    blank = head.rfind(" ")
    if blank >= len(head) // 3:
        return blank + 1
    end = len(head)
    while end > 1 and (_BEHIND.match(line[end]) is not None or line[end - 1] == "\u200d"):
        end -= 1
    return end if end > 1 else len(head)
