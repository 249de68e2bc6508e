"""A WebSocket ended at each of its steps, directly and through a proxy: nothing stays, and the server serves on."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest

from hermes.errors import Unreachable, WebSocketClosed
from hermes.net import open_network
from hermes.net.streams import make_stream_factory
from hermes.net.websocket import make_websocket_factory
from hermes.testing import cancel_at_every_step
from hermes.testing.websocket_server import open_websocket_server


async def echo(request: WebSocketRequest) -> None:
    if request.path == "/refused":
        await request.reject(401, body=b"no")
        return
    connection = await request.accept()
    try:
        while True:
            message = await connection.get_message()
            if message == "close":
                await connection.aclose(4009, "session timed out")
                return
            await connection.send_message(message)
    except ConnectionClosed:
        pass


@pytest.mark.wall_clock_s(120)
async def test_a_websocket_ended_at_each_step_leaves_nothing(full: bool) -> None:
    async with open_websocket_server(echo) as port, open_network() as network:
        connect = make_websocket_factory(network)
        url = f"ws://127.0.0.1:{port}"

        async def conversation() -> None:
            async with connect(url) as socket, trio.open_nursery() as inner:
                inner.start_soon(socket.send, "one")
                assert await socket.receive() == "one"
            async with connect(url) as socket:
                await socket.send("close")
                with pytest.raises(WebSocketClosed, match="4009"):
                    await socket.receive()
                await socket.close(4000)
            with pytest.raises(Unreachable, match="401"):
                async with connect(f"{url}/refused"):
                    raise AssertionError

        async def check() -> None:
            async with connect(url) as socket:
                await socket.send("still there")
                assert await socket.receive() == "still there"

        report = await cancel_at_every_step(
            conversation, check=check, ways=("cancel", "deadline", "sibling"), seeds=range(4 if full else 1)
        )
        assert report.runs > 60


@pytest.mark.wall_clock_s(60)
async def test_a_stream_ended_at_each_step_leaves_nothing() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await stream.receive_some(1000)
                await stream.send_all(b"HTTP/1.1 200 Go\r\n\r\nhello")
                await stream.receive_some(1)

    async with trio.open_nursery() as nursery, open_network() as network:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        connect = make_stream_factory(network)

        async def conversation() -> None:
            async with connect("elsewhere.test", 143, tls=False, proxy=f"http://127.0.0.1:{port}") as stream:
                assert await stream.receive_some(5)

        report = await cancel_at_every_step(conversation, check=conversation, ways=("cancel", "sibling"))
        assert report.runs > 10
        nursery.cancel_scope.cancel()
