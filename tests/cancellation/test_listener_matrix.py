"""The listener, ended at each step of a scenario in each way: nothing is left, and what lives outside still works."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from hermes.http.listener import Limits, Server, open_server
from hermes.http.listener.exchange import Receive, Scope, Send
from hermes.testing import cancel_at_every_step
from hermes.testing.http1 import RawClient

LIMITS = Limits(drain_s=5, linger_s=1)
STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = 4_000_000


class Books:
    """What the application began and what it ended; the two must be equal whenever nothing is served."""

    def __init__(self) -> None:
        self.open = 0
        self.begun = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open += 1
        self.begun += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.open -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/large":
            await send({"type": "http.response.body", "body": b"x" * LARGE})
            return
        if scope["path"] == "/forever":
            await trio.sleep_forever()
        for number in range(2):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            await trio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b"%d" % size})


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[RawClient]:
    host, port = server.addresses[0]
    assert port is not None
    async with await trio.open_tcp_stream(host, port) as stream:
        yield RawClient(stream)


@pytest.mark.wall_clock_s(60)
async def test_a_server_with_its_clients_leaves_nothing(tmp_path: Path) -> None:
    books = Books()

    async def scenario() -> None:
        path = Path(tempfile.mkdtemp(dir=tmp_path)) / "sock"
        errors: list[BaseException] = []
        try:
            async with open_server(
                books.app, host="127.0.0.1", unix_path=path, limits=LIMITS, on_error=errors.append
            ) as server:
                async with connected(server) as client:
                    await client.send(STREAM + STREAM)
                    assert (await client.answer()).body == (await client.answer()).body == b"010"
                    await client.send(UPLOAD)
                    assert (await client.answer()).status == 100
                    assert (await client.ask(b"3\r\nabc\r\n0\r\n\r\n")).body == b"013"
                    assert (await client.ask(b"nonsense\r\n")).status == 400
        finally:
            assert not path.exists()
            assert books.open == 0
            assert errors == []

    report = await cancel_at_every_step(scenario, ways=("cancel", "deadline", "sibling"), seeds=(0, 1))
    assert report.steps > 30
    assert books.begun > report.runs


@pytest.mark.wall_clock_s(60)
async def test_a_drain_can_be_ended_at_each_of_its_steps(tmp_path: Path) -> None:
    """A reader that is slow, a handler that never ends and an idle client, while the server is being left."""
    books = Books()

    async def scenario() -> None:
        errors: list[BaseException] = []
        async with trio.open_nursery() as nursery:
            async with open_server(books.app, host="127.0.0.1", limits=LIMITS, on_error=errors.append) as server:

                async def ask(line: bytes, ready: trio.Event) -> None:
                    async with connected(server) as client:
                        await client.send(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                        ready.set()
                        with contextlib.suppress(trio.BrokenResourceError):
                            await client.rest()

                ready = [trio.Event() for _ in range(3)]
                for line, event in zip((b"GET /large", b"GET /forever", b"GET /"), ready, strict=True):
                    nursery.start_soon(ask, line, event)
                for event in ready:
                    await event.wait()
                while server.statistics().requests < 3:
                    await trio.lowlevel.checkpoint()
                server.drain_by = trio.current_time()
            assert books.open == 0
            assert server.statistics().open == 0
            nursery.cancel_scope.cancel()
        assert errors == []

    report = await cancel_at_every_step(scenario, ways=("cancel", "sibling"))
    assert report.runs > 30


@pytest.mark.wall_clock_s(60)
async def test_a_client_that_ends_at_any_step_disturbs_no_other() -> None:
    """The server lives outside the scenario: each handler of a client that went is ended, and the next is served."""
    books = Books()
    errors: list[BaseException] = []
    async with open_server(books.app, host="127.0.0.1", limits=LIMITS, on_error=errors.append) as server:

        async def scenario() -> None:
            async with connected(server) as client:
                await client.send(STREAM + b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await client.answer()).body == b"010"
                assert len((await client.answer()).body) == LARGE
                await client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
                await client.send(b"67890")
                assert (await client.answer()).body == b"0110"

        async def check() -> None:
            while books.open or server.statistics().open:
                await trio.lowlevel.checkpoint()
            async with connected(server) as client:
                assert (await client.ask(STREAM)).body == b"010"
            while server.statistics().open:
                await trio.lowlevel.checkpoint()

        report = await cancel_at_every_step(scenario, check=check)
    assert report.runs > 10
    assert errors == []
