"""The listener over real sockets: what a client sees, and what the application is told."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from hermes.http.listener import Application, ClientLeft, Limits, Server, open_server
from hermes.http.listener.exchange import Message, Receive, Scope, Send
from hermes.testing.http1 import RawClient, Truncated

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Serving:
    """A server on a loopback port, its clients and what its application failed with."""

    def __init__(self) -> None:
        self.server: Server
        self.errors: list[BaseException] = []

    @property
    def port(self) -> int:
        port = self.server.addresses[0][1]
        assert port is not None
        return port

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RawClient]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield RawClient(stream)


@asynccontextmanager
async def serving(app: Application, limits: Limits | None = None) -> AsyncIterator[Serving]:
    it = Serving()
    async with open_server(app, host="127.0.0.1", port=0, limits=limits, on_error=it.errors.append) as it.server:
        yield it


async def reply(send: Send, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the method, the path and the body."""
    body = await whole_body(receive)
    await reply(send, f"{scope['method']} {scope['path']} ".encode() + body)


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with serving(echo) as it, it.client() as client:
        for number in range(5):
            answer = await client.ask(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" % number)
            assert answer.body == b"POST /%d hi" % number
            assert "connection" not in answer.headers
            assert answer.headers["date"].endswith("GMT")
        statistics = it.server.statistics()
        assert (statistics.accepted, statistics.requests, dict(statistics.answered)) == (1, 5, {200: 5})


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(echo) as it, it.client() as client:
        await client.send(
            b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none"
            b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
            b"\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        assert [(await client.answer()).body for _ in range(3)] == [b"POST /1 one", b"POST /2 two", b"GET /3 "]
        assert await client.rest() == b""


async def test_the_scope_is_asgis() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await reply(send, b"")

    async with serving(app) as it, it.client() as client:
        await client.ask(
            b"GET /%C3%A9?x=1 HTTP/1.1\r\nHost: a\r\nX-Y:  z \r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
        )
        (scope,) = scopes
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/é", b"/%C3%A9", b"x=1")
        assert scope["headers"][:2] == [(b"host", b"a"), (b"x-y", b"z")]
        assert scope["server"] == ("127.0.0.1", it.port)
        assert scope["client"][0] == "127.0.0.1"


async def test_a_chunked_upload_streams_to_the_application_and_back() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": more})

    async with serving(app) as it, it.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        head = await client.head()
        assert b"\r\ntransfer-encoding: chunked\r\n" in head
        assert await client.chunk() == b"ABC"  # before the upload is complete
        await client.send(b"2\r\nde\r\n")
        assert await client.chunk() == b"DE"
        await client.send(b"0\r\n\r\n")
        assert await client.chunk() == b""


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with serving(echo) as it, it.client() as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        assert (await client.answer(head_only=True)).status == 200
        assert (await client.answer()).body == b"GET / "


async def test_100_continue_is_sent_when_the_application_wants_the_body() -> None:
    async with serving(echo) as it, it.client() as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(b"h")
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.ask(b"i")).body == b"PUT / hi"  # it is sent once, however often the application waits
        assert (await client.ask(GET)).status == 200


async def test_100_continue_is_not_sent_for_a_body_that_nobody_wants() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"no", 401)

    async with serving(app) as it, it.client() as client:
        answer = await client.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert await client.rest() == b""


