"""`hermes serve` while its disk misbehaves: a foreign writer, a full disk, a damaged file, a file from the future."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.home import Home
from hermes.instance import is_held
from hermes.testing.fake_model import Gate, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayEnded, GatewayProcess, open_gateway_process, until, write_config


async def readiness(gateway: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.client.get("/ready")).json()
    return found


async def test_a_foreign_writer_holds_the_lock_and_everything_goes_on_afterwards(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", trio.Event()
    async with open_fake_model() as upstream:
        model = {"default": "fake", "base_url": upstream.base_url}
        write_config(home, {"model": model, "store": {"busy_timeout_s": 0.2}})
        async with open_gateway_process(home) as gateway, trio.open_nursery() as nursery:
            upstream.script(Gate(event=gate, reply=Reply(text="written when it can be")))
            answers: list[httpx2.Response] = []

            async def ask() -> None:
                answers.append(await gateway.chat("before"))

            nursery.start_soon(ask)
            await until(lambda: upstream.requests, "the model is asked")
            with contextlib.closing(sqlite3.connect(Home(home).database, isolation_level=None)) as foreign:
                foreign.execute("BEGIN IMMEDIATE")
                refused = await gateway.chat("meanwhile")
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
                assert int(refused.headers["retry-after"]) >= 1
                gate.set()
                for _ in range(10):
                    assert (await gateway.client.get("/health")).status_code == 200
                    report = await readiness(gateway)
                    assert (report["status"], report["checks"]["store"]) == ("degraded", "unavailable (busy)")
                assert (await gateway.status())["store"]["unavailable"] == "busy"
                assert not answers  # its end is not committed, so it is not told
                foreign.execute("ROLLBACK")

            async def ready() -> bool:
                return (await readiness(gateway))["status"] == "ready"

            await until(ready, "ready again")
            await until(lambda: answers, "the turn that waited is answered")
            assert answers[0].json()["choices"][0]["message"]["content"] == "written when it can be"
            assert (await gateway.chat("after")).status_code == 200
            assert await gateway.terminate() == 0
    with contextlib.closing(sqlite3.connect(Home(home).database)) as con:
        assert con.execute("SELECT state, count(*) FROM inbox GROUP BY state").fetchall() == [("answered", 2)]


async def test_a_short_lock_is_only_waited_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_gateway_process(home) as gateway, trio.open_nursery() as nursery:
        answers: list[httpx2.Response] = []

        async def ask() -> None:
            answers.append(await gateway.chat("hi"))

        with contextlib.closing(sqlite3.connect(Home(home).database, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            nursery.start_soon(ask)

            async def waits() -> bool:
                assert (await gateway.client.get("/health")).status_code == 200
                return (await gateway.metrics())['hermes_store{of="waiting_writes"}'] >= 1

            await until(waits, "a write waits")
            assert not answers
            foreign.execute("ROLLBACK")
        await until(lambda: answers, "answered")
        assert answers[0].status_code == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; only root may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root alone")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_a_full_disk_is_503_until_there_is_room_again(small_disk: Path) -> None:
    home = small_disk / "home"
    async with open_gateway_process(home) as gateway:
        assert (await gateway.chat("hi", session="kept")).status_code == 200
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        told: list[httpx2.Response] = []

        async def refused() -> bool:
            told.append(await gateway.chat("hi " + "x" * 20_000, session="kept"))
            return told[-1].status_code == 503

        await until(refused, "a request is refused")
        assert told[-1].json()["error"]["code"] == "store_unavailable"
        assert "retry-after" in told[-1].headers
        assert (await readiness(gateway))["checks"]["store"] == "unavailable (full)"
        assert (await gateway.client.get("/health")).status_code == 200
        (small_disk / "filler").unlink()

        async def served() -> bool:
            return (await gateway.chat("hi", session="kept")).status_code == 200

        await until(served, "served again")
        assert (await readiness(gateway))["status"] == "ready"
        assert await gateway.terminate() == 0
    answered = sum(each.status_code == 200 for each in told)
    with contextlib.closing(sqlite3.connect(Home(home).database)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        states = dict(con.execute("SELECT state, count(*) FROM inbox GROUP BY state").fetchall())
        assert set(states) == {"answered"}
        assert states["answered"] >= 2 + answered


async def refusal(home: Path) -> str:
    with pytest.raises(GatewayEnded) as ended:
        async with open_gateway_process(home):
            raise AssertionError("served")
    assert "Traceback" not in str(ended.value)
    assert not is_held(Home(home))
    return str(ended.value)


async def test_a_damaged_database_ends_the_start_with_1_and_words(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "hermes.db").write_bytes(b"no database at all, " * 1000)
    said = await refusal(home)
    assert "exit code 1" in said
    assert "hermes.db" in said
    assert (home / "hermes.db").read_bytes().startswith(b"no database at all")


async def test_a_newer_database_ends_the_start_with_78_and_words(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_gateway_process(home) as gateway:
        assert await gateway.terminate() == 0
    with contextlib.closing(sqlite3.connect(Home(home).database, isolation_level=None)) as con:
        con.execute("INSERT INTO store_migrations (name, applied_at) VALUES ('m999_from_the_future', 0)")
        (version,) = con.execute("PRAGMA user_version").fetchone()
        con.execute(f"PRAGMA user_version={version + 1}")
    said = await refusal(home)
    assert "exit code 78" in said
    assert "newer" in said
