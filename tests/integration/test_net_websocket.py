"""WebSockets as platforms get them, against a real server on the loopback: messages, ends, refusals, proxies, TLS."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from hermes.errors import Unreachable, WebSocketClosed
from hermes.net import open_network
from hermes.net.streams import make_stream_factory
from hermes.net.websocket import make_websocket_factory
from hermes.platform import WebSocketFactory
from hermes.testing import no_leaks, refusing_port, silent_port
from hermes.testing.websocket_server import open_websocket_server

Handler = Callable[[WebSocketConnection], Awaitable[None]]


@dataclass(slots=True)
class Peer:
    """A WebSocket server and what it saw."""

    handler: Handler
    port: int = 0
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    reject: tuple[int, bytes] | None = None
    ends: list[tuple[int, str]] = field(default_factory=list)

    async def serve(self, request: WebSocketRequest) -> None:
        self.paths.append(request.path)
        self.headers.append({name.decode().lower(): value.decode() for name, value in request.headers})
        if self.reject is not None:
            await request.reject(self.reject[0], body=self.reject[1])
            return
        connection = await request.accept()
        try:
            await self.handler(connection)
        except ConnectionClosed as closed:
            reason: Any = closed.reason
            self.ends.append((reason.code, reason.reason or ""))


async def echo(connection: WebSocketConnection) -> None:
    while True:
        await connection.send_message(await connection.get_message())


@asynccontextmanager
async def open_peer(
    handler: Handler = echo, context: ssl.SSLContext | None = None, reject: tuple[int, bytes] | None = None
) -> AsyncIterator[Peer]:
    peer = Peer(handler, reject=reject)
    async with open_websocket_server(peer.serve, context) as peer.port:
        yield peer


@asynccontextmanager
async def sockets(tls: ssl.SSLContext | None = None, close_s: float = 2.0) -> AsyncIterator[WebSocketFactory]:
    async with no_leaks(), open_network(tls=tls) as network:
        yield make_websocket_factory(network, close_s=close_s)


async def test_a_ping_is_answered_and_fails_when_the_peer_is_gone() -> None:
    async with open_peer() as peer, sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}/") as socket:
            await socket.ping()
            await socket.send("still there")
            assert await socket.receive() == "still there"
            await socket.close()
            with pytest.raises(WebSocketClosed):
                await socket.ping()


async def test_messages_go_both_ways_as_they_were_sent() -> None:
    async with open_peer() as peer, sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}/a?b=c", headers={"X-Key": "k"}) as socket:
            for message in ("text ✓", b"bytes\0", "", "x" * 300_000):
                await socket.send(message)
                assert await socket.receive() == message
        assert peer.paths == ["/a?b=c"]
        assert peer.headers[0]["x-key"] == "k"
    assert peer.ends == [(1000, "")]


async def test_one_task_sends_while_another_receives() -> None:
    async with open_peer() as peer, sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}") as socket, trio.open_nursery() as nursery:

            async def send() -> None:
                for number in range(200):
                    await socket.send(str(number))

            nursery.start_soon(send)
            assert [await socket.receive() for _ in range(200)] == [str(number) for number in range(200)]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4004, "Authentication failed."), (1012, "again")])
async def test_a_close_by_the_peer_is_named_with_code_and_reason(code: int, reason: str) -> None:
    async def last_words(connection: WebSocketConnection) -> None:
        await connection.send_message("bye")
        await connection.aclose(code, reason or None)

    async with open_peer(last_words) as peer, sockets() as connect:
        with pytest.raises(WebSocketClosed) as caught:
            async with connect(f"ws://127.0.0.1:{peer.port}") as socket:
                assert await socket.receive() == "bye"
                for _ in range(2):
                    with pytest.raises(WebSocketClosed):
                        await socket.receive()
                await socket.send("too late")
        assert (caught.value.code, caught.value.reason) == (code, reason)


async def test_a_peer_that_is_gone_is_1006() -> None:
    async def cut(connection: WebSocketConnection) -> None:
        await trio.aclose_forcefully(connection._stream)

    async with open_peer(cut) as peer, sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}") as socket:
            with pytest.raises(WebSocketClosed) as caught:
                await socket.receive()
        assert caught.value.code == 1006


async def test_our_close_carries_its_code_and_afterwards_nothing_goes() -> None:
    async with open_peer() as peer, sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}") as socket:
            await socket.close(4000, "é" * 100)
            await socket.close(1000)
            for use in (socket.receive(), socket.send("x")):
                with pytest.raises(WebSocketClosed) as caught:
                    await use
                assert caught.value.code == 4000
    assert peer.ends == [(4000, "é" * 61)]


async def test_a_message_that_is_too_large_ends_the_connection() -> None:
    async def large(connection: WebSocketConnection) -> None:
        await connection.send_message("x" * 1001)
        await connection.get_message()

    async with open_peer(large) as peer, sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}", max_message_bytes=1000) as socket:
            with pytest.raises(WebSocketClosed) as caught:
                await socket.receive()
        assert caught.value.code == 1009


async def test_errors_of_the_body_come_out_bare_and_close_the_socket() -> None:
    class Mine(Exception):
        pass

    async with open_peer() as peer, sockets() as connect:
        with pytest.raises(Mine) as caught:
            async with connect(f"ws://127.0.0.1:{peer.port}"):
                raise Mine
        assert not isinstance(caught.value, BaseExceptionGroup)
    assert peer.ends == [(1000, "")]


async def test_a_cancelled_body_still_closes_with_its_code() -> None:
    async with open_peer() as peer, sockets() as connect:
        with trio.CancelScope() as scope:
            async with connect(f"ws://127.0.0.1:{peer.port}") as socket:
                try:
                    scope.cancel()
                    await socket.receive()
                finally:
                    await socket.close(4321, "later")  # noqa: ASYNC102  # shielded inside, which is tested
        assert scope.cancelled_caught
    assert peer.ends == [(4321, "later")]


async def test_a_cancelled_send_is_not_followed_by_a_close_frame_inside_its_frame() -> None:
    release = trio.Event()

    async def deaf(connection: WebSocketConnection) -> None:
        connection._reader_running = False
        await release.wait()

    async with open_peer(deaf) as peer, sockets() as connect:
        with trio.CancelScope() as scope:
            async with connect(f"ws://127.0.0.1:{peer.port}") as socket, trio.open_nursery() as nursery:

                @nursery.start_soon
                async def send() -> None:
                    await socket.send(b"x" * 30_000_000)

                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        release.set()


async def test_a_peer_that_does_not_answer_a_close_is_left_within_the_bound() -> None:
    async def deaf(connection: WebSocketConnection) -> None:
        connection._reader_running = False
        await release.wait()

    release = trio.Event()
    async with open_peer(deaf) as peer, sockets(close_s=0.05) as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}") as socket:
            await socket.send("x")
        with pytest.raises(WebSocketClosed):
            await socket.receive()
        release.set()


async def test_a_refused_handshake_says_what_was_answered() -> None:
    async with open_peer(reject=(401, b"bad token")) as peer, sockets() as connect:
        with pytest.raises(Unreachable, match=r"HTTP 401: bad token") as caught:
            async with connect(f"ws://127.0.0.1:{peer.port}"):
                pass
        assert caught.value.sent is False


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended the connection"),
        (b"HTTP/1.1 101 Swi", "ended the connection"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "ended the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "HTTP 200"),
        (b"HTTP/1.1 403 No\r\ncontent-length: 900000\r\n\r\n" + b"x" * 900_000, "too much"),
    ],
)
async def test_what_is_no_handshake_is_named(answer: bytes, words: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1000)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with sockets() as connect:
            with pytest.raises(Unreachable, match=words) as caught:
                async with connect(f"ws://127.0.0.1:{port}"):
                    pass
            assert caught.value.sent is False
        nursery.cancel_scope.cancel()


async def test_nobody_and_silence_are_named() -> None:
    async with sockets() as connect:
        with refusing_port() as port, pytest.raises(Unreachable, match="refused"):
            async with connect(f"ws://127.0.0.1:{port}"):
                pass
        with silent_port() as port, pytest.raises(Unreachable, match="did not answer"):
            async with connect(f"ws://127.0.0.1:{port}", open_timeout_s=0.05):
                pass
        for url in ("http://x/", "ws://", "ws://h:99999/", "nonsense", "ws://h/\n"):
            with pytest.raises(Unreachable, match="no URL of a WebSocket"):
                async with connect(url):
                    pass


# --- proxies and TLS -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_proxy(answer: bytes = b"HTTP/1.1 200 Go\r\n\r\n") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy that opens tunnels to wherever it is asked."""
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        async with stream:
            while not head.endswith(b"\r\n\r\n"):
                head += await stream.receive_some(1)
            seen.append(head)
            await stream.send_all(answer)
            if not answer.endswith(b"\r\n\r\n") or b" 200 " not in answer:
                return
            port = int(head.split(b" ")[1].rpartition(b":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as inner, trio.open_nursery() as nursery:

                async def pipe(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                    try:
                        async for data in source:
                            await sink.send_all(data)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        pass
                    nursery.cancel_scope.cancel()

                nursery.start_soon(pipe, stream, inner)
                nursery.start_soon(pipe, inner, stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1], seen
        nursery.cancel_scope.cancel()


async def test_through_an_http_proxy_with_a_password() -> None:
    async with open_peer() as peer, http_proxy() as (port, seen), sockets() as connect:
        async with connect(f"ws://127.0.0.1:{peer.port}", proxy=f"http://u:p%40@127.0.0.1:{port}") as socket:
            await socket.send("hi")
            assert await socket.receive() == "hi"
    assert seen[0].startswith(f"CONNECT 127.0.0.1:{peer.port} HTTP/1.1\r\n".encode())
    assert base64.b64encode(b"u:p@") in seen[0]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 No\r\n\r\n", b"SOCKS?\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 200 " + b"x" * 20_000]
)
async def test_a_proxy_that_opens_no_tunnel_is_named(answer: bytes) -> None:
    async with http_proxy(answer) as (port, _), sockets() as connect:
        with refusing_port() as nobody, pytest.raises(Unreachable, match="through the proxy"):
            async with connect(f"ws://127.0.0.1:{nobody}", proxy=f"http://127.0.0.1:{port}", open_timeout_s=5):
                pass


async def test_a_tunnel_leaves_the_first_bytes_of_the_other_end() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"* OK IMAP")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, greet, 0)
        port = listeners[0].socket.getsockname()[1]
        async with http_proxy() as (proxy, _), no_leaks(), open_network() as network:
            connect = make_stream_factory(network)
            async with connect("127.0.0.1", port, tls=False, proxy=f"http://127.0.0.1:{proxy}") as stream:
                data = b""
                while len(data) < 9:
                    data += await stream.receive_some()
            assert data == b"* OK IMAP"
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context around a certificate for 127.0.0.1 made now."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command is not installed: TLS is not tested")
    folder: Path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"),
         "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


