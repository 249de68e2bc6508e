"""The toolset `terminal`: shell commands, each gone with everything it started when its call ends."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import trio

from hermes.context import TurnContext
from hermes.errors import ToolError, ToolTimeout
from hermes.settings import TerminalConfig
from hermes.tools.leftovers import mark_of
from hermes.tools.process import Command, CommandEnd, open_command
from hermes.tools.workspace import Workspace
from hermes.toolset import Tool, ToolsetHost, ToolsetSpec, tool

MAX_COMMAND_BYTES = 100_000  # Linux takes 128 KiB for one argument, execve(2)
READ_BYTES = 65_536
DRAIN_S = 1.0  # for output that is still in the pipe when the last process has gone
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "TMPDIR")


class Kept:
    """The beginning and the end of a stream of bytes, within a bound, and how much there was.

    Args:
        limit: bytes kept at most.
    """

    def __init__(self, limit: int) -> None:
        self._head_room = limit - limit // 2
        self._tail_room = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes | bytearray) -> None:
        """Take the next piece."""
        self.total += len(data)
        room = self._head_room - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._tail_room + READ_BYTES:  # seldom, so that each byte is moved about once
            del self._tail[: len(self._tail) - self._tail_room]

    def text(self) -> str:
        """What was kept, as text, with a line that counts what was left out; bytes that are no UTF-8 are replaced."""
        tail = self._tail[max(0, len(self._tail) - self._tail_room) :]
        left_out = self.total - len(self._head) - len(tail)
        if not left_out:
            return (self._head + tail).decode("utf-8", "replace")
        head = self._head.decode("utf-8", "replace")
        return f"{head}\n[... {left_out} bytes left out ...]\n{tail.decode('utf-8', 'replace')}"


def child_environment(environment: Mapping[str, str], passthrough: Iterable[str]) -> dict[str, str]:
    """What a command may see of the gateway's environment: a few names that programs need, `LC_*`, and what was named.

    Args:
        environment: the gateway's.
        passthrough: further names, from `terminal.env_passthrough`.
    """
    names = {*PASSED_ON, *passthrough, *(name for name in environment if name.startswith("LC_"))}
    chosen = {name: environment[name] for name in sorted(names) if name in environment}
    return {"PATH": os.defpath, **chosen}


def describe_end(end: CommandEnd, seconds: float) -> str:
    """The last line of a result."""
    if end.code is not None:
        how = f"exit code {end.code}"
    elif end.signal is not None:
        how = f"ended by signal {end.signal} ({signal.strsignal(end.signal)})"
    else:
        how = "ended in an unknown way: the process that watches over it was killed"
    left = f"; {end.swept} background process(es) were ended with it" if end.swept else ""
    return f"[{how} after {seconds:.1f} s{left}]"


@asynccontextmanager
async def open_terminal(config: TerminalConfig, host: ToolsetHost) -> AsyncIterator[tuple[Tool, ...]]:
    """Open the toolset `terminal`.

    Args:
        config: how long, how much, and what a command may see.
        host: the home that no working directory may be in, and the environment to choose from.

    Lifetime: nothing is held between calls. A call's processes are gone when the call returns, however it ends.
    """
    running = trio.CapacityLimiter(config.max_commands)  # each is two processes and four descriptors
    environment = child_environment(host.environment, config.env_passthrough)
    mark = mark_of(host.home)

    @tool(read_only=False)
    async def terminal(
        context: TurnContext,
        command: str,
        workdir: str = ".",
        timeout_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None,
    ) -> str:
        """Run a shell command and return its output and exit code. No input, no terminal; background processes are
        ended when the command ends.

        Args:
            workdir: Directory, relative to the workspace.
            timeout_s: Seconds until the command is ended.
        """
        if "\0" in command or len(command.encode()) > MAX_COMMAND_BYTES:
            raise ToolError(f"a command has no NUL and at most {MAX_COMMAND_BYTES} bytes; use a script file")
        workspace = Workspace(context.workspace, host.home)
        async with running:
            directory = await trio.to_thread.run_sync(workspace.open_directory, workdir)
            try:
                async with open_command(
                    command,
                    shell=config.shell,
                    directory=directory,
                    environment=environment | _ids(context),
                    mark=mark,
                    grace_s=config.kill_grace_s,
                ) as started:
                    limit_s = config.timeout_s if timeout_s is None else float(timeout_s)
                    return await _follow(started, limit_s, config.max_output_bytes)
            finally:
                os.close(directory)

    yield (terminal,)


def _ids(context: TurnContext) -> dict[str, str]:
    return {"HERMES_SESSION_ID": context.session_id, "HERMES_TURN_ID": context.turn_id}


async def _follow(command: Command, timeout_s: float, max_bytes: int) -> str:
    """Collect a command's output until it and everything it started has ended."""
    kept = Kept(max_bytes)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_collect, command, kept)
        with trio.move_on_after(timeout_s) as limit:
            end = await command.wait()
        if limit.cancelled_caught:
            end = await command.finish()
        # Nothing is left that could write, unless the pipe was handed to a process outside.
        nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S
    text = kept.text()
    if text and not text.endswith("\n"):
        text += "\n"
    if limit.cancelled_caught:
        raise ToolTimeout(f"the command ran longer than {timeout_s:g} s and was ended. Its output:\n{text}")
    return text + describe_end(end, trio.current_time() - began)


async def _collect(command: Command, kept: Kept) -> None:
    while data := await command.output.receive_some(READ_BYTES):
        kept.add(data)


TERMINAL: ToolsetSpec[TerminalConfig] = ToolsetSpec(name="terminal", config=TerminalConfig, open=open_terminal)