async def test_a_short_body_left_unread_keeps_the_connection_and_a_long_one_ends_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"no", 401)

    async with serving(app, Limits(max_discarded_bytes=1000)) as it, it.client() as client:
        assert (await client.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")).status == 401
        await client.send(b"x" * 1000)
        answer = await client.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
        assert (answer.status, answer.headers["connection"]) == (401, "close")


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close", b"GET / HTTP/1.0"])
async def test_close_is_obeyed(line: bytes) -> None:
    async with serving(echo) as it, it.client() as client:
        answer = await client.ask(line + b"\r\n\r\n")
        assert (answer.body, answer.headers["connection"]) == (b"GET / ", "close")
        assert await client.rest() == b""


async def test_http_1_0_streams_end_with_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"a", b"b"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as it, it.client() as client:
        answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (answer.body, answer.headers["connection"]) == (b"ab", "close")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000000\r\n\r\n" + b"x" * 2_000_000, 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n" + b"x" * 100_000, 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000, 431),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ],
)
async def test_a_refusal_reaches_the_client_with_its_reason_and_closes(data: bytes, status: int) -> None:
    async with serving(echo) as it, it.client() as client:
        answer = await client.ask(data)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert json.loads(answer.body)["error"]["message"]
        assert await client.rest() == b""
        assert dict(it.server.statistics().refused) == {status: 1}
        assert it.errors == []


