"""How far the channels and threads were read that were heard last, as values that are committed with the events. Pure.

`channels`: the newest message of each; `threads`: the same of threads in which somebody has spoken to us, which are followed.
Slack brings again what was not acknowledged, for a few minutes; what it gave up is read from these places on.
"""

from __future__ import annotations

from collections.abc import Mapping

from platforms.slack.workspaces import is_stamp

CHANNELS, THREADS = "channels", "threads"
MAX_BYTES = 4096  # of a cursor


class Newest:
    """The newest message by place; the place heard least recently goes first.

    Args:
        value: what `write` returned.
    """

    def __init__(self, value: bytes | None = None) -> None:
        self._stamps: dict[str, str] = {}
        self._size = 0
        for line in (value or b"").decode("utf-8", "replace").splitlines():
            place, _, stamp = line.rpartition(" ")
            if place and is_stamp(stamp):
                self.note(place, stamp)

    def __len__(self) -> int:
        return len(self._stamps)

    def __contains__(self, place: object) -> bool:
        return place in self._stamps

    def note(self, place: str, stamp: str) -> None:
        """A message was seen."""
        before = self._stamps.pop(place, None)
        if before is not None:
            self._size -= _size(place, before)
            stamp = max(before, stamp, key=float)
        self._stamps[place] = stamp
        self._size += _size(place, stamp)
        while self._size > MAX_BYTES:
            self.forget(next(iter(self._stamps)))

    def go_back(self, place: str, stamp: str) -> None:
        """It is read up to here only."""
        self.forget(place)
        self.note(place, stamp)

    def forget(self, place: str) -> None:
        """It is gone, or of no interest."""
        stamp = self._stamps.pop(place, None)
        if stamp is not None:
            self._size -= _size(place, stamp)

    def of(self, place: str) -> str:
        """The newest message seen there; `0.000000` if none is known."""
        return self._stamps.get(place, "0.000000")

    def places(self) -> tuple[str, ...]:
        """The places, the one heard last first."""
        return tuple(reversed(self._stamps))

    def write(self) -> bytes:
        """The value of the cursor."""
        return "\n".join(f"{place} {stamp}" for place, stamp in self._stamps.items()).encode()


def _size(place: str, stamp: str) -> int:
    return len(place.encode()) + len(stamp) + 2


def thread_key(chat: str, thread: str) -> str:
    """The place that a thread is."""
    return f"{chat}:{thread}"


class Read:
    """Both tables, and what was committed of places before what had been missed there.

    No place counts as read beyond what is still to be read of it.

    Args:
        cursors: what was committed last.
    """

    def __init__(self, cursors: Mapping[str, bytes]) -> None:
        self.channels = Newest(cursors.get(CHANNELS))
        self.threads = Newest(cursors.get(THREADS))
        self._ahead: dict[str, str] = {}

    def places(self) -> tuple[str, ...]:
        """The channels, then the threads, each with the one heard last first."""
        return *self.channels.places(), *self.threads.places()

    def heard(self, place: str, stamp: str, *, unread: bool) -> None:
        """A message came there; `unread`: what was missed before it is still to be read."""
        table = self.table(place)
        if not unread:
            table.note(place, stamp)
            return
        self._ahead[place] = max(self._ahead.get(place, stamp), stamp, key=float)
        if place in table:
            table.note(place, table.of(place))  # heard last, and read no further

    def go_back(self, place: str, stamp: str) -> None:
        """It turns out that more was missed there, after a stamp."""
        table = self.table(place)
        if place not in table:
            table.note(place, stamp)
        elif float(table.of(place)) > float(stamp):
            table.go_back(place, stamp)

    def caught_up(self, place: str) -> None:
        """What was missed there is read, or never will be."""
        ahead = self._ahead.pop(place, None)
        if ahead is not None:
            self.table(place).note(place, ahead)

    def table(self, place: str) -> Newest:
        """The one in which a channel or a thread, as `thread_key` names it, is kept."""
        return self.threads if ":" in place else self.channels

    def cursors(self) -> Mapping[str, bytes]:
        """What to commit."""
        return {CHANNELS: self.channels.write(), THREADS: self.threads.write()}
