"""What the engine of the store promises: transactions, snapshots, cancellation, the header, migrations."""

from __future__ import annotations

import gc
import inspect
import os
import queue
import sqlite3
import stat
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import aiosqlite.core
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from hermes.errors import SchemaTooNew, StoreCorrupt, StoreUnavailable
from hermes.settings import StoreConfig
from hermes.store.database import Database, open_database
from hermes.store.migrations import Migration, statements
from hermes.testing import no_leaks

TABLES = Migration(
    "t001",
    """
    CREATE TABLE rows (name TEXT UNIQUE, body BLOB);
    CREATE TABLE children (parent TEXT REFERENCES rows (name) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER gives_up BEFORE INSERT ON rows WHEN new.name = 'give up'
        BEGIN SELECT RAISE(ROLLBACK, 'gave up'); END;
    """,
)


@asynccontextmanager
async def opened(tmp_path: Path, *migrations: Migration, **settings: Any) -> AsyncIterator[Database]:
    async with open_database(
        tmp_path / "hermes.db", settings=StoreConfig(**settings), migrations=migrations or (TABLES,)
    ) as database:
        yield database


def insert(name: str) -> Callable[[sqlite3.Connection], str]:
    def fn(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO rows (name) VALUES (?)", (name,))
        return name

    return fn


async def names(database: Database) -> list[str]:
    return await database.read(lambda c: [row[0] for row in c.execute("SELECT name FROM rows ORDER BY name")])


class Gate:
    """A function of a write that stays in the writer's thread until it is let go."""

    def __init__(self, name: str = "gate") -> None:
        self.name = name
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> str:
        self.entered.set()
        assert self.go.wait(20)
        return insert(self.name)(connection)

    async def reached(self) -> None:
        await trio.to_thread.run_sync(self.entered.wait, 20)


async def collect(into: list[object], call: Callable[[], Any]) -> None:
    try:
        into.append(await call())
    except (sqlite3.Error, StoreUnavailable, LookupError, TypeError) as error:
        into.append(error)


# Transactions


async def test_a_write_returns_its_value_and_is_there_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        assert database.created
        assert await database.write(insert("a")) == "a"
        assert await names(database) == ["a"]
    async with opened(tmp_path) as database:
        assert not database.created
        assert await names(database) == ["a"]


async def test_writes_that_wait_are_one_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.write, gate)
            await gate.reached()
            before = database.statistics().commits
            for number in range(30):
                nursery.start_soon(database.write, insert(f"{number:02}"))
            await wait_all_tasks_blocked()
            assert database.statistics().waiting_writes == 30
            assert database.in_flight == 31
            gate.go.set()
        now = database.statistics()
        assert now.commits == before + 2
        assert now.largest_batch == 30
        assert now.waiting_writes == database.in_flight == 0
        assert len(await names(database)) == 31


async def in_one_group(database: Database, *fns: Callable[[sqlite3.Connection], object]) -> list[list[object]]:
    gate, results = Gate(), [[] for _ in fns]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.reached()
        for into, fn in zip(results, fns, strict=True):
            nursery.start_soon(collect, into, lambda fn=fn: database.write(fn))
            await wait_all_tasks_blocked()
        gate.go.set()
    return results


