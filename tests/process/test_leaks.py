"""What a gateway holds after a hard day is what it held before; also when it may hold very little.

The normal run is a tenth of the full one.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.testing.census import LINUX
from hermes.testing.fake_model import Cut, FakeModel, Garbage, Slow, Stall, Status, Step, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until, write_config

pytestmark = pytest.mark.skipif(not LINUX, reason="descriptors of another process are read from /proc")

AT_ONCE = 16
FAULTS: tuple[Step, ...] = (
    Status(code=500),
    Status(code=429, retry_after="0"),
    Status(code=401),
    Cut(after_bytes=10),
    Cut(after_bytes=400),
    Garbage(),
    Stall(after_events=2),
)
DATABASE = re.compile(r"hermes\.db(-wal|-shm)?$")


async def in_parallel(count: int, work: Callable[[int], Awaitable[None]], at_once: int = AT_ONCE) -> None:
    """Do something `count` times, some at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)


def kinds(gateway: GatewayProcess) -> Counter[str]:
    """Its descriptors by kind; those of the database together, for SQLite opens some late."""
    names = (name.partition(":[")[0] for name in gateway.descriptors().values())
    return Counter("database" if DATABASE.search(name) else name for name in names)


async def holdings(gateway: GatewayProcess) -> dict[str, Any]:
    """What it holds when nobody asks anything but this: descriptors, threads, tasks, TCP states."""
    metrics = await gateway.metrics()
    return {
        "descriptors": kinds(gateway), "threads": metrics["hermes_threads"], "tasks": metrics["hermes_tasks"],
        "sessions": metrics['hermes_sessions{of="live"}'], "tcp": gateway.tcp(),
    }  # fmt: skip


