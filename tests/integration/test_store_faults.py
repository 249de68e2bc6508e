"""The store against what disks, other processes and kill -9 do to it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hermes.errors import StoreCorrupt, StoreUnavailable
from hermes.settings import StoreConfig
from hermes.store.database import Database, open_database
from hermes.store.migrations import Migration
from hermes.testing import Hold, no_leaks

TABLES = (Migration("t001", "CREATE TABLE rows (name TEXT UNIQUE, body BLOB)"),)
ROOT = Path(__file__).parents[2]

# What every child process of these tests begins with.
PREAMBLE = """
import sys, trio, trio.testing, sqlite3, os
from pathlib import Path
from hermes.errors import StoreUnavailable
from hermes.settings import StoreConfig
from hermes.store.database import open_database
from hermes.store.migrations import Migration
TABLES = (Migration("t001", "CREATE TABLE rows (name TEXT UNIQUE, body BLOB)"),)
def opened(path):
    return open_database(Path(path), settings=StoreConfig(busy_timeout_s=1), migrations=TABLES)
def insert(name, size=0):
    return lambda c: c.execute("INSERT INTO rows VALUES (?, zeroblob(?))", (name, size))
"""


@asynccontextmanager
async def opened(home: Path, **settings: Any) -> AsyncIterator[Database]:
    async with open_database(home / "hermes.db", settings=StoreConfig(**settings), migrations=TABLES) as database:
        yield database


def insert(name: str, size: int = 0) -> Callable[[sqlite3.Connection], str]:
    def fn(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO rows VALUES (?, zeroblob(?))", (name, size))
        return name

    return fn


async def names(database: Database) -> list[str]:
    return await database.read(lambda c: [row[0] for row in c.execute("SELECT name FROM rows ORDER BY name")])


def child(script: str, *arguments: object, **kwargs: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **kwargs
    )


def said(process: subprocess.Popen[str]) -> str:
    with process:
        out, _ = process.communicate(timeout=25)
    assert process.returncode == 0
    return out


# A disk that is full


async def test_a_full_database_fails_the_write_that_does_not_fit_and_nobody_else(tmp_path: Path) -> None:
    def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
        return lambda c: c.execute(f"PRAGMA max_page_count={pages}").fetchone()

    async with opened(tmp_path) as database:
        (pages,) = await database.read(lambda c: c.execute("PRAGMA page_count").fetchone())
        await database.write(limit(pages + 4))
        told: dict[str, object] = {}

        async def write(name: str, size: int) -> None:
            try:
                told[name] = await database.write(insert(name, size))
            except StoreUnavailable as error:
                told[name] = error.reason

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "a", 10)
            nursery.start_soon(write, "big", 1_000_000)
            nursery.start_soon(write, "b", 10)
        assert told == {"a": "a", "big": "full", "b": "b"}
        with pytest.raises(StoreUnavailable) as full:
            await database.write(insert("big", 1_000_000))
        assert full.value.reason == "full"
        assert isinstance(full.value.__cause__, sqlite3.OperationalError)
        assert database.statistics().unavailable == "full"
        assert await names(database) == ["a", "b"]
        await database.write(limit(1_000_000))
        await database.write(insert("big", 1_000_000))
        assert database.statistics().unavailable is None
        assert await names(database) == ["a", "b", "big"]


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("a file system of its own needs root and mount(8)")
    with tempfile.TemporaryDirectory() as point:
        made = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", point], capture_output=True)
        if made.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
        try:
            yield Path(point)
        finally:
            subprocess.run([umount, point], check=True)


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(2) as point:
        yield point


async def test_a_disk_that_is_full_is_waited_for(disk: Path, clock: MockClock) -> None:
    filler = trio.Path(disk / "filler")
    async with opened(disk) as database:
        with Hold(clock, lambda: database.in_flight > 0):
            await database.write(insert("before"))
            await filler.write_bytes(b"x" * (await free(disk)))
            failed = 0
            with pytest.raises(StoreUnavailable) as full:
                while True:
                    await database.write(insert(f"lost {failed}", 20_000))
                    failed += 1
            assert full.value.reason == "full"
            assert database.statistics().unavailable == "full"
            since = trio.current_time()
            waited: list[float] = []

            async def receiver() -> None:
                await database.wait_available()
                waited.append(trio.current_time() - since)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receiver)
                await trio.sleep(3.5)
                assert waited == []  # three probes have found it full
                await filler.unlink()
            assert len(waited) == 1
            assert 3.5 < waited[0] < 5
            await database.write(insert("after", 20_000))
            assert database.statistics().unavailable is None
            await database.quick_check()
    async with opened(disk) as database:
        assert set(await names(database)) >= {"before", "after"}
        assert f"lost {failed}" not in await names(database)


async def free(disk: Path) -> int:
    about = await trio.to_thread.run_sync(os.statvfs, disk)
    return about.f_bavail * about.f_bsize


def test_a_limit_on_file_size_is_io_and_passes(tmp_path: Path) -> None:
    script = """
