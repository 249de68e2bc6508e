"""The body of a request: taken out of the connection's buffer, piece by piece, without a wait.

Neither class touches what follows the body. Results and refusals depend on the bytes alone, not on how they were cut.
"""

from __future__ import annotations

import re

from hermes.http.listener.refusal import Refused

# RFC 9112, 7.1. A size of more than 15 digits is larger than every limit.
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
MAX_SIZE_LINE = 256
MAX_TRAILERS = 4096
MAX_OVERHEAD = 16_384  # framing beyond what honest chunks need
HONEST_OVERHEAD = 16


class FixedBody:
    """A body of a known length."""

    __slots__ = ("complete", "received", "remaining")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.received = 0
        self.complete = length == 0

    def take(self, buffer: bytearray) -> bytes:
        """Remove from `buffer` what there is of the body; empty if nothing has arrived."""
        piece = bytes(buffer[: self.remaining])
        del buffer[: len(piece)]
        self.remaining -= len(piece)
        self.received += len(piece)
        self.complete = self.remaining == 0
        return piece


class ChunkedBody:
    """A chunked body; extensions and trailers are bounded and ignored."""

    __slots__ = ("_in_chunk", "_left", "_limit", "_overhead", "_trailers", "complete", "received")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = 0  # of the current chunk's data
        self._in_chunk = False
        self._trailers: int | None = None  # bytes of trailers seen, once the last chunk has been
        self._overhead = 0
        self.received = 0
        self.complete = False

    def take(self, buffer: bytearray) -> bytes:
        """Remove from `buffer` and decode what there is of the body; empty if nothing whole has arrived.

        Raises:
            Refused: 400 (malformed, or mostly framing), 413 (too long) or 431 (trailers).
        """
        pieces: list[bytes] = []
        position = 0
        while not self.complete:
            if self._left:
                piece = bytes(buffer[position : position + self._left])
                if not piece:
                    break
                position += len(piece)
                self._left -= len(piece)
                self.received += len(piece)
                pieces.append(piece)
                continue
            used = self._line(buffer, position)
            if not used:
                break
            position += used
        del buffer[:position]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _line(self, buffer: bytearray, start: int) -> int:
        """Judge the line at `start`; its length, or 0 if it is not complete."""
        if self._in_chunk:
            return self._chunk_end(buffer, start)
        room = MAX_SIZE_LINE if self._trailers is None else MAX_TRAILERS - self._trailers
        end = buffer.find(b"\r\n", start, start + room)
        line = bytes(buffer[start : end if end >= 0 else start + room])
        if end < 0:
            if b"\n" in line or b"\r" in line[:-1]:
                raise Refused(400, "The request's chunked body holds a bare CR or LF.")
            if len(line) >= room:
                if self._trailers is None:
                    raise Refused(400, "The request's chunked body has a chunk header that is too long.")
                raise Refused(431, f"The request has more than {MAX_TRAILERS} bytes of trailers.")
            return 0
        if self._trailers is None:
            self._chunk_size(line)
        else:
            self._trailer(line)
        return len(line) + 2

    def _chunk_end(self, buffer: bytearray, start: int) -> int:
        mark = bytes(buffer[start : start + 2])
        if not b"\r\n".startswith(mark):
            raise Refused(400, "The request's chunked body has a chunk longer than it says.")
        if len(mark) < 2:
            return 0
        self._in_chunk = False
        return 2

    def _chunk_size(self, line: bytes) -> None:
        match = CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise Refused(400, "The request's chunked body has a malformed chunk header.")
        size = int(match[1], 16)
        self._overhead = max(0, self._overhead + len(line) - HONEST_OVERHEAD - 2 * size)
        if self._overhead > MAX_OVERHEAD:
            raise Refused(400, "The request's chunked body is mostly framing.")
        if self.received + size > self._limit:
            raise Refused(413, f"The request's body is longer than {self._limit} bytes.")
        if size:
            self._left, self._in_chunk = size, True
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        assert self._trailers is not None
        if not line:
            self.complete = True
        elif not TRAILER.fullmatch(line):
            raise Refused(400, "The request has a malformed trailer.")
        self._trailers += len(line) + 2


Body = FixedBody | ChunkedBody
