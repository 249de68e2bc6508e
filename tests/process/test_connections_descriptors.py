"""Five hundred failed attempts with real files, sockets, databases and threads: the process holds what it held before.

Also under `RLIMIT_NOFILE=128`, where a leak of a quarter of them would end it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hermes.testing.census import LINUX

SCRIPT = Path(__file__).with_name("connections_under_limit.py")
HOW = ("refuses", "drops", "hangs", "closes badly", "receive fails", "in the background")


@pytest.mark.wall_clock_s(90)
@pytest.mark.skipif(not LINUX, reason="descriptors are read from /proc")
@pytest.mark.parametrize("descriptors", [1024, 128])
def test_five_hundred_failed_attempts_leave_nothing(tmp_path: Path, descriptors: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(descriptors), *HOW], capture_output=True, text=True, timeout=80
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["attempts"] >= 500
    assert set(report["kinds"]) == set(HOW)
    assert report["growth"] == []
    assert report["databases"] == [0, 0]  # of the accounts: all are closed between two attempts
    assert report["worked_afterwards"]
