"""HTTP for platforms when it fails: whether anything may have left, what an upload needs, and what an ending leaves alone."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpcore2
import pytest
import trio
import trio.testing

from hermes.errors import PlatformProtocolError, SendRejected, Unreachable
from hermes.events import OutboundFile
from hermes.net import make_http_factory, open_network
from hermes.net.backend import NetBackend
from hermes.net.streams import _secured
from hermes.platform import HttpClient, UploadPart

Serve = Callable[[trio.SocketStream], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)  # long enough for a loopback exchange


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """The port of a server that does this with each connection."""

    async def guarded(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                await serve(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, guarded, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(**more: Any) -> AsyncIterator[HttpClient]:
    async with open_network() as network, make_http_factory(network)(**more) as found:
        yield found


def says(answer: bytes) -> Serve:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(answer)

    return serve


class NoNames(trio.abc.HostnameResolver):
    """DNS that fails."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def getnameinfo(self, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


async def failing(http: HttpClient, url: str, **more: Any) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await http.request("POST", url, content=b"{}", timeout_s=20, **more)
    assert "TOKEN" not in str(caught.value)
    assert "password" not in str(caught.value)
    return caught.value


async def test_a_name_that_cannot_be_resolved_was_not_sent() -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    async with client() as http:
        error = await failing(http, "http://service.example/botTOKEN/x")
    assert not error.sent
    assert "service.example" in str(error)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", ".example"])
async def test_what_can_be_no_name_was_not_sent(host: str) -> None:
    async with client() as http:
        error = await failing(http, f"https://{host}/botTOKEN/x")
    assert not error.sent


async def test_a_socket_that_takes_no_options_is_closed() -> None:
    class Odd(NetBackend):
        def _configure(self, stream: trio.SocketStream) -> None:
            dialled.append(stream)
            raise OSError(errno.EINVAL, "Invalid argument")  # as macOS says of a connection that was reset already

    dialled = list[trio.SocketStream]()
    async with serving(says(OK)) as port:
        with pytest.raises(httpcore2.ConnectError):
            await Odd().connect_tcp("127.0.0.1", port)
    assert [stream.socket.fileno() for stream in dialled] == [-1]


async def test_a_name_that_tls_does_not_take_leaves_no_socket() -> None:
    async with serving(says(OK)) as port:
        stream = await NetBackend().connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore2.ConnectError):
            await stream.start_tls(ssl.create_default_context(), server_hostname=".example", timeout=5)
        assert stream.get_extra_info("socket").fileno() < 0
        raw = await NetBackend().dial("127.0.0.1", port)
        with pytest.raises(ValueError, match="server_hostname"):
            await _secured(raw, ".example", ssl.create_default_context())
        assert raw.socket.fileno() < 0


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", b"", b"SSH-2.0\r\n\r\n"],
    ids=["refuses", "login", "closes", "babbles"],
)  # fmt: skip
async def test_a_proxy_that_gives_no_tunnel_was_not_sent_anything_of_the_request(answer: bytes) -> None:
    async with (
        serving(says(answer)) as port,
        client(proxy=f"http://user:password@127.0.0.1:{port}") as http,
    ):
        assert not (await failing(http, "https://service.example/botTOKEN/x")).sent


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_is_not_there_was_not_sent_anything(scheme: str) -> None:
    async with serving(says(b"")) as port:
        pass
    async with client(proxy=f"{scheme}://127.0.0.1:{port}") as http:
        assert not (await failing(http, "https://service.example/botTOKEN/x")).sent


