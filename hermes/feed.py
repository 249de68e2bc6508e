"""Feed: what happens to one inbox event, for those who wait for it. In memory, bounded; the rows are the truth.

The turn pushes, synchronously and without waiting for anybody; each reader follows at its own pace and may come late or come
back: every event has a number. Old neighbours of a kind are packed into one text that still knows where each number ended,
so a feed is never much larger than the reply that it shows, and nobody sees a word twice.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Literal

import trio

from hermes.intake import Ended, Mode, Pieces, ReasoningEvent, TextEvent, TurnEnd, TurnEvent

PACK_ABOVE = 1024  # events kept one by one; beyond it the older ones are packed


class _Packed:
    """Neighbouring pieces of one kind: their text, and where in it each number ended."""

    __slots__ = ("_pieces", "ends", "first", "kind", "length")

    def __init__(self, kind: type[TextEvent] | type[ReasoningEvent], first: int) -> None:
        self.kind = kind
        self.first = first
        self.length = 0
        self.ends = array("Q")
        self._pieces: list[str] = []

    def add(self, text: str) -> None:
        """Take in the next number's text."""
        self._pieces.append(text)
        self.length += len(text)
        self.ends.append(self.length)

    def after(self, number: int) -> TurnEvent:
        """What comes after a number inside, as one event."""
        start = 0 if number < self.first else self.ends[number - self.first]
        return self.kind(self.join()[start:])

    def pieces_after(self, number: int) -> Pieces:
        """The same with its pieces told apart, to be kept."""
        skipped = max(0, number + 1 - self.first)
        start = self.ends[skipped - 1] if skipped else 0
        kind: Literal["text", "reasoning"] = "text" if self.kind is TextEvent else "reasoning"
        return Pieces(kind, self.join()[start:], tuple(end - start for end in self.ends[skipped:]))

    def join(self) -> str:
        """The whole text, kept joined from now on."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


class Feed:
    """The events of one inbox row, numbered from `first`.

    Args:
        event_id: the row.
        session_key: its mailbox.
        mode: an attended row is left when its last reader goes.
        first: the number of the first event, above all numbers used for this row before.
    """

    __slots__ = (
        "_lot", "_packed", "_recent", "_recent_first", "begun", "end", "event_id", "mode", "next_number", "readers",
        "session_key", "stored",
    )  # fmt: skip

    def __init__(self, event_id: str, session_key: str, mode: Mode, first: int = 1) -> None:
        self.event_id = event_id
        self.session_key = session_key
        self.mode = mode
        self.readers = 0
        self.begun = False  # a turn tells this feed; before that it only waits for one
        self.end: TurnEnd | None = None
        self.stored = first - 1  # events up to here are in the database
        self.next_number = first
        self._packed: list[tuple[int, _Packed | TurnEvent]] = []  # (last number, events), oldest first
        self._recent: list[TurnEvent] = []
        self._recent_first = first
        self._lot = trio.lowlevel.ParkingLot()

    def begin(self, first: int) -> None:
        """A turn takes the feed up: its events are numbered from `first`. Readers that came before have missed nothing."""
        self.begun = True
        if self.next_number < first and not self._recent and not self._packed:
            self.stored = first - 1
            self.next_number = self._recent_first = first

    def push(self, event: TurnEvent) -> None:
        """Add an event and wake the readers; never waits."""
        self._recent.append(event)
        self.next_number += 1
        if isinstance(event, Ended):
            self.end = event.end
        if len(self._recent) > PACK_ABOVE:
            self._pack()
        if self._lot:
            self._lot.unpark_all()

    def after(self, number: int) -> list[tuple[int, TurnEvent]]:
        """Every event with a higher number, as (number, event); packed neighbours come as one, under their last number."""
        if number >= self._recent_first - 1:
            start = number + 1 - self._recent_first
            return list(enumerate(self._recent[start:], number + 1))
        found: list[tuple[int, TurnEvent]] = []
        begin = bisect_left(self._packed, number + 1, key=lambda entry: entry[0])
        for last, entry in self._packed[begin:]:
            found.append((last, entry.after(number) if isinstance(entry, _Packed) else entry))
        found.extend(enumerate(self._recent, self._recent_first))
        return found

    async def wait_after(self, number: int) -> list[tuple[int, TurnEvent]]:
        """Wait until there is an event with a higher number, then give all of them.

        Cancellation: nothing is consumed; asking again gives the same events.
        """
        while self.next_number <= number + 1:
            await self._lot.park()
        return self.after(number)

    async def wait_end(self) -> TurnEnd:
        """Wait for the end of the turn."""
        while self.end is None:
            await self._lot.park()
        return self.end

    def unstored(self) -> list[tuple[int, TurnEvent | Pieces]]:
        """Events that are not in the database yet; neighbours of a kind as one, under their last number."""
        self._pack()
        begin = bisect_left(self._packed, self.stored + 1, key=lambda entry: entry[0])
        return [
            (last, entry.pieces_after(self.stored) if isinstance(entry, _Packed) else entry)
            for last, entry in self._packed[begin:]
        ]

    def _pack(self) -> None:
        for number, event in enumerate(self._recent, self._recent_first):
            if not isinstance(event, (TextEvent, ReasoningEvent)):
                self._packed.append((number, event))
                continue
            packed = self._packed[-1][1] if self._packed else None
            if not isinstance(packed, _Packed) or packed.kind is not type(event):
                packed = _Packed(type(event), number)
                self._packed.append((number, packed))
            packed.add(event.text)
            self._packed[-1] = (number, packed)
        if self._packed and isinstance(self._packed[-1][1], _Packed):
            self._packed[-1][1].join()
        self._recent_first += len(self._recent)
        self._recent.clear()
