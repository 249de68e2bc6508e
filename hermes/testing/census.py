"""What a process holds at one moment (descriptors, TCP states, threads, tasks, children) and what grew between two."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

LINUX = sys.platform.startswith("linux")
IDLE_TRIO_THREAD = re.compile(
    r"Trio thread \d+"
)  # a cached worker between two jobs; trio ends it after ten idle seconds

# Linux, include/net/tcp_states.h
TCP_STATES = {
    "01": "ESTABLISHED",
    "02": "SYN_SENT",
    "03": "SYN_RECV",
    "04": "FIN_WAIT1",
    "05": "FIN_WAIT2",
    "06": "TIME_WAIT",
    "07": "CLOSE",
    "08": "CLOSE_WAIT",
    "09": "LAST_ACK",
    "0A": "LISTEN",
    "0B": "CLOSING",
}


def open_descriptors() -> dict[int, str]:
    """The open descriptors of this process and what each one is.

    Returns:
        descriptor -> the kernel's name of it, such as `socket:[4711]`, `pipe:[12]`, `anon_inode:[eventpoll]` or a path;
        where there is no /proc (macOS) the name is the file type and inode.
    """
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd" if LINUX else "/dev/fd"):  # noqa: PTH208  # twice as fast, and it is called per step
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}") if LINUX else _described(int(name))  # noqa: PTH115  # as above
    return found


def _described(descriptor: int) -> str:
    about = os.fstat(descriptor)
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
    return f"{kinds.get(stat.S_IFMT(about.st_mode), 'device')}:[{about.st_ino}]"


def kind_of(target: str) -> str:
    """The kind of a descriptor from its name: `socket`, `pipe`, `anon_inode:[…]`, or the path itself for a file."""
    return target.partition(":[")[0] if target.startswith(("socket:[", "pipe:[")) else target


def tcp_states(descriptors: Iterable[str] | None = None) -> Counter[str]:
    """How many of this process's TCP sockets are in each state (Linux; empty elsewhere).

    Args:
        descriptors: names from `open_descriptors()`; by default they are read now.
    """
    if not LINUX:
        return Counter()
    targets = open_descriptors().values() if descriptors is None else descriptors
    own = {target[8:-1] for target in targets if target.startswith("socket:[")}
    states: Counter[str] = Counter()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[9] in own:
                    states[TCP_STATES.get(fields[3], fields[3])] += 1
    return states


def busy_threads() -> list[str]:
    """The names of the living threads, without trio's cached idle workers."""
    return sorted(
        thread.name
        for thread in threading.enumerate()
        if not IDLE_TRIO_THREAD.fullmatch(thread.name) and thread is not threading.main_thread()
    )


def child_processes() -> list[int]:
    """The process ids of this process's living and unreaped children. An orphaned grandchild is not among them."""
    if LINUX:
        children: list[int] = []
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  # called per step
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", encoding="ascii") as listing:  # noqa: PTH123
                children.extend(map(int, listing.read().split()))
        return sorted(children)
    listing_text = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)  # noqa: S607  # ps is where the system keeps it
    rows = [line.split(None, 2) for line in listing_text.stdout.splitlines()]
    return sorted(int(row[0]) for row in rows if int(row[1]) == os.getpid() and not row[2].endswith("ps"))


def living_tasks() -> list[str]:
    """The names of all living tasks of this trio run, system tasks included."""
    names: list[str] = []
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        names.append(task.name)
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)
    return sorted(names)


