"""How far an account has read, as the values that are committed with its events. Pure.

`session`: what a connection can resume. `newest`: the newest message id of the channels heard last, for what no resume
brings back. `missed`: not empty while messages from before the session have still to be read. `followed`: the threads in
which somebody has spoken to us.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Mapping

import msgspec

from platforms.discord.protocol import Session

SESSION, NEWEST, MISSED, FOLLOWED = "session", "newest", "missed", "followed"
MAX_CHANNELS = 250  # of 16 bytes each: a cursor has at most 4,096
MAX_FOLLOWED = 500  # of 8 bytes each
_PAIR, _ONE = struct.Struct(">QQ"), struct.Struct(">Q")


class _Stored(msgspec.Struct, frozen=True):
    id: str
    url: str
    sequence: int


_decode = msgspec.json.Decoder(_Stored).decode


def write_session(session: Session | None) -> bytes:
    """The value of `session`; empty for none."""
    return b"" if session is None else msgspec.json.encode(_Stored(session.id, session.url, session.sequence))


def read_session(value: bytes | None) -> Session | None:
    """The session that was committed; None if there is none, or none that can be read."""
    try:
        stored = _decode(value or b"null")
    except msgspec.DecodeError:
        return None
    return Session(id=stored.id, url=stored.url, sequence=stored.sequence)


class Newest:
    """The newest message id per channel, of the channels heard last.

    Args:
        value: what `write` returned.
    """

    def __init__(self, value: bytes | None = None) -> None:
        self._ids: dict[str, int] = {}
        data = value or b""
        for channel, message in _PAIR.iter_unpack(data[: len(data) // _PAIR.size * _PAIR.size]):
            self._ids[str(channel)] = message

    def __len__(self) -> int:
        return len(self._ids)

    def note(self, channel: str, message: str, *, unread: Container[str] = ()) -> None:
        """A message was seen; the channel becomes the one heard last, and the one heard least recently may go.

        Args:
            channel, message: ids.
            unread: channels that are kept before all others: what was missed there is still to be read.
        """
        number, heard = int(channel), int(message)
        if number >= 1 << 64 or heard >= 1 << 64:
            return  # no id of the service
        before = self._ids.pop(str(number), 0)
        self._ids[str(number)] = max(before, heard)
        while len(self._ids) > MAX_CHANNELS:
            del self._ids[next((each for each in self._ids if each not in unread), next(iter(self._ids)))]

    def copy(self) -> Newest:
        """The same, on its own."""
        same = Newest()
        same._ids = dict(self._ids)
        return same

    def forget(self, channel: str) -> None:
        """The channel is gone."""
        self._ids.pop(channel, None)

    def of(self, channel: str) -> int:
        """The newest message seen there; 0 if none is known."""
        return self._ids.get(channel, 0)

    def channels(self) -> tuple[str, ...]:
        """The channels, the one heard last first."""
        return tuple(reversed(self._ids))

    def write(self) -> bytes:
        """The value of the cursor."""
        return b"".join(_PAIR.pack(int(channel), message) for channel, message in self._ids.items())


class Followed:
    """The threads in which somebody has spoken to us, those of late.

    Args:
        value: what `write` returned.
    """

    def __init__(self, value: bytes | None = None) -> None:
        data = value or b""
        whole = data[: len(data) // _ONE.size * _ONE.size]
        self._ids: dict[str, None] = {str(id_): None for (id_,) in _ONE.iter_unpack(whole)}

    def __contains__(self, thread: object) -> bool:
        return thread in self._ids

    def note(self, thread: str) -> None:
        """Somebody has spoken to us there; the thread where that is longest ago may be forgotten."""
        if int(thread) >= 1 << 64:
            return  # no id of the service
        self._ids.pop(str(int(thread)), None)
        self._ids[str(int(thread))] = None
        while len(self._ids) > MAX_FOLLOWED:
            del self._ids[next(iter(self._ids))]

    def write(self) -> bytes:
        """The value of the cursor."""
        return b"".join(_ONE.pack(int(each)) for each in self._ids)


def values(session: Session | None, newest: Newest, also: Iterable[tuple[str, bytes]] = ()) -> Mapping[str, bytes]:
    """The cursors to commit."""
    return {SESSION: write_session(session), NEWEST: newest.write(), **dict(also)}
