"""Proxies by setting, against small real ones on the loopback: HTTP forwarding, HTTP CONNECT, SOCKS5; and TLS end to end."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.agent.calls import Deadlines, ModelRequest
from hermes.agent.model import ModelDoor, open_model
from hermes.errors import ModelUnavailable
from hermes.messages import Entry, user
from hermes.net import open_network
from hermes.net.backend import keepalive_options
from hermes.net.socks import SocksError, socks5_connect
from hermes.settings import Endpoint, ModelConfig
from hermes.testing import no_leaks, refusing_port
from hermes.testing.fake_model import FakeModel, open_fake_model

HI = ModelRequest(system="", history=[Entry(user("hi"))])


@dataclass(slots=True)
class Proxy:
    """What a small proxy was asked, and how it should answer."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    auth: tuple[bytes, bytes] | None = None
    seen_auth: list[str] = field(default_factory=list)
    refuse: bool = False
    target: int = 0  # where everything leads, whatever was asked


async def _pipe(source: trio.abc.Stream, sink: trio.SocketStream) -> None:
    async for data in source:  # type: ignore[attr-defined]
        await sink.send_all(data)
    await sink.send_eof()


async def _relay(proxy: Proxy, client: trio.SocketStream, first: bytes = b"") -> None:
    async with await trio.open_tcp_stream("127.0.0.1", proxy.target) as server, trio.open_nursery() as nursery:
        await server.send_all(first)
        nursery.start_soon(_pipe, client, server)
        nursery.start_soon(_pipe, server, client)


async def _http_proxy(proxy: Proxy, client: trio.SocketStream) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await client.receive_some(65_536)
        if not data:
            return
        head += data
    lines = head.decode("latin-1").split("\r\n")
    proxy.asked.append(lines[0])
    proxy.seen_auth += [line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-authorization")]
    if proxy.refuse:
        await client.send_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
    elif lines[0].startswith("CONNECT"):
        await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _relay(proxy, client)
    else:
        method, url, version = lines[0].split(" ")
        path = "/" + url.split("/", 3)[3]
        await _relay(
            proxy, client, head.replace(f"{method} {url} {version}".encode(), f"{method} {path} {version}".encode(), 1)
        )


async def _socks_proxy(proxy: Proxy, client: trio.SocketStream) -> None:
    async def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += await client.receive_some(count - len(data)) or b"\0" * count
        return data

    _, count = await exactly(2)
    methods = await exactly(count)
    if proxy.auth is not None:
        assert 2 in methods
        await client.send_all(b"\x05\x02")
        length = (await exactly(2))[1]
        name = await exactly(length)
        password = await exactly((await exactly(1))[0])
        ok = (name, password) == proxy.auth
        await client.send_all(b"\x01\x00" if ok else b"\x01\x01")
        if not ok:
            return
    else:
        await client.send_all(b"\x05\x00")
    kind = (await exactly(4))[3]
    if kind == 3:
        host = (await exactly((await exactly(1))[0])).decode()
    else:
        host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, await exactly(4 if kind == 1 else 16))
    proxy.asked.append(f"{host}:{int.from_bytes(await exactly(2), 'big')}")
    if proxy.refuse:
        await client.send_all(b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00")
        return
    await client.send_all(b"\x05\x00\x00\x03\x03abc\x00\x00")
    await _relay(proxy, client)


@asynccontextmanager
async def proxied(handler: Any, **switches: Any) -> AsyncIterator[tuple[FakeModel, Proxy]]:
    proxy = Proxy(**switches)

    async def serve(client: trio.SocketStream) -> None:
        try:
            async with client:
                await handler(proxy, client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with open_fake_model() as upstream, trio.open_nursery() as nursery:
        proxy.target = proxy.target or upstream.port
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        proxy.port = listeners[0].socket.getsockname()[1]
        yield upstream, proxy
        nursery.cancel_scope.cancel()


async def say(door: ModelDoor) -> str:
    reply = await door.ask(HI, deadlines=Deadlines(first_byte_s=20.0, stall_s=20.0), on_delta=lambda _: None)
    return reply.message.text


def through(url: str, base_url: str) -> ModelConfig:
    return ModelConfig(primary=Endpoint(model="m", base_url=base_url, proxy=url), retry_budget=1)


async def test_an_http_proxy_forwards_plain_requests() -> None:
    async with no_leaks(), proxied(_http_proxy) as (upstream, proxy):
        async with open_model(through(f"http://u%20ser:p%40ss@127.0.0.1:{proxy.port}", "http://model.test/v1")) as door:
            assert await say(door) == "Hello there."
        assert proxy.asked == ["POST http://model.test/v1/chat/completions HTTP/1.1"]
        assert base64.b64decode(proxy.seen_auth[0].removeprefix("Basic ")) == b"u ser:p@ss"
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(("scheme", "asked"), [("socks5h", "model.test:8000"), ("socks5", "192.0.2.7:8000")])
async def test_a_socks_proxy_resolves_the_name_or_is_given_the_address(scheme: str, asked: str) -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", port))]

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Resolver())
    async with no_leaks(), proxied(_socks_proxy) as (upstream, proxy):
        async with open_model(through(f"{scheme}://127.0.0.1:{proxy.port}", "http://model.test:8000/v1")) as door:
            assert await say(door) == "Hello there."
            assert await say(door) == "Hello there."
        assert proxy.asked == [asked]  # the second call reused the connection
        assert len(upstream.requests) == 2


async def test_a_socks_proxy_with_a_password() -> None:
    async with no_leaks(), proxied(_socks_proxy, auth=(b"me", b"p:w")) as (_, proxy):
        async with open_model(through(f"socks5h://me:p%3Aw@127.0.0.1:{proxy.port}", "http://[::1]:80/v1")) as door:
            assert await say(door) == "Hello there."
        assert proxy.asked == ["::1:80"]
        async with open_model(through(f"socks5h://me:wrong@127.0.0.1:{proxy.port}", "http://h/v1")) as door:
            with pytest.raises(ModelUnavailable, match="refused the user name or password"):
                await say(door)


@pytest.mark.parametrize(("handler", "scheme"), [(_socks_proxy, "socks5h"), (_http_proxy, "http")])
async def test_a_proxy_that_refuses_is_named_as_the_cause_and_nothing_stays_open(handler: Any, scheme: str) -> None:
    async with no_leaks(), proxied(handler, refuse=True) as (upstream, proxy):
        async with open_model(through(f"{scheme}://127.0.0.1:{proxy.port}", "https://model.test/v1")) as door:
            with pytest.raises(ModelUnavailable, match=r"proxy: .*(not allowed|407)"):
                await say(door)
        assert len(upstream.requests) == 0
        with refusing_port() as port:
            async with open_model(through(f"{scheme}://127.0.0.1:{port}", "https://model.test/v1")) as door:
                with pytest.raises(ModelUnavailable, match="refused"):
                    await say(door)


async def test_no_proxy_that_breaks_off_the_handshake_leaves_a_socket() -> None:
    async def hangs_up(proxy: Proxy, client: trio.SocketStream) -> None:
        await client.receive_some(100)
        proxy.asked.append("x")

    async with no_leaks(), proxied(hangs_up) as (_, proxy):
        for scheme in ("socks5h", "http"):
            async with open_model(through(f"{scheme}://127.0.0.1:{proxy.port}", "https://model.test/v1")) as door:
                with pytest.raises(ModelUnavailable):
                    await say(door)
        assert len(proxy.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x04\x00", b"\x05\xff", b"\x05\x02", b"\x05\x00\x05\x09\x00\x01", b"\x05\x00\x05\x00\x00\x09",
     b"\x05\x00\x05\x00\x00\x01\x00"],
)  # fmt: skip
async def test_what_is_not_socks5_is_an_error(answer: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(answer)
    await theirs.send_eof()
    with pytest.raises(SocksError):
        await socks5_connect(ours, "host", 80, None)


async def test_the_bytes_after_the_handshake_belong_to_the_tunnel() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50tunnel")
    await socks5_connect(ours, "host", 80, None)
    assert await ours.receive_some(100) == b"tunnel"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for model.test that signs itself, made now: no key is kept in the repository."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command is not installed: TLS through proxies is not tested")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=model.test", "-addext", "subjectAltName=DNS:model.test", "-keyout", str(folder / "key.pem"),
         "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@asynccontextmanager
