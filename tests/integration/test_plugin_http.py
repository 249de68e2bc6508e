"""HTTP for platforms: what an error says, and what it must not say; multipart bodies; bounds; every ending."""

from __future__ import annotations

import email
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from hermes.errors import PlatformProtocolError, Unreachable
from hermes.events import OutboundFile
from hermes.net import make_http_factory, open_network
from hermes.platform import HttpClient, UploadPart
from hermes.testing import cancel_at_every_step

Serve = Callable[[trio.SocketStream], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: a\r\n\r\nhi"


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """The base URL of a server that does this with each connection."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client() -> AsyncIterator[HttpClient]:
    async with open_network() as network, make_http_factory(network)() as found:
        yield found


async def read_head(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some(65536)
        if not piece:
            return data
        data += piece
    return data


async def answers(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while await read_head(stream):
            await stream.send_all(OK)


async def test_an_answer_is_read_whole() -> None:
    async with serving(answers) as base, client() as http:
        answer = await http.request("POST", f"{base}/x", content=b"{}", timeout_s=5)
    assert (answer.status, answer.body, answer.headers["x-thing"]) == (200, b"hi", "a")


async def test_a_refused_connection_was_not_sent_and_shows_no_token() -> None:
    async with serving(answers) as base:
        pass
    async with client() as http:
        with pytest.raises(Unreachable) as caught:
            await http.request("POST", f"{base}/botTOKEN/x", content=b"{}", timeout_s=5)
    assert not caught.value.sent
    assert "TOKEN" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_connection_that_ends_without_an_answer_may_have_been_sent() -> None:
    async def drops(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.aclose()

    async with serving(drops) as base, client() as http:
        with pytest.raises(Unreachable) as caught:
            await http.request("POST", f"{base}/botTOKEN/x", content=b"{}", timeout_s=5)
    assert caught.value.sent
    assert "TOKEN" not in str(caught.value)


async def test_an_answer_that_is_cut_may_have_been_sent() -> None:
    async def cuts(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")
        await stream.aclose()

    async with serving(cuts) as base, client() as http:
        with pytest.raises(Unreachable) as caught:
            await http.request("GET", base, timeout_s=5)
    assert caught.value.sent


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)  # long enough for a loopback exchange


async def test_a_silent_server_is_given_up_after_the_time(clock: trio.testing.MockClock) -> None:
    heard = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        await read_head(stream)
        heard.set()
        await trio.sleep_forever()

    async with serving(silent) as base, client() as http:
        with pytest.raises(Unreachable, match="did not answer in time") as caught:
            await http.request("GET", base, timeout_s=30)
    assert heard.is_set()
    assert caught.value.sent


async def test_an_answer_larger_than_asked_for_is_refused() -> None:
    async def large(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            for _ in range(100):
                await stream.send_all(b"x" * 10_000)

    async with serving(large) as base, client() as http:
        with pytest.raises(PlatformProtocolError, match="more than 1000 bytes"):
            await http.request("GET", base, timeout_s=5, max_bytes=1000)


async def test_what_is_no_http_is_unreachable_and_may_have_been_sent() -> None:
    async def babbles(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b"SSH-2.0-nothing\r\n\r\n")
        await stream.aclose()

    async with serving(babbles) as base, client() as http:
        with pytest.raises(Unreachable) as caught:
            await http.request("GET", base, timeout_s=5)
    assert caught.value.sent


async def test_files_are_sent_as_form_data_that_any_parser_reads(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def keeps(stream: trio.SocketStream) -> None:
        data = await read_head(stream)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(
            next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split()[1]
        )
        while len(body) < length:
            body += await stream.receive_some(65536)
        got.append(head + b"\r\n\r\n" + body)
        await stream.send_all(OK)

    path = tmp_path / "blob"
    path.write_bytes(bytes(range(256)) * 1000)
    file = OutboundFile(path=path, name='we"ird\r\n.bin', media_type="application/x-thing", size_bytes=256_000)
    parts = (
        UploadPart(name="chat_id", content=b"42"),
        UploadPart(name="document", content=file, file_name=file.name, media_type=file.media_type),
    )
    async with serving(keeps) as base, client() as http:
        answer = await http.request("POST", base, parts=parts, timeout_s=10)
    assert answer.status == 200
    message = email.message_from_bytes(got[0].partition(b"\r\n")[2])
    words, sent = message.get_payload()  # type: ignore[misc]
    assert (words.get_param("name", header="content-disposition"), words.get_payload()) == ("chat_id", "42")  # type: ignore[union-attr]
    assert sent.get_payload(decode=True) == path.read_bytes()  # type: ignore[union-attr]
    assert sent.get_content_type() == "application/x-thing"  # type: ignore[union-attr]


async def test_an_answer_can_be_read_as_it_comes() -> None:
    async with serving(answers) as base, client() as http, http.stream("GET", base, timeout_s=5) as (answer, pieces):
        assert answer.status == 200
        assert b"".join([piece async for piece in pieces]) == b"hi"


@pytest.mark.wall_clock_s(60)
async def test_a_request_ended_at_each_step_leaves_nothing_and_the_client_serves_on() -> None:
    async def answers_once(
        stream: trio.SocketStream,
    ) -> None:  # so that no task of the server waits for another request
        with suppress(trio.BrokenResourceError):
            await read_head(stream)
            await stream.send_all(OK.replace(b"X-Thing: a", b"Connection: close"))
            await stream.aclose()

    async with serving(answers_once) as base, client() as http:

        async def scenario() -> None:
            await http.request("POST", base, parts=(UploadPart(name="a", content=b"b"),), timeout_s=20)
            async with http.stream("GET", base, timeout_s=20) as (_, pieces):
                assert [piece async for piece in pieces] == [b"hi"]

        async def survivor() -> None:
            assert (await http.request("GET", base, timeout_s=20)).body == b"hi"

        report = await cancel_at_every_step(scenario, check=survivor, ways=("cancel", "deadline", "sibling"))
    assert report.runs > 20


async def test_a_request_leaves_in_one_piece_and_a_large_one_whole() -> None:
    received: list[bytes] = []

    async def keeps(stream: trio.SocketStream) -> None:
        while piece := await stream.receive_some(1_048_576):
            received.append(piece)
            head, _, body = b"".join(received).partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(body) == length:
                await stream.send_all(OK)

    for content in (b'{"a": 1}', b"x" * 3_000_000, b"ends like a head\r\n\r\n", b""):
        async with serving(keeps) as base, client() as http:
            assert (await http.request("POST", f"{base}/x", content=content, timeout_s=5)).status == 200
        assert b"".join(received).endswith(b"\r\n\r\n" + content)
        assert len(received) == 1 or len(content) > 65_536
        received.clear()


async def test_a_name_and_password_in_the_url_are_said_and_a_header_may_come_twice() -> None:
    heads: list[bytes] = []

    async def twice(stream: trio.SocketStream) -> None:
        heads.append(await read_head(stream))
        lines = b"X-Two: a\r\nX-Two: b\r\nX-Name: \xc3\x84\r\nX-Old: \xc4\r\n"
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + lines + b"\r\n")

    async with serving(twice) as base, client() as http:
        url = base.replace("http://", "http://ann:p%40ss@")
        answer = await http.request("GET", f"{url}/x", timeout_s=5)
    assert b"Authorization: Basic YW5uOnBAc3M=\r\n" in heads[0]  # ann:p@ss
    assert b"content-length" not in heads[0].lower()
    assert (answer.headers["x-two"], answer.headers["x-name"], answer.headers["x-old"]) == ("a, b", "Ä", "Ä")


async def test_what_a_platform_says_is_sent_as_it_says_it() -> None:
    heads: list[bytes] = []

    async def keeps(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await read_head(stream):
                if data.startswith(b"POST"):  # and not the end of a chunked body
                    heads.append(data)
                    await stream.send_all(OK)

    said = {"X-Signature-256": "abc", "content-TYPE": "text/plain", "Accept": "text/plain"}
    async with serving(keeps) as base, client() as http:
        await http.request("post", base, headers=said, timeout_s=5)
        await http.request("POST", base, headers={"Transfer-Encoding": "chunked"}, content=b"x", timeout_s=5)
    first, second = (head.split(b"\r\n") for head in heads)
    assert first[0] == b"POST / HTTP/1.1"
    assert {b"X-Signature-256: abc", b"content-TYPE: text/plain", b"Accept: text/plain", b"Content-Length: 0"} <= set(
        first
    )
    assert [line.partition(b":")[0].lower() for line in first].count(b"accept") == 1
    assert b"Transfer-Encoding: chunked" in second
    assert not any(line.lower().startswith(b"content-length") for line in second)


@pytest.mark.parametrize("headers", [{"Content-Length": "many"}, {"Content-Length": "-1"}, {"X": "a\r\nEvil: b"}])
async def test_what_cannot_be_sent_was_not_sent(headers: dict[str, str]) -> None:
    async with serving(answers) as base, client() as http:
        with pytest.raises(Unreachable, match="does not allow") as caught:
            await http.request("POST", base, headers=headers, content=b"{}", timeout_s=5)
        assert not caught.value.sent
        assert (await http.request("GET", base, timeout_s=5)).status == 200
