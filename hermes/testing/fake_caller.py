"""A program that calls webhooks: it signs what it sends, and sends it again until it is taken. Over one socket a call."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import trio

ANSWER_S = 60.0
Sign = Callable[[bytes, str], Mapping[str, str]]  # a body and the call's name to the headers that prove both


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP answer, and its fields if it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(eq=False, slots=True)
class FakeCaller:
    """Calls wait in line and are made one after the other, each until it is answered with a 2xx.

    Args:
        sign: the headers of a call.

    Attributes:
        url: where calls go; while it is None they wait.
        taken: names of the calls that were answered with a 2xx.
        calls: the status of each call that was made, 0 for none.
        retry_s: until a call is made again.
        twice: each call is made once more after it was taken.
    """

    sign: Sign
    url: str | None = None
    retry_s: float = 0.01
    longest_retry_s: float = 60.0
    twice: bool = False
    waiting: deque[tuple[str, bytes]] = field(default_factory=deque)
    taken: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    _changed: trio.Event = field(default_factory=trio.Event)

    def post(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something happened."""
        self.waiting.append((name, json.dumps(fields).encode()))
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until something is posted, called, or moved."""
        await self._changed.wait()

    async def run(self) -> None:
        """Make the calls, for ever."""
        failures = 0
        while True:
            if self.url is None or not self.waiting:
                await self.changed()
                continue
            name, body = self.waiting[0]
            status = 0
            with trio.move_on_after(ANSWER_S), suppress(OSError, trio.BrokenResourceError):
                for _ in range(2 if self.twice else 1):
                    answer = await call(self.url, body, self.sign(body, name))
                    status = answer.status if answer is not None else 0
            self.calls.append(status)
            if 200 <= status < 300:
                self.waiting.popleft()
                self.taken.append(name)
                failures = 0
            self.notify()
            if not 200 <= status < 300:
                await trio.sleep(min(self.retry_s * 2.0 ** min(failures, 30), self.longest_retry_s))
                failures += 1


async def call(url: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST") -> Answered | None:
    """One call over a socket of its own; None if no whole answer came."""
    parts = urlsplit(url)
    lines = [
        f"{method} {parts.path} HTTP/1.1",
        f"host: {parts.netloc}",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if "content-type" not in headers:
        lines.append("content-type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 80) as stream:
        await stream.send_all("\r\n".join((*lines, "", "")).encode("latin-1") + body)
        data = b""
        while piece := await stream.receive_some(65_536):
            data += piece
    return read_answer(data)


def read_answer(data: bytes) -> Answered | None:
    """A whole answer with a length; None for anything else."""
    head, end, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/1\.1 ([0-9]{3}) ", first)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not end or status is None or len(body) != int(headers.get("content-length", -1)):
        return None
    return Answered(int(status[1]), headers, body)