async def test_wss_direct_and_through_a_proxy(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, trusting = contexts
    async with open_peer(context=server) as peer, http_proxy() as (port, _):
        async with sockets(trusting) as connect:
            for proxy in (None, f"http://127.0.0.1:{port}"):
                async with connect(f"wss://127.0.0.1:{peer.port}/", proxy=proxy) as socket:
                    await socket.send("hi")
                    assert await socket.receive() == "hi"
        async with sockets() as connect:
            with pytest.raises(Unreachable, match=r"tls: .*certificate"):
                async with connect(f"wss://127.0.0.1:{peer.port}/"):
                    pass
    assert peer.ends == [(1000, ""), (1000, "")]


async def test_a_stream_with_tls_talks(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, trusting = contexts

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            await stream.send_all(await stream.receive_some() + b"!")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, serve, 0, server, https_compatible=True))
        port = listeners[0].transport_listener.socket.getsockname()[1]
        async with no_leaks(), open_network(tls=trusting) as network:
            async with make_stream_factory(network)("127.0.0.1", port, tls=True) as stream:
                await stream.send_all(b"hi")
                assert await stream.receive_some() == b"hi!"
        nursery.cancel_scope.cancel()


async def test_a_stream_that_cannot_be_opened_is_unreachable() -> None:
    async with no_leaks(), open_network() as network:
        connect = make_stream_factory(network)
        with refusing_port() as port, pytest.raises(Unreachable, match="refused") as caught:
            async with connect("127.0.0.1", port, tls=False):
                pass
        assert caught.value.sent is False
        with silent_port() as port, pytest.raises(Unreachable, match="longer than"):
            async with connect("127.0.0.1", port, tls=True, open_timeout_s=0.05):
                pass
