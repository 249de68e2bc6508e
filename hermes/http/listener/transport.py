"""The bytes of one connection: what the listener needs of a stream, without a wait wherever none is needed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Protocol

import trio

Address = tuple[str, int | None]  # as ASGI has it: host and port, or the path of a UNIX socket and None

PIECE = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What a broken connection looks like here; everything else is a bug.
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Transport(Protocol):
    """One connection's stream. Reading and writing may be done by two tasks, each of them by one at a time."""

    local: Address | None
    peer: Address | None

    async def receive_some(self, at_most: int) -> bytes:
        """Wait for input: 1 to `at_most` bytes, or none once the peer has ended its side."""

    def send_nowait(self, data: bytes) -> int:
        """Hand over as much as fits now, without a wait; how much that was."""

    async def send_some(self, data: memoryview) -> int:
        """Wait until something fits; how much it was (>= 1)."""

    async def send_eof(self) -> None:
        """Say that no more will be sent, where the stream can say it."""

    def reset_on_close(self) -> None:
        """Make the close an abort (RST): for a response whose end only the close would mark."""

    async def aclose(self) -> None:
        """Close at once."""


class SocketTransport:
    """A socket of trio's, read and written by its descriptor: no checkpoint for what the kernel does at once.

    trio's own `receive_some` tries the read first and `send_all` yields after each write; a server that waits anyway
    before it reads, and writes responses that fit into the kernel's buffer, saves two system calls and two rounds of
    the scheduler for each request. The descriptor is asked for each time, so that it is never used after the close.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self.local, self.peer = _addresses(stream.socket)

    async def receive_some(self, at_most: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                return os.read(self._socket.fileno(), at_most)

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def send_some(self, data: memoryview) -> int:
        while True:
            await trio.lowlevel.wait_writable(self._socket)
            if sent := self.send_nowait(data):
                return sent

    async def send_eof(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    async def aclose(self) -> None:
        self._socket.close()


class StreamTransport:
    """Any other stream of trio's, such as one in memory."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.local: Address | None = None
        self.peer: Address | None = None

    async def receive_some(self, at_most: int) -> bytes:
        return bytes(await self._stream.receive_some(at_most))

    def send_nowait(self, data: bytes) -> int:  # noqa: ARG002  # the protocol's
        return 0

    async def send_some(self, data: memoryview) -> int:
        await self._stream.send_all(data[:PIECE])
        return min(len(data), PIECE)

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    def reset_on_close(self) -> None:
        """A stream that is no socket has no reset."""

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


def transport_for(stream: trio.abc.Stream) -> Transport:
    """The quickest transport for a stream."""
    return SocketTransport(stream) if isinstance(stream, trio.SocketStream) else StreamTransport(stream)


def _addresses(sock: trio.socket.SocketType) -> tuple[Address | None, Address | None]:
    """Both ends of a socket; a peer that has left already has no address any more."""
    try:
        local, peer = sock.getsockname(), sock.getpeername()
    except OSError:
        return None, None
    if sock.family == socket.AF_UNIX:
        return (os.fsdecode(local), None), None
    return (local[0], local[1]), (peer[0], peer[1])
