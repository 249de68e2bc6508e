"""One command and everything it starts, as a lifetime: when the scope is left, none of its processes is left."""

from __future__ import annotations

import logging
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from hermes.errors import ToolError
from hermes.tools.leftovers import MARK, sweep

log = logging.getLogger(__name__)

MARGIN_S = 5.0  # for a guardian beyond its grace period, before it is killed itself
GUARDIAN = Path(__file__).with_name("guardian.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnd:
    """How a command ended.

    Args:
        code: its exit code; None if a signal ended it, or nobody knows.
        signal: the signal that ended it.
        swept: how many processes it had left running, which were ended after it.
        proven: nothing that it started is left. False if its guardian was killed, or cannot see what left the process
            group; then processes were searched for by their mark.
    """

    code: int | None
    signal: int | None
    swept: int
    proven: bool


class Command:
    """A running command. `output` is what it and its children write, standard error included, in one stream."""

    def __init__(self, process: trio.Process, control: socket.socket, mark: str, grace_s: float) -> None:
        assert process.stdout is not None
        self.output = process.stdout
        self._process = process
        self._control = control
        self._mark = mark
        self._grace_s = grace_s
        self._end: CommandEnd | None = None
        self._searched = False

    def end(self) -> None:
        """Ask the command and everything it started to go: TERM, and KILL after the grace period. Returns at once."""
        with suppress(OSError):  # its guardian is gone already
            self._control.send(b"T")

    async def wait(self) -> CommandEnd:
        """Wait until the command has ended and nothing that it started is left.

        Cancellation: the command goes on; leaving its scope ends it.
        """
        await self._process.wait()
        if self._end is None:
            self._end = self._read_report()
        if not self._end.proven and not self._searched:
            killed = await trio.to_thread.run_sync(sweep, self._mark)
            self._searched = True
            if killed:
                log.warning("the guardian of a command left %d processes, which were killed", killed)
        return self._end

    def _read_report(self) -> CommandEnd:
        try:
            code, number, swept, proven = self._control.recv(64).decode("ascii").split()
            return CommandEnd(
                code=None if code == "-" else int(code),
                signal=None if number == "-" else int(number),
                swept=int(swept),
                proven=proven == "1",
            )
        except (OSError, ValueError):
            return UNKNOWN

    async def finish(self) -> CommandEnd:
        """End the command and wait for it: at most for the grace period and two margins, whatever it does.

        What even KILL does not end (another user's process, one stuck in the kernel) is left behind, with an error in
        the log.
        """
        if self._process.returncode is None:
            self.end()
        with trio.move_on_after(self._grace_s + MARGIN_S):
            return await self.wait()
        log.error("a command did not end within %.1f s of being told to; its guardian is killed", self._grace_s)
        self._process.kill()
        with trio.move_on_after(MARGIN_S):
            return await self.wait()
        return UNKNOWN


UNKNOWN = CommandEnd(code=None, signal=None, swept=0, proven=False)


@asynccontextmanager
async def open_command(
    command: str, *, shell: str, directory: int, environment: Mapping[str, str], mark: str, grace_s: float
) -> AsyncIterator[Command]:
    """Run a shell command under a guardian process of its own.

    Args:
        command: what the shell is given with `-c`; at most 100,000 bytes, no NUL.
        shell: absolute path.
        directory: descriptor of the working directory; it is only needed until this is entered.
        environment: all that the command sees, beside its mark.
        mark: of the home, from `mark_of`.
        grace_s: seconds between TERM and KILL.

    Raises:
        ToolError: no process could be started.

    Lifetime: exit = no process of the command is left; also when it is cancelled, and, shortly after, when this process
        is killed: the guardian sees its socket close. See `hermes.tools.guardian` for how, and what is different on
        systems other than Linux.
    """
    own = f"{mark}.{secrets.token_hex(8)}"
    control, theirs = socket.socketpair()
    with control:
        control.setblocking(False)  # noqa: FBT003  # the standard library's own signature
        with theirs:
            guardian: list[str | bytes] = [sys.executable, "-I", "-S", str(GUARDIAN), str(grace_s), str(directory)]
            try:
                process = await trio.lowlevel.open_process(
                    [*guardian, shell, command.encode()],
                    stdin=theirs,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**environment, MARK: own},
                    pass_fds=(directory,),
                    start_new_session=True,
                )
            except OSError as error:
                raise ToolError(f"the command could not be started: {error.strerror}") from error
        running = Command(process, control, own, grace_s)
        try:
            yield running
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + grace_s + 3 * MARGIN_S):
                await trio.aclose_forcefully(running.output)
                await running.finish()
