"""What a chat shows, as the text that a terminal gets: words that stay, and below them lines that change. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from hermes.cli.chat.editor import View
from hermes.cli.chat.text import Wrapper, clean, cut

Style = Literal["plain", "dim", "bold", "prompt", "good", "bad", "tool"]
STYLES: Final[Mapping[str, str]] = MappingProxyType(
    {"dim": "2", "bold": "1", "prompt": "1;36", "good": "32", "bad": "31", "tool": "36"}
)
MARGIN: Final = 1  # columns on the right that stay free, so that no terminal wraps by itself


class Painter:
    """Turns what is to be shown into text for a terminal, and knows what is on it.

    Args:
        size: (columns, rows) of the terminal now.
        control: whether it can be steered; otherwise nothing but plain lines is made.
        colour: whether styles are used.
    """

    def __init__(self, size: Callable[[], tuple[int, int]], *, control: bool, colour: bool) -> None:
        self.control = control
        self._size = size
        self._colour = colour and control
        self._wrapper = self._new_wrapper()
        self._style: Style = "plain"
        self._below = 0  # rows of changing lines on the screen, the cursor in the last
        self._edited = (0, 0)  # rows of the message that is written, and in which the cursor is

    @property
    def columns(self) -> int:
        """Columns that a line may fill."""
        return max(20, self._size()[0]) - MARGIN

    def style(self, text: str, style: Style) -> str:
        """Text in a style."""
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._colour and style in STYLES and text else text

    def words(self, text: str, style: Style = "plain") -> str:
        """Text that comes in pieces and stays; a change of style begins a new line."""
        before = self._erase()
        if style != self._style:
            before += self._end_words()
            self._style = style
        text = clean(text)
        if self.control:
            return before + self.style(self._wrapper.feed(text), style)
        if text:
            self._wrapper.column = 0 if text.endswith("\n") else 1
        return before + text

    def end_words(self) -> str:
        """The text is over: the next thing begins on a new line."""
        return self._erase() + self._end_words()

    def line(self, text: str = "") -> str:
        """A line that stays; it may be styled."""
        return self._erase() + self._end_words() + text + "\n"

    def paragraph(self, text: str, style: Style = "plain") -> str:
        """Text of our own that stays, on as many lines as it needs."""
        if not self.control:
            return self.line(text)
        wrapper = self._new_wrapper()
        return self.line(self.style(wrapper.feed(text) + wrapper.flush(), style))

    def below(self, lines: Sequence[str]) -> str:
        """Show these lines, without styles, under everything until the next thing is shown. Only after whole lines."""
        if not self.control or self._wrapper.column:
            return ""
        lines = lines[-max(1, self._size()[1] - 1) :]
        shown = self._erase() + "\n".join(self.style(cut(line, self.columns), "dim") for line in lines)
        self._below = len(lines)
        return shown

    def edit(self, view: View, prompt: str, more: str) -> str:
        """Show the message that is written, in place of how it was shown before."""
        rows, row, column = view
        most = max(1, self._size()[1] - 1)
        first = max(0, min(row, len(rows) - most))
        shown = [self._prompted(line, prompt if number == 0 else more) for number, line in enumerate(rows)]
        shown, row = shown[first : first + most], row - first
        text = self._to_first_row() + "\n".join(shown)
        up = len(shown) - 1 - row
        text += (f"\x1b[{up}A" if up else "") + "\r" + (f"\x1b[{column}C" if column else "")
        self._edited = (len(shown), row)
        return text

    def end_edit(self) -> str:
        """The message is written: go on below it."""
        rows, row = self._edited
        self._edited = (0, 0)
        return (f"\x1b[{rows - 1 - row}B" if rows - 1 - row > 0 else "") + "\r\n"

    def forget_edit(self) -> str:
        """Take the message that is written off the screen."""
        text = self._to_first_row()
        self._edited = (0, 0)
        return text

    def _prompted(self, line: str, start: str) -> str:
        return self.style(start, "prompt") + line[len(start) :]

    def _to_first_row(self) -> str:
        row = self._edited[1]
        return (f"\x1b[{row}A" if row else "") + "\r\x1b[J"

    def _end_words(self) -> str:
        text = self.style(self._wrapper.flush(), self._style)
        if self._wrapper.column:
            text += "\n"
        self._wrapper = self._new_wrapper()
        self._style = "plain"
        return text

    def _erase(self) -> str:
        up, self._below = self._below - 1, 0
        if up < 0:
            return ""
        return (f"\x1b[{up}A" if up else "") + "\r\x1b[J"

    def _new_wrapper(self) -> Wrapper:
        return Wrapper(lambda: self.columns)
