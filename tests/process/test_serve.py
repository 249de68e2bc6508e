"""`hermes serve` as a person and a service manager meet it: starting, stopping, being replaced, reloading, being refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.home import Home
from hermes.instance import is_held
from hermes.testing.fake_model import FakeModel, Gate, Status, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import (
    GatewayEnded,
    GatewayProcess,
    hermes,
    open_gateway_process,
    until,
    write_config,
)
from hermes.testing.ports import silent_port


@asynccontextmanager
async def with_model(home: Path, **sections: Any) -> AsyncIterator[FakeModel]:
    """A model server, and a configuration that names it."""
    async with open_fake_model() as upstream:
        model = {"default": "fake", "base_url": upstream.base_url, "retry_budget": 1, **sections.pop("model", {})}
        write_config(home, {"model": model, **sections})
        yield upstream


def rows(home: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the database of a gateway that has ended."""
    with contextlib.closing(sqlite3.connect(Home(home).database)) as con:
        return con.execute(query).fetchall()


async def ask(gateway: GatewayProcess, answers: list[Any], text: str = "hi", **more: Any) -> None:
    """A chat completion in a task of its own; what it came to."""
    try:
        answers.append(await gateway.chat(text, **more))
    except httpx2.HTTPError as error:
        answers.append(error)


# --- starting


