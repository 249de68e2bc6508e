"""The channels that we are to be in: joined, kicked from, closed to us, invited to. Plain; the clock is an argument."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from platforms.irc.lines import Line, build
from platforms.irc.names import Server

log = logging.getLogger(__name__)

MAX_INVITED = 100
MAX_JOIN = 400  # bytes of the names and keys in one JOIN, with what is between them, if there are several
SLOWEST = 64  # times the first pause between two tries
# Why a JOIN came to nothing (RFC 2812, section 5.2; modern.ircdocs.horse): no such channel, too many, full, invite only,
# banned, another key, a bad name, an account needed, unavailable, only with TLS.
NOT_JOINED = frozenset(("403", "405", "471", "473", "474", "475", "476", "477", "437", "489", "520"))


@dataclass(slots=True)
class Room:
    """One channel.

    Args:
        name: as it was written.
        key: what opens it; empty = nothing.
        joined: we are in it.
        why: why we are not, by the server; empty = nobody said.
        tries: JOINs since we were in it.
        next_at: when to try again.
    """

    name: str
    key: str = ""
    joined: bool = False
    why: str = ""
    tries: int = 0
    next_at: float = 0.0


class Rooms:
    """All of them.

    Args:
        wanted: `#channel` or `#channel key` each.
        server: how names are compared.
        first_s: the pause before the first try to come back.
        open_door: invitations to others are accepted.
    """

    def __init__(self, wanted: tuple[str, ...], server: Server, first_s: float, *, open_door: bool) -> None:
        self._server = server
        self._first_s = first_s
        self._open_door = open_door
        self._rooms: dict[str, Room] = {}
        for each in wanted:
            name, _, key = each.strip().partition(" ")
            self._rooms[server.fold(name)] = Room(name, key.strip())

    def get(self, name: str) -> Room | None:
        """One that we are to be in."""
        return self._rooms.get(self._server.fold(name))

    def outside(self) -> list[Room]:
        """Those that we are not in."""
        return [room for room in self._rooms.values() if not room.joined]

    def due(self, now: float) -> list[bytes]:
        """JOINs for all whose time has come; they count as tried."""
        lines, names, keys = list[bytes](), list[str](), list[str]()
        for room in sorted(self.outside(), key=lambda room: not room.key):  # keys go with the first names
            if room.next_at > now:
                continue
            room.next_at = now + self._first_s * min(2**room.tries, SLOWEST)
            room.tries += 1
            more = (*names, *keys, room.name, *([room.key] if room.key else []))
            if names and len(",".join(more).encode("utf-8", "replace")) > MAX_JOIN:
                lines.append(_join(names, keys))
                names, keys = [], []
            names.append(room.name)
            keys += [room.key] if room.key else []
        return [*lines, _join(names, keys)] if names else lines

    def take(self, line: Line, now: float, me: str) -> list[bytes]:
        """Take in a line.

        Args:
            line: of any kind.
            now: the time.
            me: our nick.

        Returns:
            what to write at once.
        """
        ours = self._server.fold(line.nick) == self._server.fold(me)
        match line.command:
            case "JOIN" if ours and (room := self.get(line.param(0))) is not None:
                room.joined, room.why, room.tries = True, "", 0
            case "PART" if ours:
                self._left(line.param(0), "we were made to leave", now)
            case "KICK" if self._server.fold(line.param(1)) == self._server.fold(me):
                self._left(line.param(0), f"{line.nick} has kicked us: {line.words}", now)
            case "INVITE":
                return self._invited(line.words, now)
            case command if command in NOT_JOINED and (room := self.get(line.param(1))) is not None:
                if not room.joined:
                    room.why = line.words
                    log.warning("not in %s: %s", room.name, line.words)
        return []

    def _left(self, name: str, why: str, now: float) -> None:
        room = self.get(name)
        if room is not None:
            room.joined, room.why, room.next_at = False, why, now + self._first_s
            log.warning("not in %s any more: %s", room.name, why)

    def _invited(self, name: str, now: float) -> list[bytes]:
        room = self.get(name)
        if room is None:
            if not self._open_door or len(self._rooms) >= MAX_INVITED or not self._server.is_channel(name):
                log.info("invited to %.60s, which is not one of ours", name)
                return []
            room = self._rooms[self._server.fold(name)] = Room(name)
        if room.joined:
            return []
        room.next_at = 0.0
        return self.due(now)


def _join(names: list[str], keys: list[str]) -> bytes:
    return build("JOIN", ",".join(names), *([",".join(keys)] if keys else []))
