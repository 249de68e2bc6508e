"""Everything of an account goes through the proxy that is set for it: calls, files, and the gateway's socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from hermes.events import AttachmentRef
from hermes.nurseries import open_background_nursery
from hermes.platform import Secret
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_telegram import open_fake_telegram
from hermes.testing.host import RecordingInbox, open_test_host
from platforms.discord import platform as discord_spec
from platforms.discord.config import DiscordConfig
from platforms.telegram import platform as telegram_spec
from platforms.telegram.config import TelegramConfig


class Proxy:
    """SOCKS5 without a password; `asked` are the ports that it was to connect to."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def serve(self, client: trio.SocketStream) -> None:
        _, methods = await _exactly(client, 2)
        await _exactly(client, methods)
        await client.send_all(b"\x05\x00")
        *_, kind = await _exactly(client, 4)
        host = await _exactly(client, 4 if kind == 1 else (await _exactly(client, 1))[0])
        port = int.from_bytes(await _exactly(client, 2), "big")
        self.asked.append(port)
        found = socket.inet_ntoa(host) if kind == 1 else host.decode()
        async with await trio.open_tcp_stream(found, port) as service, trio.open_nursery() as nursery:
            await client.send_all(b"\x05\x00\x00\x01" + bytes(6))
            nursery.start_soon(_pass_on, client, service)
            await _pass_on(service, client)
            nursery.cancel_scope.cancel()


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += await stream.receive_some(count - len(found))
    return found


async def _pass_on(one: trio.SocketStream, other: trio.SocketStream) -> None:
    try:
        async for data in one:
            await other.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # either has left


@asynccontextmanager
async def open_proxy() -> AsyncIterator[tuple[Proxy, int]]:
    proxy = Proxy()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with open_background_nursery() as nursery:
        await nursery.start(trio.serve_listeners, proxy.serve, [listener])
        yield proxy, listener.socket.getsockname()[1]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_telegram(scheme: str) -> None:
    async with open_fake_telegram() as fake, open_proxy() as (proxy, port), open_test_host("telegram") as host:
        fake.files["f"] = ("documents/f", b"file")
        config = TelegramConfig(token=Secret(fake.token), base_url=fake.base_url, proxy=f"{scheme}://127.0.0.1:{port}")
        async with telegram_spec.open(config, host) as platform:
            async with platform.fetch(AttachmentRef(kind="document", ref="f"), max_bytes=10) as pieces:
                assert [piece async for piece in pieces] == [b"file"]
        assert set(proxy.asked) == {fake.port}


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_discord(scheme: str) -> None:
    async with open_fake_discord() as fake, open_proxy() as (proxy, port), open_test_host("discord") as host:
        config = DiscordConfig(token=Secret(fake.token), base_url=fake.base_url, proxy=f"{scheme}://127.0.0.1:{port}")
        inbox = RecordingInbox()
        async with discord_spec.open(config, host) as platform, trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, inbox, {})
            await fake.until(lambda: fake.gateway.live)
            fake.say("hello")
            await inbox.until(lambda: inbox.events)
            nursery.cancel_scope.cancel()
        assert set(proxy.asked) == {fake.port, fake.socket_port}