@asynccontextmanager
async def clients_of(gateway: GatewayProcess) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of its own for the load, so that its connections are gone when it is over."""
    async with httpx2.AsyncClient(
        base_url=gateway.url, headers=gateway.client.headers, timeout=30, trust_env=False
    ) as client:
        yield client


def chat(text: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": "hermes", "stream": stream, "messages": [{"role": "user", "content": text}]}


async def hard_day(
    gateway: GatewayProcess, upstream: FakeModel, rng: random.Random, scale: int, at_once: int
) -> Counter[int]:
    """Turns over sessions, clients that go away, a provider that fails. Returns what was answered, by status."""
    told: Counter[int] = Counter()

    async def turn(number: int) -> None:
        headers = {"X-Hermes-Session-Id": f"s{number % (20 * scale)}"}
        answer = await client.post(
            "/v1/chat/completions", json=chat(f"{number}", stream=number % 2 == 0), headers=headers
        )
        told[answer.status_code] += 1

    async def leave(number: int) -> None:
        body = chat(f"leaves {number}", stream=number % 2 == 0)
        with trio.move_on_after(rng.choice([0.001, 0.005, 0.02, 0.05])):
            async with httpx2.AsyncClient(base_url=gateway.url, headers=gateway.client.headers, trust_env=False) as own:
                told[(await own.post("/v1/chat/completions", json=body)).status_code] += 1

    async def fault(number: int) -> None:
        answer = await client.post("/v1/chat/completions", json=chat(f"fault {number}", stream=number % 2 == 0))
        told[answer.status_code] += 1

    async with clients_of(gateway) as client:
        await in_parallel(200 * scale, turn, at_once)
        upstream.default = Slow(first_s=0.02, between_s=0.005, reply=Reply(text=("one ", "two ", "three")))
        await in_parallel(50 * scale, leave, at_once)
        upstream.default = Reply(text="well")
        upstream.script(*(rng.choice(FAULTS) for _ in range(50 * scale)))
        await in_parallel(50 * scale, fault, at_once)
        upstream.steps.clear()
    return told


Record = Callable[..., None]


def shown(record: Record, what: str, told: Counter[int], scale: int) -> None:
    """Keep the figures of a hard day, all of whose holdings are given back."""
    print(f"{what}: answered {dict(told)}")
    answered = {f"answered_{status}": count for status, count in sorted(told.items())}
    record("A hard day, nothing left", what, turns=200 * scale, disconnects=50 * scale, faults=50 * scale, **answered)


def configuration(upstream: FakeModel, **model: Any) -> dict[str, Any]:
    return {
        "model": {"default": "fake", "base_url": upstream.base_url, "client_idle_s": 0.2, "retry_budget": 2,
                  "backoff_base_s": 0.001, "backoff_max_s": 0.01, "cool_down_s": 0, **model},
        "sessions": {"idle_ttl_s": 0.3, "stall_timeout_s": 0.2, "max_live": 64},
    }  # fmt: skip


async def as_before(gateway: GatewayProcess, before: dict[str, Any]) -> None:
    """Wait until it holds what it held; what is too much is named otherwise."""
    seen: dict[str, Any] = {}

    async def settled() -> bool:
        seen.update(await holdings(gateway))
        return (
            not seen["descriptors"] - before["descriptors"]
            and seen["threads"] <= before["threads"]
            and seen["tasks"] <= before["tasks"]
            and seen["sessions"] == 0
            and not seen["tcp"]["CLOSE_WAIT"]
        )

    try:
        await until(settled, "it holds what it held before")
    except AssertionError:
        raise AssertionError(f"before {before}\nnow {seen}\n{sorted(gateway.descriptors().items())}") from None


@pytest.mark.wall_clock_s(600)
async def test_a_hard_day_leaves_nothing_behind(tmp_path: Path, seed: int, full: bool, record: Record) -> None:
    scale = 10 if full else 1
    async with open_fake_model(default=Reply(text="well")) as upstream:
        write_config(tmp_path / "home", configuration(upstream))
        async with open_gateway_process(tmp_path / "home") as gateway:
            assert (await gateway.chat("warm up")).status_code == 200
            await until(lambda: not gateway.tcp(port=upstream.port), "the first client is closed")
            before = await holdings(gateway)
            told = await hard_day(gateway, upstream, random.Random(seed), scale, AT_ONCE)
            shown(record, "as started", told, scale)
            assert told[200] >= 200 * scale
            assert set(told) <= {200, 429, 502, 504}, told
            await as_before(gateway, before)
            assert not upstream.refused
            assert (await gateway.chat("still here")).status_code == 200
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(600)
async def test_the_same_with_few_descriptors_serves_on(tmp_path: Path, seed: int, full: bool, record: Record) -> None:
    scale = 10 if full else 1
    limit = ["/bin/sh", "-c", 'ulimit -n 128; exec "$@"', "sh"]
    async with open_fake_model(default=Reply(text="well")) as upstream:
        write_config(tmp_path / "home", configuration(upstream))
        async with open_gateway_process(tmp_path / "home", wrap=limit) as gateway:
            assert "descriptors=128" in gateway.said
            assert (await gateway.chat("warm up")).status_code == 200
            await until(lambda: not gateway.tcp(port=upstream.port), "the first client is closed")
            before = await holdings(gateway)
            told = await hard_day(gateway, upstream, random.Random(seed), scale, 2 * AT_ONCE)
            shown(record, "with 128 descriptors", told, scale)
            assert told[200] >= 200 * scale * 0.5
            assert set(told) <= {200, 429, 502, 503, 504}, told
            await as_before(gateway, before)
            async with AsyncExitStack() as stack:  # more connections than there are descriptors
                crowd = [await stack.enter_async_context(clients_of(gateway)) for _ in range(150)]
                served: Counter[Any] = Counter()

                async def knock(number: int) -> None:
                    try:
                        served[(await crowd[number].get("/health")).status_code] += 1
                    except httpx2.TransportError as error:
                        served[type(error).__name__] += 1

                await in_parallel(150, knock, 50)
                print(f"150 connections with 128 descriptors: {dict(served)}")
                assert served[200] >= 32
                assert set(served) <= {200, 429, 503}, served
            await as_before(gateway, before)
            assert (await gateway.chat("still here")).status_code == 200
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(120)
async def test_forty_providers_in_turn_never_hold_more_than_sixteen_clients(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        providers = [await stack.enter_async_context(open_fake_model()) for _ in range(40)]
        aliases = {
            f"m{number}": {"model": "m", "base_url": each.base_url, "api_key": f"key-number-{number}-of-forty"}
            for number, each in enumerate(providers)
        }
        config = configuration(providers[0])
        config["model"] |= {"aliases": aliases, "client_idle_s": 0.5}
        write_config(tmp_path / "home", config)
        gateway = await stack.enter_async_context(open_gateway_process(tmp_path / "home"))
        assert (await gateway.chat("warm up")).status_code == 200
        await until(lambda: not gateway.tcp(port=providers[0].port), "the first client is closed")
        before = await holdings(gateway)
        most = 0

        async def ask(number: int) -> None:
            nonlocal most
            answer = await gateway.chat("hi", model=f"m{number % 40}")
            assert answer.status_code == 200, answer.text
            most = max(most, (await gateway.status())["model_clients"]["open"])

        await in_parallel(120, ask, 20)
        assert all(each.accepted for each in providers)
        print(f"at most {most} clients were open")
        assert 2 <= most <= 16
        await gateway.client.aclose()  # its connections, as before
        gateway.client = httpx2.AsyncClient(
            base_url=gateway.url, headers=gateway.client.headers, timeout=30, trust_env=False
        )
        stack.push_async_callback(gateway.client.aclose)
        await as_before(gateway, before)
        assert (await gateway.status())["model_clients"] == {
            "open": 0,
            "leased": 0,
            "leases": 0,
            "waiting": 0,
            "sockets": 0,
        }


@pytest.mark.wall_clock_s(600)
async def test_a_provider_that_closes_idle_connections_is_no_error(tmp_path: Path, full: bool) -> None:
    async with open_fake_model(fin_idle_s=0.02) as upstream:
        write_config(tmp_path / "home", configuration(upstream, client_idle_s=1.0, retry_budget=1))
        async with open_gateway_process(tmp_path / "home") as gateway:
            waiting = 0
            for _ in range(300 if full else 30):
                answer = await gateway.chat("hi")
                assert answer.status_code == 200, answer.text
                waiting = max(waiting, gateway.tcp(port=upstream.port)["CLOSE_WAIT"])
                await until(lambda: not upstream.open_connections, "the provider has closed")
                waiting = max(waiting, gateway.tcp(port=upstream.port)["CLOSE_WAIT"])
            assert waiting <= 1
            assert upstream.accepted > 10
            await until(lambda: not gateway.tcp(port=upstream.port), "no socket is left to the provider")
