"""History: the messages a live agent keeps, each with the bytes that providers are sent for it.

What a model sees follows from the stored messages alone, by `append`: neighbouring user messages (a turn that was
restarted, a burst) become one, because strict providers want the roles to alternate.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hermes.messages import Entry, Message, Text, encode_message

_GAP = Text("\n\n")


class History:
    """Messages in order. `size_bytes` is what they take, for the bound on all live agents together."""

    __slots__ = ("entries", "size_bytes")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.entries: list[Entry] = []
        self.size_bytes = 0
        self.extend(messages)

    def append(self, message: Message) -> None:
        """Add a message as providers will see it."""
        last = self.entries[-1].message if self.entries else None
        if last is not None and last.role == message.role == "user" and last.name == message.name:
            message = msgspec.structs.replace(last, parts=(*last.parts, _GAP, *message.parts))
            self.entries[-1] = Entry(message)
        else:
            self.entries.append(Entry(message))
        self.size_bytes += size_of(message)

    def extend(self, messages: Iterable[Message]) -> None:
        """Add several messages."""
        for message in messages:
            self.append(message)


def size_of(message: Message) -> int:
    """Roughly the memory a message takes: its stored bytes, twice (the values and what is sent), and the objects around them."""
    return 2 * len(encode_message(message)) + 400
