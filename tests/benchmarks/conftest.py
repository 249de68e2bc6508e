"""Processes to measure, a load, and what the kernel says they cost. Every figure stands beside a bare relay's of the same run.

Without `HERMES_FULL` the runs are short and only guard that no figure is ten times its goal; `.ci/full` runs them at length and
keeps the figures. Nothing here asserts a time.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

TICK = os.sysconf("SC_CLK_TCK")
HERE = Path(__file__).parent
FULL = bool(os.environ.get("HERMES_FULL"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every benchmark is `measured`, before `-m` chooses."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker("measured")


@dataclass(slots=True)
class Served:
    """A server process under measurement."""

    process: subprocess.Popen[str]
    port: int
    key: str = ""
    home: Path = Path()

    def cpu_s(self) -> float:
        """CPU time of all its threads so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mb(self) -> float:
        """What of it is in memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def holds(self) -> tuple[int, int]:
        """How many descriptors and threads it has now."""
        place = Path(f"/proc/{self.process.pid}")
        return len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))

    def pin(self, processor: int) -> None:
        """Let all its threads run on one processor only."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {processor})

    def request(self, path: str, body: Any = None, **headers: str) -> bytes:
        """The bytes of one request."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            "host: localhost",
            f"content-length: {len(content)}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if self.key:
            lines.append(f"authorization: Bearer {self.key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load cost: per request in milliseconds of CPU, requests a second, the median and 99th percentile wall time in ms."""

    cpu_ms: float
    rate: float
    p50_ms: float
    p99_ms: float


class Bench:
    """Starts processes and puts load on them; ends what it started."""

    def __init__(self, home: Path, config: Callable[[int], str]) -> None:
        self.full = FULL
        self._home = home
        self._config = config
        self._processes: list[subprocess.Popen[str]] = []

    def upstream(self, *, pieces: int = 3, delay_s: float = 0.0) -> int:
        """A model without delay that gives every request the same prepared answer."""
        words = ["--pieces", str(pieces), "--delay-s", str(delay_s)]
        process = self._start([sys.executable, "-m", "hermes.testing.fake_model", *words])
        assert process.stdout is not None
        return int(process.stdout.readline())

    def relay(self, kind: str, upstream: int, *, sleep_s: float = 0.0) -> Served:
        """A bare relay; see relay.py."""
        program = Path(__file__).with_name("relay.py")
        process = self._start([sys.executable, str(program), kind, f"http://127.0.0.1:{upstream}/v1", str(sleep_s)])
        assert process.stdout is not None
        return Served(process, int(process.stdout.readline()))

    def gateway(self, upstream: int, *, extra: str = "") -> Served:
        """`hermes serve` with this model, ready."""
        served = self.launch(upstream, 0, extra=extra)
        assert served.process.stdout is not None
        line = served.process.stdout.readline()
        while line.startswith("note: "):
            line = served.process.stdout.readline()
        assert "http://" in line, line
        served.port = int(line.partition("http://")[2].partition(" ")[0].rpartition(":")[2])
        served.key = (served.home / "api_key").read_text().strip()
        return served

    def launch(self, upstream: int, port: int, *, extra: str = "") -> Served:
        """`hermes serve` with this model, only just started."""
        home = self._home / f"home{len(self._processes)}"
        home.mkdir(mode=0o700)
        (home / "config.yaml").write_text(self._config(upstream) + extra)
        process = self._start([sys.executable, "-m", "hermes", "serve", "--home", str(home), "--port", str(port), "-q"])
        return Served(process, port, home=home)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HERMES_", "OPENAI_"))}
        environment["XDG_STATE_HOME"] = str(self._home)  # where the locks of tokens are
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    async def load(self, served: Served, requests: Sequence[bytes], *, concurrency: int = 1) -> Cost:
        """Send every request once over so many kept connections, each waiting for its answer; all must be 200."""
        waiting = list(reversed(requests))
        times: list[float] = []

        async def worker() -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            async with stream:
                while waiting:
                    request = waiting.pop()
                    began = time.perf_counter()
                    await stream.send_all(request)
                    await read_answer(stream)
                    times.append(time.perf_counter() - began)

        cpu, began = served.cpu_s(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(concurrency):
                nursery.start_soon(worker)
        seconds = time.perf_counter() - began
        spent = served.cpu_s() - cpu
        count = len(requests)
        cuts = statistics.quantiles(times, n=100) if count > 1 else times * 99
        return Cost(spent / count * 1000, count / seconds, statistics.median(times) * 1000, cuts[98] * 1000)


async def read_answer(stream: trio.SocketStream) -> bytes:
    """One response with its body, of either framing. Anything but 200 fails the run."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _more(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data[:500]
    lower = head.lower()
    if b"content-length:" in lower:
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += await _more(stream)
        return body
    while not body.endswith(b"0\r\n\r\n"):
        body += await _more(stream)
    return body


async def _more(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some(262_144))
    assert data, "the server closed the connection"
    return data


def config(upstream: int) -> str:
    """The smallest configuration with a real protocol behind it."""
    return (
        f"model:\n  base_url: http://127.0.0.1:{upstream}/v1\n  api_key: benchmark-key\n  default: fake\n"
        "http:\n  max_concurrent_turns: 256\n"
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Processes and load for one benchmark."""
    kit = Bench(tmp_path, config)
    try:
        yield kit
    finally:
        kit.close()
