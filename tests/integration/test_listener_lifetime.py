"""How the listener begins and ends: binding, drain, deadlines, cancellation, the file of a UNIX socket."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hermes.http.listener import Application, Limits, Server, open_server
from hermes.http.listener.exchange import Receive, Scope, Send
from hermes.http.listener.sockets import bind
from hermes.testing import no_leaks, silent_port
from hermes.testing.http1 import RawClient, Truncated

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def reply(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Gated:
    """An application that answers when it is let: `/stream` has sent its first piece by then, others nothing."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.go_on = trio.Event()
        self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/quick":
            await reply(send, b"quick")
            return
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.begun.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"last"})
        else:
            await reply(send, b"done")


async def connect(server: Server) -> trio.SocketStream:
    host, port = server.addresses[0]
    assert port is not None
    return await trio.open_tcp_stream(host, port)


def request(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_leaving_finishes_what_is_in_flight_and_closes_what_is_idle_at_once() -> None:
    app = Gated()
    leaving, left = trio.Event(), trio.Event()
    async with no_leaks(), trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[Server]) -> None:
            async with open_server(app, host="127.0.0.1") as server:
                task_status.started(server)
                await leaving.wait()
            left.set()

        server = await nursery.start(serve)
        async with await connect(server) as one, await connect(server) as two, await connect(server) as three:
            idle, waiting, streaming = RawClient(one), RawClient(two), RawClient(three)
            assert (await idle.ask(request(b"/quick"))).status == 200
            await waiting.send(request(b"/wait"))
            await streaming.send(request(b"/stream"))
            await streaming.head()
            await app.begun.wait()
            while server.statistics().requests < 3:
                await trio.lowlevel.checkpoint()
            leaving.set()
            assert await idle.rest() == b""
            assert not left.is_set()
            with pytest.raises(OSError):
                await connect(server)
            app.go_on.set()
            answer = await waiting.answer()
            assert (answer.body, answer.headers["connection"]) == (b"done", "close")
            assert [await streaming.chunk() for _ in range(3)] == [b"first", b"last", b""]
            assert await streaming.rest() == b""
            await left.wait()
    assert app.cancelled == 0
    assert server.statistics().cut == 0


async def test_a_request_on_its_way_when_the_drain_begins_is_served() -> None:
    app = Gated()
    async with trio.open_nursery() as nursery:
        leaving = trio.Event()

        async def serve(task_status: trio.TaskStatus[Server]) -> None:
            async with open_server(app, host="127.0.0.1") as server:
                task_status.started(server)
                await leaving.wait()

        server = await nursery.start(serve)
        async with await connect(server) as stream:
            client = RawClient(stream)
            await client.send(b"GET /quick HTTP/1.1\r\n")
            while server.statistics().idle or not server.statistics().open:
                await trio.lowlevel.checkpoint()
            leaving.set()
            await trio.testing.wait_all_tasks_blocked()
            assert server.draining
            answer = await client.ask(b"Host: a\r\n\r\n")
            assert (answer.body, answer.headers["connection"]) == (b"quick", "close")


@pytest.mark.parametrize("path", [b"/wait", b"/stream"])
async def test_what_is_not_done_by_the_deadline_is_cut_and_told_so(path: bytes) -> None:
    app = Gated()
    async with no_leaks(), trio.open_nursery() as nursery:
        leaving = trio.Event()

        async def serve(task_status: trio.TaskStatus[Server]) -> None:
            async with open_server(app, host="127.0.0.1", limits=Limits(drain_s=10_000)) as server:
                task_status.started(server)
                await leaving.wait()

        server = await nursery.start(serve)
        async with await connect(server) as stream:
            client = RawClient(stream)
            await client.send(request(path))
            await app.begun.wait()
            leaving.set()
            await trio.testing.wait_all_tasks_blocked()
            assert app.cancelled == 0
            server.drain_by = trio.current_time()  # the one deadline may be set or moved while it drains
            if path == b"/wait":
                answer = await client.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            else:
                with pytest.raises(Truncated):
                    await client.answer()
    assert app.cancelled == 1
    assert server.statistics().cut == 1


async def test_a_deadline_that_has_passed_leaves_no_time() -> None:
    app = Gated()
    async with trio.open_nursery() as nursery:

        async def ask(server: Server) -> None:
            async with await connect(server) as stream:
                client = RawClient(stream)
                assert (await client.ask(GET)).status == 503

        async with open_server(app, host="127.0.0.1") as server:
            nursery.start_soon(ask, server)
            await app.begun.wait()
            server.drain_by = trio.current_time()
    assert app.cancelled == 1


async def test_a_cancellation_from_outside_ends_a_drain_at_once() -> None:
    app = Gated()
    async with no_leaks(), trio.open_nursery() as nursery:
        root = trio.CancelScope()
        leaving, left = trio.Event(), trio.Event()

        async def serve(task_status: trio.TaskStatus[Server]) -> None:
            with root:
                async with open_server(app, host="127.0.0.1", limits=Limits(drain_s=10_000)) as server:
                    task_status.started(server)
                    await leaving.wait()
            left.set()

        server = await nursery.start(serve)
        async with await connect(server) as stream:
            client = RawClient(stream)
            await client.send(GET)
            await app.begun.wait()
            leaving.set()
            await trio.testing.wait_all_tasks_blocked()
            assert not left.is_set()
            root.cancel()
            await left.wait()
            assert (await client.answer()).status == 503
    assert app.cancelled == 1