async def test_the_first_start_shows_the_key_and_no_other_does(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_gateway_process(home) as gateway:
        kept = home / "api_key"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert gateway.shown_key == kept.read_text().strip()
        assert (await gateway.chat("hello")).status_code == 200
        wrong = await gateway.client.get("/v1/models", headers={"authorization": "Bearer " + "x" * 20})
        assert wrong.status_code == 401
        assert (await gateway.client.get("/health")).json() == {"status": "ok"}
        assert await gateway.terminate() == 0
        assert gateway.shown_key not in gateway.log + gateway.said
    assert not is_held(Home(home))
    async with open_gateway_process(home) as gateway:
        assert gateway.shown_key is None
        assert (await gateway.chat("hello")).status_code == 200  # with the key of the file
        assert (await hermes(home, "stop")).stdout == "stopped\n"
        assert await gateway.process.wait() == 0
    assert (await hermes(home, "status")).returncode == 3


async def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with silent_port() as port:
        with pytest.raises(GatewayEnded, match="exit code 1") as ended:
            async with open_gateway_process(tmp_path / "home", port=port):
                raise AssertionError("served")
    assert f"port {port} is taken" in str(ended.value)
    assert "--port" in str(ended.value)
    assert "Traceback" not in str(ended.value)
    assert not is_held(Home(tmp_path / "home"))


async def test_every_mistake_is_told_at_once_and_nothing_is_opened(tmp_path: Path) -> None:
    home = tmp_path / "home"
    bad = {
        "model": {"default": "m", "base_url": "ftp://nowhere", "api_key": "planted-secret\u00e9"},
        "http": {"port": 70000},
        "agent": {"max_steps": 0},
        "shutdown": {"total_s": "soon"},
        "strore": {},
    }
    before = sorted(path.name for path in write_config(home, bad).parent.iterdir())
    with pytest.raises(GatewayEnded, match="exit code 78") as ended:
        async with open_gateway_process(home):
            raise AssertionError("served")
    for path in ("model.base_url", "model.api_key", "http.port", "agent.max_steps", "shutdown.total_s", "strore"):
        if path != "http.port":  # the command line is above the file
            assert path in str(ended.value), path
    assert "planted-secret" not in str(ended.value)
    assert sorted(path.name for path in home.iterdir()) == before


@pytest.mark.wall_clock_s(90)
async def test_of_twenty_starts_at_once_one_serves(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(open_gateway_process(home, wait=False)) for _ in range(20)]
        others: list[GatewayProcess] = []

        async def watch(gateway: GatewayProcess) -> None:
            await gateway.process.wait()
            others.append(gateway)
            if len(others) == 19:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for each in started:
                nursery.start_soon(watch, each)
        (serves,) = (each for each in started if each not in others)
        await serves.served()
        assert {each.process.returncode for each in others} == {69}
        boot_id = (await serves.status())["boot_id"]
        assert all(f"({boot_id})" in each.said for each in others)
        assert (await serves.chat("hi")).status_code == 200


@pytest.mark.wall_clock_s(60)
async def test_after_kill_the_next_start_works_at_once_whatever_the_lock_says(tmp_path: Path, full: bool) -> None:
    home = tmp_path / "home"
    for _ in range(10 if full else 3):
        async with open_gateway_process(home) as gateway:
            assert (await gateway.chat("hi", session="kept")).status_code == 200
            await gateway.kill()
        assert (home / "hermes.sock").is_socket()  # what the dead one left
        (home / "hermes.lock").write_text(json.dumps({"pid": os.getpid(), "command": "a living stranger"}))
    async with open_gateway_process(home) as gateway:
        shown = (await gateway.status())["recovered"]
        assert shown == {"turns_cut": 0, "rows_interrupted": 0, "rows_resumed": 0}


# --- stopping


async def test_a_running_turn_is_finished_before_the_end(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", trio.Event()
    async with with_model(home) as upstream, open_gateway_process(home) as gateway:
        upstream.script(Gate(event=gate, reply=Reply(text="late but whole")))
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, gateway, answers)
            await until(lambda: upstream.requests, "the model is asked")
            gateway.process.send_signal(signal.SIGTERM)

            async def refused() -> httpx2.Response | None:
                answer = await gateway.client.get("/ready")
                return answer if answer.status_code == 503 else None

            assert (await until(refused, "/ready says draining")).json()["status"] == "draining"
            late = await gateway.chat("too late")
            assert (late.status_code, late.headers["retry-after"].isdigit()) == (503, True)
            assert (await gateway.client.get("/health")).status_code == 200
            gate.set()
        assert answers[0].json()["choices"][0]["message"]["content"] == "late but whole"
        assert await gateway.process.wait() == 0
    assert rows(home, "SELECT state FROM inbox") == [("answered",)]


async def test_a_second_signal_cuts_a_hundred_turns_and_a_hundred_rows_say_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with with_model(home, http={"max_concurrent_turns": 100}) as upstream:
        upstream.default = Gate(event=trio.Event())
        async with open_gateway_process(home) as gateway:
            answers: list[Any] = []
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(partial(ask, gateway, answers, session=f"s{number}"))
                await until(lambda: len(upstream.requests) == 100, "the model is asked a hundred times")
                gateway.process.send_signal(signal.SIGTERM)
                await until(lambda: "gateway.stopping" in gateway.said, "the first signal was heard")
                assert not answers
                gateway.process.send_signal(signal.SIGTERM)
            assert all(isinstance(each, httpx2.HTTPError) or each.status_code == 503 for each in answers)
            assert await gateway.process.wait() == 0
            assert "gateway.second_signal" in gateway.log
    assert rows(home, "SELECT state, count(*) FROM inbox GROUP BY state") == [("interrupted", 100)]
    assert rows(home, "SELECT state, count(*) FROM turns GROUP BY state") == [("interrupted", 100)]


@pytest.mark.wall_clock_s(60)
async def test_a_stop_that_cannot_end_is_ended_by_the_watchdog_with_all_stacks(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sections = {
        "shutdown": {"total_s": 0.3, "drain_timeout_s": 0.1, "watchdog_s": 0.3},
        "store": {"busy_timeout_s": 600},
    }
    async with with_model(home, **sections) as upstream:
        async with open_gateway_process(home) as gateway:
            upstream.script(Gate(event=trio.Event()))
            answers: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, gateway, answers)
                await until(lambda: upstream.requests, "the model is asked")
                with contextlib.closing(sqlite3.connect(Home(home).database, isolation_level=None)) as foreign:
                    foreign.execute("BEGIN IMMEDIATE")  # the end of the turn cannot be written
                    assert await gateway.terminate() == 1
            assert isinstance(answers[0], httpx2.HTTPError)
            assert "all threads:" in gateway.said
        async with open_gateway_process(home) as gateway:
            assert (await gateway.status())["recovered"]["rows_interrupted"] == 1
            await gateway.terminate()
    assert rows(home, "SELECT state FROM inbox") == [("interrupted",)]


async def test_replace_finishes_what_runs_in_the_old_one(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", trio.Event()
    async with with_model(home) as upstream, open_gateway_process(home) as old:
        upstream.script(Gate(event=gate, reply=Reply(text="from the old one")))
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, old, answers)
            await until(lambda: upstream.requests, "the model is asked")
            async with open_gateway_process(home, "--replace", wait=False) as new:
                await until(lambda: "reason=replace" in old.said, "the old one was asked to stop")
                assert "finishes first what it is answering" in new.lines[0]
                assert not new.url
                gate.set()
                await new.served()
                assert await old.process.wait() == 0
                assert (await new.chat("hi")).status_code == 200
                assert (await new.terminate()) == 0
        assert answers[0].json()["choices"][0]["message"]["content"] == "from the old one"


# --- while it runs


async def names(gateway: GatewayProcess) -> set[str]:
    return {each["id"] for each in (await gateway.client.get("/v1/models")).raise_for_status().json()["data"]}


async def test_a_changed_configuration_is_taken_over_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def configure(*aliases: str, **more: Any) -> None:
        model = {"default": "m", "base_url": "http://127.0.0.1:9/v1", "aliases": dict.fromkeys(aliases, "other")}
        write_config(home, {"model": model, **more})

    configure()
    async with open_gateway_process(home) as gateway:
        assert await names(gateway) == {"hermes", "m"}

        async def offers(name: str) -> bool:
            return name in await names(gateway)

        configure("by-signal")
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: offers("by-signal"), "reloaded by SIGHUP")
        configure("by-command")
        done = await hermes(home, "reload")
        assert (done.returncode, done.stderr) == (0, "")
        assert await offers("by-command")
        configure("by-mtime")
        await until(lambda: offers("by-mtime"), "reloaded because the file changed")

        configure("never", agent={"max_steps": "many"})
        done = await hermes(home, "reload")
        assert (done.returncode, "agent.max_steps" in done.stderr) == (1, True)
        assert "agent.max_steps" in (await hermes(home, "status")).stdout
        assert await names(gateway) == {"hermes", "m", "by-mtime"}
        configure("again", http={"port": 1})
        done = await hermes(home, "reload", "--json")
        assert json.loads(done.stdout)["changed"] == ["model"]  # the port is the command line's
        assert (await gateway.status())["config"]["error"] is None


