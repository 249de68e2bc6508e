"""Run by tests of kills: a gateway that kills itself at a named instruction, once a file says so.

Whoever comes there first is held at that very instruction; the kill is when as many have come as the file names.

    python killed_at.py POINT FILE PYTHON -m hermes WORDS...

Nothing is cleaned up: it is the kernel's SIGKILL, between two instructions of the path of a message.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from hermes.cli import main
from hermes.leases import LeasedPlatform
from hermes.reception import Reception
from hermes.store import InboxTable, OutboxTable, TurnTable
from hermes.store.outbox import Advance

Method = Callable[..., Awaitable[Any]]


class Point:
    """Where it dies."""

    def __init__(self, armed: Path) -> None:
        self._armed = armed
        self._there = 0

    async def reached(self) -> None:
        """Nobody goes on from here once it is armed."""
        if self._armed.exists():
            self._there += 1
            if self._there >= int(self._armed.read_text()):
                os.kill(os.getpid(), signal.SIGKILL)
            await trio.sleep_forever()


def die_at(owner: type, name: str, armed: Path | Point, *, before: bool, when: Callable[[Any], bool] = bool) -> None:
    """Kill this process before or after a method.

    Args:
        armed: the file; or a point that other methods come to as well.
        when: asked with the arguments before, with the result after.
    """
    method: Method = getattr(owner, name)
    point = armed if isinstance(armed, Point) else Point(armed)

    @functools.wraps(method)
    async def dying(*args: Any, **more: Any) -> Any:
        if before and when(args):
            await point.reached()
        result = await method(*args, **more)
        if not before and when(result):
            await point.reached()
        return result

    setattr(owner, name, dying)


def die_persisted(armed: Path) -> None:
    """After the commit that keeps a message, whether it begins the turn as well or not."""
    point = Point(armed)
    die_at(InboxTable, "deliver", point, before=False, when=lambda made: made.rows)
    die_at(InboxTable, "deliver_and_take_up", point, before=False, when=lambda both: both[0].rows)


def die_begun(armed: Path) -> None:
    """After the commit that begins a turn, whether it keeps the message as well or not."""
    point = Point(armed)
    die_at(TurnTable, "take_up", point, before=False, when=lambda next_: next_.claim)
    die_at(InboxTable, "deliver_and_take_up", point, before=False, when=lambda both: both[1] and both[1].claim)


def is_for_telegram(step: Advance) -> bool:
    """Whether a look gave a part to send there: where another account forwards to it, its own part is sent first."""
    return step.part is not None and step.part.address.account == "telegram"


POINTS: dict[str, Callable[[Path], None]] = {
    "after the fetch": lambda armed: die_at(Reception, "deliver", armed, before=True, when=lambda args: bool(args[2])),
    "after the persist": die_persisted,
    "as the turn begins": die_begun,
    "after the reply's commit": lambda armed: die_at(TurnTable, "finish", armed, before=False),
    "before the send": lambda armed: die_at(OutboxTable, "advance", armed, before=False, when=lambda step: step.part),
    "after the send": lambda armed: die_at(LeasedPlatform, "send", armed, before=False),
    "before telegram's send": lambda armed: die_at(OutboxTable, "advance", armed, before=False, when=is_for_telegram),
    "after telegram's send": lambda armed: die_at(
        LeasedPlatform, "send", armed, before=False, when=lambda receipt: receipt.address.account == "telegram"
    ),
    "after a draft": lambda armed: die_at(OutboxTable, "shown", armed, before=False, when=lambda _: True),
    "nowhere": lambda armed: None,  # whoever started it kills it
}


if __name__ == "__main__":
    POINTS[sys.argv[1]](Path(sys.argv[2]))
    sys.argv = sys.argv[5:]
    sys.argv[0] = "hermes"
    sys.exit(main())