async def test_an_error_in_the_block_ends_everything_and_comes_out() -> None:
    app = Gated()
    async with no_leaks():
        with pytest.RaisesGroup(KeyError):
            async with open_server(app, host="127.0.0.1") as server:
                async with await connect(server) as stream:
                    await stream.send_all(GET)
                    await app.begun.wait()
                    raise KeyError
    assert app.cancelled == 1


async def test_a_port_that_is_taken_is_the_callers_oserror_and_leaves_nothing(tmp_path: Path) -> None:
    async with no_leaks():
        with silent_port() as port, pytest.raises(OSError, match=r"(?i)in use"):
            async with open_server(Gated(), host="127.0.0.1", port=port, unix_path=tmp_path / "sock"):
                pass
        assert os.listdir(tmp_path) == []
        with pytest.raises(OSError, match=r"(?i)no such file"):
            async with open_server(Gated(), host="127.0.0.1", unix_path=tmp_path / "missing" / "sock"):
                pass


class TwoAddresses(trio.abc.HostnameResolver):
    """Every name has two loopback addresses (where the system has the second, which Linux does)."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port or 0))
            for address in ("127.0.0.1", "127.0.0.2")
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise OSError("not asked for here")


async def test_all_addresses_of_a_name_get_one_port() -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    async with open_server(Gated(), host="gateway.test") as server:
        assert len(server.addresses) == (2 if sys.platform == "linux" else 1)
        assert len({port for _, port in server.addresses}) == 1
        async with await connect(server) as stream:
            assert (await RawClient(stream).ask(request(b"/quick"))).body == b"quick"


async def test_a_client_that_vanishes_is_looked_for() -> None:
    with await bind("127.0.0.1", 0, None, backlog=5) as bound:
        host, port = bound.addresses[0]
        async with await trio.open_tcp_stream(host, port or 0), await bound.listeners[0].accept() as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@asynccontextmanager
async def unix_client(path: Path) -> AsyncIterator[RawClient]:
    async with await trio.open_unix_socket(path) as stream:
        yield RawClient(stream)


@pytest.mark.parametrize("mask", [0o000, 0o277])
async def test_a_unix_socket_is_its_owners_only_and_goes_with_the_server(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "hermes.sock"
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await reply(send, b"hello")

    async with no_leaks():
        with umask(mask):
            context = open_server(app, unix_path=path)
            server = await context.__aenter__()
        assert server.addresses == ((str(path), None),)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with unix_client(path) as client:
            assert (await client.ask(GET)).body == b"hello"
        await context.__aexit__(None, None, None)
        assert not path.exists()
    assert scopes[0]["server"] == (str(path), None)
    assert scopes[0]["client"] is None


async def test_both_kinds_of_socket_are_served_together(tmp_path: Path) -> None:
    async with open_server(Gated(), host="127.0.0.1", unix_path=tmp_path / "sock") as server:
        async with await connect(server) as stream, unix_client(tmp_path / "sock") as client:
            assert (await RawClient(stream).ask(request(b"/quick"))).body == b"quick"
            assert (await client.ask(request(b"/quick"))).body == b"quick"


async def test_a_file_that_took_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hermes.sock"
    async with open_server(Gated(), unix_path=path):
        path.unlink()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
            other.bind(str(path))
    assert path.exists()


async def test_a_socket_file_that_is_there_is_the_callers_oserror(tmp_path: Path) -> None:
    path = tmp_path / "hermes.sock"
    path.touch()
    with pytest.raises(OSError, match=r"(?i)in use"):
        async with open_server(Gated(), host="127.0.0.1", unix_path=path):
            pass
    assert path.exists()


async def test_one_connection_too_many_closes_the_longest_idle_one() -> None:
    async with open_server(Gated(), host="127.0.0.1", limits=Limits(max_connections=2)) as server:
        async with await connect(server) as one, await connect(server) as two:
            first, second = RawClient(one), RawClient(two)
            assert (await first.ask(request(b"/quick"))).status == 200
            assert (await second.ask(request(b"/quick"))).status == 200
            async with await connect(server) as three:
                assert (await RawClient(three).ask(request(b"/quick"))).status == 200
                assert await first.rest() == b""
                assert (await second.ask(request(b"/quick"))).status == 200
            assert server.statistics().evicted == 1


async def test_when_no_connection_is_idle_one_more_is_answered_503() -> None:
    app = Gated()
    async with open_server(app, host="127.0.0.1", limits=Limits(max_connections=1)) as server:
        async with await connect(server) as one:
            first = RawClient(one)
            await first.send(GET)
            await app.begun.wait()
            async with await connect(server) as two:
                second = RawClient(two)
                answer = await second.ask(GET)
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert await second.rest() == b""
            app.go_on.set()
            assert (await first.answer()).status == 200
            assert server.statistics().turned_away == 1


async def test_two_servers_do_not_know_of_each_other() -> None:
    apps: list[Application] = [Gated(), Gated()]
    async with open_server(apps[0], host="127.0.0.1") as one:
        async with open_server(apps[1], host="127.0.0.1") as two:
            async with await connect(two) as stream:
                assert (await RawClient(stream).ask(request(b"/quick"))).status == 200
        async with await connect(one) as stream:
            assert (await RawClient(stream).ask(request(b"/quick"))).status == 200
        assert one.statistics().requests == two.statistics().requests == 1
