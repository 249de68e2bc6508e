"""Where a channel is: Discord gives an event only its channel's id, which may be a thread, a forum post or a conversation. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hermes.events import Address, ChatKind
from platforms.discord.wire import Channel

MAX_PLACES = 20_000

# Channel types; source: Discord's reference, "Channel Object".
DIRECT, GROUP_DIRECT, ANNOUNCEMENT = 1, 3, 5
THREADS = (10, 11, 12)
THREADABLE = (0, ANNOUNCEMENT)


@dataclass(frozen=True, slots=True)
class Place:
    """A channel: what it is, and what it is a thread of."""

    id: str
    kind: int
    parent: str | None = None

    @property
    def chat_kind(self) -> ChatKind:
        """How the core calls it."""
        if self.kind == DIRECT:
            return "dm"
        return "channel" if self.kind == ANNOUNCEMENT else "group"

    @property
    def threadable(self) -> bool:
        """A thread can be made from its messages."""
        return self.kind in THREADABLE

    def address(self, account: str) -> Address:
        """Where to answer."""
        if self.parent is not None:
            return Address(account, self.parent, self.id)
        return Address(account, self.id)


def place_of(channel: Channel) -> Place:
    """The place that a channel object describes."""
    return Place(channel.id, channel.type, channel.parent_id if channel.type in THREADS else None)


class Places:
    """The channels that are known, the latest at most."""

    def __init__(self) -> None:
        self._known: dict[str, Place] = {}

    def note(self, *channels: Channel) -> None:
        """Channels were described."""
        for channel in channels:
            self._known.pop(channel.id, None)
            self._known[channel.id] = place_of(channel)
        while len(self._known) > MAX_PLACES:
            del self._known[next(iter(self._known))]

    def get(self, channel: str) -> Place | None:
        """What is known of a channel."""
        return self._known.get(channel)

    def forget(self, channel: str) -> None:
        """It is gone, or has changed."""
        self._known.pop(channel, None)
