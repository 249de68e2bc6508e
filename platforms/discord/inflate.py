"""zlib-stream, the gateway's transport compression: one zlib context for a whole connection, each message flushed. Pure.

Source: Discord's reference, "Transport Compression".
"""

from __future__ import annotations

import zlib

SUFFIX = b"\x00\x00\xff\xff"


class TooLarge(ValueError):
    """A message that becomes larger than its bound, or no zlib data."""


class Inflater:
    """Turns binary frames into messages.

    Args:
        max_bytes: of one message, compressed and not.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._decoder = zlib.decompressobj()
        self._waiting = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The message that this frame completes; None if there is more of it to come. Raises TooLarge."""
        self._waiting += data
        if len(self._waiting) > self._max:
            raise TooLarge(f"a compressed message has more than {self._max} bytes")
        if not self._waiting.endswith(SUFFIX):
            return None
        whole = bytes(self._waiting)
        self._waiting.clear()
        try:
            message = self._decoder.decompress(whole, self._max)
        except zlib.error as exc:
            raise TooLarge(f"a message cannot be decompressed: {exc}") from None
        if self._decoder.unconsumed_tail or len(message) >= self._max:
            raise TooLarge(f"a message has more than {self._max} bytes")
        return message
