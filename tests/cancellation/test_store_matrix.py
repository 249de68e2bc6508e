"""The store, ended at each of its steps and at random: nothing is left, and what was acknowledged is what is there."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hermes.settings import StoreConfig
from hermes.store.database import Database, open_database
from hermes.store.migrations import Migration
from hermes.testing import cancel_at_every_step, no_leaks

TABLES = (Migration("t001", "CREATE TABLE rows (name TEXT UNIQUE)"),)


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Database]:
    async with open_database(home / "hermes.db", settings=StoreConfig(), migrations=TABLES) as database:
        yield database


def insert(name: str) -> Callable[[sqlite3.Connection], str]:
    def fn(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO rows (name) VALUES (?)", (name,))
        return name

    return fn


async def names(database: Database) -> set[str]:
    return await database.read(lambda c: {name for (name,) in c.execute("SELECT name FROM rows")})


@pytest.mark.wall_clock_s(90)
async def test_ended_at_every_step_it_leaves_nothing_and_keeps_its_word(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    begun: set[str] = set()

    async def one(database: Database, name: str) -> None:
        begun.add(name)
        acknowledged.add(await database.write(insert(name)))

    async def scenario() -> None:
        life = len(begun)
        async with opened(tmp_path) as database:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one, database, f"{life}-a")
                    nursery.start_soon(one, database, f"{life}-b")
                    nursery.start_soon(names, database)
                await database.quick_check()
                await database.backup(tmp_path / f"{life}.backup")
            finally:
                with trio.CancelScope(shield=True):
                    await one(database, f"{life}-last words")

    async def check() -> None:
        assert [path.name for path in tmp_path.glob("*.part*")] == []  # noqa: ASYNC240  # a test's own look
        async with opened(tmp_path) as database:
            assert not database.unclean
            there = await names(database)
            assert acknowledged <= there <= begun
            await database.write(lambda c: c.execute("DELETE FROM rows"))
        acknowledged.clear()
        for backup in tmp_path.glob("*.backup"):  # noqa: ASYNC240  # a test's own look
            backup.unlink()

    report = await cancel_at_every_step(scenario, check=check, ways=("cancel", "deadline", "sibling"), stride=1)
    assert report.runs > 60


@pytest.mark.parametrize("count", [1, 100])
async def test_final_writes_all_land_while_the_root_is_being_cancelled(tmp_path: Path, count: int) -> None:
    async with no_leaks():
        with trio.CancelScope() as root:
            async with opened(tmp_path) as database, trio.open_nursery() as nursery:

                async def turn(name: str) -> None:
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            await database.write(insert(name))

                for number in range(count):
                    nursery.start_soon(turn, f"final {number}")
                await wait_all_tasks_blocked()
                root.cancel()
        assert root.cancelled_caught
    async with opened(tmp_path) as database:
        assert len(await names(database)) == count


@pytest.mark.parametrize("seed", range(4))
async def test_rows_are_acknowledgements_under_random_cancels(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: set[str] = set()
    cancelled = 0

    async def attempt(database: Database, name: str) -> None:
        nonlocal cancelled
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                patience = dice.choice([0, 1, 1, 2, 3, 5, 8, 13, 50, 200, None, None])

                async def impatient(steps: int) -> None:
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                if patience is not None:
                    nursery.start_soon(impatient, patience)
                if dice.random() < 0.3:
                    await names(database)
                acknowledged.add(await database.write(insert(name)))
                nursery.cancel_scope.cancel()
        cancelled += scope.cancelled_caught

    async def worker(database: Database, number: int) -> None:
        for index in range(25):
            await attempt(database, f"{number}-{index}")

    async with no_leaks():
        async with opened(tmp_path) as database:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(worker, database, number)
            assert await names(database) == acknowledged
            assert database.in_flight == 0
    assert cancelled > 10
    assert acknowledged