import resource
async def main():
    async with opened(sys.argv[1]) as database:
        await database.write(insert("before"))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            await database.write(insert("too much", 3_000_000))
        except StoreUnavailable as error:
            print(error.reason, database.statistics().unavailable)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await database.wait_available()
        await database.write(insert("after", 3_000_000))
        print(await database.read(lambda c: c.execute("SELECT name FROM rows ORDER BY name").fetchall()))
        await database.quick_check()
trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""
    assert said(child(script, tmp_path / "hermes.db")).splitlines() == ["io io", "[('after',), ('before',)]"]


# What may not be written


READ_ONLY = """
import shutil
home = Path(sys.argv[1])
def say(error): print(type(error).__name__, getattr(error, "reason", ""), str(home) in str(error))
async def main():
    try:
        async with opened(home / "hermes.db"): print("opened")
    except Exception as error: say(error)
if os.geteuid() == 0: os.setuid(65534)
trio.run(main)
"""


@pytest.mark.parametrize(("file_mode", "home_mode"), [(0o444, 0o755), (0o444, 0o555), (0o666, 0o555), (None, 0o555)])
def test_what_may_not_be_written_is_said_at_the_start(file_mode: int | None, home_mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        home, path = Path(name), Path(name) / "hermes.db"
        if file_mode is not None:
            trio.run(make, home)
            path.chmod(file_mode)
        home.chmod(home_mode)
        out = said(child(READ_ONLY, home)).split()
        home.chmod(0o755)
        assert out[0] == "StoreUnavailable"
        assert out[1] in {"read-only", "io"}
        assert out[2] == "True"


async def make(home: Path) -> None:
    async with opened(home) as database:
        await database.write(insert("before"))


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        async with opened(tmp_path / "nowhere"):
            pass


# Another process that holds the lock


HOLDER = """
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO rows VALUES ('foreign', NULL)")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("released", flush=True)
"""


@asynccontextmanager
async def foreign_lock(path: Path) -> AsyncIterator[Callable[[], None]]:
    """Yields what lets the lock go."""
    process = child(HOLDER, path)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert await trio.to_thread.run_sync(process.stdout.readline) == "held\n"

        def release() -> None:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

        yield release
    finally:
        process.kill()
        process.communicate()


async def test_a_foreign_lock_is_waited_for_while_the_loop_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, busy_timeout_s=20) as database, foreign_lock(database.path) as release:
        done: list[str] = []
        turns = 0

        async def write(name: str) -> None:
            done.append(await database.write(insert(name)))

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(write, name)
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(database.write, insert("left"))
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught  # none of them has started: leaving is possible while the lock is held
            while turns < 500:
                await trio.lowlevel.checkpoint()
                turns += 1
            assert await names(database) == []  # readers do not wait
            assert done == []
            release()
        assert sorted(done) == ["a", "b", "c"]
        assert await names(database) == ["a", "b", "c", "foreign"]
        assert database.statistics().unavailable is None


