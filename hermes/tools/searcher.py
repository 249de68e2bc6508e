"""The process that searches files: by itself (`python -I -S`), because a regular expression can run for ever.

A match cannot be interrupted and holds the interpreter's lock, so it must not happen inside the gateway. Here it can be
killed, and ends by itself after its CPU limit if nobody is left to kill it. Started with

    argument 1      descriptor of the directory to search in
    argument 2      JSON: pattern, glob, kind, name (search only this file of the directory, or null), limit, cpu_s,
                    home (device and inode, or null), files (the same of what is directly in it), proc (device or null)
    descriptor 1    out: one JSON array per hit, [path, line number, text], as it is found; at last one object: what was
                    looked at and left out, or what is wrong with the pattern

Symbolic links are not followed, and what is no regular file is not opened.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

SKIPPED = frozenset((".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv"))
MAX_FILE_BYTES = 8_388_608
MAX_TOTAL_BYTES = 1_073_741_824
MAX_FILES = 200_000
MAX_DEPTH = 64
MATCHED_CHARS = 10_000  # of a line; the rest of it is not looked at
SHOWN_CHARS = 300  # of a line, around the match
PROBED_BYTES = 8_192
MAX_ADDRESS_SPACE = 2_147_483_648
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Searcher:
    """One search: the request, and how much was looked at and left out."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.files = self.read = self.hits = self.skipped = 0
        self.full = False  # a bound was reached
        home = request["home"]
        self.home = None if home is None else tuple(home)
        self.refused = {tuple(one) for one in request["files"]}
        if request["kind"] == "content":
            self.regex = re.compile(request["pattern"])

    def run(self, directory: int) -> None:
        """Search, and write what is found."""
        if self.request["name"] is not None:
            self.look(directory, self.request["name"], self.request["name"])
        else:
            self.walk(directory)
        self.write({"files": self.files, "skipped": self.skipped, "full": self.full})

    def walk(self, root: int) -> None:
        """Look at every file below a directory, in order of their names."""
        levels: list[tuple[int, str, Iterator[tuple[str, bool]]]] = [(root, "", self.entries(root))]
        while levels and not self.full:
            directory, prefix, entries = levels[-1]
            for name, is_directory in entries:
                path = prefix + name
                if not is_directory:
                    self.look(directory, name, path)
                    if self.full:
                        return
                elif name not in SKIPPED and len(levels) < MAX_DEPTH:
                    with suppress(OSError):
                        inner = os.open(name, DIRECTORY, dir_fd=directory)
                        levels.append((inner, path + "/", self.entries(inner)))
                        break
            else:
                levels.pop()
                if levels:
                    os.close(directory)

    def entries(self, directory: int) -> Iterator[tuple[str, bool]]:
        """Names in a directory, sorted, and whether each is a directory; nothing if it is out of reach."""
        about = os.fstat(directory)
        if (about.st_dev, about.st_ino) == self.home or about.st_dev == self.request["proc"]:
            return iter(())
        with suppress(OSError), os.scandir(directory) as found:
            return iter(sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found))
        return iter(())

    def look(self, directory: int, name: str, path: str) -> None:
        """One file: its name, or its lines."""
        self.files += 1
        if self.files > MAX_FILES or self.read > MAX_TOTAL_BYTES:
            self.full = True
        elif self.request["kind"] == "name":
            if self.fits(name, path, self.request["pattern"]):
                self.hit(path, 0, "")
        elif self.fits(name, path, self.request["glob"]):
            for number, line in enumerate(self.lines(directory, name), 1):
                found = self.regex.search(line, 0, MATCHED_CHARS)
                if found:
                    begin = max(0, found.start() - SHOWN_CHARS // 3)
                    self.hit(path, number, line[begin : begin + SHOWN_CHARS])
                    if self.full:
                        return

    def fits(self, name: str, path: str, pattern: str) -> bool:
        """A glob with a slash is for the path, another for the name; one without wildcards is a part of the path."""
        if not any(wild in pattern for wild in "*?["):
            return pattern in path
        return fnmatch.fnmatchcase(path if "/" in pattern else name, pattern)

    def lines(self, directory: int, name: str) -> list[str]:
        """The lines of a text file; none if it is something else."""
        with suppress(OSError):
            about = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(about.st_mode) or (about.st_dev, about.st_ino) in self.refused:
                return []
            if about.st_size > MAX_FILE_BYTES:
                self.skipped += 1
                return []
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
                data = file.read(MAX_FILE_BYTES)
            self.read += len(data)
            if b"\0" not in data[:PROBED_BYTES]:
                return data.decode("utf-8", "replace").split("\n")
        return []

    def hit(self, path: str, number: int, text: str) -> None:
        """Write one hit."""
        self.hits += 1
        if self.hits > self.request["limit"]:
            self.full = True
            return
        shown = os.fsencode(path).decode("utf-8", "replace")
        self.write([shown, number, text.strip("\r")])

    def write(self, what: object) -> None:
        """One line of JSON, at once: the process may be killed at any moment."""
        os.write(1, json.dumps(what).encode() + b"\n")


def main() -> None:
    request = json.loads(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"], request["cpu_s"] + 1))
    with suppress(ValueError, OSError):  # macOS knows the limit and refuses it
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    try:
        searcher = Searcher(request)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        os.write(1, json.dumps({"error": f"not a regular expression: {error}"}).encode())
        return
    with suppress(BrokenPipeError):
        searcher.run(int(sys.argv[1]))


if __name__ == "__main__":
    main()