async def test_behind_a_tunnel_what_begins_to_leave_may_have_been_sent() -> None:
    async def proxy(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await stream.receive_some(65_536)  # the greeting of TLS, and nobody answers it

    async with serving(proxy) as port, client(proxy=f"http://127.0.0.1:{port}") as http:
        assert not (await failing(http, "https://service.example/botTOKEN/x")).sent
    async with serving(says(b"")) as port, client(proxy=f"http://127.0.0.1:{port}") as http:
        assert (await failing(http, "http://service.example/botTOKEN/x")).sent  # plain HTTP goes to the proxy as it is


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_tunnel_in_which_tls_fails_leaves_its_place_in_the_pool(cancelled: bool) -> None:
    asked = trio.Event()

    async def proxy(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await stream.receive_some(65_536)  # the greeting of TLS
        asked.set()
        if cancelled:
            await trio.sleep_forever()

    async with serving(proxy) as port, client(proxy=f"http://127.0.0.1:{port}", max_connections=1) as http:
        for _ in range(3):
            asked = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(failing, http, "https://service.example/botTOKEN/x")
                await asked.wait()
                if cancelled:
                    nursery.cancel_scope.cancel()


async def test_what_speaks_no_tls_was_not_sent_anything() -> None:
    async with serving(says(b"HTTP/1.1 400 This is HTTPS\r\n\r\n")) as port, client() as http:
        assert not (await failing(http, f"https://127.0.0.1:{port}/botTOKEN/x")).sent


async def test_who_waits_for_a_connection_in_vain_has_sent_nothing(clock: trio.testing.MockClock) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            pass

    async with serving(silent) as port, client(max_connections=1) as http:
        errors: dict[str, Unreachable] = {}

        async def ask(name: str) -> None:
            errors[name] = await failing(http, f"http://127.0.0.1:{port}/botTOKEN/{name}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, "second")
    assert errors["first"].sent
    assert not errors["second"].sent


@pytest.mark.parametrize(
    "url", ["http://[::1", "https://example.org/\x00\n", "service.example/x", "gopher://a/b", "", "http:///x"]
)
async def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    async with client() as http:
        with pytest.raises(PlatformProtocolError):
            await http.request("GET", url, timeout_s=5)


async def test_a_body_that_cannot_be_decoded_is_no_answer() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"
    async with serving(says(answer)) as port, client() as http:
        with pytest.raises(PlatformProtocolError, match="cannot be decoded"):
            await http.request("GET", f"http://127.0.0.1:{port}", timeout_s=5)


def upload(path: Path, size: int) -> tuple[UploadPart, ...]:
    file = OutboundFile(path=path, name="f", media_type="a/b", size_bytes=size)
    return (UploadPart(name="f", content=file, file_name="f", media_type="a/b"),)


async def test_a_file_that_is_not_what_was_said_reaches_nobody(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    connections = 0

    async def counts(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1

    async with serving(counts) as port, client() as http:
        for parts in (upload(path, 5), upload(path, 3), upload(tmp_path / "none", 4), upload(tmp_path, 4)):
            with pytest.raises(SendRejected):
                await http.request("POST", f"http://127.0.0.1:{port}", parts=parts, timeout_s=5)
    assert connections == 0


async def test_an_upload_that_is_cut_may_have_been_sent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)

    async def cuts(stream: trio.SocketStream) -> None:
        await stream.receive_some(100_000)

    async with serving(cuts) as port, client() as http:
        with pytest.raises(Unreachable) as caught:
            await http.request("POST", f"http://127.0.0.1:{port}", parts=upload(path, 20_000_000), timeout_s=20)
    assert caught.value.sent


async def test_a_cancelled_upload_closes_its_own_connection_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)
    uploading, ended, asked, go_on = trio.Event(), trio.Event(), trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        if (await stream.receive_some(20)).startswith(b"POST"):
            uploading.set()
            await trio.testing.wait_all_tasks_blocked()  # the upload fills the buffers and waits
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some(65_536):
                    pass
            ended.set()
        else:
            asked.set()
            await go_on.wait()
            await stream.send_all(OK)

    async with serving(serve) as port, client() as http, trio.open_nursery() as nursery:
        other: list[bytes] = []

        async def ask() -> None:
            other.append((await http.request("GET", f"http://127.0.0.1:{port}", timeout_s=20)).body)

        nursery.start_soon(ask)
        await asked.wait()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:

                async def send() -> None:
                    await http.request("POST", f"http://127.0.0.1:{port}", parts=upload(path, 20_000_000), timeout_s=20)

                inner.start_soon(send)
                await uploading.wait()
                scope.cancel()
        await ended.wait()
        assert not other
        go_on.set()
        while not other:
            await trio.testing.wait_all_tasks_blocked()
    assert other == [b"hi"]


async def test_a_stream_stops_where_its_reader_stops_and_dies_with_its_peer() -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await stream.receive_some(1)

    async def dies(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    async with client() as http:
        async with serving(endless) as port:
            async with http.stream("GET", f"http://127.0.0.1:{port}", timeout_s=5) as (answer, pieces):
                assert (answer.status, await anext(aiter(pieces))) == (200, b"abc")
        async with serving(dies) as port:
            with pytest.raises(Unreachable) as caught:
                async with http.stream("GET", f"http://127.0.0.1:{port}", timeout_s=5) as (_, pieces):
                    assert [piece async for piece in pieces] == []
    assert caught.value.sent