async def tls_front(certificate: tuple[Path, Path], upstream: FakeModel) -> AsyncIterator[int]:
    """TLS in front of the fake model; yields its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*map(str, certificate))

    async def serve(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            async with secured:
                await secured.do_handshake()
                async with (
                    await trio.open_tcp_stream("127.0.0.1", upstream.port) as inner,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_pipe, secured, inner)
                    async for data in inner:
                        await secured.send_all(data)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


Where = Callable[[Proxy], str]


@pytest.mark.parametrize(
    ("handler", "proxy_url", "asked"),
    [
        (_http_proxy, "http://127.0.0.1:{}", "CONNECT model.test:443 HTTP/1.1"),
        (_socks_proxy, "socks5h://127.0.0.1:{}", "model.test:443"),
    ],
)
async def test_tls_through_a_proxy_is_end_to_end(
    certificate: tuple[Path, Path], handler: Any, proxy_url: str, asked: str
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    async with no_leaks(), open_fake_model() as upstream, tls_front(certificate, upstream) as port:
        async with proxied(handler, target=port) as (_, proxy):
            config = through(proxy_url.format(proxy.port), "https://model.test/v1")
            async with open_network(tls=trusting) as network, open_model(config, network=network) as door:
                assert await say(door) == "Hello there."
                assert await say(door) == "Hello there."
            assert proxy.asked == [asked]
            async with open_model(config) as door:  # a client that does not trust that certificate
                with pytest.raises(ModelUnavailable, match=r"tls: .*certificate"):
                    await say(door)


async def test_keepalive_is_on_for_direct_connections_and_those_to_a_proxy() -> None:
    async with proxied(_socks_proxy) as (upstream, proxy):
        for config in (
            through("", upstream.base_url),
            through(f"socks5h://127.0.0.1:{proxy.port}", "http://model.test/v1"),
            through(f"http://127.0.0.1:{proxy.port}", upstream.base_url),
        ):
            async with open_network() as network:
                client = network.make_client(await network.tls(), proxy=config.primary.proxy or None)
                if config.primary.proxy and config.primary.proxy.startswith("http"):
                    await client.aclose()
                    continue
                async with client.stream("GET", config.primary.base_url + "/models") as response:
                    sock = response.extensions["network_stream"].get_extra_info("socket")
                    for level, name, value in keepalive_options():
                        assert sock.getsockopt(level, name) == value
                    await response.aread()
                await client.aclose()
