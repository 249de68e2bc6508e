"""Reading a page of a text file and replacing a file as a whole. Blocking, bounded, for worker threads."""

from __future__ import annotations

import io
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass

from hermes.errors import ToolError
from hermes.tools.workspace import Place, explained

PAGE_CHARS = 50_000
LINE_CHARS = 2_000
SCANNED_BYTES = 67_108_864  # read to get to the page asked for
PROBED_BYTES = 8_192  # looked at for a NUL, which makes a file binary
PATCHED_BYTES = 4_194_304  # size of a file that can be patched


@dataclass(frozen=True, slots=True)
class Content:
    """A whole file.

    Args:
        text: what is no UTF-8 is kept as surrogates, so that writing it back changes nothing.
        about: what the file was when it was read.
    """

    text: str
    about: os.stat_result


def read_page(place: Place, offset: int, limit: int) -> str:
    """Lines of a text file, as they are, and below them in brackets what was left out.

    Args:
        place: the file.
        offset: the first line, from 1.
        limit: lines at most.

    Raises:
        ToolError: no regular file, binary, or the offset is beyond its end.
    """
    descriptor, about = place.open_file()
    with os.fdopen(descriptor, "rb") as file, explained(place.shown):
        if b"\0" in file.peek(PROBED_BYTES)[:PROBED_BYTES]:
            raise ToolError(f"{place.shown}: binary file, {about.st_size} bytes")
        return _page(file, place.shown, offset, limit)


def _page(file: io.BufferedReader, shown: str, offset: int, limit: int) -> str:
    taken: list[str] = []
    number, scanned, chars = 0, 0, 0
    while line := file.readline(max(0, SCANNED_BYTES - scanned)):
        number += 1
        scanned += len(line)
        if number < offset:
            continue
        if len(taken) == limit or chars > PAGE_CHARS:
            return "\n".join((*taken, f"[lines {offset}-{number - 1}; continue with offset={number}]"))
        text = _shortened(line.rstrip(b"\r\n"))
        taken.append(text)
        chars += len(text) + 1
    if scanned >= SCANNED_BYTES:
        taken.append(f"[stopped after {SCANNED_BYTES} bytes, in line {number}; use the terminal]")
    elif number == 0:
        taken.append("[empty file]")
    elif number < offset:
        raise ToolError(f"{shown}: has only {number} lines")
    elif offset > 1:
        taken.append(f"[lines {offset}-{number}, the last]")
    return "\n".join(taken)


def _shortened(line: bytes) -> str:
    text = line[: 4 * LINE_CHARS + 4].decode("utf-8", "replace")
    if len(text) <= LINE_CHARS and len(line) <= 4 * LINE_CHARS:
        return text
    return f"{text[:LINE_CHARS]} [... {len(line)} bytes in this line]"


def read_whole(place: Place) -> Content:
    """A file to be patched, up to PATCHED_BYTES. Raises ToolError as `read_page`, and if it is larger."""
    descriptor, about = place.open_file()
    with os.fdopen(descriptor, "rb") as file, explained(place.shown):
        data = file.read(PATCHED_BYTES + 1)
    if len(data) > PATCHED_BYTES:
        raise ToolError(f"{place.shown}: more than {PATCHED_BYTES} bytes; use the terminal")
    if b"\0" in data[:PROBED_BYTES]:
        raise ToolError(f"{place.shown}: binary file, {len(data)} bytes")
    return Content(data.decode("utf-8", "surrogateescape"), about)


def write_whole(place: Place, data: bytes, *, expected: os.stat_result | None = None) -> int | None:
    """Put `data` in the place of a file, all or nothing: a new file beside it, synced, then renamed over it.

    The mode of a file that is replaced is kept. If the process is killed in between, `.hermes-….tmp` may be left.

    Args:
        place: the file; need not exist.
        data: its new content.
        expected: what it was when it was read; if it has changed since, nothing is written.

    Returns:
        The size of what was replaced, None if there was nothing.
    """
    with explained(place.shown):
        before = _existing(place)
        if expected is not None and (before is None or _version(before) != _version(expected)):
            raise ToolError(f"{place.shown}: has changed since it was read; read it again")
        temporary = f".hermes-{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666 if before is None else 0o600, dir_fd=place.directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if before is not None:
                    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                os.fsync(descriptor)
            os.rename(temporary, place.name or ".", src_dir_fd=place.directory, dst_dir_fd=place.directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=place.directory)
            raise
        with suppress(OSError):  # some file systems cannot sync a directory
            os.fsync(place.directory)
    return None if before is None else before.st_size


def _existing(place: Place) -> os.stat_result | None:
    try:
        return place.check_file()
    except FileNotFoundError:
        return None


def _version(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_ino, about.st_size, about.st_mtime_ns
