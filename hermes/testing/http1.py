"""HTTP/1.1 seen from the client's side byte by byte, over any stream, and a listener without a network."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import trio
import trio.testing

PIECE = 65_536


class Truncated(Exception):
    """The server ended or broke the connection before the response was complete; `data` is what came of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"the response ended after {data[-200:]!r}")
        self.data = data


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: status, headers by lower-case name, decoded body, and the chunks where it was chunked."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: tuple[bytes, ...] = ()


class RawClient:
    """Sends exactly the bytes it is given and reads responses one at a time.

    Args:
        stream: connected to the server; closed by whoever opened it.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, data: bytes) -> None:
        """Send these bytes."""
        await self.stream.send_all(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read the next response.

        Args:
            head_only: it answers a HEAD request.

        Raises:
            Truncated: the connection ended within it.
        """
        head = await self._until(b"\r\n\r\n")
        status_line, *lines = head[:-4].split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(status_line.split(b" ")[1])
        if head_only or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while chunk := await self.chunk():
                chunks.append(chunk)
            return Answer(status, headers, b"".join(chunks), tuple(chunks))
        if "content-length" in headers:
            return Answer(status, headers, await self._exactly(int(headers["content-length"])))
        return Answer(status, headers, await self.rest())

    async def ask(self, data: bytes) -> Answer:
        """Send these bytes and read one response."""
        await self.send(data)
        return await self.answer()

    async def head(self) -> bytes:
        """Read the head of a response only, as it came."""
        return await self._until(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked response whose head has been read; empty at its end."""
        size = int((await self._until(b"\r\n"))[:-2], 16)
        data = await self._exactly(size)
        await self._exactly(2)
        return data

    async def rest(self) -> bytes:
        """Read up to the end of the connection, which must be an orderly one."""
        while await self._more():
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if not await self._more_or_broken():
                raise Truncated(bytes(self._buffer))
        return self._cut(end + len(mark))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._more_or_broken():
                raise Truncated(bytes(self._buffer))
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _more_or_broken(self) -> bool:
        with contextlib.suppress(trio.BrokenResourceError):
            return await self._more()
        return False

    async def _more(self) -> bool:
        data = await self.stream.receive_some(PIECE)
        self._buffer += data
        return bool(data)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts connections that are made of memory: no kernel, so a `MockClock` knows when nothing happens.

    Args:
        lockstep: a send returns only when the other side has received it (a network without buffers).
    """

    def __init__(self, *, lockstep: bool = False) -> None:
        self._make = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self._hand_over, self._waiting = trio.open_memory_channel[trio.abc.Stream](64)

    async def accept(self) -> trio.abc.Stream:
        """Wait for the next connection."""
        return await self._waiting.receive()

    async def aclose(self) -> None:
        """Accept nothing any more."""
        self._waiting.close()
        self._hand_over.close()
        await trio.lowlevel.checkpoint()

    def connect(self) -> RawClient:
        """A client of the server that accepts here."""
        ours, theirs = self._make()
        self._hand_over.send_nowait(theirs)
        return RawClient(ours)
