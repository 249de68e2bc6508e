"""One instance per home, with real processes: starts at once, sudden deaths, children, strangers, take-over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from hermes.errors import ConfigError, InstanceHeld
from hermes.home import Home
from hermes.instance import is_held, open_instance, wait_until_free

HOLD = """
import subprocess, sys, trio
from pathlib import Path
from hermes.errors import InstanceHeld
from hermes.home import Home
from hermes.instance import open_instance

async def main():
    async with open_instance(Home(Path(sys.argv[1])), command="holder") as instance:
        child = subprocess.Popen(["sleep", "60"], close_fds=False) if "child" in sys.argv else None
        print("holds", instance.boot_id, child.pid if child else "", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)

if "wait" in sys.argv:
    print("ready", flush=True)
    sys.stdin.readline()
try:
    trio.run(main)
except InstanceHeld as held:
    print("held", held.holder, flush=True)
    sys.exit(69)
"""


@contextmanager
def process(home: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(home), *more]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> list[str]:
    assert running.stdout is not None
    return running.stdout.readline().split()


def tell(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("go\n")
    running.stdin.flush()


@pytest.mark.wall_clock_s(90)
def test_twenty_at_once_one_holds_and_the_others_name_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "hermes.lock").write_text('{"pid": 1, "command": "long dead", "started_at": "x", "boot_id": "old"}\n')
    with ExitStack() as stack:
        running = [stack.enter_context(process(home, "wait")) for _ in range(20)]
        assert all(line(each) == ["ready"] for each in running)
        for each in running:
            tell(each)
        said = [line(each) for each in running]
        holders = [words for words in said if words[0] == "holds"]
        others = [words for words in said if words[0] == "held"]
        assert (len(holders), len(others)) == (1, 19)
        assert {words[-1] for words in others} == {f"({holders[0][1]})"}
        tell(running[[words[0] for words in said].index("holds")])  # the others have gone
        assert sorted(each.wait() for each in running) == [0] + [69] * 19


def test_after_a_sudden_death_the_next_start_works_at_once(tmp_path: Path) -> None:
    with process(tmp_path) as first:
        assert line(first)[0] == "holds"
        assert is_held(Home(tmp_path))
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not is_held(Home(tmp_path))
        with process(tmp_path) as second:
            assert line(second)[0] == "holds"


def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    with process(tmp_path, "child") as first:
        child = int(line(first)[2])
        try:
            first.send_signal(signal.SIGKILL)
            first.wait()
            os.kill(child, 0)  # the child lives
            assert not is_held(Home(tmp_path))
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_file_that_names_a_living_stranger_means_nothing(tmp_path: Path) -> None:
    for text in (json.dumps({"pid": 1}), str(os.getppid()), "", "\x00\xff" * 400):
        (tmp_path / "hermes.lock").write_text(text)
        async with open_instance(Home(tmp_path)) as instance:
            assert json.loads((tmp_path / "hermes.lock").read_text())["pid"] == os.getpid() == instance.pid
        assert not is_held(Home(tmp_path))


async def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    async with open_instance(Home(tmp_path), command="hermes serve") as first:
        with pytest.raises(InstanceHeld, match=first.boot_id):
            async with open_instance(Home(tmp_path)):
                raise AssertionError("entered")
        assert oct((tmp_path / "hermes.lock").stat().st_mode & 0o777) == "0o600"
    assert await wait_until_free(Home(tmp_path), timeout_s=5)


async def test_an_embedded_gateway_asks_nobody_to_go(tmp_path: Path) -> None:
    holder = Holder(Home(tmp_path), mode="embedded")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        await holder.serving.wait()
        with pytest.raises(InstanceHeld, match="holder"):
            async with open_instance(Home(tmp_path), command="hermes chat", embedded=True):
                raise AssertionError("entered")
        assert holder.asked == []
        async with open_instance(Home(tmp_path)):
            assert holder.asked == ["hand_over"]


async def test_a_lock_that_cannot_be_is_a_configuration_mistake(tmp_path: Path) -> None:
    (tmp_path / "hermes.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be locked"):
        async with open_instance(Home(tmp_path)):
            raise AssertionError("entered")
    assert not (tmp_path / "elsewhere").exists()


class Holder:
    """An instance with a control socket that answers as a gateway does."""

    def __init__(self, home: Home, *, mode: str = "serve", stops: bool = True) -> None:
        self.home = home
        self.mode = mode
        self.stops = stops
        self.asked: list[object] = []
        self.stop = trio.Event()
        self.serving = trio.Event()

    async def run(self) -> None:
        async with open_instance(self.home, command="holder"), trio.open_nursery() as nursery:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(str(self.home.socket_name))
            sock.listen(16)
            nursery.start_soon(trio.serve_listeners, self.answer, [trio.SocketListener(sock)])
            self.serving.set()
            await self.stop.wait()
            nursery.cancel_scope.cancel()

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = await stream.receive_some(65536)
            body = request.partition(b"\r\n\r\n")[2]
            if request.startswith(b"POST /control/stop "):
                self.asked.append(json.loads(body)["reason"])
                if self.stops:
                    self.stop.set()
            reply = json.dumps({"mode": self.mode}).encode()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply))


async def test_replace_asks_once_and_takes_over(tmp_path: Path) -> None:
    holder = Holder(Home(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        await holder.serving.wait()
        async with open_instance(Home(tmp_path), replace=True) as instance:
            assert json.loads((tmp_path / "hermes.lock").read_text())["boot_id"] == instance.boot_id
    assert holder.asked == ["replace"]


async def test_without_replace_a_server_is_left_alone(tmp_path: Path) -> None:
    holder = Holder(Home(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        await holder.serving.wait()
        with pytest.raises(InstanceHeld, match="holder"):
            async with open_instance(Home(tmp_path)):
                raise AssertionError("entered")
        holder.stop.set()
    assert holder.asked == []


async def test_an_embedded_holder_hands_over(tmp_path: Path) -> None:
    holder = Holder(Home(tmp_path), mode="embedded")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        await holder.serving.wait()
        async with open_instance(Home(tmp_path)):
            assert holder.asked == ["hand_over"]


async def test_a_holder_that_does_not_go_is_named_at_the_deadline(tmp_path: Path) -> None:
    holder = Holder(Home(tmp_path), stops=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        await holder.serving.wait()
        with pytest.raises(InstanceHeld, match="holder"):
            async with open_instance(Home(tmp_path), replace=True, takeover_s=0.01):
                raise AssertionError("entered")
        holder.stop.set()
    assert holder.asked == ["replace"]


async def test_a_removed_lock_file_does_not_let_a_second_in(tmp_path: Path) -> None:
    holder = Holder(Home(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        await holder.serving.wait()
        (tmp_path / "hermes.lock").unlink()
        with pytest.raises(InstanceHeld, match="answers at the control socket"):
            async with open_instance(Home(tmp_path)):
                raise AssertionError("entered")
        async with open_instance(Home(tmp_path), replace=True):
            assert holder.asked == ["replace"]


async def test_replace_waits_for_a_holder_without_an_answer(tmp_path: Path) -> None:
    with process(tmp_path) as first:
        assert line(first)[0] == "holds"
        async with trio.open_nursery() as nursery:

            async def end_it() -> None:
                tell(first)
                await trio.to_thread.run_sync(first.wait)

            nursery.start_soon(end_it)
            async with open_instance(Home(tmp_path), replace=True):
                assert is_held(Home(tmp_path))


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    home = Home(tmp_path)
    async with open_instance(home):
        with trio.move_on_after(20) as scope:
            async with open_instance(home, replace=True):
                raise AssertionError("entered")
        assert scope.cancelled_caught
    assert not is_held(home)
