"""Model clients: shared by value, bounded in number and idle time, retired without disturbing others, closed with their scope."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.agent.calls import Deadlines, Delta, ModelRequest
from hermes.agent.clients import ClientsClosing, client_key, open_model_clients
from hermes.agent.model import ModelDoor, open_model
from hermes.errors import ModelUnavailable
from hermes.messages import Entry, user
from hermes.net import open_network
from hermes.settings import Endpoint, ModelConfig, Secret
from hermes.testing import LeakCensus, advance, frozen_clock, no_leaks
from hermes.testing.fake_model import Cut, FakeModel, Gate, Stall, Status, open_fake_model
from hermes.testing.fake_wire import Reply

HI = ModelRequest(system="", history=[Entry(user("hi"))])
PATIENT = Deadlines(first_byte_s=10.0, stall_s=5.0)


@pytest.fixture
def clock() -> MockClock:
    return frozen_clock()


def at(upstream: FakeModel, number: int = 0, **more: Any) -> Endpoint:
    """An endpoint that needs a client of its own: the same server with another key."""
    return Endpoint(model="m", base_url=upstream.base_url, api_key=Secret(f"key-{number}"), **more)


async def until(fact: Callable[[], object]) -> None:
    while not fact():
        await trio.lowlevel.checkpoint()


async def say(door: ModelDoor, endpoint: Endpoint | None = None, request: ModelRequest = HI) -> str:
    return (await door.ask(request, endpoint=endpoint, deadlines=PATIENT, on_delta=lambda _: None)).message.text


def key_of(request: Any) -> str:
    return str(request.headers["authorization"]).removeprefix("Bearer key-")


async def test_calls_to_one_endpoint_share_a_client_and_two_models_behind_one_key_too() -> None:
    gate = trio.Event()
    async with open_fake_model(default=Gate(event=gate)) as upstream, open_model(ModelConfig()) as door:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                same = Endpoint(model=f"m{number % 2}", base_url=upstream.base_url, api_key=Secret("key-0"))
                nursery.start_soon(say, door, same)
            await until(lambda: upstream.answering == 20)
            now = door.clients.statistics()
            assert (now.open, now.leased, now.leases, now.waiting, now.sockets) == (1, 1, 20, 0, 20)
            gate.set()
        assert door.clients.statistics().leases == 0


def test_the_key_is_a_value_and_the_settings_hold_no_transport() -> None:
    one = Endpoint(model="a", api_key=Secret("k"), proxy="http://p:1", headers=(("x", "y"),))
    other = Endpoint(model="b", api_key=Secret("k"), proxy="http://p:1", headers=(("x", "y"),), api="responses")
    assert client_key(one) == client_key(other)
    assert hash(client_key(one)) == hash(client_key(other))
    for different in (Secret("l"), None):
        assert client_key(Endpoint(model="a", api_key=different)) != client_key(one)


async def test_forty_endpoints_in_turn_hold_at_most_sixteen_clients_and_none_when_idle(clock: MockClock) -> None:
    async with open_fake_model() as upstream:
        before = LeakCensus.take()
        async with open_model(ModelConfig(client_idle_s=30.0)) as door:
            samples = []
            for number in range(40):
                assert await say(door, at(upstream, number)) == "Hello there."
                samples.append(door.clients.statistics())
            assert max(sample.open for sample in samples) == 16
            assert max(sample.sockets for sample in samples) == 16
            assert [key_of(request) for request in upstream.requests] == [str(number) for number in range(40)]
            await advance(clock, 29.0)
            assert door.clients.statistics().open == 16
            await advance(clock, 2.0)
            now = door.clients.statistics()
            assert (now.open, now.sockets) == (0, 0)
            await until(lambda: upstream.open_connections == 0)
            after = LeakCensus.take()
            assert len(after.descriptors) == len(before.descriptors)
            assert await say(door, at(upstream, 3)) == "Hello there."


async def test_at_any_moment_of_a_burst_at_most_max_clients_are_open() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(max_clients=4)) as door:
        highest = 0
        done = 0

        async def call(number: int) -> None:
            nonlocal done
            await say(door, at(upstream, number))
            done += 1

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(call, number % 20)
            while done < 60:
                highest = max(highest, door.clients.statistics().open)
                assert upstream.open_connections <= 60
                await trio.lowlevel.checkpoint()
        assert highest == 4


async def test_the_least_recently_used_idle_client_is_closed_first() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(max_clients=3)) as door:
        for number in (0, 1, 2, 0, 3):
            await say(door, at(upstream, number))
        accepted = upstream.accepted
        for number in (0, 2, 3):
            await say(door, at(upstream, number))
        assert upstream.accepted == accepted  # their clients were still open
        await say(door, at(upstream, 1))
        assert upstream.accepted == accepted + 1


async def test_when_all_are_leased_calls_wait_in_order_of_arrival() -> None:
    gates = [trio.Event() for _ in range(2)]
    async with open_fake_model() as upstream, open_model(ModelConfig(max_clients=2)) as door:
        upstream.script(*(Gate(event=gate) for gate in gates))
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(say, door, at(upstream, number))
                await until(lambda number=number: upstream.answering == number + 1)  # type: ignore[misc]
            for place, number in enumerate((12, 10, 11, 10, 13)):
                nursery.start_soon(say, door, at(upstream, number))
                await until(lambda place=place: door.clients.statistics().waiting == place + 1)  # type: ignore[misc]
            # A call to an endpoint whose client is open does not wait behind them.
            await say(door, at(upstream, 1))
            gates[0].set()
            await until(lambda: len(upstream.requests) == 8)
            gates[1].set()
        # The second call to endpoint 10 shares the client that the first had waited for.
        assert [key_of(request) for request in upstream.requests][3:] == ["12", "10", "10", "11", "13"]
        assert door.clients.statistics().waiting == 0


async def test_a_call_waits_for_a_client_only_until_its_first_byte_deadline(clock: MockClock) -> None:
    gate = trio.Event()
    async with open_fake_model() as upstream, open_model(ModelConfig(max_clients=1, retry_budget=1)) as door:
        upstream.script(Gate(event=gate))
        async with trio.open_nursery() as nursery:
            long = Deadlines(first_byte_s=100.0, stall_s=5.0)
            nursery.start_soon(lambda: door.ask(HI, endpoint=at(upstream, 0), deadlines=long, on_delta=lambda _: None))
            await until(lambda: upstream.answering == 1)

            async def waits() -> None:
                with pytest.raises(ModelUnavailable, match="no model client became free"):
                    await say(door, at(upstream, 1))
                assert door.clients.statistics().waiting == 0
                assert door.passed_over() == {}  # the endpoint is not to blame
                gate.set()

            nursery.start_soon(waits)
            await until(lambda: door.clients.statistics().waiting == 1)
            await advance(clock, 10.0)
        assert len(upstream.requests) == 1


async def test_one_who_waits_can_leave_and_those_behind_move_up() -> None:
    gate = trio.Event()
    async with open_fake_model() as upstream, open_model(ModelConfig(max_clients=1)) as door:
        upstream.script(Gate(event=gate))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, door, at(upstream, 0))
            await until(lambda: upstream.answering == 1)
            scope = trio.CancelScope()

            async def leaves() -> None:
                with scope:
                    await say(door, at(upstream, 1))

            nursery.start_soon(leaves)
            await until(lambda: door.clients.statistics().waiting == 1)
            nursery.start_soon(say, door, at(upstream, 2))
            await until(lambda: door.clients.statistics().waiting == 2)
            scope.cancel()
            await until(lambda: door.clients.statistics().waiting == 1)
            gate.set()
        assert [key_of(request) for request in upstream.requests] == ["0", "2"]


async def test_a_retired_client_finishes_what_it_carries_and_a_new_one_serves_the_rest() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(primary=at(upstream))) as door:
        gate = trio.Event()
        upstream.script(Gate(event=gate, reply=Reply(text="undisturbed")), Cut(after_bytes=0))
        told: list[str] = []

        async def carried() -> None:
            told.append(await say(door))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carried)
            await until(lambda: upstream.answering == 1)
            reply = await door.ask(HI, deadlines=PATIENT, on_delta=lambda _: None)
            assert (reply.message.text, reply.attempts) == ("Hello there.", 2)
            assert door.clients.statistics().open == 2  # the retired one counts until its call returns
            gate.set()
        assert told == ["undisturbed"]
        await until(lambda: door.clients.statistics().open == 1)
        assert len(upstream.requests) == 3


async def test_an_error_status_does_not_retire_a_client() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(primary=at(upstream), backoff_base_s=0.0)) as door:
        upstream.script(Status(code=500), Status(code=429))
        assert await say(door) == "Hello there."
        assert upstream.accepted == 1


@pytest.mark.wall_clock_s(60)
async def test_a_provider_that_closes_idle_connections_causes_no_error_and_leaves_no_close_wait(
    clock: MockClock, full: bool
) -> None:
    async with open_fake_model(fin_idle_s=1.0) as upstream, open_network(reap_s=0.5) as network:
        async with open_model(ModelConfig(primary=at(upstream), client_idle_s=30.0), network=network) as door:
            worst = 0
            for _ in range(300 if full else 40):
                assert await say(door) == "Hello there."
                await advance(clock, 0.6)
                worst = max(worst, LeakCensus.take().close_wait)
                await advance(clock, 0.6)
                worst = max(worst, LeakCensus.take().close_wait)
            assert worst <= 1
            assert upstream.accepted == len(upstream.requests)  # each found its connection closed, and said nothing
            assert network.statistics().reaped > 0
            await advance(clock, 31.0)
            assert (LeakCensus.take().close_wait, door.clients.statistics().open) == (0, 0)


async def test_a_connection_that_was_closed_and_not_yet_reaped_costs_the_next_call_nothing(clock: MockClock) -> None:
    async with open_fake_model(fin_idle_s=1.0) as upstream, open_network(reap_s=1000.0) as network:
        async with open_model(ModelConfig(primary=at(upstream)), network=network) as door:
            await say(door)
            await advance(clock, 2.0)
            await until(lambda: LeakCensus.take().close_wait == 1)
            reply = await door.ask(HI, deadlines=PATIENT, on_delta=lambda _: None)
            assert (reply.attempts, LeakCensus.take().close_wait) == (1, 0)


async def test_leaving_the_scope_ends_calls_in_their_own_tasks_and_closes_everything() -> None:
    async with no_leaks(), open_fake_model(default=Stall(after_events=2)) as upstream, trio.open_nursery() as nursery:
        deltas: list[Delta] = []
        ended: list[ModelUnavailable] = []
        opened, leave = trio.Event(), trio.Event()
        doors: list[ModelDoor] = []

        async def scope() -> None:
            async with open_model(ModelConfig(primary=at(upstream))) as door:
                doors.append(door)
                opened.set()
                await leave.wait()

        async def call() -> None:
            with pytest.raises(ModelUnavailable, match="closing") as caught:
                await doors[0].ask(HI, deadlines=Deadlines(first_byte_s=60.0, stall_s=3600.0), on_delta=deltas.append)
            ended.append(caught.value)
            assert doors[0].clients.statistics().leases == 0

        nursery.start_soon(scope)
        await opened.wait()
        nursery.start_soon(call)
        await until(lambda: upstream.answering)
        leave.set()
        await until(lambda: ended)
        await until(lambda: upstream.open_connections == 0)
        await until(lambda: doors[0].clients.statistics().open == 0)
        with pytest.raises(ModelUnavailable, match="closing"):
            await say(doors[0])


async def test_those_who_hold_a_lease_or_wait_for_one_are_told_when_the_scope_is_left() -> None:
    told: list[int] = []
    async with open_fake_model() as upstream, trio.open_nursery() as nursery:
        async with open_model_clients(ModelConfig(max_clients=1)) as clients:

            async def wants(number: int) -> None:
                with pytest.raises(ClientsClosing):
                    async with clients.lease(at(upstream, number)):
                        await trio.sleep_forever()
                told.append(number)

            nursery.start_soon(wants, 0)
            await until(lambda: clients.statistics().leases == 1)
            nursery.start_soon(wants, 1)
            await until(lambda: clients.statistics().waiting == 1)
        assert (clients.statistics().open, clients.statistics().leases, clients.statistics().waiting) == (0, 0, 0)
    assert sorted(told) == [0, 1]


async def test_new_bounds_hold_from_the_next_call_on() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(max_clients=4)) as door:
        for number in range(4):
            await say(door, at(upstream, number))
        door.configure(ModelConfig(primary=at(upstream, 9), max_clients=2))
        assert await say(door) == "Hello there."
        await until(lambda: door.clients.statistics().open <= 2)


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_model(ModelConfig()):
            raise KeyError("bare")


def test_importing_the_door_does_not_import_the_sdk() -> None:
    code = "import sys, hermes.agent.model; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_warming_up_loads_once_and_opens_nothing() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(primary=at(upstream))) as door:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(door.warm)
        loaded = door.clients._openai
        await door.warm()
        assert loaded is not None
        assert door.clients._openai is loaded
        assert door.clients.statistics().open == 0
