"""`hermes logs`: the last lines of the log, and with `-f` those that come, across rotations."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from hermes.cli.running import DONE, FAILED, add_home, home_of, in_words

POLL_S: Final = 0.25
BLOCK: Final = 65_536
MOST_LINES: Final = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with the lines that come")
    parser.add_argument("-n", "--lines", type=_lines, default=50, metavar="N", help="lines to begin with (default: 50)")


def run(arguments: argparse.Namespace) -> int:
    """Print the log."""
    path = home_of(arguments).log_file
    if not arguments.follow:
        try:
            with path.open("rb") as file:
                _write(last_lines(file, arguments.lines))
        except FileNotFoundError:
            print(f"hermes: there is no log yet at {in_words(str(path))}", file=sys.stderr)
            return FAILED
        return DONE
    for data in follow(path, arguments.lines, time.sleep):
        _write(data)
    return DONE


def last_lines(file: BinaryIO, count: int) -> bytes:
    """The last `count` lines of a file; afterwards its position is its end."""
    position = end = file.seek(0, io.SEEK_END)
    blocks: list[bytes] = []
    breaks = 0
    while position > 0 and breaks <= count:
        start = max(0, position - BLOCK)
        file.seek(start)
        blocks.insert(0, file.read(position - start))
        breaks += blocks[0].count(b"\n")
        position = start
    file.seek(end)
    data = b"".join(blocks)
    lines = data.splitlines(keepends=True)
    return b"".join(lines[-count:]) if count else b""


def follow(path: Path, count: int, sleep: Callable[[float], None]) -> Iterator[bytes]:
    """The last lines of a log and then, for ever, what is added to it.

    A rotated file is read to its end before the new one begins; a file that does not exist yet is waited for.

    Args:
        path: the log that is being written.
        count: how many lines to begin with.
        sleep: waits a number of seconds between two looks.
    """
    file: BinaryIO | None = None
    try:
        while True:
            if file is None:
                file = _opened(path)
                if file is not None:
                    yield last_lines(file, count)
                count = MOST_LINES  # a file that appears later is shown from its beginning
            elif _replaced(path, file):
                yield from _rest(file)
                file.close()
                file = None
                continue
            if file is not None:
                yield from _rest(file)
            sleep(POLL_S)
    finally:
        if file is not None:
            file.close()


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _replaced(path: Path, file: BinaryIO) -> bool:
    """Whether another file has the log's name now, or the same one was cut."""
    ours = os.fstat(file.fileno())
    try:
        named = path.stat()
    except FileNotFoundError:
        return False  # between two names; its lines may still come
    return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) or ours.st_size < file.tell()


def _rest(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(BLOCK):
        yield data


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) <= MOST_LINES):
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {MOST_LINES}")
    return int(text)


def _write(data: bytes) -> None:
    sys.stdout.write(data.decode("utf-8", "replace"))
    sys.stdout.flush()
