"""The editor: a message while it is written, of one line or several, with what was written before at hand. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hermes.cli.chat.keys import Key
from hermes.cli.chat.text import clean, width_of

MAX_TEXT: Final = 524_288
"""Characters of one message."""
BLOCK: Final = '"""'
_WORD_LEFT: Final = re.compile(r"\w+\W*\Z|\W+\Z")
_WORD_RIGHT: Final = re.compile(r"\W*\w+|\W+")


class View(NamedTuple):
    """What is to be seen: rows of the screen, and where the cursor stands in them."""

    rows: list[str]
    row: int
    column: int


def is_open(text: str) -> bool:
    """Whether more lines are to come: a backslash at the end, or a block of three quotes that is not closed."""
    if text.lstrip().startswith(BLOCK):
        return text.count(BLOCK) < 2
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def message_of(text: str) -> str:
    """What is sent: without the marks of a block, and without the backslashes that only joined lines."""
    stripped = text.strip()
    if stripped.startswith(BLOCK):
        return stripped.removeprefix(BLOCK).removesuffix(BLOCK).strip("\n")
    return re.sub(r"(?<!\\)((?:\\\\)*)\\\n", r"\1\n", text).strip()


class Editor:
    """One message.

    Args:
        history: what was written before, oldest first.
        complete: text -> a longer one that it stands for, for the tab key.
    """

    def __init__(self, history: Sequence[str], complete: Callable[[str], str | None] = lambda _: None) -> None:
        self.text = ""
        self.cursor = 0
        self._history = history
        self._place = len(history)
        self._draft = ""
        self._killed = ""
        self._complete = complete

    def press(self, key: Key) -> str | None:
        """Take in a key. Returns `submit` or `eof`, or None."""
        match key.name:
            case "text" | "paste":
                self._insert(clean(key.text))
            case "enter":
                if not is_open(self.text):
                    self.cursor = len(self.text)
                    return "submit"
                self.cursor = len(self.text)
                self._insert("\n")
            case "newline":
                self._insert("\n")
            case "eof":
                if not self.text:
                    return "eof"
                self._cut(self.cursor, self.cursor + 1)
            case "up" | "down":
                self._vertical(-1 if key.name == "up" else 1)
            case "tab":
                longer = self._complete(self.text) if self.cursor == len(self.text) else None
                if longer is not None:
                    self.text, self.cursor = longer, len(longer)
            case name:
                self._edit(name)
        return None

    def _edit(self, name: str) -> None:
        start, end = self._line()
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        match name:
            case "left":
                self.cursor = max(0, self.cursor - 1)
            case "right":
                self.cursor = min(len(self.text), self.cursor + 1)
            case "word-left":
                self.cursor -= _length(_WORD_LEFT.search(before))
            case "word-right":
                self.cursor += _length(_WORD_RIGHT.match(after))
            case "home":
                self.cursor = start
            case "end":
                self.cursor = end
            case "backspace":
                self._cut(self.cursor - 1, self.cursor)
            case "delete":
                self._cut(self.cursor, self.cursor + 1)
            case "kill-start":
                self._kill(start, self.cursor)
            case "kill-end":
                self._kill(self.cursor, end if end > self.cursor else end + 1)
            case "kill-word":
                self._kill(self.cursor - _length(_WORD_LEFT.search(before)), self.cursor)
            case "kill-word-right":
                self._kill(self.cursor, self.cursor + _length(_WORD_RIGHT.match(after)))
            case "yank":
                self._insert(self._killed)

    def view(self, prompt: str, more: str, width: int) -> View:
        """Lay the message out.

        Args:
            prompt: before the first line.
            more: before each other one.
            width: columns of the screen, of which the last stays free.
        """
        rows: list[str] = []
        place = (0, 0)
        usable = max(8, width - 1)
        index = 0
        for number, line in enumerate(self.text.split("\n")):
            row = prompt if number == 0 else more
            used = width_of(row)
            for letter in line:
                columns = 1 if letter < "\x7f" else width_of(letter)
                if used + columns > usable:
                    rows.append(row)
                    row, used = more, width_of(more)
                if index == self.cursor:
                    place = (len(rows), used)
                row, used, index = row + letter, used + columns, index + 1
            if index == self.cursor:
                place = (len(rows), used)
            rows.append(row)
            index += 1
        return View(rows, *place)

    def _insert(self, text: str) -> None:
        text = text[: MAX_TEXT - len(self.text)]
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def _cut(self, start: int, end: int) -> str:
        start, end = max(0, start), min(len(self.text), end)
        gone = self.text[start:end]
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start
        return gone

    def _kill(self, start: int, end: int) -> None:
        self._killed = self._cut(start, end) or self._killed

    def _line(self) -> tuple[int, int]:
        """Where the line of the cursor begins and ends."""
        end = self.text.find("\n", self.cursor)
        return self.text.rfind("\n", 0, self.cursor) + 1, len(self.text) if end < 0 else end

    def _vertical(self, step: int) -> None:
        """To the line above or below; beyond the first and the last to what was written before or after."""
        start, end = self._line()
        column = self.cursor - start
        if step < 0 and start > 0:
            above = self.text.rfind("\n", 0, start - 1) + 1
            self.cursor = min(above + column, start - 1)
        elif step > 0 and end < len(self.text):
            below = self.text.find("\n", end + 1)
            self.cursor = min(end + 1 + column, len(self.text) if below < 0 else below)
        elif 0 <= self._place + step <= len(self._history):
            if self._place == len(self._history):
                self._draft = self.text
            self._place += step
            self.text = self._draft if self._place == len(self._history) else self._history[self._place]
            self.cursor = len(self.text)


def _length(found: re.Match[str] | None) -> int:
    return 0 if found is None else len(found[0])
