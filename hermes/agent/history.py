"""History: the messages a live agent keeps, each with the bytes that providers are sent for it.

What a model sees follows from the stored messages alone, by `append`: neighbours of one role (a turn that was begun anew, a burst, a
client that wrote twice) become one message, because strict providers want the roles to alternate.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hermes.agent.validate import HistoryGuard
from hermes.messages import Audio, Entry, Image, Message, Text

_GAP = Text("\n\n")
_OBJECTS = 1200  # bytes for the objects around a message and the bytes that are sent for it


class History:
    """Messages in order, valid for every provider. `size_bytes` is roughly what they take in memory."""

    __slots__ = ("entries", "size_bytes")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.entries = HistoryGuard()
        self.size_bytes = 0
        self.extend(messages)

    def append(self, message: Message) -> None:
        """Add a message as providers will see it. Raises HistoryInvalid for one that no provider would take here."""
        last = self.entries[-1].message if len(self.entries) else None
        if last is not None and _one_voice(last, message):
            merged = msgspec.structs.replace(message, parts=(*last.parts, _GAP, *message.parts))
            self.entries.replace_last(Entry(merged))
        else:
            self.entries.append(Entry(message))
        self.size_bytes += size_of(message)

    def extend(self, messages: Iterable[Message]) -> None:
        """Add several messages."""
        for message in messages:
            self.append(message)


def _one_voice(last: Message, message: Message) -> bool:
    if last.role != message.role or last.tool_calls:
        return False
    return message.role == "assistant" or (message.role == "user" and last.name == message.name)


def size_of(message: Message) -> int:
    """Roughly the memory a message takes: its content as values and as the bytes that are sent, and the objects around them."""
    size = _OBJECTS
    for part in message.parts:
        if isinstance(part, Text):
            size += 2 * len(part.text)
        elif isinstance(part, Image):
            size += 2 * len(part.url)
        elif isinstance(part, Audio):
            size += 2 * len(part.data)
    return size + sum(2 * len(call.arguments) for call in message.tool_calls)