async def test_a_bad_request_behind_a_good_one_is_refused_after_the_good_one_is_served() -> None:
    async with serving(echo) as it, it.client() as client:
        await client.send(GET + b"GET /\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400


@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_leaves_cancels_the_handler(way: str, streaming: bool) -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if streaming:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        begun.set()
        try:
            await trio.sleep_forever()  # without a look at `receive`
        except trio.Cancelled:
            cancelled.set()
            raise

    async with serving(app) as it, it.client() as client:
        await client.send(GET)
        await begun.wait()
        assert isinstance(client.stream, trio.SocketStream)
        if way == "reset":
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way == "half-close":
            await client.stream.send_eof()
        else:
            await client.stream.aclose()
        await cancelled.wait()
        assert it.server.statistics().abandoned == 1
        assert it.errors == []


async def test_a_handler_that_shields_itself_is_told_by_send_and_receive() -> None:
    begun, told = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            with pytest.raises(ClientLeft):
                await reply(send, b"too late")
            told.set()

    async with serving(app) as it:
        async with it.client() as client:
            await client.send(GET)
            await begun.wait()
        await told.wait()


async def test_after_the_response_receive_says_disconnect_and_the_handler_may_go_on() -> None:
    finished: list[str] = []
    told, go_on = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await whole_body(receive)
                finished.append((await receive())["type"])
                told.set()

            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await reply(send, b"done")
            await go_on.wait()
            finished.append("tail")

    async with serving(app) as it:
        async with it.client() as client:
            assert (await client.ask(GET)).body == b"done"
            await told.wait()
        go_on.set()
    assert finished == ["http.disconnect", "tail"]
    assert it.server.statistics().abandoned == 0


async def test_streaming_requests_back_to_back_lose_no_byte() -> None:
    """The next request arrives while the connection still watches for a disconnect."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            await trio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": False})

    async with serving(app) as it, it.client() as client:
        for number in range(300):
            answer = await client.ask(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            assert answer.body == b"012/%d" % number
        assert it.server.statistics().accepted == 1


async def test_starlette_streams_at_once_and_ends_the_connection_when_asked_to() -> None:
    gates = [trio.Event() for _ in range(3)]

    async def events(request: Request) -> StreamingResponse:
        async def generate() -> AsyncIterator[bytes]:
            for number, gate in enumerate(gates):
                await gate.wait()
                yield b"data: %d\n\n" % number

        return StreamingResponse(generate(), media_type="text/event-stream")

    async def upload(request: Request) -> JSONResponse:
        return JSONResponse({"bytes": sum([len(piece) async for piece in request.stream()])})

    app = Starlette(routes=[Route("/", events), Route("/upload", upload, methods=["POST"])])
    async with serving(app) as it, it.client() as client:
        size = 5_000_000
        await client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        assert json.loads((await client.answer()).body) == {"bytes": size}
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        gates[0].set()
        await client.head()
        assert await client.chunk() == b"data: 0\n\n"
        gates[1].set()
        assert await client.chunk() == b"data: 1\n\n"
        gates[2].set()
        assert await client.chunk() == b"data: 2\n\n"
        assert await client.chunk() == b""
        assert await client.rest() == b""


def failing(when: str) -> Application:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        length: list[tuple[bytes, bytes]] = [(b"content-length", b"5")] if when in ("short", "long") else []
        if when == "at once":
            raise ValueError(when)
        if when == "returns":
            return
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if when == "started":
            raise ValueError(when)
        more: Message = {"type": "http.response.body", "body": b"abc", "more_body": True}
        await send(more)
        if when == "short":
            await send({"type": "http.response.body"})
        if when == "long":
            await send({"type": "http.response.body", "body": b"def"})
        if when == "streaming":
            raise ValueError(when)

    return app


@pytest.mark.parametrize("when", ["at once", "returns", "started"])
async def test_a_handler_that_fails_before_a_byte_is_sent_is_a_500(when: str) -> None:
    async with serving(failing(when)) as it, it.client() as client:
        answer = await client.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (500, "close")
        assert when.encode() not in answer.body
    assert len(it.errors) == 1


@pytest.mark.parametrize("when", ["streaming", "unfinished", "short", "long"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_response_that_breaks_off_looks_broken(when: str, version: bytes) -> None:
    async with serving(failing(when)) as it, it.client() as client:
        with pytest.raises((Truncated, trio.BrokenResourceError)):
            await client.ask(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
        assert it.server.statistics().torn == 1
    assert len(it.errors) == 1


async def test_a_send_that_the_application_interrupts_spoils_the_response() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with trio.CancelScope() as impatient:
            impatient.cancel()
            await send({"type": "http.response.body", "body": b"x" * 20_000_000})

    async with serving(app) as it, it.client() as client:
        with pytest.raises(Truncated):
            await client.ask(GET)
        assert it.server.statistics().torn == 1


async def test_a_handler_that_goes_on_after_an_interrupted_send_cannot_desync_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with trio.CancelScope() as impatient:
            impatient.cancel()
            await send({"type": "http.response.body", "body": b"x" * 20_000_000, "more_body": True})
        assert impatient.cancelled_caught
        with pytest.raises(RuntimeError, match="interrupted"):
            await send({"type": "http.response.body", "body": b"y" * 20})

    async with serving(app) as it, it.client() as client:
        await client.send(GET + GET)
        with pytest.raises(Truncated):
            await client.answer()
        assert (it.server.statistics().torn, it.server.statistics().requests) == (1, 1)


async def test_a_send_yields_now_and_then_even_if_it_need_not_wait() -> None:
    ticks = 0
    grown: list[int] = []

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.lowlevel.checkpoint()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        before = ticks
        for _ in range(320):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        grown.append(ticks - before)
        await send({"type": "http.response.body"})

    async with serving(app) as it, it.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        assert len((await client.ask(GET)).body) == 320
        nursery.cancel_scope.cancel()
    assert grown[0] >= 18


async def test_a_handler_that_only_sends_does_not_starve_the_others() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/quick":
            await reply(send, b"quick")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async with serving(app) as it, it.client() as endless, it.client() as quick, trio.open_nursery() as nursery:

        async def read_all() -> None:
            while await endless.stream.receive_some(1_000_000):
                pass

        await endless.send(GET)
        nursery.start_soon(read_all)
        for _ in range(20):
            assert (await quick.ask(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"quick"
        nursery.cancel_scope.cancel()


async def test_a_flood_of_pipelined_requests_is_held_back() -> None:
    """Reading stops at the bound, so the kernel makes the client wait."""
    begun, go_on = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await reply(send, scope["path"].encode())

    flood = 20_000_000 // len(GET)
    async with serving(app) as it, it.client() as client, trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send_flood() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await client.send(GET * flood)
                sent.set()

        nursery.start_soon(send_flood)
        await begun.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not sent.is_set()
        go_on.set()
        for _ in range(2 * Limits().max_pipelined_bytes // len(GET)):  # and goes on when there is room
            assert (await client.answer()).body == b"/"
        nursery.cancel_scope.cancel()
