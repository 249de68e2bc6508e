"""The terminal tool with real processes: what it returns, and that nothing of a command is left when its call ends."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from hermes.settings import TerminalConfig
from hermes.testing import LeakCensus
from hermes.testing.tools import call_tool, processes_with, turn_context
from hermes.tools.leftovers import mark_of
from hermes.tools.process import open_command
from hermes.tools.terminal import open_terminal
from hermes.toolset import ToolOutcome, ToolsetHost

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper and /proc")
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "OPENAI_API_KEY": "the-secret"}


@dataclass
class Bench:
    """A workspace, a home, and a text that is in the command line of everything a test leaves behind."""

    workspace: Path
    home: Path
    tag: str

    @asynccontextmanager
    async def opened(self, **settings: float | str) -> AsyncIterator[Callable[..., Awaitable[ToolOutcome]]]:
        config = TerminalConfig(**{"kill_grace_s": 0.2, **settings})  # type: ignore[arg-type]
        context = turn_context(self.workspace)
        async with open_terminal(config, ToolsetHost(home=self.home, environment=ENVIRONMENT)) as tools:

            async def run(command: str, **arguments: object) -> ToolOutcome:
                return await call_tool(tools, context, "terminal", command=command, **arguments)

            yield run

    def left(self) -> list[int]:
        return processes_with(self.tag) + processes_with(mark_of(self.home))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "ws/inner").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return Bench(tmp_path / "ws", tmp_path / "home", f"4242.{secrets.randbelow(10**12):012}")


@asynccontextmanager
async def a_signal(directory: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A named pipe `ready` that a command writes to, and how to wait for that."""
    os.mkfifo(directory / "ready")
    descriptor = os.open(directory / "ready", os.O_RDONLY | os.O_NONBLOCK)
    try:

        async def wait() -> None:
            await trio.lowlevel.wait_readable(descriptor)

        yield wait
    finally:
        os.close(descriptor)


async def gone(look: Callable[[], list[int]]) -> None:
    """Wait until a look finds nothing. The wall-clock guard of the test is the bound."""
    await trio.lowlevel.checkpoint()
    while look():  # noqa: ASYNC110  # nothing tells when a stranger's process has gone
        await trio.sleep(0.01)


async def test_output_exit_code_and_duration_are_told(bench: Bench) -> None:
    async with bench.opened() as run:
        outcome = await run("echo out; echo err >&2; exit 3")
    assert outcome.ok
    assert outcome.text.startswith("out\nerr\n[exit code 3 after ")


async def test_a_command_has_no_input_and_its_own_directory(bench: Bench) -> None:
    async with bench.opened() as run:
        outcome = await run("cat; pwd -P", workdir="inner")
    assert outcome.text.startswith(f"{(bench.workspace / 'inner').resolve()}\n[exit code 0")


async def test_a_command_sees_what_it_may_and_no_secret(bench: Bench) -> None:
    async with bench.opened(env_passthrough=()) as run:
        outcome = await run("env")
    names = {line.partition("=")[0] for line in outcome.text.splitlines()[:-1]}
    assert {"PATH", "HOME", "HERMES_SESSION_ID", "HERMES_TURN_ID"} <= names
    assert "OPENAI_API_KEY" not in names
    assert "the-secret" not in outcome.text
    assert os.environ.get("OPENAI_API_KEY", "the-secret") not in outcome.text


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"command": "true", "workdir": ".."}, "denied", "outside the workspace"),
        ({"command": "true", "workdir": "missing"}, "failed", "no such directory"),
        ({"command": "a\0b"}, "failed", "no NUL"),
        ({"command": "#" + "x" * 100_000}, "failed", "at most 100000 bytes"),
        ({"command": "true", "timeout_s": 0}, "arguments", "`timeout_s`"),
        ({"command": None}, "arguments", "`command`"),
    ],
)
async def test_what_cannot_be_run_is_said(bench: Bench, arguments: dict[str, object], kind: str, text: str) -> None:
    async with bench.opened() as run:
        outcome = await run(**arguments)
    assert (outcome.ok, outcome.error) == (False, kind)
    assert text in outcome.text


async def test_a_shell_that_is_missing_is_said(bench: Bench) -> None:
    async with bench.opened(shell="/nowhere/sh") as run:
        outcome = await run("true")
    assert outcome.text.startswith("cannot run /nowhere/sh: No such file or directory\n[exit code 127")


