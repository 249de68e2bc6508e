"""Kills at one exact point each: in a tool, in a model call, three times in a row, behind an idempotency key."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.home import Home
from hermes.testing.fake_model import FakeModel, Gate, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until, write_config
from hermes.testing.tools import processes_with


def configure(home: Path, upstream: FakeModel) -> None:
    model = {"default": "fake", "base_url": upstream.base_url, "retry_budget": 1}
    write_config(home, {"model": model, "sessions": {"sweep_s": 0.1}})


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[int]:
    """A FIFO that a tool writes to while it runs; its reading end."""
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    yield reading
    os.close(reading)


def heard(fifo: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(fifo, 100)
    return b""


def in_a_tool(tmp_path: Path, mark: str) -> Gate | Reply:
    """A call that changes something, says so, and does not end."""
    command = f"echo {mark} >> effects; echo ran > {tmp_path}/fifo; exec sleep 4711.{os.getpid()}"
    return Reply(text="", calls=[("terminal", json.dumps({"command": command}))], call_ids=[mark])


async def run_of(gateway: GatewayProcess, run: str) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.client.get(f"/v1/runs/{run}")).raise_for_status().json()
    return found


async def over(gateway: GatewayProcess, run: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await run_of(gateway, run)
        return found if found["status"] not in ("queued", "running") else None

    return await until(look, "the run is over")


async def ask(gateway: GatewayProcess, answers: list[Any], **more: Any) -> None:
    try:
        answers.append(await gateway.chat("change it", **more))
    except httpx2.TransportError as error:
        answers.append(error)


@pytest.mark.wall_clock_s(60)
async def test_killed_in_a_tool_a_run_goes_on_without_running_it_again(tmp_path: Path, fifo: int) -> None:
    home = tmp_path / "home"
    async with open_fake_model() as upstream:
        configure(home, upstream)
        async with open_gateway_process(home) as gateway:
            upstream.script(in_a_tool(tmp_path, "once"))
            started = (await gateway.client.post("/v1/runs", json={"input": "do it"})).raise_for_status().json()
            await until(lambda: heard(fifo), "the tool runs")
            assert processes_with(f"4711.{os.getpid()}")
            await gateway.kill()
        upstream.script(Reply(text="went on"))
        async with open_gateway_process(home) as gateway:
            await until(lambda: not processes_with(f"4711.{os.getpid()}"), "what the tool had started is gone")
            shown = await over(gateway, started["run_id"])
            assert (shown["status"], shown["output"]) == ("completed", "went on")
            messages = upstream.requests[-1].body["messages"]
            assert messages[-1]["role"] == "tool"
            assert "outcome unknown" in messages[-1]["content"]
            assert (home / "workspace" / "effects").read_text() == "once\n"
            assert not upstream.refused


@pytest.mark.wall_clock_s(60)
async def test_killed_in_a_tool_a_request_is_interrupted_and_its_key_is_spent(tmp_path: Path, fifo: int) -> None:
    home = tmp_path / "home"
    async with open_fake_model() as upstream:
        configure(home, upstream)
        async with open_gateway_process(home) as gateway, trio.open_nursery() as nursery:
            upstream.script(in_a_tool(tmp_path, "once"))
            answers: list[Any] = []
            nursery.start_soon(lambda: ask(gateway, answers, session="s", key="k"))
            await until(lambda: heard(fifo), "the tool runs")
            await gateway.kill()
        assert isinstance(answers[0], httpx2.TransportError)
        async with open_gateway_process(home) as gateway:
            again = await gateway.chat("change it", session="s", key="k")
            assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_outcome_unknown")
            other = await gateway.chat("another thing", session="s", key="k")
            assert other.status_code == 422
            assert len(upstream.requests) == 1
            assert (await gateway.chat("go on", session="s")).status_code == 200
            assert not upstream.refused
            assert (home / "workspace" / "effects").read_text() == "once\n"
            assert await gateway.terminate() == 0
    with contextlib.closing(sqlite3.connect(Home(home).database)) as con:
        assert con.execute("SELECT state FROM inbox ORDER BY id").fetchall() == [("interrupted",), ("answered",)]


@pytest.mark.wall_clock_s(60)
async def test_killed_in_a_model_call_a_key_is_free_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_model() as upstream:
        configure(home, upstream)
        async with open_gateway_process(home) as gateway, trio.open_nursery() as nursery:
            upstream.script(Gate(event=trio.Event()))
            nursery.start_soon(lambda: ask(gateway, [], key="k"))
            await until(lambda: upstream.requests, "the model is asked")
            await gateway.kill()
        upstream.script(Reply(text="the second time"))
        async with open_gateway_process(home) as gateway:
            first = await gateway.chat("change it", key="k")
            assert first.json()["choices"][0]["message"]["content"] == "the second time"
            await gateway.kill()
        async with open_gateway_process(home) as gateway:
            second = await gateway.chat("change it", key="k")
            assert (second.json(), second.headers["idempotent-replayed"]) == (first.json(), "true")
            assert len(upstream.requests) == 2


@pytest.mark.wall_clock_s(60)
async def test_what_dies_with_the_process_three_times_is_set_aside(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_model(default=Gate(event=trio.Event())) as upstream:
        configure(home, upstream)
        run = ""
        for start in range(1, 3):
            async with open_gateway_process(home) as gateway:
                if not run:
                    body = {"input": "deadly", "session_id": "s"}
                    run = (await gateway.client.post("/v1/runs", json=body)).raise_for_status().json()["run_id"]
                await until(lambda start=start: len(upstream.requests) == start, "the model is asked")
                assert (await run_of(gateway, run))["status"] == "running"
                await gateway.kill()
        upstream.default = Reply(text="harmless")
        async with open_gateway_process(home) as gateway:
            shown = await over(gateway, run)
            assert shown["status"] == "failed"
            assert "three times" in shown["error"]["message"]
            assert len(upstream.requests) == 2
            assert (await gateway.chat("hi", session="s")).status_code == 200
            assert not upstream.refused
