"""Text for a terminal: what would steer it is taken out, its width is known, words are wrapped as they come. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

TAB: Final = "    "
_PIECES: Final = re.compile(r"\n|[^\S\n]+|\S+")
_STEERS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MAIN_ARGUMENTS: Final = ("command", "path", "pattern", "query", "url")


def clean(text: str) -> str:
    """Text of others as it may go to a terminal: no control characters but line feeds, none that reorder what is read."""
    return _STEERS.sub("", text.replace("\t", TAB))


def width_of(text: str) -> int:
    """How many columns a text without control characters takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """Text that takes at most so many columns; what is missing is shown as an ellipsis."""
    if width_of(text) <= width:
        return text
    kept, used = [], 0
    for letter in text:
        used += _columns(letter)
        if used > width - 1:
            break
        kept.append(letter)
    return "".join(kept) + "…" if width > 0 else ""


def one_line(text: str) -> str:
    """Text on one line, without what would steer the terminal."""
    return " ".join(clean(text).split())


def from_home(path: str, home: str) -> str:
    """A path as a person writes it: `~` for the home directory."""
    home = home.rstrip("/")
    return "~" + path[len(home) :] if home and (path == home or path.startswith(home + "/")) else path


def joined(parts: Sequence[str], between: str, width: int) -> list[str]:
    """Parts on as few lines of at most so many columns as they need; a part alone may be wider."""
    lines: list[str] = []
    for part in parts:
        longer = lines[-1] + between + part if lines else ""
        if longer and width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def short_arguments(arguments: str) -> str:
    """A tool call's arguments in a few words: the main one first and without its name."""
    try:
        found = json.loads(arguments, strict=False)
    except ValueError:  # cut, or not JSON
        return one_line(arguments)
    if not isinstance(found, dict):
        return one_line(arguments)
    main = next((name for name in _MAIN_ARGUMENTS if name in found), None)
    words = [] if main is None else [_in_words(found[main])]
    words += [f"{name}={_in_words(value)}" for name, value in found.items() if name != main]
    return one_line(" ".join(words))


def _in_words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Wrapper:
    """Breaks lines between words, for text that comes in pieces; blocks of code keep their lines.

    A word is given out when its end is known, so that it is not broken.

    Args:
        width: the columns of a line, asked for each word.

    Attributes:
        column: where the next letter goes.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self.column = 0
        self._width = width
        self._gap = ""
        self._word = ""
        self._kept = False  # this line is as its writer wanted it: code, or a row of a table
        self._fenced = False

    def feed(self, text: str) -> str:
        """More text; returns what can be shown of it."""
        shown: list[str] = []
        for piece in _PIECES.findall(text):
            if piece == "\n":
                shown += (self._end_word(), "\n")
                self.column, self._gap, self._kept = 0, "", False
            elif piece.isspace():
                shown.append(self._end_word())
                self._gap += piece
            else:
                self._word += piece
        return "".join(shown)

    def flush(self) -> str:
        """What was held back; the text is over, or nothing more is known to come."""
        return self._end_word()

    def _end_word(self) -> str:
        if not self._word:
            return ""
        gap, word = self._gap, self._word
        self._gap = self._word = ""
        if self.column == 0:
            if word.startswith("```"):
                self._fenced = not self._fenced
            self._kept = self._fenced or word.startswith(("```", "|")) or len(gap) >= len(TAB)
        width = max(1, self._width())
        needed = width_of(gap) + width_of(word)
        if self.column and not self._kept and self.column + needed > width:
            self.column = width_of(word) % width
            return "\n" + word
        self.column = (self.column + needed - 1) % width + 1
        return gap + word
