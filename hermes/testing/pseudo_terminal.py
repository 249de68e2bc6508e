"""A program at a pseudo terminal: keys are typed, the screen is looked at; nothing of it outlives the block."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from hermes.testing.screen import Screen

LOGIN: Final = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


class PseudoTerminal:
    """A program and the terminal it runs in; see `open_pseudo_terminal`.

    Attributes:
        process: the program.
        screen: what its terminal shows.
        output: everything that the program wrote.
    """

    def __init__(self, process: trio.Process, master: int, screen: Screen) -> None:
        self.process = process
        self.screen = screen
        self.output = ""
        self._master: int | None = master
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._news = trio.Event()

    def type(self, text: str) -> None:
        """Press keys."""
        assert self._master is not None
        data = text.encode()
        assert os.write(self._master, data) == len(data), "more than the terminal takes at once"

    async def until(self, *texts: str, after: int = 0, within_s: float = 20.0) -> int:
        """Wait until the screen shows these texts one after another; where the last one ends, for the next wait.

        Args:
            after: where to begin to look.
            within_s: real seconds.

        Raises:
            AssertionError: it does not.
        """
        with trio.move_on_after(within_s):
            while (end := _find(self.screen.text, texts, after)) < 0:
                await self._news.wait()
            return end
        raise AssertionError(f"not seen within {within_s:g} s: {texts!r} after {after}\n{self.screen.text}")

    async def ended(self, within_s: float = 20.0) -> int:
        """Wait until the program has ended; its exit code. Raises AssertionError when it does not."""
        with trio.move_on_after(within_s):
            return await self.process.wait()
        raise AssertionError(f"still runs after {within_s:g} s\n{self.screen.text}")

    def hang_up(self) -> None:
        """Take the terminal away from the program."""
        if self._master is not None:
            trio.lowlevel.notify_closing(self._master)
            os.close(self._master)
            self._master = None

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal larger or smaller; the program gets SIGWINCH."""
        assert self._master is not None
        self.screen.columns, self.screen.rows = columns, rows
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> list[Any]:
        """How the terminal is set (termios(3))."""
        assert self._master is not None
        return termios.tcgetattr(self._master)

    async def listen(self) -> None:
        """The task that takes in what the program writes."""
        while self._master is not None:
            try:
                await trio.lowlevel.wait_readable(self._master)
                data = os.read(self._master, 65_536)
            except (OSError, trio.ClosedResourceError):  # nobody has the other end open any more
                return
            if not data:
                return
            text = self._decoder.decode(data)
            self.output += text
            self.screen.feed(text)
            self._news.set()
            self._news = trio.Event()


def _find(shown: str, texts: Sequence[str], after: int) -> int:
    for text in texts:
        found = shown.find(text, after)
        if found < 0:
            return -1
        after = found + len(text)
    return after


@asynccontextmanager
async def open_pseudo_terminal(
    words: Sequence[str], *, env: Mapping[str, str], cwd: Path, columns: int = 80, rows: int = 24
) -> AsyncIterator[PseudoTerminal]:
    """Start a program at a terminal of its own, which is its controlling one.

    Args:
        words: the program, by its absolute path, and its arguments.
        env: its whole environment, beside `TERM`.
        cwd: where it starts.

    Lifetime: the exit kills it, if it still runs, and waits for it.
    """
    master, slave = os.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", LOGIN, str(slave), *words], stdin=subprocess.DEVNULL,
            pass_fds=(slave,), env={"TERM": "xterm", **env}, cwd=cwd,
        )  # fmt: skip
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    terminal = PseudoTerminal(process, master, Screen(columns, rows))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.listen)
            yield terminal
            nursery.cancel_scope.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
        terminal.hang_up()
