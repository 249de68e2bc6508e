"""What a request sends and what an answer brings, as httpcore2 wants the one and everybody wants the other."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, cast

import httpx2
import trio

from hermes.net.errors import CAUGHT, translated
from hermes.net.inflating import Inflating


class SentBody(httpx2.AsyncByteStream):
    """The body of a request that is bytes already, in one piece.

    httpcore2 asks for the first piece after it has written the request's head, and our stream holds a head back until
    what comes next: so nothing has left before `begun`.
    """

    __slots__ = ("_left", "begun")

    def __init__(self, content: bytes) -> None:
        self._left = content
        self.begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        return self

    async def __anext__(self) -> bytes:
        piece, self._left = self._left, b""
        if not piece:
            raise StopAsyncIteration
        return piece


class SentPieces(httpx2.AsyncByteStream):
    """The body of a request that comes piece by piece. As `SentBody`."""

    __slots__ = ("_pieces", "begun")

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        return self._pieces


class AnswerBody(httpx2.AsyncByteStream):
    """An answer's body: decompressed, httpcore2's errors as httpx2's, and cut at a bound if there is one.

    Args:
        content: httpcore2's.
        limit: bytes at most, or None.
    """

    def __init__(self, content: AsyncIterable[bytes], limit: int | None) -> None:
        self._content: Any = content
        self._chunks: Any = None
        self._left = limit
        self.inflating: Inflating | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = self._content.__aiter__()
        return cast("AsyncIterator[bytes]", self)

    async def __anext__(self) -> bytes:
        if self._left is not None and self._left <= 0:
            raise StopAsyncIteration
        chunk = await (self._next() if self.inflating is None else self._inflated(self.inflating))
        if self._left is not None:
            self._left -= len(chunk)
        return chunk

    async def _next(self) -> bytes:
        try:
            return cast("bytes", await self._chunks.__anext__())
        except CAUGHT as exc:
            raise translated(exc) from exc

    async def _inflated(self, inflating: Inflating) -> bytes:
        """The next piece; many of them may come out of one that was received."""
        while True:
            await trio.lowlevel.checkpoint()
            try:
                piece = inflating.take()
            except ValueError as exc:
                raise httpx2.DecodingError(str(exc)) from None
            if piece:
                return piece
            inflating.feed(await self._next())

    async def aclose(self) -> None:
        """Give the connection back if all was read, else close it. A second time does nothing."""
        if self._chunks is not None:
            await self._chunks.aclose()
        await self._content.aclose()