async def test_output_is_bounded_and_counted(bench: Bench) -> None:
    async with bench.opened(max_output_bytes=2_000) as run:
        outcome = await run("echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert outcome.text.startswith("first\nxxx")
    assert "\n[... 29998012 bytes left out ...]\n" in outcome.text
    assert "xxx\nlast\n[exit code 0" in outcome.text
    assert len(outcome.text) < 2_200


async def test_output_that_is_no_text_is_replaced(bench: Bench) -> None:
    async with bench.opened() as run:
        outcome = await run("printf 'a\\377\\000\\360\\237\\230b'")
    assert (
        outcome.text.partition("\n")[0]
        == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"
    )


async def test_a_signal_that_ends_the_command_is_named(bench: Bench) -> None:
    async with bench.opened() as run:
        outcome = await run("kill -9 $$")
    assert outcome.text.startswith("[ended by signal 9 (Killed)")


async def test_many_at_once_keep_apart(bench: Bench) -> None:
    results: dict[int, str] = {}
    async with bench.opened() as run, trio.open_nursery() as nursery:

        async def one(number: int) -> None:
            results[number] = (await run(f"echo {number}")).text

        for number in range(24):
            nursery.start_soon(one, number)
    assert {number: int(text.partition("\n")[0]) for number, text in results.items()} == {n: n for n in range(24)}


async def test_a_command_that_wants_to_tidy_up_may_and_is_asked_once(bench: Bench) -> None:
    tidy = "trap 'echo asked; asked=x' TERM\necho > ready\nwhile [ -z \"$asked\" ]; do sleep 0.01; done\n"
    directory = os.open(bench.workspace, os.O_RDONLY)
    async with a_signal(bench.workspace) as ready:
        async with open_command(
            tidy + "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.01; done; echo tidied; exit 7",
            shell="/bin/sh", directory=directory, environment=ENVIRONMENT, mark=mark_of(bench.home), grace_s=20.0,
        ) as command:  # fmt: skip
            os.close(directory)
            await ready()
            end = await command.finish()
            output = bytearray()
            while data := await command.output.receive_some():
                output += data
    assert (output.count(b"asked\n"), output.count(b"tidied\n"), end.code) == (1, 1, 7)


async def test_a_command_that_runs_too_long_is_ended_and_its_output_kept(bench: Bench) -> None:
    async with bench.opened() as run:
        outcome = await run(f"echo here; sleep {bench.tag}", timeout_s=1)
    assert (outcome.ok, outcome.error) == (False, "timeout")
    assert outcome.text.startswith("error: the command ran longer than 1 s and was ended. Its output:\nhere\n")


ESCAPES = {
    "in the background": "sleep {tag} &",
    "nohup": "nohup sleep {tag} >/dev/null 2>&1 &",
    "forked twice": "( ( sleep {tag} & ) & )",
    "ignores TERM": "(trap '' TERM; sleep {tag}; sleep {tag}) &",
    "another session": "setsid sleep {tag} &",
    "forked twice, another session, ignores TERM": "( setsid sh -c 'trap \"\" TERM; sleep {tag}; :' & )",
    "environment cleared": "( env -i setsid sh -c 'trap \"\" TERM HUP; sleep {tag}; :' & )",
    "holds no stream": "setsid sh -c 'exec </dev/null >/dev/null 2>&1; sleep {tag}; :' &",
    "stopped": "sleep {tag} & kill -STOP $!",
    "forks for ever": "setsid sh -c 'again() {{ again & }}; again' {tag} >/dev/null 2>&1 &",
    "a tree": "for a in 1 2 3; do (for b in 1 2 3; do (trap '' TERM; sleep {tag}; :) & done; sleep {tag}; :) & done",
}


@linux
@pytest.mark.parametrize("way", ["end", "timeout", "cancel"])
@pytest.mark.parametrize("how", ESCAPES)
async def test_nothing_is_left_of_a_command(bench: Bench, how: str, way: str) -> None:
    command = ESCAPES[how].format(tag=bench.tag) + "\necho > ready\n" + ("" if way == "end" else f"sleep {bench.tag}")
    outcome: ToolOutcome | None = None
    census = LeakCensus.take()
    async with bench.opened(timeout_s=20.0 if way != "timeout" else 0.3) as run, a_signal(bench.workspace) as ready:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if way == "cancel":

                    async def cut() -> None:
                        await ready()
                        assert bench.left()
                        scope.cancel()

                    nursery.start_soon(cut)
                outcome = await run(command)
        assert bench.left() == []
    assert scope.cancelled_caught == (way == "cancel")
    assert outcome is None or outcome.error == (None if way == "end" else "timeout")
    assert outcome is None or way != "end" or "background process(es) were ended with it" in outcome.text
    assert [line for line in LeakCensus.take().growth_since(census) if not line.startswith("thread")] == []


@linux
async def test_what_a_killed_guardian_leaves_is_found_by_its_mark(bench: Bench) -> None:
    async with bench.opened() as run:
        outcome = await run(f"( setsid sleep {bench.tag} & ); kill -9 $PPID; sleep {bench.tag}")
    assert bench.left() == []
    assert "unknown way" in outcome.text


GATEWAY = """
import sys, trio
from pathlib import Path
from hermes.settings import TerminalConfig
from hermes.testing.tools import call_tool, turn_context
from hermes.tools.process import open_command
from hermes.tools.terminal import open_terminal
from hermes.toolset import ToolsetHost

async def main(workspace, home, command):
    host = ToolsetHost(home=Path(home), environment={"PATH": "/usr/bin:/bin"})
    async with open_terminal(TerminalConfig(kill_grace_s=0.2), host) as tools:
        await call_tool(tools, turn_context(Path(workspace)), "terminal", command=command)

trio.run(main, *sys.argv[1:])
"""


@linux
async def test_nothing_survives_when_the_gateway_is_killed(bench: Bench) -> None:
    escape = ESCAPES["environment cleared"].format(tag=bench.tag)
    async with a_signal(bench.workspace) as ready:
        gateway = subprocess.Popen(  # noqa: ASYNC220  # it is killed, not awaited
            [sys.executable, "-c", GATEWAY, bench.workspace, bench.home, f"{escape}\necho > ready\nsleep {bench.tag}"],
            cwd=ROOT,
        )
        try:
            await ready()
            assert bench.left()
        finally:
            gateway.kill()
            gateway.wait()
    await gone(bench.left)


async def test_an_error_beside_a_command_ends_it(bench: Bench) -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        async with bench.opened() as run, a_signal(bench.workspace) as ready, trio.open_nursery() as nursery:
            nursery.start_soon(run, f"echo > ready; sleep {bench.tag}")
            await ready()
            raise ZeroDivisionError
    assert not sys.platform.startswith("linux") or bench.left() == []
