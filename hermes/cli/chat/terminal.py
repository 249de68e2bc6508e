"""The terminal of this process: keys in, text out, and put back as it was found. No thread reads, and none is waited for.

Output is put into a bounded buffer in the very step that decides on it, and a task writes it in a thread: what is on the
screen is what was decided on, in that order, whatever is cancelled; a stopped terminal (Control-S) stops nothing else.
"""

from __future__ import annotations

import contextlib
import os
import termios
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import trio

from hermes.cli.chat.editor import Editor, is_open, message_of
from hermes.cli.chat.keys import Key, KeyReader
from hermes.cli.chat.painter import Painter

STDIN: Final = 0
STDOUT: Final = 1
MAX_BUFFER: Final = 262_144
"""Bytes that wait to be written before whoever has more waits."""
MAX_LINE: Final = 1_048_576
LAST_WORDS_S: Final = 1.0
PROMPT: Final = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT} "
MORE: Final = "· "
PASTES_ON, PASTES_OFF = "\x1b[?2004h", "\x1b[?2004l"
_CHUNK: Final = 65_536


class Terminal:
    """Standard input and output of a chat; see `open_terminal`.

    Attributes:
        steered: both are a terminal that can be steered; otherwise lines are read and written as they are.
        asks: a person is at standard input.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.asks = os.isatty(STDIN)
        self.steered = self.asks and os.isatty(STDOUT) and environ.get("TERM", "dumb") not in ("", "dumb")
        self.painter = Painter(size, control=self.steered, colour=not environ.get("NO_COLOR"))
        self._keys: deque[Key] = deque()
        self._reader = KeyReader()
        self._line = b""
        self._ended = False
        self._redraw = False
        self._reading: trio.CancelScope | None = None
        self._buffer = bytearray()
        self._waiting = trio.Event()
        self._written = trio.Event()
        self._writing = False

    # -- out ----------------------------------------------------------------------------------------------------------

    def put(self, text: str) -> None:
        """Write soon, in order."""
        if text:
            self._buffer += text.encode("utf-8", "replace")
            self._waiting.set()

    async def room(self) -> None:
        """Wait while much is still to be written."""
        while len(self._buffer) > MAX_BUFFER:
            await self._written.wait()

    async def write_out(self, everything: trio.CancelScope) -> None:
        """The task that writes; it cancels everything when the terminal is gone."""
        while True:
            await self._waiting.wait()
            data, self._buffer = bytes(self._buffer), bytearray()
            self._waiting = trio.Event()
            self._writing = True
            try:
                await trio.to_thread.run_sync(_write_all, data, abandon_on_cancel=True)
            except OSError:
                everything.cancel("nobody reads any more")
                return
            finally:
                self._writing = False
                self._written.set()
                self._written = trio.Event()

    async def settled(self) -> None:
        """Wait until nothing is being written; what comes after it is written behind it."""
        while self._writing:
            await self._written.wait()

    def write_last(self) -> None:
        """Write what is left; for the end."""
        with contextlib.suppress(OSError):
            _write_all(bytes(self._buffer))
        self._buffer.clear()

    # -- in -----------------------------------------------------------------------------------------------------------

    async def read(self, editor: Editor) -> str | None:
        """A message, as it is to be sent; None when there is none any more.

        Cancellation: what was typed is forgotten, and the screen goes on below it.
        """
        text = await (self._edited(editor) if self.steered else self._read_lines())
        return None if text is None else message_of(text)

    def redraw(self) -> None:
        """The screen has changed: draw the message that is written again."""
        self._redraw = self.steered
        if self._redraw and self._reading is not None:
            self._reading.cancel("redraw")

    async def _edited(self, editor: Editor) -> str | None:
        painter = self.painter
        self.put(PASTES_ON)
        try:
            while True:
                outcome = None
                while self._keys and outcome is None:
                    key = self._keys.popleft()
                    if key.name == "clear":
                        self.put(painter.forget_edit() + "\x1b[H\x1b[2J")
                    outcome = editor.press(key)
                self._show(editor)
                if outcome is not None:
                    return editor.text if outcome == "submit" else None
                data = await self._bytes()
                if not data and not self._redraw:
                    return None
                self._redraw = False
                self._keys.extend(self._reader.feed(data))
        finally:
            self.put(painter.end_edit() + PASTES_OFF)

    def _show(self, editor: Editor) -> None:
        view = editor.view(PROMPT, MORE, size()[0])
        self.put(self.painter.edit(view, PROMPT, MORE))

    async def _read_lines(self) -> str | None:
        text = ""
        if self.asks:
            self.put(PROMPT)
        while True:
            line, found, rest = self._line.partition(b"\n")
            if found or (self._ended and line):
                self._line = rest
                text += line.decode("utf-8", "replace").removesuffix("\r")
                if not is_open(text) or (self._ended and not rest):
                    return text
                text += "\n"
            elif self._ended:
                return text or None
            else:
                data = await self._bytes()
                self._ended = not data or len(self._line) > MAX_LINE
                self._line += data

    async def _bytes(self) -> bytes:
        """What is there to be read, waited for; nothing at the end, or when the screen is to be drawn again."""
        with trio.CancelScope() as self._reading:
            with contextlib.suppress(PermissionError):  # a regular file: it never lets anybody wait
                await trio.lowlevel.wait_readable(STDIN)
            try:
                return os.read(STDIN, _CHUNK)
            except OSError:  # the terminal has been hung up
                return b""
        return b""


@asynccontextmanager
async def open_terminal(environ: Mapping[str, str]) -> AsyncIterator[Terminal]:
    """Take the terminal.

    Args:
        environ: for `NO_COLOR` and `TERM`.

    Lifetime: enter = keys are not echoed any more; exit = everything is written, and the terminal is as it was before.

    Cancellation: the body is cancelled when nobody reads standard output any more.
    """
    terminal = Terminal(environ)
    with _unechoed(terminal):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.write_out, nursery.cancel_scope)
            try:
                yield terminal
            finally:
                with trio.move_on_after(LAST_WORDS_S, shield=True):
                    await terminal.settled()
                    await trio.to_thread.run_sync(terminal.write_last, abandon_on_cancel=True)
                nursery.cancel_scope.cancel("over")


@contextmanager
def _unechoed(terminal: Terminal) -> Iterator[None]:
    """Set the terminal to single keys without echo, and back. Signals keep their keys (termios(3), ISIG)."""
    if not terminal.steered:
        yield
        return
    before = termios.tcgetattr(STDIN)
    set_keys(before)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSANOW, before)


def set_keys(found: list[Any] | None = None) -> None:
    """Let every key through at once and unechoed; also after a shell has had the terminal meanwhile."""
    attributes = termios.tcgetattr(STDIN) if found is None else [*found]
    attributes[0] &= ~termios.ICRNL
    attributes[1] |= termios.OPOST | termios.ONLCR
    attributes[3] = (attributes[3] & ~(termios.ICANON | termios.ECHO | termios.IEXTEN)) | termios.ISIG
    attributes[6] = [*attributes[6]]
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    with contextlib.suppress(termios.error):
        termios.tcsetattr(STDIN, termios.TCSANOW, attributes)


def size() -> tuple[int, int]:
    """Columns and rows of the terminal now."""
    try:
        columns, rows = os.get_terminal_size(STDOUT)
    except OSError:
        columns, rows = 80, 24
    return columns or 80, rows or 24


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(STDOUT, view) :]