async def test_a_foreign_lock_that_stays_is_busy_until_it_goes(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path, busy_timeout_s=0.1) as database, foreign_lock(database.path) as release:
        with pytest.raises(StoreUnavailable) as busy:
            await database.write(insert("a"))
        assert busy.value.reason == "busy"
        now = database.statistics()
        assert (now.unavailable, now.busy) == ("busy", 1)
        assert now.unavailable_since is not None
        assert await names(database) == []
        release()
        with Hold(clock, lambda: database.in_flight > 0):
            await database.wait_available()
        await database.write(insert("a"))
        assert await names(database) == ["a", "foreign"]


async def test_the_exit_is_bounded_under_a_foreign_lock(tmp_path: Path) -> None:
    async with no_leaks():
        async with foreign_lock_on_open(tmp_path) as release:
            release()
    async with opened(tmp_path) as database:
        assert database.unclean  # the clean stop could not be noted: say so rather than wait


@asynccontextmanager
async def foreign_lock_on_open(home: Path) -> AsyncIterator[Callable[[], None]]:
    """A lock that outlives the database."""
    async with AsyncExitStack() as stack:
        async with opened(home, busy_timeout_s=0.1) as database:
            release = await stack.enter_async_context(foreign_lock(database.path))
        yield release


# Files that are damaged


