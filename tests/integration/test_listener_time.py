"""The listener's deadlines, in virtual time over connections made of memory, and what arrives in any pieces."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.http.listener import Application, Limits, Server, open_server
from hermes.http.listener.exchange import Receive, Scope, Send
from hermes.testing.http1 import MemoryListener, RawClient, Truncated

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
STATUSES = {200, 400, 408, 411, 413, 414, 417, 431, 501, 505}


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(
    app: Application, limits: Limits | None = None, *, lockstep: bool = False
) -> AsyncIterator[tuple[MemoryListener, Server]]:
    listener = MemoryListener(lockstep=lockstep)
    errors: list[BaseException] = []
    async with listener:
        async with open_server(app, listeners=[listener], limits=limits, on_error=errors.append) as server:
            yield listener, server
    assert errors == []


async def trickle(client: RawClient, data: bytes, every_s: float) -> None:
    for at in range(len(data)):
        await trio.sleep(every_s)
        try:
            await client.send(data[at : at + 1])
        except trio.BrokenResourceError:
            return


async def test_a_connection_that_says_nothing_is_closed_without_a_word(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(header_timeout_s=10)) as (listener, _):
        assert await listener.connect().rest() == b""
        assert trio.current_time() == pytest.approx(10)  # a MockClock begins at zero


async def test_an_idle_connection_is_closed_without_a_word(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(idle_timeout_s=75)) as (listener, _):
        client = listener.connect()
        for _ in range(3):
            assert (await client.ask(GET)).status == 200
            await trio.sleep(74)
        assert (await client.ask(GET)).status == 200
        before = trio.current_time()
        assert await client.rest() == b""
        assert trio.current_time() - before == pytest.approx(75)


@pytest.mark.parametrize("first", [True, False])
async def test_a_head_that_trickles_in_has_one_deadline_for_the_whole(
    clock: trio.testing.MockClock, first: bool
) -> None:
    async with serving(echo, Limits(header_timeout_s=10)) as (listener, server):
        client = listener.connect()
        if not first:
            assert (await client.ask(GET)).status == 200
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, client, GET * 100, 1.0)
            answer = await client.answer()
            nursery.cancel_scope.cancel()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert trio.current_time() - before == pytest.approx(11, abs=1)
        assert dict(server.statistics().refused) == {408: 1}


async def test_a_body_that_stops_is_408_and_cancels_the_handler(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(body_timeout_s=30)) as (listener, _):
        client = listener.connect()
        await client.send(POST + b"x" * 999)
        before = trio.current_time()
        assert (await client.answer()).status == 408
        assert trio.current_time() - before == pytest.approx(30, abs=1)


async def test_a_body_that_only_just_goes_on_is_408(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(body_timeout_s=30, body_bytes_per_s=100)) as (listener, _):
        client = listener.connect()
        await client.send(POST)
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, client, b"x" * 1000, 1.0)
            assert (await client.answer()).status == 408
            nursery.cancel_scope.cancel()
        assert trio.current_time() - before == pytest.approx(30, abs=2)


async def test_a_slow_body_at_the_pace_that_is_asked_for_is_served(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(body_timeout_s=30, body_bytes_per_s=1)) as (listener, _):
        client = listener.connect()
        await client.send(POST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, client, b"x" * 1000, 1.0)
            assert (await client.answer()).body == b"x" * 1000


async def test_an_application_that_takes_its_time_is_not_the_clients_fault(clock: trio.testing.MockClock) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await trio.sleep(3600)
        await echo(scope, receive, send)

    async with serving(slow, Limits(body_timeout_s=30)) as (listener, _):
        client = listener.connect()
        await client.send(POST + b"x")
        await trio.sleep(3610)
        await client.send(b"x" * 999)
        assert (await client.answer()).body == b"x" * 999


async def test_a_long_handler_is_nobodys_time_out(clock: trio.testing.MockClock) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(80_000)
        await echo(scope, receive, send)

    async with serving(slow) as (listener, _):
        assert (await listener.connect().ask(GET)).status == 200


async def test_a_body_that_breaks_the_rules_after_the_response_began_ends_it(clock: trio.testing.MockClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while True:
            await receive()

    async with serving(app) as (listener, server):
        client = listener.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        with pytest.raises(Truncated):
            await client.answer()
        assert server.statistics().torn == 1


async def test_a_client_that_takes_nothing_counts_as_gone(clock: trio.testing.MockClock) -> None:
    ended: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        finally:
            ended.append(trio.current_time())

    async with serving(app, Limits(send_timeout_s=30), lockstep=True) as (listener, server):
        client = listener.connect()
        await client.send(GET)
        for _ in range(4):
            await trio.sleep(29)  # slow, but it takes something
            assert await client.stream.receive_some(100_000)
        last = trio.current_time()
        await trio.sleep(1000)
        assert ended == [pytest.approx(last + 30)]
        assert server.statistics().abandoned == 1


async def test_a_refused_client_that_goes_on_sending_is_not_listened_to_for_ever(
    clock: trio.testing.MockClock,
) -> None:
    async with serving(echo, Limits(linger_s=2)) as (listener, _):
        client = listener.connect()
        assert (await client.ask(b"nonsense\r\n")).status == 400
        before = trio.current_time()
        assert await client.rest() == b""
        assert trio.current_time() == before
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await trio.sleep(0.5)
                await client.send(b"x")
        assert trio.current_time() - before == pytest.approx(2, abs=1)


async def test_the_drain_has_its_own_deadline(clock: trio.testing.MockClock) -> None:
    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    async with serving(stuck, Limits(drain_s=10)) as (listener, _):
        client = listener.connect()
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(10)
    with pytest.raises(Truncated):
        await client.answer()


async def test_an_idle_server_is_left_at_once(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(drain_s=10)) as (listener, _):
        clients = [listener.connect() for _ in range(3)]
        for client in clients[:2]:  # the third has said nothing yet
            assert (await client.ask(GET)).status == 200
    assert trio.current_time() == 0
    for client in clients:
        assert await client.rest() == b""


async def test_several_connections_too_many_close_as_many_idle_ones(clock: trio.testing.MockClock) -> None:
    async with serving(echo, Limits(max_connections=3)) as (listener, server):
        idle = [listener.connect() for _ in range(3)]
        for client in idle:
            assert (await client.ask(GET)).status == 200
        for client in [listener.connect(), listener.connect()]:
            assert (await client.ask(GET)).status == 200
        assert await idle[0].rest() == await idle[1].rest() == b""
        assert trio.current_time() == 0
        assert (await idle[2].ask(GET)).status == 200
        assert server.statistics().open == 3


async def test_a_process_without_descriptors_pauses_and_goes_on(clock: trio.testing.MockClock) -> None:
    class Exhausted(MemoryListener):
        failures = 3

        async def accept(self) -> trio.abc.Stream:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return await super().accept()

    async with Exhausted() as listener, open_server(echo, listeners=[listener]) as server:
        assert (await listener.connect().ask(GET)).status == 200
        assert server.statistics().accept_pauses == 3


REQUESTS = [
    b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n",
    b"HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /5 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
]
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def conversation(pieces: list[bytes]) -> bytes:
    """Everything the server says to a client that sends these pieces and reads to the end."""

    async def main() -> bytes:
        async with serving(echo) as (listener, _):
            client = listener.connect()
            for piece in pieces:
                await client.send(piece)
                await trio.testing.wait_all_tasks_blocked()
            return await client.rest()

    said = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    # The words of a refusal may depend on how much had arrived, its status may not.
    return re.sub(rb'(date|content-length): [^\r]*\r\n|"message": "[^"]*"', b"", said)


@given(
    requests=st.lists(st.sampled_from(REQUESTS), max_size=4),
    damage=st.one_of(st.none(), st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3))),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
@settings(deadline=None, max_examples=100)
def test_the_conversation_is_the_same_however_the_requests_are_cut(
    requests: list[bytes], damage: tuple[int, bytes] | None, cuts: list[int]
) -> None:
    data = bytearray(b"".join([*requests, LAST]))
    if damage is not None:
        place = damage[0] % len(data)
        data[place : place + 1] = damage[1]
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    whole = conversation([bytes(data)])
    pieces = [bytes(data[start:end]) for start, end in pairwise(places)]
    assert conversation(pieces) == whole
    statuses = [int(part[:3]) for part in whole.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    assert statuses
    assert set(statuses) <= STATUSES
    if damage is None:
        assert statuses == [200] * (len(requests) + 1)


def test_the_conversation_is_the_same_for_single_bytes_and_for_a_cut_anywhere() -> None:
    data = b"".join([*REQUESTS, LAST])
    whole = conversation([data])
    assert whole.count(b"HTTP/1.1 200 OK") == len(REQUESTS) + 1
    assert conversation([data[at : at + 1] for at in range(len(data))]) == whole
    for at in range(len(data)):
        assert conversation([data[:at], data[at:]]) == whole, data[:at]


@given(data=st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_bytes_get_one_of_the_known_statuses_or_silence(data: bytes) -> None:
    said = conversation([data])
    assert said == b"" or int(said[9:12]) in STATUSES
