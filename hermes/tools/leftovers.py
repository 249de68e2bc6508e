"""Finding and killing the processes of this home that nothing looks after any more, by the mark in their environment.

Each command's processes inherit `HERMES_TOOL=<home>.<command>`, the home as a hash. While a guardian lives it needs no
mark; this is for what is left when a guardian itself was killed. A process that has cleared its environment, and one
that belongs to another user, is not found. Linux only: elsewhere the environment of a process cannot be read.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

MARK = "HERMES_TOOL"
PASSES = 50  # what is forked between the look and the kill is found in the next pass
PROC = Path("/proc")


def mark_of(home: Path) -> str:
    """What all marks of one home begin with: a hash of its path, so that the path is not in every environment."""
    return hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]


def sweep_leftovers(home: Path) -> int:
    """Kill every process that commands of this home have left behind; the number killed.

    To be called in a worker thread by the holder of the home's lock before it starts its first command. It spares
    itself and its ancestors, since a gateway may have been started from a command of the one before.
    """
    return sweep(mark_of(home))


def sweep(mark: str) -> int:
    """Kill every process whose mark begins with this one, at once, until a look finds none; the number killed.

    It blocks: some milliseconds for each look at all processes.
    """
    if not sys.platform.startswith("linux"):
        return 0
    spared = _with_ancestors(os.getpid())
    wanted = f"\0{MARK}={mark}".encode()
    killed: set[int] = set()
    for _ in range(PASSES):
        found = [pid for pid in _processes() if pid not in spared and _kill_if_marked(pid, wanted)]
        if not found:
            break
        killed.update(found)
    return len(killed)


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir(PROC) if name.isdigit()]  # noqa: PTH208  # a Path for each is ten times the cost
    return []


def _kill_if_marked(pid: int, wanted: bytes) -> bool:
    """Kill it if it carries the mark. The handle comes first, so that the id cannot come to mean another process."""
    with suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if wanted in b"\0" + (PROC / str(pid) / "environ").read_bytes():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def _with_ancestors(pid: int) -> set[int]:
    found = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        with suppress(OSError):
            stat = (PROC / str(pid) / "stat").read_bytes()
            pid = int(stat.rpartition(b")")[2].split()[1])
    return found
