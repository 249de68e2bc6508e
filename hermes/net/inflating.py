"""Decompressing an answer piece by piece, so that a small one which is a huge one in disguise costs no memory."""

from __future__ import annotations

import zlib

PIECE = 65_536
_EITHER = 32 + zlib.MAX_WBITS  # gzip or zlib, as the header says


class Inflating:
    """Undoes one content coding (RFC 9110, section 8.4.1).

    Args:
        coding: `gzip`, `x-gzip` or `deflate`; in lower case.

    Raises:
        ValueError: any other coding, several of them included: each multiplies what a byte can become.
    """

    __slots__ = ("_bare", "_decoder", "_more", "_rest")

    def __init__(self, coding: str) -> None:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise ValueError(f"the answer is compressed as {coding[:100]!r}, which nobody asked for")
        self._decoder = zlib.decompressobj(_EITHER)
        self._bare = coding == "deflate"  # many servers send it without zlib's header, as the first byte will tell
        self._rest = b""
        self._more = False  # the decoder holds output that did not fit into the last piece

    def feed(self, data: bytes) -> None:
        """More of what was received; to be called when `take()` has nothing left."""
        self._rest = data

    def take(self) -> bytes:
        """The next piece, at most 64 KiB; empty when more input is needed, or when all has been. Raises ValueError."""
        if not (self._rest or self._more) or self._decoder.eof:
            return b""
        try:
            piece = self._decoder.decompress(self._rest, PIECE)
        except zlib.error as exc:
            if not self._bare:
                raise ValueError(f"the answer cannot be decompressed: {exc}") from None
            self._bare = False
            self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            return self.take()
        self._bare = False
        self._rest = self._decoder.unconsumed_tail
        self._more = len(piece) == PIECE
        return piece
