"""What was written before, for the editor: a file in the home (0600), one JSON text a line, bounded. Losing it loses comfort."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Final

from hermes.home import write_atomic

MAX_ENTRIES: Final = 1000
MAX_BYTES: Final = 1_048_576
MAX_ENTRY: Final = 16_384
"""Characters; what is longer was pasted from where it still is."""


class History:
    """The entries, oldest first, and their file.

    A line that begins with a space is not kept, as in shells.

    Args:
        path: the file; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.entries: list[str] = []
        self._path = path

    def load(self) -> None:
        """Read the file, and shorten it when it has grown too long; an unreadable one counts as empty."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - MAX_BYTES))
                lines = file.read(MAX_BYTES).split(b"\n")
        except OSError:
            return
        if size > MAX_BYTES:
            del lines[0]  # cut
        entries = [entry for entry in map(_entry, lines) if entry is not None]
        self.entries = entries[-MAX_ENTRIES:]
        if size > MAX_BYTES or len(entries) > 2 * MAX_ENTRIES:
            try:
                write_atomic(self._path, b"".join(map(_line, self.entries)))
            except OSError:
                return

    def add(self, text: str) -> None:
        """Keep what was written now."""
        if not text.strip() or text.startswith(" ") or len(text) > MAX_ENTRY or self.entries[-1:] == [text]:
            return
        self.entries.append(text)
        del self.entries[:-MAX_ENTRIES]
        try:
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # another chat may write too
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, _line(text))
        except OSError:
            return
        finally:
            os.close(descriptor)


def _line(text: str) -> bytes:
    return json.dumps(text).encode("ascii") + b"\n"


def _entry(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, str) else None