def damaged(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


async def filled(home: Path) -> Path:
    async with opened(home) as database:
        for number in range(40):
            await database.write(insert(f"{number:03}", 3000))
    return home / "hermes.db"


async def test_a_truncated_file_is_corrupt(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    damaged(path, lambda content: content.__delitem__(slice(len(content) // 2, None)))
    async with no_leaks():
        with pytest.raises(StoreCorrupt, match="restore a backup"):
            async with opened(tmp_path) as database:
                await database.quick_check()


async def test_a_damaged_page_is_found_by_the_check_and_not_backed_up(tmp_path: Path) -> None:
    path = await filled(tmp_path)

    def scribble(content: bytearray) -> None:
        for page in range(8, len(content) // 4096):
            content[page * 4096 : page * 4096 + 64] = b"\xff" * 64

    damaged(path, scribble)
    async with opened(tmp_path) as database:
        with pytest.raises(StoreCorrupt, match="damaged"):
            await database.quick_check()
        with pytest.raises(StoreCorrupt, match="Nothing was kept"):
            await database.backup(tmp_path / "copy.db")
        assert sorted(os.listdir(tmp_path)) == ["hermes.db", "hermes.db-shm", "hermes.db-wal"]


@pytest.mark.parametrize("seed", range(12))
async def test_random_damage_is_named_and_leaves_nothing_open(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    path = await filled(tmp_path)

    def scribble(content: bytearray) -> None:
        for _ in range(dice.choice([1, 20, 400])):
            content[dice.randrange(dice.choice([100, 4096, len(content)]))] = dice.randrange(256)

    damaged(path, scribble)
    outcome = "usable"
    async with no_leaks():
        try:
            async with opened(tmp_path) as database:
                await database.quick_check()
                await database.write(insert("new"))
        except (StoreCorrupt, StoreUnavailable) as error:
            outcome = type(error).__name__
    assert outcome in {"usable", "StoreCorrupt", "StoreUnavailable"}


# A process that is killed


WRITER = """
async def main():
    async with opened(sys.argv[1]) as database:
        life = sys.argv[2]
        print("open", database.unclean, flush=True)
        async def one(task):
            number = 0
            while True:
                name = f"{life}-{task}-{number}"
                await database.write(insert(name, 500))
                os.write(1, (name + "\\n").encode())
                number += 1
        async with trio.open_nursery() as nursery:
            for task in range(8):
                nursery.start_soon(one, task)
trio.run(main)
"""


@pytest.mark.wall_clock_s(90)
def test_kill_9_at_random_points_loses_nothing_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(11)
    path = tmp_path / "hermes.db"
    acknowledged: set[str] = set()
    for life in range(20):
        process = child(WRITER, path, life)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"open {life > 0}\n"
            for _ in range(dice.randrange(1, 400)):
                acknowledged.add(process.stdout.readline().strip())
            process.kill()
            *whole, _cut = process.stdout.read().split("\n")
            acknowledged.update(whole)
    assert len(acknowledged) > 1000

    async def look() -> None:
        async with opened(tmp_path) as database:
            assert database.unclean
            await database.quick_check()
            assert await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
            assert acknowledged <= set(await names(database))
        async with opened(tmp_path) as database:
            assert not database.unclean

    trio.run(look)


# Backups


async def test_a_backup_under_load_is_one_state_and_delays_nobody(tmp_path: Path) -> None:
    pairs = 0

    def pair(number: int) -> Callable[[sqlite3.Connection], None]:
        def fn(connection: sqlite3.Connection) -> None:
            insert(f"{number}-a", 2000)(connection)
            insert(f"{number}-b", 2000)(connection)

        return fn

    async with opened(tmp_path) as database:
        for number in range(300):
            await database.write(insert(f"ballast {number}", 20_000))
        stop = False

        async def load() -> None:
            nonlocal pairs
            while not stop:
                await database.write(pair(pairs))
                pairs += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            reports = []
            for copy in range(3):
                before = pairs
                reports.append(await database.backup(tmp_path / f"copy-{copy}.db"))
                assert pairs > before
            stop = True
    assert not [name for name in os.listdir(tmp_path) if ".part" in name]
    for report in reports:
        assert report.size_bytes == os.stat(report.path).st_size
        assert (report.version, report.migrations) == (1, ("t001",))
        assert os.stat(report.path).st_mode & 0o777 == 0o600
        home = tmp_path / f"restored-{report.path.stem}"
        os.mkdir(home)
        os.rename(report.path, home / "hermes.db")
        async with opened(home) as restored:
            there = set(await names(restored))
            assert {f"ballast {number}" for number in range(300)} <= there
            assert len([name for name in there if name.endswith("-a")]) == len(
                [name for name in there if name.endswith("-b")]
            )


async def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        for taken in (tmp_path / "taken", database.path):
            if taken != database.path:
                await trio.Path(taken).write_bytes(b"mine")
            with pytest.raises(FileExistsError):
                await database.backup(taken)
        assert await trio.Path(tmp_path / "taken").read_bytes() == b"mine"
        with pytest.raises(StoreUnavailable, match="nowhere"):
            await database.backup(tmp_path / "nowhere" / "copy.db")
        assert not [name for name in os.listdir(tmp_path) if ".part" in name]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 12, 20])
async def test_a_cancelled_backup_leaves_no_file(tmp_path: Path, steps: int) -> None:
    async with opened(tmp_path) as database:
        await database.write(insert("ballast", 20_000_000))
        await (
            database.quick_check()
        )  # SQLite keeps a spare descriptor of the file while locks are held, and uses it again
        async with no_leaks():
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def copy() -> None:
                        await database.backup(tmp_path / "copy.db")
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(copy)
                    for _ in range(steps):
                        await wait_all_tasks_blocked(0.002)
                    scope.cancel()
            left = [name for name in os.listdir(tmp_path) if not name.startswith("hermes.db")]
            assert left == ([] if scope.cancelled_caught else ["copy.db"])
        await database.write(insert("after"))


async def test_checks_and_backups_open_no_more_descriptors_each_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.quick_check()
        async with no_leaks():
            for number in range(20):
                await database.quick_check()
                await database.backup(tmp_path / f"copy-{number}.db")
                await database.write(insert(f"{number}"))


# The locks of POSIX


def test_the_process_never_opens_the_file_itself(tmp_path: Path) -> None:
    script = """
opens = []
async def main():
    path = Path(sys.argv[1])
    sys.addaudithook(lambda event, arguments: opens.append(arguments) if event == "open" else None)
    for _ in range(2):
        async with opened(path) as database:
            await database.write(insert(str(database.created)))
            await database.quick_check()
            await database.backup(path.with_name(f"copy-{database.created}"))
    for name, _, flags in opens:
        if isinstance(name, (str, bytes, os.PathLike)) and Path(os.fsdecode(name)).name.startswith("hermes.db"):
            print("exclusively" if flags & os.O_EXCL else "opened", flags & os.O_ACCMODE)
trio.run(main)
"""
    out = said(child(script, tmp_path / "hermes.db")).splitlines()
    # O_EXCL: at the first start it makes the file, which then nobody can have open; at the second the kernel refuses.
    assert out == [f"exclusively {os.O_WRONLY}"] * 2
