"""A model server that means harm: small answers that become huge ones, floods of nothing, and what no count can be."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from hermes.agent.calls import Deadlines, ModelReply, ModelRequest
from hermes.agent.exchange import EVENTS_BETWEEN_CHECKPOINTS
from hermes.agent.model import ModelDoor, open_model
from hermes.errors import ModelProtocolError, ModelRefused
from hermes.messages import Entry, user
from hermes.net import open_network
from hermes.net.inflating import PIECE
from hermes.net.transport import MAX_ERROR_BODY_BYTES
from hermes.settings import Endpoint, ModelConfig
from hermes.testing.fake_model import STREAM_HEAD, FakeModel, Raw, open_fake_model
from hermes.testing.fake_wire import Reply, chat_events
from hermes.testing.gateway_process import until

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
HI = ModelRequest(system="", history=[Entry(user("hi"))])


@asynccontextmanager
async def opened(*pieces: bytes) -> AsyncIterator[tuple[FakeModel, ModelDoor]]:
    async with open_fake_model(default=Raw(pieces=pieces)) as upstream:
        primary = Endpoint(model="m", base_url=upstream.base_url)
        async with open_model(ModelConfig(primary=primary, retry_budget=1, max_output_bytes=100_000)) as door:
            yield upstream, door


async def ask(door: ModelDoor) -> ModelReply:
    return await door.ask(HI, deadlines=Deadlines(first_byte_s=20.0, stall_s=20.0), on_delta=lambda _: None)


async def most_at_once(door: ModelDoor) -> tuple[int, int]:
    """How many deltas came in all, and how many at most before another task got its turn."""
    turn = 0
    came: Counter[int] = Counter()

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        deadlines = Deadlines(first_byte_s=20.0, stall_s=20.0)
        await door.ask(HI, deadlines=deadlines, on_delta=lambda _: came.update((turn,)))
        nursery.cancel_scope.cancel()
    return came.total(), max(came.values())


def packed(status: int, body: bytes, coding: str = "gzip") -> bytes:
    data = gzip.compress(body)
    head = f"HTTP/1.1 {status} X\r\ncontent-encoding: {coding}\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def said(text: str) -> bytes:
    return b"".join(chat_events(Reply(text=text), "m", include_usage=True))


async def test_an_answer_that_inflates_is_taken_in_small_pieces() -> None:
    events = list(chat_events(Reply(text=["word"] * 3000), "m", include_usage=True))
    async with opened(packed(200, b"".join(events))) as (_, door):
        total, at_once = await most_at_once(door)
    assert total == 3000
    assert at_once <= 2 * (PIECE / min(map(len, events[1:-2])) + 1)  # tasks take turns in a random order


async def test_an_error_that_inflates_is_cut_at_its_bound() -> None:
    body = b'{"error":{"message":"' + b"A" * 20_000_000 + b'"}}'
    async with opened(packed(400, body)) as (upstream, door):
        with pytest.raises(ModelRefused, match="AAAA"):
            await ask(door)
        async with open_network() as network, network.http_client() as client:
            answer = await client.post(f"{upstream.base_url}/chat/completions", json=ASKED)
    assert len(answer.content) <= MAX_ERROR_BODY_BYTES + PIECE


@pytest.mark.parametrize("coding", ["br", "gzip, gzip"])
async def test_a_coding_that_nobody_asked_for_is_garbage(coding: str) -> None:
    async with opened(packed(200, said("x"), coding)) as (upstream, door):
        with pytest.raises(ModelProtocolError, match="nobody asked for"):
            await ask(door)
        assert len(upstream.requests) == 1
        await until(lambda: not upstream.open_connections, "the connection is closed")


async def test_what_is_compressed_and_broken_is_garbage() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 40\r\n\r\n"
    async with opened(head + b"not gzip" * 5) as (_, door):
        with pytest.raises(ModelProtocolError, match="cannot be decompressed"):
            await ask(door)


async def test_a_flood_of_small_chunks_leaves_others_their_turn() -> None:
    events = chat_events(Reply(text=["x"] * 400), "m", include_usage=True)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    async with opened(STREAM_HEAD + chunks + b"0\r\n\r\n") as (_, door):
        total, at_once = await most_at_once(door)
    assert total == 400
    assert at_once <= 2 * EVENTS_BETWEEN_CHECKPOINTS


async def test_half_a_surrogate_pair_in_an_error_can_be_stored() -> None:
    body = b'{"error":{"message":"no \\ud800 way"}}'
    async with opened(b"HTTP/1.1 400 X\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as (_, door):
        with pytest.raises(ModelRefused, match=r"no \? way") as caught:
            await ask(door)
    assert str(caught.value).encode()
