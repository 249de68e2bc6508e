"""Server-sent events, split incrementally: bytes in, whole events out, with bounds on a line and on an event.

Follows "Interpreting an event stream" of the HTML standard, section 9.2.6, with one leniency: an event that the end
of the stream cuts off before its blank line is still handed out, because some servers leave the last one out.
"""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its `event:` name (empty if it has none) and its data lines, joined by newlines."""

    name: bytes
    data: bytes


class SseOverflow(ValueError):
    """A line or an event is larger than the bound."""


class SseSplitter:
    """Splits one stream. However the bytes are cut into chunks, the events are the same.

    Args:
        max_event_bytes: bound on one line, and on the data of one event.
    """

    __slots__ = ("_after_cr", "_begun", "_data", "_data_bytes", "_max", "_name", "_tail", "_tail_bytes")

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._tail: list[bytes] = []  # the pieces of a line that has not ended
        self._tail_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete. Raises SseOverflow."""
        if not chunk:
            return []
        if self._after_cr and chunk[0] == 10:  # the second half of a CRLF that was cut between two chunks
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            self._keep(chunk)
            return []
        if self._tail:
            self._tail.append(lines[0])
            lines[0] = b"".join(self._tail)
            self._tail = []
            self._tail_bytes = 0
        rest = lines.pop()
        events: list[Event] = []
        for line in lines:
            event = self._line(line)
            if event is not None:
                events.append(event)
        if rest:
            self._keep(rest)
        return events

    def finish(self) -> list[Event]:
        """The event that the end of the stream completes, if any."""
        events = []
        if self._tail:
            last = self._line(b"".join(self._tail))
            self._tail = []
            if last is not None:
                events.append(last)
        last = self._line(b"")
        if last is not None:
            events.append(last)
        return events

    def _keep(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._tail_bytes += len(piece)
        if self._tail_bytes > self._max:
            raise SseOverflow(f"a line of the event stream is larger than {self._max} bytes")

    def _line(self, line: bytes) -> Event | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(BOM)
        if not line:
            if not self._data:
                self._name = b""
                return None
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            event = Event(self._name, data)
            self._data = []
            self._data_bytes = 0
            self._name = b""
            return event
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._max:
                raise SseOverflow(f"an event of the stream is larger than {self._max} bytes")
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None  # comments (no field name), `id:`, `retry:` and unknown fields say nothing to us
