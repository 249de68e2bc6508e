"""What two HTTP clients do with their pool on trio: `python http_client_pool.py httpx` or `httpx2`, alone with trio.

Not a test: docs/explanation/dependencies.md says how to run it in two virtual environments and what came out. The server
is a process of its own, so that the processor time is the client's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import trio

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n" + b'{"ok":true}'
DELAY_S = 0.002  # so that requests are under way when they are cancelled, and others wait for a slot


class Answering(asyncio.Protocol):
    """Answers each request a moment later and keeps the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            asyncio.get_running_loop().call_later(DELAY_S, self.transport.write, ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def healthy(library: Any, client: Any, url: str) -> bool:
    """Whether three requests that nobody cancels get an answer."""
    try:
        for _ in range(3):
            await client.get(url)
    except library.PoolTimeout:
        return False
    return True


def stuck(client: Any) -> int:
    """Slots of the pool whose connection is neither idle nor closed, although no request is under way."""
    return sum(not each.is_idle() and not each.is_closed() for each in client._transport._pool.connections)


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope after a number of the program's task steps."""

    def __init__(self, steps: int, cancel: Callable[[], object]) -> None:
        self.left = steps
        self.cancel = cancel

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.cancel()


async def one_cancel(library: Any, url: str, context: ssl.SSLContext, steps: int) -> tuple[bool, bool]:
    """A pool of one, two requests at once, one cancellation: whether it came in time, and whether the pool still works."""
    limits = library.Limits(max_connections=1)
    async with library.AsyncClient(verify=context, limits=limits, timeout=0.5) as client:
        with trio.CancelScope() as scope:
            instrument = CancelAfter(steps, scope.cancel)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.get, url)
                    nursery.start_soon(client.get, url)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        return instrument.left <= 0, await healthy(library, client, url)


async def churn(library: Any, url: str, context: ssl.SSLContext, slots: int, at_once: int, rounds: int) -> str:
    """Cancel a part of the requests at random moments until the pool is dead or the rounds are over."""
    draw = random.Random(1)
    limits = library.Limits(max_connections=slots)

    async def maybe(client: Any, patience: float) -> None:
        with trio.move_on_after(patience):
            await client.get(url)

    async with library.AsyncClient(verify=context, limits=limits, timeout=1.0) as client:
        for number in range(1, rounds + 1):
            try:
                async with trio.open_nursery() as nursery:
                    for _ in range(at_once):
                        nursery.start_soon(maybe, client, draw.uniform(0, 4 * DELAY_S))
            except* library.PoolTimeout:
                pass
            if stuck(client) == slots and not await healthy(library, client, url):
                return f"dead after {number} rounds ({number * at_once} requests): {slots} of {slots} slots lost"
        return f"{rounds} rounds ({rounds * at_once} requests): {stuck(client)} of {slots} slots lost"


async def cost(library: Any, url: str, context: ssl.SSLContext, at_once: int, requests: int, keep: bool = False) -> str:
    """Processor time per request, with so many always under way.

    100 connections at most; 20 are kept idle for 5 s (the libraries' defaults), or all of them for ever with `keep`.
    """
    kept, expiry = (100, None) if keep else (20, 5.0)
    limits = library.Limits(max_connections=100, max_keepalive_connections=kept, keepalive_expiry=expiry)
    failed = 0

    async def many(client: Any, count: int) -> None:
        nonlocal failed
        for _ in range(count):
            try:
                await client.get(url)
            except library.TransportError:
                failed += 1

    async with library.AsyncClient(verify=context, limits=limits, timeout=60.0) as client:
        used = []
        for _ in range(4):
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(many, client, requests // at_once)
            used.append((time.process_time() - began) / (requests // at_once * at_once) * 1e6)
    lowest, middle, highest = min(used[1:]), sorted(used[1:])[1], max(used[1:])  # the first opens the connections
    return f"{middle:.0f} us a request ({lowest:.0f} to {highest:.0f}), {failed} failed"


async def measure(name: str, port: int) -> None:
    library: Any = importlib.import_module(name)
    core = {"httpx": "httpcore", "httpx2": "httpcore2"}[name]
    versions = {each: importlib.metadata.version(each) for each in (name, core, "trio")}
    print(f"Python {sys.version.split()[0]},", ", ".join(f"{each} {version}" for each, version in versions.items()))
    context, url = ssl.create_default_context(), f"http://127.0.0.1:{port}/"
    dead: dict[int, int] = {}  # place -> how often of ten; the order of two tasks is drawn anew each time
    places = 0
    for steps in range(1, 1000):
        in_time = False
        for _ in range(10):
            came, works = await one_cancel(library, url, context, steps)
            in_time |= came
            if not works:
                dead[steps] = dead.get(steps, 0) + 1
        if not in_time:
            break
        places = steps
    print(f"one cancel, pool of 1: {places} places, ten times each; pool dead after: {dead or 'none'}", flush=True)
    for slots, at_once in ((4, 12), (20, 24)):
        print(
            f"random cancels, {slots} slots, {at_once} at once:",
            await churn(library, url, context, slots, at_once, 2000),
        )
    for at_once in (10, 100, 500):
        print(f"{at_once} at once:", await cost(library, url, context, at_once, 2000), flush=True)
    print("100 at once, all kept:", await cost(library, url, context, 100, 500, keep=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=("httpx", "httpx2", "serve"))
    name = parser.parse_args().library
    if name == "serve":
        asyncio.run(serve())
        return
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            trio.run(measure, name, int(server.stdout.readline()))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
