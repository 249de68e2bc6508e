"""What a terminal shows: the screen that text with control sequences leaves behind, as far as our programs use them. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SEQUENCE: Final = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")
_IGNORED: Final = frozenset("mhl")  # styles, modes


class Screen:
    """A screen of so many columns, with everything that has left it at the top.

    Args:
        columns: where a line is full; the next letter goes to the next line (DECAWM).
        rows: how far up the cursor can go.

    Attributes:
        row, column: the cursor, from the beginning of everything.
        unknown: sequences that are none of those it knows.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self.row = self.column = 0
        self.unknown: list[str] = []
        self._lines: list[list[str]] = [[]]
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        """Every line, without the blanks at its end."""
        return ["".join(line).rstrip() for line in self._lines]

    @property
    def text(self) -> str:
        """Every line, joined."""
        return "\n".join(self.lines)

    def feed(self, text: str) -> None:
        """Take in what a program writes; ONLCR as terminals have it: a line feed also returns."""
        text = self._rest + text
        self._rest = ""
        while text:
            if text[0] == "\x1b":
                found = _SEQUENCE.match(text)
                if found is None:
                    self._rest = text
                    return
                self._control(found[1], found[2])
                text = text[found.end() :]
            else:
                self._letter(text[0])
                text = text[1:]

    def _letter(self, letter: str) -> None:
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self._go_to(self.row + 1, 0)
        elif not letter.isprintable():
            self.unknown.append(repr(letter))
        else:
            width = 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
            if self.column + width > self.columns:
                self._go_to(self.row + 1, 0)
            line = self._lines[self.row]
            line.extend(" " * (self.column + width - len(line)))
            line[self.column : self.column + width] = [letter] + [""] * (width - 1)
            self.column += width

    def _control(self, parameters: str, name: str) -> None:
        count = int(parameters) if parameters.isdecimal() else 1
        top = max(0, len(self._lines) - self.rows)
        match name:
            case "A":
                self._go_to(max(top, self.row - count), self.column)
            case "B":
                self._go_to(min(len(self._lines) - 1, self.row + count), self.column)
            case "C":
                self._go_to(self.row, min(self.columns - 1, self.column + count))
            case "H" if not parameters:
                self._go_to(top, 0)
            case "J" if parameters in ("", "0"):
                del self._lines[self.row][self.column :]
                del self._lines[self.row + 1 :]
            case "J" if parameters == "2":
                for line in self._lines[top:]:
                    line.clear()
            case _ if name not in _IGNORED:
                self.unknown.append(parameters + name)

    def _go_to(self, row: int, column: int) -> None:
        self.row, self.column = row, column
        while len(self._lines) <= row:
            self._lines.append([])