@dataclass(frozen=True, slots=True)
class LeakCensus:
    """What this process holds at one moment.

    Args:
        descriptors: descriptor -> the kernel's name of it.
        threads: names of living threads, without the main one and trio's cached idle workers.
        tasks: names of the living tasks; empty when taken outside a trio run.
        children: process ids.
        tcp: number of own TCP sockets per state.
    """

    descriptors: dict[int, str]
    threads: tuple[str, ...]
    tasks: tuple[str, ...]
    children: tuple[int, ...]
    tcp: Counter[str]

    @classmethod
    def take(cls, *, tasks: bool = True, tcp: bool = True) -> LeakCensus:
        """Look now. `tasks=False` for use outside a trio run; `tcp=False` skips the kernel's socket table."""
        descriptors = open_descriptors()
        return cls(
            descriptors,
            tuple(busy_threads()),
            tuple(living_tasks()) if tasks else (),
            tuple(child_processes()),
            tcp_states(descriptors.values()) if tcp else Counter(),
        )

    @property
    def close_wait(self) -> int:
        """Own sockets whose peer has closed and that nobody here has closed."""
        return self.tcp["CLOSE_WAIT"]

    def growth_since(self, before: LeakCensus, *, spare_sockets: int = 0) -> list[str]:
        """What is held now and was not held `before`, one readable line each; empty when nothing grew.

        Descriptors are compared by kind and number, because a pool that replaced one idle socket by another has not
        leaked.

        Args:
            before: the earlier census.
            spare_sockets: how many sockets more are no leak, for a pool that lives outside (0 to its limit).
        """
        lines = [f"descriptor: {what}" for what in self._new_descriptors(before, spare_sockets)]
        lines += [f"thread: {name}" for name in sorted((Counter(self.threads) - Counter(before.threads)).elements())]
        lines += [f"task: {name}" for name in sorted((Counter(self.tasks) - Counter(before.tasks)).elements())]
        lines += [f"child process: {pid}" for pid in sorted(set(self.children) - set(before.children))]
        if self.close_wait > before.close_wait + spare_sockets:
            lines.append(f"sockets in CLOSE_WAIT: {before.close_wait} before, {self.close_wait} now")
        return lines

    def _new_descriptors(self, before: LeakCensus, spare_sockets: int) -> list[str]:
        more = Counter(map(kind_of, self.descriptors.values()))
        more.subtract(map(kind_of, before.descriptors.values()))
        more["socket"] -= spare_sockets
        lines: list[str] = []
        for kind, count in more.items():
            if count > 0:
                known = set(before.descriptors.items())
                new = [
                    f"{number} -> {target}"
                    for number, target in self.descriptors.items()
                    if kind_of(target) == kind and (number, target) not in known
                ]
                lines.append(f"{count} more of kind {kind} ({', '.join(new)})")
        return sorted(lines)


async def settle(growth: Callable[[], list[str]], settle_s: float) -> list[str]:
    """Give what is ending the time to end: `growth()` again and again until it is empty or the time is over.

    It spins with checkpoints instead of sleeping, so that a virtual clock stands still meanwhile, and it uses real time
    only when something is left.

    Args:
        growth: what is still held too much.
        settle_s: real seconds to wait at most.
    """
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    left = growth()
    end = time.monotonic() + settle_s
    while left and time.monotonic() < end:
        await trio.lowlevel.checkpoint()
        left = growth()
    return left


@asynccontextmanager
async def no_leaks(*, settle_s: float = 2.0, spare_sockets: int = 0) -> AsyncIterator[LeakCensus]:
    """Assert that the block leaves nothing behind: no descriptor, thread, task, child process or socket in CLOSE_WAIT.

    Args:
        settle_s: real seconds that what is ending may take.
        spare_sockets: sockets more that a pool outside the block may keep.

    Yields:
        the census before the block.

    Raises:
        AssertionError: something is left; a block that raised raises its own error, with what it left as a note.
    """
    gc.collect()
    before = LeakCensus.take()

    def growth() -> list[str]:
        return LeakCensus.take().growth_since(before, spare_sockets=spare_sockets)

    try:
        yield before
    except Exception as error:
        if left := growth():
            error.add_note("and it left: " + "; ".join(left))
        raise
    left = await settle(growth, settle_s)
    if left:
        raise AssertionError("left behind:\n  " + "\n  ".join(left))
