"""A model call ended at each of its steps, and thousands of calls ended at random: nothing stays, the survivor works."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio

from hermes.agent.calls import Deadlines, ModelRequest
from hermes.agent.model import ModelDoor, open_model
from hermes.errors import ModelError
from hermes.messages import Entry, user
from hermes.settings import Endpoint, ModelConfig, Secret
from hermes.testing import LeakCensus, cancel_at_every_step
from hermes.testing.fake_model import Cut, FakeModel, Status, open_fake_model
from hermes.testing.fake_wire import Reply

HI = ModelRequest(system="", history=[Entry(user("hi"))])
PATIENT = Deadlines(first_byte_s=20.0, stall_s=20.0)
CALL = Reply(text=("one ", "two"), calls=[("f", '{"x":1}')], reasoning="hm")


def at(upstream: FakeModel, number: int = 0, **more: Any) -> Endpoint:
    return Endpoint(model="m", base_url=upstream.base_url, api_key=Secret(f"key-{number}"), **more)


async def say(door: ModelDoor, endpoint: Endpoint | None = None) -> str:
    return (await door.ask(HI, endpoint=endpoint, deadlines=PATIENT, on_delta=lambda _: None)).message.text


async def until(fact: Callable[[], object]) -> None:
    while not fact():
        await trio.lowlevel.checkpoint()


@pytest.mark.wall_clock_s(120)
@pytest.mark.parametrize("api", ["chat_completions", "responses"])
async def test_a_lease_and_a_stream_ended_at_each_step_leave_nothing_and_the_client_serves_on(
    api: Any, full: bool
) -> None:
    async with (
        open_fake_model(default=CALL) as upstream,
        open_model(ModelConfig(primary=at(upstream, api=api))) as door,
    ):

        async def scenario() -> None:
            await say(door)

        async def survivor() -> None:
            assert await say(door) == "one two"
            statistics = door.clients.statistics()
            assert (statistics.leases, statistics.waiting) == (0, 0)
            assert statistics.open == 1
            assert statistics.sockets <= 2

        report = await cancel_at_every_step(
            scenario,
            check=survivor,
            ways=("cancel", "deadline", "sibling"),
            spare_sockets=2,
            seeds=range(4 if full else 1),
        )
        assert report.runs > 5


@pytest.mark.wall_clock_s(120)
async def test_the_whole_scope_ended_at_each_step_leaves_nothing(full: bool) -> None:
    async with open_fake_model(default=CALL) as upstream:

        async def scenario() -> None:
            settings = ModelConfig(primary=at(upstream), fallback=(at(upstream, 1),), max_clients=1, backoff_base_s=0.0)
            async with open_model(settings) as door, trio.open_nursery() as nursery:
                upstream.script(Cut(after_bytes=0), Status(code=503), CALL)
                for number in range(3):
                    nursery.start_soon(say, door, at(upstream, number))

        async def check() -> None:
            upstream.steps.clear()
            await until(lambda: upstream.open_connections == 0)

        report = await cancel_at_every_step(
            scenario,
            check=check,
            ways=("cancel", "sibling"),
            stride=1 if full else 3,
            tolerate=(ModelError,),
        )
        assert report.runs > 5


@pytest.mark.wall_clock_s(120)
async def test_after_thousands_of_random_ends_three_healthy_calls_work(seed: int, full: bool) -> None:
    chance = random.Random(seed)
    async with open_fake_model(default=CALL) as upstream:
        primary = at(upstream)
        async with open_model(ModelConfig(primary=primary, max_clients=4, retry_budget=2, backoff_base_s=0.0)) as door:
            await say(door)
            before = LeakCensus.take()

            async def ended_after(steps: int, scope: trio.CancelScope) -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async def ended_at_random() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ended_after, chance.randrange(120), nursery.cancel_scope)
                    await say(door, at(upstream, chance.randrange(8)))
                    nursery.cancel_scope.cancel()

            for _ in range(500 if full else 60):
                async with trio.open_nursery() as nursery:
                    for _ in range(40):
                        nursery.start_soon(ended_at_random)
            ended = len(upstream.requests)
            assert ended > 100
            statistics = door.clients.statistics()
            assert (statistics.leases, statistics.waiting) == (0, 0)
            assert statistics.open <= 4
            for number in (0, 1, 99):
                assert await say(door, at(upstream, number)) == "one two"
            after = LeakCensus.take()
            assert after.threads == before.threads
        await until(lambda: upstream.open_connections == 0)
