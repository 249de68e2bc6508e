"""The process between the gateway and one command: when it ends, nothing that the command started is left.

It runs by itself (`python -I -S`), imports nothing of Hermes, and is started with

    descriptor 0    a socket to the gateway. In: `T` = end the command, `K` = kill it; the end of the stream means that
                    the gateway is gone, and counts as `T`. Out, once: how the command ended, then the stream ends.
    descriptor 1, 2 the command's output
    arguments       grace in seconds, descriptor of the working directory, shell, command

The command runs in a session and process group of its own. On Linux the guardian is a subreaper (prctl(2),
PR_SET_CHILD_SUBREAPER): whatever loses its parent becomes the guardian's child, also what left the session, forked
twice or cleared its environment. It therefore only ever signals its own children, whose ids cannot be used anew before
it reaps them, and `waitpid` saying that there is no child is the proof that nothing is left. Elsewhere it can only end
the process group.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
CONTROL = 0
PROBE_S = 0.01  # how often to look for the end of a group whose members are not our children
PROBES = 100  # after KILL: a group also holds the dead whom nobody has reaped yet


def prctl(option: int, value: int) -> bool:
    """Set an attribute of this process; False where the system has none."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes
    except ImportError:  # a Python built without libffi
        return False
    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def default_signals() -> None:
    """Give every signal its default effect.

    exec(2) undoes handlers but keeps what is ignored: by Python (PIPE, XFSZ) and by whoever started the gateway (HUP
    under nohup, INT and QUIT in the background of a script). A command that inherits that cannot be interrupted.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def run_command(directory: int, shell: str, command: str) -> int:
    """Start the command in a session of its own; the id of its process, which is also its group's."""
    guardian = os.getpid()
    # Blocked over the fork: a TERM that reached the child while it still has our handler would be lost.
    signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGTERM, signal.SIGCHLD))
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return child
    try:
        default_signals()
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        prctl(
            PR_SET_PDEATHSIG, signal.SIGKILL
        )  # if the guardian is killed; what the command forked is swept by its mark
        if os.getppid() != guardian:
            os._exit(125)
        os.fchdir(directory)
        os.close(directory)
        os.dup2(os.open(os.devnull, os.O_RDONLY), CONTROL)
        os.execv(shell, [shell, "-c", command])  # noqa: S606  # running what it is given is what a shell is for
    except OSError as error:
        os.write(2, f"cannot run {shell}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


class Guardian:
    """The state of one command: its group, what is left of it, and how far its end has come."""

    def __init__(self, group: int, grace_s: float, exact: bool) -> None:
        self.group = group
        self.grace_s = grace_s
        self.exact = exact  # what loses its parent comes to us
        self.status: int | None = None  # of the command itself, once it was reaped
        self.swept = 0  # reaped after it
        self.told: set[int] = set()  # children that had their TERM; an id leaves when it is reaped
        self.deadline: float | None = None  # of the grace period, once it began

    def reap(self, block: bool = False) -> bool:
        """Reap what has ended; False when there is no child any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.group:
                self.status = status
            elif self.status is not None and pid in self.told:
                self.swept += 1
            self.told.discard(pid)
            if block:
                return True

    def anything_left(self) -> bool:
        """Whether the command or anything it started is still there."""
        if self.reap():
            return True
        if self.exact:
            return False
        try:
            os.killpg(self.group, 0)
        except (ProcessLookupError, PermissionError):  # macOS: EPERM when only zombies are left
            return False
        return True

    def children(self) -> list[int]:
        """The ids of our children, which are the roots of everything that is left."""
        if not self.exact:
            return [] if self.status is not None else [self.group]
        me = os.getpid()
        try:
            with open(f"/proc/{me}/task/{me}/children") as listing:  # noqa: PTH123  # pathlib costs as much as all else here
                return [int(pid) for pid in listing.read().split()]
        except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
            return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == me]  # noqa: PTH208

    def signal_group(self, number: int) -> None:
        """Signal the command's group, as long as its id cannot be anything else's."""
        if self.status is None or not self.exact:
            send(os.killpg, self.group, number)

    def ask_children(self) -> None:
        """Send TERM to each child that had none, and wake it: what is stopped could not answer."""
        for pid in self.children():
            if pid not in self.told:
                self.told.add(pid)
                send(os.kill, pid, signal.SIGTERM)
                send(os.kill, pid, signal.SIGCONT)

    def end(self) -> None:
        """Begin the end: ask everything to go, and note by when it must have gone."""
        if self.deadline is None:
            self.deadline = time.monotonic() + self.grace_s
            grouped = {pid for pid in self.children() if self.status is None and group_of(pid) == self.group}
            self.signal_group(signal.SIGTERM)
            self.signal_group(signal.SIGCONT)
            self.told |= grouped  # a second TERM means "at once" to many programs
            self.ask_children()

    def kill(self) -> None:
        """Kill until nothing is left: each death hands its children to us, so the tree is taken down level by level."""
        probes = 0
        while self.anything_left() and probes < PROBES:
            self.signal_group(signal.SIGKILL)
            for pid in self.children():
                send(os.kill, pid, signal.SIGKILL)
            if not self.reap(block=True) and not self.exact:
                probes += 1
                time.sleep(PROBE_S)

    def wait_s(self) -> float | None:
        """How long nothing needs to be looked at, in seconds; None = until something happens."""
        if self.deadline is None:
            return None
        left = max(0.0, self.deadline - time.monotonic())
        return left if self.exact else min(left, PROBE_S)

    def report(self) -> str:
        """One line: exit code or `-`, signal or `-`, how many processes it had left, 1 if none can be left now."""
        status = self.status
        code = "-" if status is None or not os.WIFEXITED(status) else str(os.WEXITSTATUS(status))
        number = "-" if status is None or not os.WIFSIGNALED(status) else str(os.WTERMSIG(status))
        return f"{code} {number} {self.swept} {self.exact:d}\n"


def send(how: Callable[[int, int], None], target: int, number: int) -> None:
    """Signal something that may be gone, or another user's."""
    with suppress(ProcessLookupError, PermissionError):
        how(target, number)


def group_of(pid: int) -> int:
    """The process group of one of our children; 0 when it cannot be read."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when it is gone. proc(5): the fourth field of stat, after a name in parentheses."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def watch(guardian: Guardian, woken: int) -> None:
    """Wait for the command's end or the gateway's word; return when nothing is left, or what is left must be killed."""
    poll = select.poll()
    poll.register(CONTROL, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while guardian.anything_left():
        if guardian.status is not None:
            guardian.end()  # what still runs in the background goes with the command
        if guardian.deadline is not None:
            if time.monotonic() >= guardian.deadline:
                return
            guardian.ask_children()  # what has come to us since
        wait_s = guardian.wait_s()
        for descriptor, _ in poll.poll(None if wait_s is None else wait_s * 1000 + 1):
            said = os.read(descriptor, 64)
            if descriptor == CONTROL:
                if not said:
                    poll.unregister(CONTROL)
                if b"K" in said:
                    return
                guardian.end()
            elif signal.SIGTERM in said:
                guardian.end()


def main() -> None:
    grace_s, directory, shell, command = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    exact = prctl(PR_SET_CHILD_SUBREAPER, 1)
    guardian = Guardian(run_command(directory, shell, command), grace_s, exact)
    os.close(directory)
    watch(guardian, woken)
    guardian.kill()
    with suppress(OSError):  # the gateway may be gone
        os.write(CONTROL, guardian.report().encode())


if __name__ == "__main__":
    main()
