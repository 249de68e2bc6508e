"""Run by `test_messaging_kills.py`: a gateway that kills itself at a named instruction, once a file says so.

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

from hermes.cli import main
from hermes.leases import LeasedPlatform
from hermes.reception import Reception
from hermes.store import InboxTable, OutboxTable, TurnTable

Method = Callable[..., Awaitable[Any]]


def _is(armed: Path) -> bool:
    return armed.exists()


def die_at(owner: type, name: str, armed: Path, *, before: bool, when: Callable[[Any], bool] = bool) -> None:
    """Kill this process before or after a method.

    Args:
        when: asked with the arguments before, with the result after.
    """
    method: Method = getattr(owner, name)

    @functools.wraps(method)
    async def dying(*args: Any, **more: Any) -> Any:
        if before and _is(armed) and when(args):
            os.kill(os.getpid(), signal.SIGKILL)
        result = await method(*args, **more)
        if not before and _is(armed) and when(result):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


POINTS: dict[str, Callable[[Path], None]] = {
    "after the fetch": lambda armed: die_at(Reception, "deliver", armed, before=True, when=lambda args: bool(args[2])),
    "after the persist": lambda armed: die_at(InboxTable, "deliver", armed, before=False, when=lambda made: made.rows),
    "as the turn begins": lambda armed: die_at(
        TurnTable, "take_up", armed, before=False, when=lambda next_: next_.claim
    ),
    "after the reply's commit": lambda armed: die_at(TurnTable, "finish", armed, before=False),
    "before the send": lambda armed: die_at(OutboxTable, "advance", armed, before=False, when=lambda step: step.part),
    "after the send": lambda armed: die_at(LeasedPlatform, "send", armed, before=False),
    "after a draft": lambda armed: die_at(OutboxTable, "shown", armed, before=False, when=lambda _: True),
    "nowhere": lambda armed: None,  # whoever started it kills it
}


if __name__ == "__main__":
    POINTS[sys.argv[1]](Path(sys.argv[2]))
    sys.argv = sys.argv[5:]
    sys.argv[0] = "hermes"
    sys.exit(main())
