"""A real `hermes serve` for tests: started, watched from outside, stopped or killed; nothing of it outlives the block."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import trio

from hermes.control_client import call
from hermes.home import Home, find_socket
from hermes.testing.census import TCP_STATES

T = TypeVar("T")

START_S = 25.0  # wall time in which a start must be over, on a machine that does much else
LOOK_S = 0.01
SERVES = re.compile(r"^Hermes serves (http://\S+) ")
MADE_KEY = re.compile(r"^API key, made now and kept in \S+: (\S+)$")


class GatewayEnded(Exception):
    """The process ended before it served; the text has its exit code and what it said."""


async def until(look: Callable[[], T | Awaitable[T]], what: str, *, within_s: float = 15.0) -> T:
    """Look until what is seen is true; the first true value.

    Args:
        look: plain or async; asked again every few milliseconds.
        what: what is waited for, for the error.
        within_s: real seconds.

    Raises:
        AssertionError: it did not come true.
    """
    seen: Any = None
    with trio.move_on_after(within_s):
        while True:
            seen = look()
            if isinstance(seen, Awaitable):
                seen = await seen
            if seen:
                return seen  # type: ignore[no-any-return]
            await trio.sleep(LOOK_S)
    raise AssertionError(f"within {within_s:g} s not seen: {what}; the last look gave {seen!r}")


def write_config(home: Path, sections: Mapping[str, Any]) -> Path:
    """Write a `config.yaml` (JSON is YAML) and return its path."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / "config.yaml"
    beside = home / ".config.new"
    beside.write_text(json.dumps(sections), encoding="utf-8")
    return beside.replace(path)


def command(*words: str) -> list[str]:
    """The command line of `hermes WORDS` with this interpreter."""
    return [sys.executable, "-m", "hermes", *words]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment in which this very code is imported, and nothing of the machine's configuration is seen."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LANG": "C.UTF-8",
        **(more or {}),
    }


async def hermes(home: Path, *words: str, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run another subcommand for this home to its end."""
    done = await trio.run_process(
        command(*words, "--home", str(home)), capture_stdout=True, capture_stderr=True, check=False,
        env=environment(more),
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(slots=True, kw_only=True)
class GatewayProcess:
    """A gateway that was started.

    Attributes:
        home: its home.
        process: the process itself.
        stdout, stderr: the files that it writes to.
        url: where it serves over TCP; empty until that was seen.
        client: sends the key of the home; usable once it serves.
    """

    home: Path
    process: trio.Process
    stdout: Path
    stderr: Path
    url: str = ""
    client: httpx2.AsyncClient = field(default_factory=lambda: httpx2.AsyncClient(timeout=30, trust_env=False))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def lines(self) -> list[str]:
        """What it said on stdout so far."""
        return self.stdout.read_text(encoding="utf-8", errors="replace").splitlines()

    @property
    def said(self) -> str:
        """Everything on stderr so far."""
        return self.stderr.read_text(encoding="utf-8", errors="replace")

    @property
    def log(self) -> str:
        """The log in the home, rotated files not included."""
        path = Home(self.home).log_file
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def shown_key(self) -> str | None:
        """The key that this start has shown, if it has."""
        found = [match[1] for match in map(MADE_KEY.match, self.lines) if match]
        return found[0] if found else None

    async def served(self) -> None:
        """Wait until it serves. Raises GatewayEnded if it ends instead, or does neither for long."""
        with trio.move_on_after(START_S):
            while not self._serves():
                if self.process.poll() is not None:
                    raise GatewayEnded(f"exit code {self.process.returncode}: {self.lines}\n{self.said}")
                await trio.sleep(LOOK_S)
            return
        raise GatewayEnded(f"does not serve after {START_S:g} s: {self.lines}\n{self.said}")

    def _serves(self) -> bool:
        """Whether all has been said that is said at a start; then the client is made ready."""
        lines = self.lines
        if not lines or not lines[-1].startswith("Talk to it"):
            return False
        self.url = next(match[1] for match in map(SERVES.match, lines) if match)
        self.client.base_url = httpx2.URL(self.url)
        kept = Home(self.home).api_key_file
        if kept.exists():
            self.client.headers["authorization"] = f"Bearer {kept.read_text(encoding='ascii').strip()}"
        return True

    async def chat(
        self, text: str, *, session: str | None = None, key: str | None = None, **body: Any
    ) -> httpx2.Response:
        """Ask for one chat completion.

        Args:
            text: the user's message.
            session: a stored session's id.
            key: an Idempotency-Key.
            body: further fields.
        """
        named = {"X-Hermes-Session-Id": session, "Idempotency-Key": key}
        headers = {name: value for name, value in named.items() if value is not None}
        base = {"model": "hermes", "messages": [{"role": "user", "content": text}]}
        return await self.client.post("/v1/chat/completions", json={**base, **body}, headers=headers)

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """One request over the control socket."""
        return await call(find_socket(Home(self.home)), method, path, body, timeout_s=30)

    async def status(self) -> dict[str, Any]:
        """What `hermes status` shows."""
        found: dict[str, Any] = await self.control("GET", "/control/status")
        return found

    async def metrics(self) -> dict[str, float]:
        """The plain numbers of `/metrics`."""
        text = (await self.client.get("/metrics")).raise_for_status().text
        pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def descriptors(self) -> dict[int, str]:
        """Descriptor -> the kernel's name of it (Linux)."""
        return _descriptors(self.pid)

    def tcp(self, *, port: int | None = None) -> Counter[str]:
        """How many of its TCP sockets are in each state (Linux); with `port` only those whose peer has it."""
        return _tcp_states(self.pid, port)

    async def terminate(self) -> int:
        """Ask it to stop by SIGTERM and wait for the end; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def kill(self) -> None:
        """Kill it and wait until the kernel has taken it away."""
        self.process.kill()
        await self.process.wait()


def _descriptors(pid: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except OSError:  # closed meanwhile
            continue
    return found


def _tcp_states(pid: int, port: int | None) -> Counter[str]:
    own = {target[8:-1] for target in _descriptors(pid).values() if target.startswith("socket:[")}
    states: Counter[str] = Counter()
    for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[9] in own and (port is None or int(fields[2].rpartition(":")[2], 16) == port):
            states[TCP_STATES.get(fields[3], fields[3])] += 1
    return states


@asynccontextmanager
async def open_gateway_process(
    home: Path,
    *arguments: str,
    more: Mapping[str, str] | None = None,
    wrap: Sequence[str] = (),
    wait: bool = True,
    port: int = 0,
) -> AsyncIterator[GatewayProcess]:
    """Start `hermes serve` for a home.

    Args:
        arguments: further arguments of `serve`.
        more: further variables of its environment.
        wrap: a command that executes the one it is given, such as a shell that sets a limit first.
        wait: return only when it serves.
        port: where it listens; 0 lets the system choose.

    Lifetime: the exit kills it, if it still runs, and waits for it.

    Raises:
        GatewayEnded: it did not come to serve.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    stdout, stderr = (home.parent / f"{home.name}.{name}.{secrets.token_hex(4)}" for name in ("stdout", "stderr"))
    words = command("serve", "--home", str(home), "--port", str(port), *arguments)
    with stdout.open("wb") as out, stderr.open("wb") as errors:
        process = await trio.lowlevel.open_process(
            [*wrap, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=environment(more)
        )
    gateway = GatewayProcess(home=home, process=process, stdout=stdout, stderr=stderr)
    try:
        async with gateway.client:
            if wait:
                await gateway.served()
            yield gateway
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
