"""Calls that wait for their reply, and the last replies, for those that are repeated."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import trio

MAX_KEPT = 500
MAX_BYTES = 4_000_000


@dataclass(eq=False, slots=True)
class Waiting:
    """One event whose reply somebody waits for.

    Attributes:
        done: there is a reply, or there will be none.
        text: the reply; None if there is none.
        failed: it says why there is no proper one.
        readers: calls that wait.
        committed: the event is in the inbox.
    """

    done: trio.Event = field(default_factory=trio.Event)
    text: str | None = None
    failed: bool = False
    readers: int = 0
    committed: bool = False


class Answers:
    """Name of an event -> its reply, while somebody waits and some time longer."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._left: OrderedDict[str, Waiting] = OrderedDict()  # nobody waits now, but the reply will be there
        self._kept: OrderedDict[str, Waiting] = OrderedDict()
        self._bytes = 0

    def join(self, name: str) -> tuple[Waiting, bool]:
        """Wait for a reply; whether nobody did before, so that the event is to be delivered. Every join is left."""
        found = self._waiting.get(name) or self._kept.get(name)
        new = found is None
        if found is None:
            found = self._waiting[name] = Waiting()
        found.readers += 1
        return found, new

    def leave(self, name: str, waiting: Waiting, *, goes_on: bool) -> bool:
        """Wait no more. Whether the event is to end with that: nobody waits now, and it has no reply yet.

        Args:
            goes_on: it is answered although nobody waits, so that a repetition can wait for the same reply.
        """
        waiting.readers -= 1
        if waiting.readers or waiting.done.is_set():
            return False
        if goes_on and waiting.committed:
            self._leave(name, waiting)
            return False
        if self._waiting.get(name) is waiting:
            del self._waiting[name]
        return waiting.committed

    def give(self, name: str, text: str, *, failed: bool) -> bool:
        """The reply to an event. False if nobody waits for it."""
        waiting = self._waiting.pop(name, None)
        self._left.pop(name, None)
        if waiting is None:
            return False
        waiting.text, waiting.failed = text, failed
        waiting.done.set()
        self._keep(name, waiting)
        return True

    def break_off(self, name: str, waiting: Waiting) -> None:
        """There will be no reply: the event was not committed, or is no new one."""
        if self._waiting.get(name) is waiting:
            del self._waiting[name]
        waiting.done.set()

    def _leave(self, name: str, waiting: Waiting) -> None:
        self._left[name] = waiting
        self._left.move_to_end(name)
        if len(self._left) > MAX_KEPT:
            old_name, old = self._left.popitem(last=False)
            if not old.readers and self._waiting.get(old_name) is old:
                del self._waiting[old_name]

    def _keep(self, name: str, waiting: Waiting) -> None:
        self._kept[name] = waiting
        self._bytes += _size(waiting)
        while len(self._kept) > MAX_KEPT or self._bytes > MAX_BYTES:
            _, old = self._kept.popitem(last=False)
            self._bytes -= _size(old)


def _size(waiting: Waiting) -> int:
    return 200 + 4 * len(waiting.text or "")
