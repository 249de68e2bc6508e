"""Lines on a connection of the fake mail server, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a command gets in place of its answer.

    Args:
        answer: this: of IMAP without its tag, of SMTP whole; the connection stays, unless it is a 421 or a BYE.
        raw: exactly these bytes.
        hang: no answer at all.
        cut: the connection is closed.
        done: the command has its effect all the same, before that.
        after_s: so long nothing is said.
    """

    answer: bytes = b""
    raw: bytes = b""
    hang: bool = False
    cut: bool = False
    done: bool = False
    after_s: float = 0.0


class Gone(trio.BrokenResourceError):
    """The connection is over."""


class Line:
    """One connection."""

    def __init__(self, stream: trio.SocketStream, name: str, fault: Callable[[str], Fault | None]) -> None:
        self.stream = stream
        self.name = name
        self._fault = fault
        self._buffer = bytearray()

    async def line(self) -> bytes:
        """The next line without its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            await self._more()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return found.removesuffix(b"\r")

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < size:
            await self._more()
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    async def _more(self) -> None:
        piece = await self.stream.receive_some(65_536)
        if not piece:
            raise Gone
        self._buffer += piece

    async def say(self, *lines: bytes) -> None:
        """Send lines."""
        await self.stream.send_all(b"".join(line + b"\r\n" for line in lines))

    def look(self, what: str) -> Fault | None:
        """What a command gets now."""
        return self._fault(f"{self.name} {what}")

    async def suffer(self, fault: Fault, tag: bytes = b"") -> None:
        """Answer as the fault says.

        Raises:
            Gone: the connection is over.
        """
        await trio.sleep(fault.after_s)
        if fault.hang:
            while True:
                await self._more()  # until the client leaves
        if fault.raw:
            await self.stream.send_all(fault.raw)
        if fault.cut or fault.raw:
            raise Gone
        await self.say(tag + fault.answer)
        if fault.answer.startswith((b"421", b"* BYE")):
            raise Gone
