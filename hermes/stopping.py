"""Stop: the one request to end, its one deadline, and the signals that make it."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import trio

from hermes.errors import HermesError
from hermes.observe.logs import get_log

log = get_log(__name__)

RESTART_CODE: Final = 75  # EX_TEMPFAIL: the process ends so that it is started again


class Stop:
    """Whether, why and until when the gateway stops. Every exit takes the smaller of its own budget and what is left.

    Attributes:
        by: absolute, on trio's clock; infinite until stopping was asked for.
        reason: who asked, for the log and the lock's next holder.
        exit_code: what the process ends with.
        serving: everything is open; until then a stop leaves at once.
    """

    def __init__(self) -> None:
        self.by = math.inf
        self.reason = ""
        self.exit_code = 0
        self.serving = False
        self._asked = trio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def asked(self) -> bool:
        """Whether somebody asked for the end."""
        return self._asked.is_set()

    def request(self, reason: str, total_s: float, *, exit_code: int = 0) -> bool:
        """Ask for the end within some seconds. The first request counts; returns whether this was it."""
        if self._asked.is_set():
            return False
        self.by = trio.current_time() + total_s
        self.reason = reason
        self.exit_code = exit_code
        self._asked.set()
        for listener in self._listeners:
            listener()
        return True

    def when_asked(self, listener: Callable[[], None]) -> None:
        """Call this in the very step in which the end is asked for; at once if that is past already."""
        self._listeners.append(listener)
        if self.asked:
            listener()

    async def wait(self) -> None:
        """Wait until somebody asks for the end."""
        await self._asked.wait()

    def within(self, budget_s: float) -> float:
        """The absolute time by which an exit with this budget must be over."""
        return min(self.by, trio.current_time() + budget_s)


class StoppedInStart(HermesError):
    """A signal came before everything was open; what was open is closed."""


class Hears(Protocol):
    """What a signal may ask for beside the end."""

    @property
    def total_s(self) -> float:
        """Seconds within which a stop is over."""
        ...

    def reload(self) -> None:
        """Read the configuration again soon."""
        ...

    def dump(self) -> None:
        """Write what runs to the log."""
        ...


@asynccontextmanager
async def open_signals(stop: Stop, hears: Hears, *, listen: bool = True) -> AsyncIterator[None]:
    """Listen to signals: the first TERM or INT asks for the end, the second cancels everything inside; HUP reloads, USR1 dumps.

    Args:
        listen: False leaves the signals alone.

    Lifetime: the outermost of the gateway's scopes, so that a second signal is heard while the others are being left.
    """
    if not listen:
        yield
        return
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, stop, hears, nursery.cancel_scope)
        yield
        nursery.cancel_scope.cancel("left")


async def _listen(
    stop: Stop,
    hears: Hears,
    everything: trio.CancelScope,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                hears.reload()
            elif number == signal.SIGUSR1:
                hears.dump()
            elif stop.request(signal.Signals(number).name, hears.total_s):
                if not stop.serving:
                    everything.cancel(
                        "stopped in the start"
                    )  # nothing to drain, and what is waited for may be far away
            else:
                log.warning("gateway.second_signal", signal=signal.Signals(number).name)
                everything.cancel("second signal")
