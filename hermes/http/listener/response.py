"""From the messages of an ASGI application to the bytes of a response; knows of no socket and never waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus

STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
OURS = frozenset((b"connection", b"transfer-encoding", b"date", b"keep-alive"))  # the listener writes these itself
WITHOUT_BODY = frozenset((204, 304))
LAST_CHUNK = b"0\r\n\r\n"


class ResponseError(RuntimeError):
    """The application broke the rules of a response; the connection is closed after it."""


class DateLine:
    """The Date header line (RFC 9110, 6.6.1), formatted once a second.

    Args:
        now: the wall clock, in seconds since 1970.
    """

    __slots__ = ("_line", "_now", "_second")

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._second = -1
        self._line = b""

    def __call__(self) -> bytes:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._line = b"date: %s\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._line


class State(Enum):
    """How far a response is."""

    NEW = auto()
    STARTED = auto()  # the application has given the head; nothing has been written
    SENDING = auto()
    COMPLETE = auto()


class Response:
    """The framing of one response.

    Args:
        head_only: the request was HEAD.
        version: the request's, `1.0` or `1.1`.
        date_line: a complete Date header line.

    Attributes:
        state: how far it is.
        status: what the application said; 0 before.
        keep_alive: whether the connection lives on after it, once its head has been written; True before.
        ends_by_close: only the close marks its end (HTTP/1.0 without Content-Length).
    """

    __slots__ = (
        "_chunked",
        "_date_line",
        "_head",
        "_head_only",
        "_length",
        "_modern",
        "_wants_close",
        "ends_by_close",
        "keep_alive",
        "state",
        "status",
    )

    def __init__(self, *, head_only: bool, version: str, date_line: bytes) -> None:
        self._head_only = head_only
        self._modern = version == "1.1"
        self._date_line = date_line
        self._head: list[bytes] = []
        self._length: int | None = None  # bytes of body still owed, where the application has said how many
        self._chunked = False
        self._wants_close = False
        self.keep_alive = True
        self.ends_by_close = False
        self.state = State.NEW
        self.status = 0

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the head of the response; nothing is written before the first piece of body.

        Args:
            status: 200 to 999.
            headers: names and values; Connection: close is obeyed, framing headers but Content-Length are ignored.

        Raises:
            ResponseError: a second start, a status that is no final one, or a head that would not be one head.
        """
        if self.state is not State.NEW:
            raise ResponseError("the response was started twice")
        if not 200 <= status <= 999:
            raise ResponseError(f"{status} is not the status of a response")
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"content-length":
                if not value.isdigit() or self._length is not None:
                    raise ResponseError("the response has a malformed or a second Content-Length")
                self._length = int(value)
                if status == 204:
                    continue
            elif lowered in OURS:
                if lowered == b"connection" and b"close" in value.lower():
                    self._wants_close = True
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        head = b"".join(lines)
        if not len(lines) == head.count(b"\n") == head.count(b"\r") or b"\0" in head:
            raise ResponseError("a header of the response holds a line break or NUL")
        self._head = [head, self._date_line]
        self._head_only = self._head_only or status in WITHOUT_BODY
        self.status = status
        self.state = State.STARTED

    def body(self, data: bytes, *, more: bool, keep_alive: bool) -> bytes:
        """Frame a piece of the body, with the head before the first one.

        Args:
            data: the piece.
            more: whether another will follow.
            keep_alive: whether the connection can live on after this response; counts until the head is written.

        Returns:
            what to write.

        Raises:
            ResponseError: no start before it, a body after the end, or more or fewer bytes than Content-Length said.
        """
        if self._chunked and more and self.state is State.SENDING:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if self.state is State.NEW:
            raise ResponseError("the response's body came before its start")
        if self.state is State.COMPLETE:
            raise ResponseError("the response went on after its end")
        if self._head_only:
            data = b""
        elif self._length is not None:
            if len(data) > self._length or (not more and len(data) < self._length):
                raise ResponseError("the response's body is not as long as its Content-Length says")
            self._length -= len(data)
        parts: list[bytes] = []
        if self.state is State.STARTED:
            self.keep_alive = keep_alive and not self._wants_close
            self._open(len(data), more, parts)
            self.state = State.SENDING
        if not self._chunked:
            parts.append(data)
        elif data:
            parts += (b"%x\r\n" % len(data), data, b"\r\n")
        if not more:
            if self._chunked:
                parts.append(LAST_CHUNK)
            self.state = State.COMPLETE
        return b"".join(parts)

    def _open(self, size: int, more: bool, parts: list[bytes]) -> None:
        """Decide how the end of the body is marked (RFC 9112, 6) and write the head."""
        parts += self._head
        if self._length is None and self.status not in WITHOUT_BODY:
            if not more:
                if not self._head_only:
                    parts.append(b"content-length: %d\r\n" % size)
            elif self._modern:
                self._chunked = not self._head_only
                parts.append(b"transfer-encoding: chunked\r\n")
            elif not self._head_only:
                self.ends_by_close = True
                self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif not self._modern:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
