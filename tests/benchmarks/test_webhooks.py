"""What a webhook costs: a reply on the spot beside the model's own time, and callers without the secret, beside turns."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from hermes.platform import Secret
from platforms.webhook.config import Route
from platforms.webhook.signing import sign

TABLE = "Webhooks, zero-delay model on loopback"
SECRET = "a-secret-of-the-route"
ROUTE = Route(name="ask", signature="github", secret=Secret(SECRET), answer=True)
BODY = {"action": "opened", "issue": {"title": "It does not work", "body": "Nothing happens. " * 100}}
REFUSED_PER_S = 2000
OFFERED_PER_S = 2100  # a little more, since callers begin late and are behind at times
Record = Callable[..., None]


def account() -> str:
    route = {
        "signature": "github",
        "secret": SECRET,
        "answer": True,
        "prompt": "{issue.title}",
        "rate_per_minute": 100_000,
    }
    return f"platforms: {json.dumps({'hooks': {'platform': 'webhook', 'routes': {'ask': route}}})}\n"


def request(number: int, *, secret: bool = True) -> bytes:
    """A call as GitHub makes it, of about 2 KB."""
    body = json.dumps({**BODY, "number": number}).encode()
    headers = sign(ROUTE, body, at=0.0, id=f"d-{number}")
    if not secret:
        headers["x-hub-signature-256"] = "sha256=" + "0" * 64
    lines = [
        "POST /hooks/ask HTTP/1.1",
        "host: localhost",
        f"content-length: {len(body)}",
        "content-type: application/json",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def served(gateway: Any) -> None:
    """The routes come a moment after the listener."""
    while True:
        async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
            await stream.send_all(request(0, secret=False))
            if (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 401"):
                return
        await trio.sleep(0.02)


async def direct(upstream: int, count: int) -> float:
    """The median of asking the model itself, in ms."""
    body = json.dumps(
        {"model": "fake", "stream": True, "messages": [{"role": "user", "content": "It does not work"}]}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    times: list[float] = []
    async with await trio.open_tcp_stream("127.0.0.1", upstream) as stream:
        for _ in range(count):
            began = time.perf_counter()
            await stream.send_all(head.encode() + body)
            data = b""
            while b"[DONE]" not in data:
                data += await stream.receive_some(65_536)
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


@pytest.mark.wall_clock_s(120)
async def test_a_reply_on_the_spot(bench: Any, record: Record) -> None:
    count = 1000 if bench.full else 60
    upstream = bench.upstream()
    gateway = bench.gateway(upstream, extra=account())
    await served(gateway)
    await bench.load(gateway, [request(number) for number in range(1, 21)])
    await trio.sleep(1.0)  # the model library is loaded beside
    model_ms = await direct(upstream, count)
    cost = await bench.load(gateway, [request(number) for number in range(100, 100 + count)])
    over_ms = cost.p50_ms - model_ms
    record(
        TABLE, "a reply on the spot, one after the other", cpu_ms=round(cost.cpu_ms, 2), p50_ms=round(cost.p50_ms, 2),
        p99_ms=round(cost.p99_ms, 2), model_p50_ms=round(model_ms, 2), over_the_model_ms=round(over_ms, 2),
    )  # fmt: skip
    print(cost, model_ms, over_ms)
    assert over_ms <= 10 * 6


class Flood:
    """Callers without the secret, so many a second over a few kept connections."""

    def __init__(self, port: int, per_s: float, connections: int = 8) -> None:
        self.refused = 0
        self._port = port
        self._per_s = per_s
        self._connections = connections
        self._requests = [request(number, secret=False) for number in range(50)]

    async def run(self) -> None:
        """Call until cancelled; the pace is kept by asking more at once when it is behind."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._connections):
                nursery.start_soon(self._caller)

    async def _caller(self) -> None:
        begin, made = trio.current_time(), 0
        pace = self._per_s / self._connections
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            while True:
                due = int((trio.current_time() - begin) * pace) - made
                for _ in range(min(due, 50)):
                    await stream.send_all(self._requests[made % 50])
                    made += 1
                    await self._read_refusal(stream)
                await trio.sleep(0.005)

    async def _read_refusal(self, stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"}"):
            piece = await stream.receive_some(65_536)
            assert piece, "the server closed the connection"
            data += piece
        assert data.startswith(b"HTTP/1.1 401"), data[:200]
        self.refused += 1


def turns(gateway: Any, count: int) -> Sequence[bytes]:
    body = {"model": "hermes", "messages": [{"role": "user", "content": "hello"}], "stream": False}
    return [gateway.request("/v1/chat/completions", body) for _ in range(count)]


@pytest.mark.wall_clock_s(180)
async def test_two_thousand_refused_a_second_beside_turns(bench: Any, record: Record) -> None:
    count = 300 if bench.full else 40
    gateway = bench.gateway(bench.upstream(), extra=account())
    await served(gateway)
    gateway.pin(min(os.sched_getaffinity(0)))
    await bench.load(gateway, turns(gateway, 20))
    await trio.sleep(1.0)
    alone = await bench.load(gateway, turns(gateway, count))
    fastest = Flood(gateway.port, 1e9)
    cpu, began = gateway.cpu_s(), time.perf_counter()
    with trio.move_on_after(5.0 if bench.full else 1.0):
        await fastest.run()
    most_per_s = fastest.refused / (time.perf_counter() - began)
    refusal_ms = (gateway.cpu_s() - cpu) * 1000 / fastest.refused
    flood = Flood(gateway.port, OFFERED_PER_S)
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        nursery.start_soon(flood.run)
        await trio.sleep(0.2)
        beside = await bench.load(gateway, turns(gateway, count))
        per_s = flood.refused / (time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    record(
        TABLE, "refused calls on one core, turns beside", most_per_s=round(most_per_s), cpu_ms=round(refusal_ms, 3),
        refused_per_s=round(per_s), turn_p50_ms=round(beside.p50_ms, 2), turn_p99_ms=round(beside.p99_ms, 2),
        turn_p50_alone_ms=round(alone.p50_ms, 2), turn_p99_alone_ms=round(alone.p99_ms, 2),
    )  # fmt: skip
    print(most_per_s, refusal_ms, per_s, beside, alone)
    assert most_per_s >= REFUSED_PER_S / 10
