"""Telling a service manager how this process is: systemd's protocol, sd_notify(3), without its library."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from hermes.observe.logs import get_log

log = get_log(__name__)

LONGEST_STATUS = 500


class Notifier:
    """Sends states to the service manager, or nowhere. Plain calls that never block and never raise.

    Args:
        address: what `NOTIFY_SOCKET` says: a path, or `@` and an abstract name; None sends nothing.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._socket: socket.socket | None = None

    def _open(self) -> None:
        if self.address is None:
            return
        target = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            opened.settimeout(0)
            opened.connect(target)
        except OSError as error:
            opened.close()
            log.warning("notify.unreachable", error=error, address=self.address)
        else:
            self._socket = opened

    def _close(self) -> None:
        if self._socket is not None:
            opened, self._socket = self._socket, None
            opened.close()

    def send(self, *assignments: str) -> bool:
        """Send `NAME=value` assignments in one datagram. Returns whether the manager has taken it."""
        if self._socket is None:
            return False
        try:
            self._socket.send("\n".join(assignments).encode("utf-8", "replace"))
        except OSError as error:
            log.debug("notify.failed", error=error)
            return False
        return True

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is over."""
        self.send("READY=1", *([f"STATUS={_one_line(status)}"] if status else []))

    def status(self, text: str) -> None:
        """One line for people, shown by `systemctl status`."""
        self.send(f"STATUS={_one_line(text)}")

    def reloading(self) -> None:
        """A reload begins; `ready()` ends it. The time stamp is what `Type=notify-reload` wants."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "stopping") -> None:
        """The stop begins."""
        self.send("STOPPING=1", f"STATUS={_one_line(status)}")

    def alive(self) -> None:
        """A sign of life for the manager's watchdog."""
        self.send("WATCHDOG=1")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_STATUS]


@asynccontextmanager
async def open_notifier(
    address: str | None, *, watchdog_s: float | None = None, healthy: Callable[[], bool] = lambda: True
) -> AsyncIterator[Notifier]:
    """Open the way to the service manager and feed its watchdog with real progress.

    Args:
        address: the manager's socket, or None: everything is then a no-op.
        watchdog_s: the manager ends the process when it has not heard for so many seconds (> 0); None: no watchdog.
        healthy: asked on the loop before each sign of life, twice in that time; says no when a path that must move has
            not. The question itself proves that the loop turns.

    Yields:
        the notifier.

    Lifetime: one socket, and one task where there is a watchdog.
    Cancellation: leaves nothing; the manager is not told, `stopping()` does that.
    """
    notifier = Notifier(address)
    notifier._open()
    with contextlib.ExitStack() as stack:
        stack.callback(notifier._close)
        async with trio.open_nursery() as nursery:
            if watchdog_s is not None and address is not None:
                nursery.start_soon(_feed, notifier, watchdog_s, healthy)
            yield notifier
            nursery.cancel_scope.cancel()


async def _feed(notifier: Notifier, watchdog_s: float, healthy: Callable[[], bool]) -> None:
    silent = False
    while True:
        if healthy():
            notifier.alive()
            silent = False
        elif not silent:
            silent = True
            log.error("notify.silent", watchdog_s=watchdog_s)
        await trio.sleep(watchdog_s / 2)