async def test_a_signal_writes_the_scope_tree_to_the_log(tmp_path: Path) -> None:
    async with open_gateway_process(tmp_path / "home") as gateway:
        assert "open_sessions" not in gateway.log
        gateway.process.send_signal(signal.SIGUSR1)
        await until(lambda: "Sessions.sweep" in gateway.log and "Server._accept" in gateway.log, "the tree is there")
        tree = (await gateway.client.get("/api/lifetimes")).json()
        assert tree["living"] > 5


async def test_the_service_manager_is_told(tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        def hear(word: str) -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.extend(manager.recv(4096).decode().splitlines())
            return word in heard

        more = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        async with open_gateway_process(tmp_path / "home", more=more) as gateway:
            await until(lambda: hear("READY=1"), "READY=1")
            await until(lambda: hear("WATCHDOG=1"), "a sign of life")
            assert "STOPPING=1" not in heard
            assert await gateway.terminate() == 0
            assert hear("STOPPING=1")


async def test_a_backup_is_made_while_it_serves(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy.db"
    async with open_gateway_process(home) as gateway, trio.open_nursery() as nursery:
        answers: list[Any] = []
        for number in range(10):
            nursery.start_soon(ask, gateway, answers, f"hi {number}")
        await until(lambda: len(answers) >= 2, "some are answered")
        told = len(answers)
        done = await hermes(home, "backup", str(copy))
        assert (done.returncode, done.stderr) == (0, "")
        with contextlib.closing(sqlite3.connect(copy)) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (answered,) = con.execute("SELECT count(*) FROM inbox WHERE state = 'answered'").fetchone()
            assert told <= answered <= 10
        again = await hermes(home, "backup", str(copy))
        assert again.returncode == 1
        assert "exists" in again.stderr
        nowhere = await hermes(home, "backup", str(tmp_path / "nowhere" / "copy.db"))
        assert nowhere.returncode == 1
        assert nowhere.stderr.startswith(f"hermes: the backup was not made: {tmp_path}/nowhere/copy.db: No such file")


# --- secrets


@pytest.mark.wall_clock_s(60)
async def test_no_secret_reaches_a_log_a_status_or_an_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    planted = {
        name: f"plantedsecret{name}4711"
        for name in ("environment", "config", "header", "proxy", "httpkey", "upstream", "body", "url")
    }
    async with open_fake_model() as upstream:
        sections = {
            "model": {
                "default": "fake", "base_url": upstream.base_url, "api_key": "${OPENAI_API_KEY}", "retry_budget": 1,
                "headers": {"x-org-token": planted["header"]},
                "aliases": {
                    "proxied": {"model": "m", "base_url": "http://models.invalid/v1", "api_key": planted["config"],
                                "proxy": f"http://user:{planted['proxy']}@127.0.0.1:9"},
                },
            },
            "http": {"key": planted["httpkey"]}, "logging": {"level": "debug"},
        }  # fmt: skip
        write_config(home, sections)
        more = {"OPENAI_API_KEY": planted["environment"]}
        async with open_gateway_process(home, "-vv", more=more) as gateway:
            gateway.client.headers["authorization"] = f"Bearer {planted['httpkey']}"

            told = [
                await gateway.chat("hi"),
                await gateway.chat("hi", model="proxied"),
                await gateway.chat("hi", temperature=f"api_key={planted['body']}"),
            ]
            upstream.script(Status(code=401, message=f"Incorrect API key provided: {planted['environment']}"))
            told.append(await gateway.chat("hi"))
            told.append(await gateway.client.get(f"/v1/models?api_key={planted['url']}"))
            upstream.script(Reply(calls=[("terminal", json.dumps({"command": "echo $OPENAI_API_KEY; env"}))]))
            told.append(await gateway.chat("run it"))
            assert [each.status_code for each in told] == [200, 502, 400, 502, 200, 200]
            results = [each for each in upstream.requests[-1].body["messages"] if each["role"] == "tool"]
            assert planted["environment"] not in json.dumps(results)
            gateway.process.send_signal(signal.SIGUSR1)
            await until(lambda: "gateway.py" in gateway.log, "the tree is in the log")
            seen = {
                "log": gateway.log, "stderr": gateway.said, "stdout": "\n".join(gateway.lines),
                "status": (await hermes(home, "status", "--json", more=more)).stdout,
                "config": (await hermes(home, "config", "show", more=more)).stdout,
                "lifetimes": (await gateway.client.get("/api/lifetimes")).text,
                "metrics": (await gateway.client.get("/metrics")).text,
                "answers": "".join(each.text for each in told[:2] + told[3:]),
            }  # fmt: skip
            assert upstream.requests[0].headers["authorization"] == f"Bearer {planted['environment']}"
            await gateway.terminate()
        seen["log"] += gateway.log
    for place, text in seen.items():
        for name, secret in planted.items():
            assert secret not in text, f"{name} in {place}"
