"""Where lines are written: a bounded queue and a thread, because a disk may stall and the loop must not."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO

from hermes.observe.lines import Form, Line, Value, error_text, render

MOST_LINES = 10_000
MOST_BYTES = 4_194_304
LINGER_S = 0.05  # lines that come together are written together; an error is written at once


class Output(Protocol):
    """What a sink writes to. Both methods run in the sink's thread and raise only OSError or ValueError."""

    def write(self, lines: list[str]) -> None:
        """Write whole lines, each without its line end."""

    def close(self) -> None:
        """Give back what it holds."""


class RotatingFile:
    """A file that is renamed when it has reached a size: `x.log`, then `x.log.1` (younger) to `x.log.N` (older).

    Args:
        path: the file; its directory is made (0700), the file is private (0600).
        max_bytes: the size at which a new file is begun (> 0).
        files: how many older ones are kept (>= 0).

    Lifetime: opened by the first write, and again after an error or when somebody moved the file away.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor: int | None = None
        self._size = 0

    def write(self, lines: list[str]) -> None:
        """Append the lines, in as many files as they need."""
        try:
            chunk: list[bytes] = []
            self._open()
            pending = 0
            for line in lines:
                data = line.encode() + b"\n"
                if self._size + pending > 0 and self._size + pending + len(data) > self._max_bytes:
                    self._append(b"".join(chunk))
                    self._rotate()
                    chunk, pending = [], 0
                chunk.append(data)
                pending += len(data)
            self._append(b"".join(chunk))
        except OSError:
            self.close()
            raise

    def _open(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                there, here = self._path.stat(), os.fstat(self._descriptor)
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return
            self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        self.close()
        if self._files == 0:
            self._path.unlink(missing_ok=True)
        for number in range(self._files, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            younger = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                younger.replace(older)
        self._open()

    def close(self) -> None:
        """Close the descriptor, if there is one."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class Stream:
    """Standard error, or any text stream; it stays open."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, lines: list[str]) -> None:
        """Write and flush."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def close(self) -> None:
        """Nothing: the stream is not ours."""


def _nobody(line: Line) -> None:
    """There is no other output."""


class Sink:
    """A bounded queue of lines and the thread that writes them.

    Args:
        name: of the thread.
        output: where to.
        form: of the lines.
        level: the least level that is written.
        redact: takes secrets out of a text; all sinks of a process have the same.

    Lifetime: `start()` and `close()` are called by `open_logging`, which owns it.
    """

    def __init__(self, name: str, output: Output, form: Form, level: int, redact: Callable[[str], str]) -> None:
        self.name = name
        self.level = level
        self.failed: Callable[[Line], None] = _nobody  # told once when the output begins to fail; another sink, perhaps
        self.dropped = 0  # the queue was full
        self.lost = 0  # the output failed
        self.trouble = ""
        self._output = output
        self._form = form
        self._redact = redact
        self._lines: list[Line] = []
        self._bytes = 0
        self._told_dropped = self._told_lost = 0
        self._lock = threading.RLock()  # a finaliser may log while this thread is inside put()
        self._work, self._hurry = threading.Event(), threading.Event()
        self._closing = False
        self._flushed: list[threading.Event] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: Line) -> None:
        """Queue a line, or count it as dropped; never blocks on the output."""
        with self._lock:
            size = line.size
            if len(self._lines) >= MOST_LINES or self._bytes + size > MOST_BYTES:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += size
        if line.level >= 40:
            self._hurry.set()
        if not self._work.is_set():
            self._work.set()

    def flush(self, within_s: float) -> bool:
        """Wait until what was queued is written. For threads other than the loop's.

        Args:
            within_s: seconds to wait at most.

        Returns:
            whether it was written.
        """
        done = threading.Event()
        with self._lock:
            self._flushed.append(done)
        self._hurry.set()
        self._work.set()
        return done.wait(within_s)

    def close(self, within_s: float) -> None:
        """Write what is queued, end the thread, close the output; give up after `within_s` seconds."""
        self._closing = True
        self._hurry.set()
        self._work.set()
        self._thread.join(within_s)

    def _run(self) -> None:
        while not (self._closing and not self._lines):
            self._work.wait()
            if not self._closing:
                self._hurry.wait(LINGER_S)
            self._work.clear()
            self._hurry.clear()
            with self._lock:
                lines, self._lines, self._bytes = self._lines, [], 0
                waiting, self._flushed = self._flushed, []
            self._write(lines)
            for done in waiting:
                done.set()
        with contextlib.suppress(OSError):
            self._output.close()

    def _write(self, lines: list[Line]) -> None:
        dropped, lost = self.dropped, self.lost
        told = lines + self._losses(dropped - self._told_dropped, lost - self._told_lost)
        if not told:
            return
        try:
            self._output.write([self._text(line) for line in told])
        except (OSError, ValueError) as error:
            self.lost += len(lines)
            if not self.trouble:
                self.failed(
                    Line(time.time(), 40, "log.output_failed", {"output": self.name, "error": error_text(error)})
                )
            self.trouble = f"{type(error).__name__}: {error}"
        else:
            self._told_dropped, self._told_lost, self.trouble = dropped, lost, ""

    def _text(self, line: Line) -> str:
        """Most lines go to a file and a stream: the second takes what the first has made of it."""
        text = line.texts.get(self._form)
        if text is None:
            text = line.texts[self._form] = render(line, self._form, self._redact)
        return text

    def _losses(self, dropped: int, lost: int) -> list[Line]:
        """A line about the lines that are missing, once the output works again."""
        if not dropped and not lost:
            return []
        about: dict[str, Value] = {"dropped": dropped, "lost": lost}
        if self.trouble:
            about["reason"] = self.trouble
        return [Line(time.time(), 30, "log.lines_missing", about)]
