"""Run by `test_connections_descriptors.py`: accounts whose every attempt holds real things and fails, in one process.

    python connections_under_limit.py DIRECTORY DESCRIPTORS WAY...

Prints what the process held after the fiftieth and after the last attempt.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import resource
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import trio
from trio.testing import MockClock

from hermes.connections import open_connections
from hermes.errors import PlatformUnavailable
from hermes.platform import Inbox
from hermes.settings import SupervisionConfig
from hermes.testing import Hold, LeakCensus
from hermes.testing.fake_accounts import FakeService, fake_host, hang

ATTEMPTS = 500
SETTLED = 50  # attempts after which a census is taken that the last one is compared with
SETTINGS = SupervisionConfig(backoff_base_s=0.01, backoff_max_s=0.02, open_timeout_s=5, send_grace_s=1)


class Ways:
    """Attempts that hold a file, a socket pair, a database and a thread for a moment, and then go wrong."""

    def __init__(self, directory: Path, ways: list[str]) -> None:
        self.service = FakeService(open_always=self.opens, close_always=self.closes, held=self.held)
        self.service.receive_always = self.receives
        self.kinds: Counter[str] = Counter()
        self.healed = False
        self.settled: LeakCensus | None = None
        self.last: LeakCensus | None = None
        self.over = trio.Event()
        self._ways = itertools.cycle(ways)
        self._way = ""
        self._path = directory / "account.db"

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        self._look()
        self._way = "" if self.healed else next(self._ways)
        self.kinds[self._way] += 1
        one, other = socket.socketpair()
        with (
            one,
            other,
            self._path.with_suffix(".txt").open("a") as file,
            closing(sqlite3.connect(self._path)) as database,
        ):
            file.write("attempt\n")
            database.execute("CREATE TABLE IF NOT EXISTS t (x)")
            await trio.to_thread.run_sync(gc.isenabled)
            # The stream is outside the nursery: who reads from it is gone before it is closed.
            async with trio.SocketStream(trio.socket.from_stdlib_socket(one)) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(self.beside, stream)
                yield
                nursery.cancel_scope.cancel()

    def _look(self) -> None:
        """A census at the beginning of an attempt, while it holds nothing yet."""
        if len(self.service.opened_at) == SETTLED + 1:
            self.settled = LeakCensus.take()
        elif len(self.service.opened_at) == ATTEMPTS + 1:
            self.last = LeakCensus.take()
            self.healed = True
            self.over.set()

    async def beside(self, stream: trio.SocketStream) -> None:
        if self._way == "in the background":
            await trio.sleep(0.5)
            raise PlatformUnavailable("the socket was closed")
        await stream.receive_some(1)

    async def opens(self) -> None:
        if self._way == "refuses":
            raise PlatformUnavailable("connection refused")
        if self._way == "drops":
            raise PlatformUnavailable("cut in the middle") from ConnectionResetError(104, "reset")
        if self._way == "hangs":
            await hang()

    async def closes(self) -> None:
        if self._way == "closes badly":
            raise OSError("close")

    async def receives(self, inbox: Inbox) -> None:
        if self._way in ("receive fails", "closes badly"):
            raise PlatformUnavailable("no answer")
        await trio.sleep_forever()

    def databases(self, census: LeakCensus) -> int:
        return sum(str(self._path) in name for name in census.descriptors.values())


async def main(directory: Path, ways: list[str], clock: MockClock) -> None:
    account = Ways(directory, ways)
    service = account.service
    with Hold(clock):
        async with (
            open_connections(
                {"a": service.plan()},
                settings=lambda: SETTINGS,
                host=fake_host,
                stop_by=lambda: float("inf"),
                store_ready=trio.lowlevel.checkpoint,
                rng=random.Random(1),
            ) as connections,
            connections.receiving(service.inbox_for, service.cursors_for),
        ):
            await account.over.wait()
            await connections.connected("a")
            await trio.sleep(2 * SETTINGS.healthy_after_s)
            worked = connections.table.snapshot(trio.current_time())[0].works
    settled, last = account.settled, account.last
    assert settled is not None
    assert last is not None
    account.kinds.pop("", None)
    print(
        json.dumps(
            {
                "attempts": len(service.opened_at) - 1, "kinds": account.kinds, "growth": last.growth_since(settled),
                "databases": [account.databases(settled), account.databases(last)], "worked_afterwards": worked,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    virtual = MockClock(autojump_threshold=0)
    trio.run(main, Path(sys.argv[1]), sys.argv[3:], virtual, clock=virtual)
