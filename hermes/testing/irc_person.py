"""Somebody with an IRC client, for tests: a bare connection of their own to whatever server there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio


class IrcPerson:
    """A person on a server.

    Attributes:
        nick: who they are.
        lines: everything that came, tags included.
        heard: `(nick, target, text)` of every PRIVMSG.
        longest: bytes of the longest line that came, without tags and with its end.
    """

    def __init__(self, nick: str, stream: trio.SocketStream) -> None:
        self.nick = nick
        self.lines: list[str] = []
        self.heard: list[tuple[str, str, str]] = []
        self.longest = 0
        self._stream = stream
        self._lot = trio.lowlevel.ParkingLot()

    async def write(self, line: str) -> None:
        """Send a line."""
        await self._stream.send_all(line.encode() + b"\r\n")

    async def say(self, target: str, text: str) -> None:
        """Say something to somebody or in a channel."""
        await self.write(f"PRIVMSG {target} :{text}")

    async def join(self, channel: str) -> None:
        """Join a channel, and be in it on return."""
        await self.write(f"JOIN {channel}")
        await self.until(lambda: any(f" 366 {self.nick} {channel} " in line for line in self.lines))

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for something that this person is told."""
        while not fact():
            await self._lot.park()

    def texts(self, target: str) -> list[str]:
        """What was said to a target, as far as this person heard it."""
        return [text for _, to, text in self.heard if to.lower() == target.lower()]

    async def read(self) -> None:
        """Read until the server closes the connection."""
        buffer = bytearray()
        while data := await self._stream.receive_some(65_536):
            buffer += data
            *lines, rest = bytes(buffer).split(b"\r\n")
            buffer[:] = rest
            for raw in lines:
                await self._take(raw)
            self._lot.unpark_all()

    async def _take(self, raw: bytes) -> None:
        bare = raw.partition(b" ")[2] if raw.startswith(b"@") else raw
        self.longest = max(self.longest, len(bare) + 2)
        line = bare.decode()
        self.lines.append(line)
        if line.startswith("PING"):
            await self.write(line.replace("PING", "PONG", 1))
        source, command, *rest = (*line.split(" ", 3), "", "")
        if command == "PRIVMSG":
            self.heard.append((source[1:].partition("!")[0], rest[0], rest[1].removeprefix(":")))


@asynccontextmanager
async def open_irc_person(port: int, nick: str) -> AsyncIterator[IrcPerson]:
    """A person who is welcome on the server at a port of the loopback."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        person = IrcPerson(nick, stream)
        nursery.start_soon(person.read)
        await person.write(f"NICK {nick}")
        await person.write(f"USER {nick} 0 * :{nick}")
        await person.until(
            lambda: any(f" {number} {nick} " in line for line in person.lines for number in ("376", "422"))
        )
        try:
            yield person
        finally:
            nursery.cancel_scope.cancel()
