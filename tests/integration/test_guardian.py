"""The guardian by itself: what it does where it is no subreaper, and when its gateway has gone; the sweep by mark."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.testing.tools import processes_with
from hermes.tools import guardian, leftovers
from hermes.tools.leftovers import MARK, mark_of, sweep_leftovers

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
ROOT = Path(__file__).resolve().parents[2]
GROUP_ONLY = f"""
import sys
sys.path.append({str(Path(guardian.__file__).parent)!r})
import guardian
guardian.prctl = lambda *_: False
guardian.main()
"""


class Started:
    """A guardian started as the gateway starts it, without trio."""

    def __init__(self, program: list[str], command: str, directory: Path, *, grace_s: float = 0.2) -> None:
        self.control, theirs = socket.socketpair()
        inside = os.open(directory, os.O_RDONLY)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", *program, str(grace_s), str(inside), "/bin/sh", command],
                stdin=theirs, stdout=subprocess.PIPE, pass_fds=(inside,), start_new_session=True,
            )  # fmt: skip
        os.close(inside)

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def report(self) -> list[str]:
        return self.control.recv(64).decode().split()

    def close(self) -> None:
        self.control.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def tag() -> str:
    """A duration that no other process waits for: neither another test's, nor this test's in another run beside it."""
    return f"4243.{secrets.randbelow(10**12):012}"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Started]]:
    running: list[Started] = []
    yield running
    for one in running:
        one.close()


def run(started: list[Started], command: str, directory: Path, *program: str, grace_s: float = 0.2) -> Started:
    one = Started([*program] or [guardian.__file__], command, directory, grace_s=grace_s)
    started.append(one)
    return one


@pytest.mark.parametrize(
    ("command", "report"),
    [
        ("exit 5", ["5", "-", "0", "0"]),
        ("sleep {tag} & exit 0", ["0", "-", "0", "0"]),
        ("(trap '' TERM; sleep {tag}; sleep {tag}) & exit 1", ["1", "-", "0", "0"]),
        ("kill -9 $$", ["-", "9", "0", "0"]),
    ],
)
def test_without_a_subreaper_the_process_group_is_ended(
    started: list[Started], tmp_path: Path, tag: str, command: str, report: list[str]
) -> None:
    one = run(started, command.replace("{tag}", tag), tmp_path, "-c", GROUP_ONLY)
    assert one.report() == report
    one.process.wait()
    assert processes_with(tag) == []


@pytest.mark.parametrize("word", [b"T", b"K", b""])
@pytest.mark.parametrize("program", [(), ("-c", GROUP_ONLY)])
def test_a_word_or_the_end_of_the_gateway_ends_the_command(
    started: list[Started], tmp_path: Path, tag: str, word: bytes, program: tuple[str, ...]
) -> None:
    one = run(started, f"trap '' TERM; echo here; sleep {tag}; sleep {tag}", tmp_path, *program)
    assert one.line() == b"here\n"
    if word:
        one.control.send(word)
        assert one.report()[:2] == ["-", str(int(signal.SIGKILL))]
    else:
        one.control.close()
    assert one.process.wait() == 0
    assert processes_with(tag) == []


def test_kill_does_not_wait_for_the_grace_period(started: list[Started], tmp_path: Path) -> None:
    one = run(started, "trap '' TERM; echo here; sleep 4243.3; sleep 4243.3", tmp_path, grace_s=1000.0)
    assert one.line() == b"here\n"
    one.control.send(b"T")
    one.control.send(b"K")
    assert one.report()[:2] == ["-", "9"]


def test_a_word_that_comes_before_the_command_was_started_is_heard(started: list[Started], tmp_path: Path) -> None:
    one = run(started, "sleep 4243.4", tmp_path, grace_s=1000.0)
    one.control.send(b"T")
    assert one.report() == ["-", "15", "0", "1"]


def test_a_term_to_the_guardian_itself_ends_the_command(started: list[Started], tmp_path: Path) -> None:
    one = run(started, "echo here; sleep 4243.5", tmp_path, grace_s=1000.0)
    assert one.line() == b"here\n"
    one.process.terminate()
    assert one.report()[:2] == ["-", "15"]


@pytest.mark.parametrize("ignored_by_the_starter", [(), (signal.SIGHUP,), (signal.SIGINT, signal.SIGQUIT)])
def test_the_command_has_default_signals_and_few_descriptors(
    started: list[Started], tmp_path: Path, ignored_by_the_starter: tuple[signal.Signals, ...]
) -> None:
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ignored_by_the_starter]
    try:
        one = run(started, "grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; echo", tmp_path)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    blocked, ignored, descriptors = one.line().split(), one.line().split(), one.line().split()
    assert (int(blocked[1], 16), int(ignored[1], 16)) == (0, 0)
    assert descriptors == [b"0", b"1", b"2", b"3"]  # the last is of the listing


def marked(mark: str, tag: str) -> None:
    """Leave a process behind as a killed guardian would: an orphan in a session of its own, with a mark."""
    subprocess.run(
        ["/bin/sh", "-c", f"setsid sh -c 'trap \"\" TERM; sleep {tag}; :' >/dev/null 2>&1 &"],
        env={MARK: mark, "PATH": os.environ["PATH"]},
        check=True,
    )
    while not processes_with(tag):  # the shell has forked; setsid may not have run yet
        time.sleep(0.005)


def test_the_sweep_kills_what_carries_the_mark_of_this_home_and_nothing_else(tmp_path: Path, tag: str) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    marked(f"{mark_of(mine)}.1", tag + "1")
    marked(f"{mark_of(other)}.1", tag + "2")
    assert sweep_leftovers(mine) >= 1
    assert processes_with(tag + "1") == []
    assert processes_with(tag + "2") != []
    assert sweep_leftovers(other) >= 1
    assert processes_with(tag + "2") == []
    assert sweep_leftovers(mine) == 0


def test_a_gateway_that_carries_the_mark_spares_itself_and_its_ancestors(tmp_path: Path, tag: str) -> None:
    program = (
        f"from pathlib import Path; from {leftovers.__name__} import *; print(sweep_leftovers(Path({str(tmp_path)!r})))"
    )
    marked(f"{mark_of(tmp_path)}.1", tag)
    command = ["/bin/sh", "-c", 'echo started; "$0" "$@"; echo survived', sys.executable, "-c", program]
    environment = {**os.environ, MARK: f"{mark_of(tmp_path)}.2"}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    first, killed, last = done.stdout.split()
    assert (first, last) == ("started", "survived")
    assert int(killed) >= 1
    assert processes_with(tag) == []


def test_the_listing_of_children_agrees_with_the_table_of_processes() -> None:
    """The way for kernels without /proc/…/children finds the same children."""
    with subprocess.Popen(["sleep", "4244.4"]) as child:
        try:
            assert guardian.parent_of(child.pid) == os.getpid()
            assert guardian.parent_of(2**22 + 1) == 0
            handle = os.pidfd_open(child.pid)
            child.kill()
            assert select.select([handle], [], [], 20)[0]
            os.close(handle)
        finally:
            child.kill()