async def test_a_failure_undoes_only_itself(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        insert("a")(connection)

    def own_error(connection: sqlite3.Connection) -> None:
        insert("also half")(connection)
        raise KeyError("mine")

    async with opened(tmp_path) as database:
        await database.write(insert("a"))
        before, bad, own, after = await in_one_group(database, insert("before"), half, own_error, insert("after"))
        assert (before, after) == (["before"], ["after"])
        assert type(bad[0]) is sqlite3.IntegrityError
        assert type(own[0]) is KeyError
        assert await names(database) == ["a", "after", "before", "gate"]
        assert database.statistics().unavailable is None


async def test_a_lone_failure_is_undone_too(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise KeyError("mine")

    async with opened(tmp_path) as database:
        with pytest.raises(KeyError):
            await database.write(half)
        assert await names(database) == []


def orphan(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO children VALUES ('nobody')")


@pytest.mark.parametrize("poison", [orphan, insert("give up")], ids=["fails at commit", "loses the transaction"])
async def test_one_that_loses_the_whole_group_fails_nobody_else(tmp_path: Path, poison: Any) -> None:
    async with opened(tmp_path) as database:
        before, bad, after = await in_one_group(database, insert("before"), poison, insert("after"))
        assert (before, after) == (["before"], ["after"])
        assert isinstance(bad[0], sqlite3.IntegrityError)
        assert await names(database) == ["after", "before", "gate"]
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(poison)
        assert await database.read(lambda c: c.execute("SELECT count(*) FROM children").fetchone()) == (0,)


@pytest.mark.parametrize(
    "ending",
    [
        lambda c: c.execute("COMMIT"),
        lambda c: c.commit(),
        lambda c: c.execute("ROLLBACK"),
        lambda c: c.rollback(),
        lambda c: c.executescript("SELECT 1"),
        lambda c: c.execute("RELEASE store_call"),
    ],
    ids=["COMMIT", "commit()", "ROLLBACK", "rollback()", "executescript()", "RELEASE"],
)
async def test_a_function_cannot_end_the_transaction_it_shares(tmp_path: Path, ending: Any) -> None:
    def fn(connection: sqlite3.Connection) -> None:
        insert("mine")(connection)
        ending(connection)

    async with opened(tmp_path) as database:
        before, bad, after = await in_one_group(database, insert("before"), fn, insert("after"))
        assert (before, after) == (["before"], ["after"])
        assert isinstance(bad[0], sqlite3.DatabaseError)
        assert await names(database) == ["after", "before", "gate"]


async def test_a_function_may_use_savepoints_of_its_own(tmp_path: Path) -> None:
    def fn(connection: sqlite3.Connection) -> None:
        insert("kept")(connection)
        connection.execute("SAVEPOINT mine")
        insert("dropped")(connection)
        connection.execute("ROLLBACK TO mine")
        connection.execute("RELEASE mine")

    async with opened(tmp_path) as database:
        await database.write(fn)
        assert await names(database) == ["kept"]


async def test_a_coroutine_function_is_refused(tmp_path: Path) -> None:
    async def fn(connection: sqlite3.Connection) -> None:
        insert("never")(connection)
        await trio.lowlevel.checkpoint()

    async with opened(tmp_path) as database:
        with pytest.raises(TypeError, match="synchronous"):
            await database.write(fn)
        assert await names(database) == []


async def test_the_queue_of_writes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes.store.database.MAX_WAITING", 2)
    async with opened(tmp_path) as database:
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.write, gate)
            await gate.reached()
            nursery.start_soon(database.write, insert("1"))
            nursery.start_soon(database.write, insert("2"))
            await wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable) as refused:
                await database.write(insert("3"))
            assert refused.value.reason == "busy"
            gate.go.set()
        assert await names(database) == ["1", "2", "gate"]


# Reading


async def test_all_statements_of_a_read_see_one_state(tmp_path: Path) -> None:
    first_done, go_on = threading.Event(), threading.Event()

    def twice(connection: sqlite3.Connection) -> tuple[int, int]:
        (before,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        first_done.set()
        assert go_on.wait(20)
        (after,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        return before, after

    async with opened(tmp_path) as database:
        seen: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, seen, lambda: database.read(twice))
            await trio.to_thread.run_sync(first_done.wait, 20)
            await database.write(insert("in between"))
            go_on.set()
        assert seen == [(0, 0)]
        assert await names(database) == ["in between"]


async def test_a_failed_read_does_not_hold_its_snapshot(tmp_path: Path) -> None:
    def breaks_off(connection: sqlite3.Connection) -> None:
        for _ in connection.execute("SELECT name FROM rows"):
            raise LookupError("broke off with a cursor open")

    async with opened(tmp_path, readers=1) as database:
        await database.write(insert("a"))
        await database.write(insert("b"))
        with pytest.raises(LookupError) as kept:
            await database.read(breaks_off)
        await database.write(insert("c"))
        assert await names(database) == ["a", "b", "c"]
        assert kept.value.args


async def test_a_read_cannot_write_and_that_is_no_outage(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(insert("no"))
        assert database.statistics().unavailable is None


async def test_reads_wait_for_a_connection_in_order(tmp_path: Path) -> None:
    order: list[int] = []
    async with opened(tmp_path, readers=1) as database, trio.open_nursery() as nursery:
        go = threading.Event()
        nursery.start_soon(database.read, lambda _: go.wait(20))
        await wait_all_tasks_blocked()
        for number in range(5):
            nursery.start_soon(database.read, lambda _, n=number: order.append(n))
            await wait_all_tasks_blocked()
        assert database.statistics().waiting_reads == 5
        go.set()
    assert order == [0, 1, 2, 3, 4]


async def test_nothing_of_a_call_outlives_it(tmp_path: Path) -> None:
    class Thing:
        pass

    argument = Thing()
    refs = [weakref.ref(argument)]

    def fn(_: sqlite3.Connection, held: Thing = argument) -> Thing:
        made = Thing()
        refs.append(weakref.ref(made))
        assert held
        return made

    async with opened(tmp_path, readers=1) as database:
        await database.read(fn)
        await database.write(fn)
        del fn, argument
        with trio.move_on_after(5):  # the thread lets go of a call a moment after its answer
            while any(ref() is not None for ref in refs):  # noqa: ASYNC110  # an observable fact
                gc.collect()
                await trio.sleep(0.001)
        assert [ref() for ref in refs] == [None, None, None]


# Cancellation


async def test_a_write_cancelled_before_it_starts_is_not_executed_and_returns_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.write, gate)
            await gate.reached()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(database.write, insert("never"))
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            assert not gate.go.is_set()  # it came back while the thread was still busy
            gate.go.set()
        assert await names(database) == ["gate"]


async def test_a_write_cancelled_after_it_started_is_told_the_outcome(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        gate, told = Gate(), []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def caller() -> None:
                    told.append(await database.write(gate))
                    await trio.lowlevel.checkpoint()
                    told.append("not cancelled")

                nursery.start_soon(caller)
                await gate.reached()
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                    assert told == []
                    gate.go.set()
        assert scope.cancelled_caught
        assert told == ["gate"]
        assert await names(database) == ["gate"]


FOREVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r"


def one_statement(connection: sqlite3.Connection) -> None:
    connection.execute(FOREVER).fetchone()


def a_loop_of_statements(connection: sqlite3.Connection) -> None:
    while True:
        connection.execute("SELECT name FROM rows").fetchall()


@pytest.mark.parametrize("endless", [one_statement, a_loop_of_statements])
async def test_a_cancelled_read_ends_and_its_reader_is_as_good_as_before(tmp_path: Path, endless: Any) -> None:
    async with opened(tmp_path, readers=1) as database:
        started = threading.Event()

        def fn(connection: sqlite3.Connection) -> None:
            started.set()
            endless(connection)

        for _ in range(5):
            started.clear()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(database.read, fn)
                    await trio.to_thread.run_sync(started.wait, 20)
                    scope.cancel()
            assert scope.cancelled_caught
            await database.write(lambda c: c.execute("INSERT INTO rows (body) VALUES (1)"))
        assert await database.read(lambda c: c.execute("SELECT count(*) FROM rows").fetchone()) == (5,)


async def test_a_finally_writes_while_the_body_of_the_database_is_being_left(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with opened(tmp_path) as database:
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await database.write(insert("last words"))
    async with opened(tmp_path) as database:
        assert await names(database) == ["last words"]
        assert not database.unclean


# Life


async def test_an_error_of_the_body_keeps_its_type(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with opened(tmp_path):
            raise KeyError("mine")
    with pytest.RaisesGroup(KeyError):  # one group, not a group in a group
        async with opened(tmp_path):
            raise ExceptionGroup("mine", [KeyError("in it")])


async def test_after_its_exit_it_refuses(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        pass
    for use in (database.write, database.read):
        with pytest.raises(StoreUnavailable) as refused:
            await use(insert("late"))
        assert refused.value.reason == "closed"


async def test_fifty_lives_leave_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    async with no_leaks():
        for _ in range(50):
            async with opened(tmp_path) as database:
                await database.write(lambda c: c.execute("INSERT INTO rows (body) VALUES (1)"))
                await names(database)
    assert sorted(os.listdir(tmp_path)) == ["hermes.db"]


async def test_statistics_come_from_what_happened(tmp_path: Path) -> None:
    async with open_database(
        tmp_path / "hermes.db", settings=StoreConfig(), migrations=(TABLES,), clock=lambda: 1234.5
    ) as database:
        assert database.statistics().last_commit_at is None
        await database.write(insert("a"))
        now = database.statistics()
        assert (now.commits, now.transactions, now.largest_batch, now.last_commit_at) == (1, 1, 1, 1234.5)
        assert (now.unavailable, now.unavailable_since, now.busy) == (None, None, 0)
        assert await database.read(lambda c: c.execute("SELECT applied_at FROM store_migrations").fetchone()) == (
            1234.5,
        )


async def test_the_settings_reach_sqlite(tmp_path: Path) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        wanted = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted]

    async with opened(tmp_path) as database:
        assert await database.write(pragmas) == ["wal", 2, 1]
    async with opened(tmp_path, synchronous="normal") as database:
        assert await database.write(pragmas) == ["wal", 1, 1]


# The header and the migrations


async def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(insert("a"))
        modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    assert modes == {"hermes.db": 0o600, "hermes.db-wal": 0o600, "hermes.db-shm": 0o600}


async def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "hermes.db").touch()
    async with opened(tmp_path) as database:
        assert database.created


async def test_an_unclean_stop_is_seen_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        assert not database.unclean
    with sqlite3.connect(tmp_path / "hermes.db") as other:
        other.execute("INSERT INTO store_meta VALUES ('running', x'31')")
    other.close()
    async with opened(tmp_path) as database:
        assert database.unclean
    async with opened(tmp_path) as database:
        assert not database.unclean


@pytest.mark.parametrize(
    "content", [b"not a database, just text " * 400, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 9000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hermes.db"
    path.write_bytes(content)
    async with no_leaks():
        with pytest.raises(StoreCorrupt, match=r"hermes\.db.*restore a backup"):
            async with opened(tmp_path):
                pass
    assert path.read_bytes() == content


async def test_a_strangers_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hermes.db"
    with sqlite3.connect(path) as stranger:
        stranger.execute("CREATE TABLE rows (x)")
    stranger.close()
    content = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="not a Hermes database"):
        async with opened(tmp_path):
            pass
    assert path.read_bytes() == content


async def test_a_newer_schema_is_refused_by_name_and_by_version(tmp_path: Path) -> None:
    async with opened(tmp_path, TABLES, Migration("t002", "CREATE TABLE more (x)")):
        pass
    with pytest.raises(SchemaTooNew, match=r"newer Hermes.*t002"):
        async with opened(tmp_path):
            pass
    with sqlite3.connect(tmp_path / "hermes.db") as other:
        other.execute("DELETE FROM store_migrations WHERE name = 't002'")
    other.close()
    with pytest.raises(SchemaTooNew, match="version 2, this program knows 1"):
        async with opened(tmp_path):
            pass


async def test_migrations_run_once_each_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    ran: list[str] = []

    def second(connection: sqlite3.Connection) -> None:
        ran.append("second")
        connection.execute("INSERT INTO rows (name) VALUES ('by migration')")

    def third(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (x)")
        connection.execute("INSERT INTO children VALUES ('nobody')")

    two = (TABLES, Migration("t002", second))
    for _ in range(2):
        async with opened(tmp_path, *two) as database:
            assert database.version == 2
    assert ran == ["second"]
    with pytest.raises(Exception, match="t003 leaves a broken reference"):
        async with opened(tmp_path, *two, Migration("t003", third)):
            pass
    async with opened(tmp_path, *two) as database:
        assert database.version == 2
        tables = await database.read(
            lambda c: c.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall()
        )
        assert tables == []


TEXT = st.text(st.sampled_from("ab;'\"-/* \n"), max_size=12)


@given(
    st.lists(
        st.one_of(TEXT.map(lambda t: "SELECT '" + t.replace("'", "''") + "'"), st.just("SELECT 1 -- a;b\n")), max_size=6
    )
)
def test_a_script_is_split_where_its_statements_end(parts: list[str]) -> None:
    split = list(statements(";\n".join(parts) + ";"))
    with sqlite3.connect(":memory:") as connection:
        results = [connection.execute(one).fetchone() for one in split]
        assert results == [connection.execute(one).fetchone() for one in parts]
    connection.close()


# What the bridge rests on


def test_the_private_names_of_aiosqlite_are_as_the_bridge_expects() -> None:
    connection = aiosqlite.Connection(lambda: sqlite3.connect(":memory:"), 64)
    assert isinstance(connection._tx, queue.SimpleQueue)
    assert isinstance(connection._thread, threading.Thread)
    assert connection._running is True
    assert connection._connection is None
    assert set(inspect.signature(aiosqlite.Connection.__init__).parameters) >= {"connector", "iter_chunk_size"}
    for name in ("_execute", "_connect", "close"):
        assert inspect.iscoroutinefunction(getattr(aiosqlite.Connection, name))
    assert not inspect.iscoroutinefunction(aiosqlite.Connection.stop)

    ran: list[str] = []
    connection._thread.start()
    connection._tx.put_nowait((None, lambda: ran.append("without a future")))
    connection._tx.put_nowait((None, lambda: {}[1]))  # an error without a future is dropped, and the thread goes on
    connection._tx.put_nowait((None, lambda: aiosqlite.core._STOP_RUNNING_SENTINEL))
    connection._thread.join(20)
    assert not connection._thread.is_alive()
    assert ran == ["without a future"]
