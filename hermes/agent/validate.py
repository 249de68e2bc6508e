"""What every history must be before it is sent: the one check that all model requests pass.

Strict providers refuse a whole conversation for one orphaned call, for ever; so a history that breaks these rules is
a bug of ours (`HistoryInvalid`), never sent, and what a client sends is checked with the same rules before it becomes
history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from hermes.agent.calls import ToolDefinition
from hermes.messages import Audio, Entry, Image, Message, Role, Text

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
MAX_MESSAGES = 100_000
MAX_BYTES = 268_435_456
NONE_OPEN: frozenset[str] = frozenset()


class HistoryInvalid(ValueError):
    """A history that no strict provider would take.

    Args:
        index: which message, from 0; None for the tools or the whole.
        reason: which rule it breaks.
    """

    def __init__(self, index: int | None, reason: str) -> None:
        super().__init__(reason if index is None else f"messages[{index}]: {reason}")
        self.index = index
        self.reason = reason


class HistoryTooLong(HistoryInvalid):
    """A history with more messages, or larger ones, than are ever sent."""


def _size(message: Message) -> int:
    size = 64
    for part in message.parts:
        if isinstance(part, Text):
            size += len(part.text)
        elif isinstance(part, Image):
            size += len(part.url)
        elif isinstance(part, Audio):
            size += len(part.data)
    for call in message.tool_calls:
        size += len(call.arguments) + 64
    return size


def _advance(index: int, message: Message, before: Role | None, pending: frozenset[str]) -> frozenset[str]:
    """The calls that are open after this message. Raises HistoryInvalid if it may not stand here."""
    role = message.role
    if role == "tool":
        if not message.tool_call_id:
            raise HistoryInvalid(index, "a tool result needs the id of its call")
        if message.tool_call_id not in pending:
            raise HistoryInvalid(index, f"no open call has the id {message.tool_call_id!r}")
        if message.tool_calls:
            raise HistoryInvalid(index, "a tool result cannot call tools")
        return pending - {message.tool_call_id}
    if pending:
        raise HistoryInvalid(index, f"the call {min(pending)!r} has no result before this message")
    if role == "system" and before not in (None, "system"):
        raise HistoryInvalid(index, "a system message comes before all others")
    calls = message.tool_calls
    if role != "assistant":
        if calls:
            raise HistoryInvalid(index, "only an assistant message calls tools")
        return NONE_OPEN
    if before == "assistant":
        raise HistoryInvalid(index, "an assistant message follows another one")
    if not calls:
        return NONE_OPEN
    ids = frozenset(call.id for call in calls)
    if "" in ids:
        raise HistoryInvalid(index, "a call without an id")
    if len(ids) != len(calls):
        raise HistoryInvalid(index, "two calls with the same id")
    return ids


def _check_end(length: int, last: Role | None, pending: frozenset[str]) -> None:
    if pending:
        raise HistoryInvalid(length - 1, f"the call {min(pending)!r} has no result")
    if last in (None, "system"):
        raise HistoryInvalid(None, "there is no message to answer")


class HistoryGuard(Sequence[Entry]):
    """A history that is valid by construction: each message is checked once, when it is added.

    The rules: system messages come first; every call of an assistant message has exactly one result, and the results
    follow it directly, in any order; call ids are unique within their message and not empty; a result answers a call
    that is open; no assistant message follows another; count and size are bounded.

    Args:
        entries: the history so far.
        max_messages: how many messages at most.
        max_bytes: their content at most, in characters.

    Raises:
        HistoryInvalid: `entries` break a rule.
    """

    __slots__ = ("_entries", "_max_bytes", "_max_messages", "_open", "_size")

    def __init__(
        self, entries: Iterable[Entry] = (), *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._entries: list[Entry] = []
        self._open = NONE_OPEN
        self._size = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        """Add the next message. Raises HistoryInvalid, and then nothing has changed."""
        message = entry.message
        index = len(self._entries)
        size = self._size + _size(message)
        if index >= self._max_messages:
            raise HistoryTooLong(index, f"more than {self._max_messages} messages")
        if size > self._max_bytes:
            raise HistoryTooLong(index, f"the history is larger than {self._max_bytes} characters")
        before = self._entries[-1].message.role if self._entries else None
        self._open = _advance(index, message, before, self._open)
        self._entries.append(entry)
        self._size = size

    def replace_last(self, entry: Entry) -> None:
        """Put a longer message of the same role in place of the last one, which has no open calls.

        Raises HistoryInvalid, and then the last message is gone.
        """
        last = self._entries.pop()
        self._size -= _size(last.message)
        self.append(entry)

    @property
    def open_calls(self) -> frozenset[str]:
        """The ids of the last assistant message's calls that have no result yet."""
        return self._open

    def check_sendable(self) -> None:
        """Raise HistoryInvalid unless this can be sent as it is: not empty, and no call without its result."""
        _check_end(len(self._entries), self._entries[-1].message.role if self._entries else None, self._open)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self._entries[index]


def check_tools(tools: Sequence[ToolDefinition]) -> None:
    """Raise HistoryInvalid unless every name is one that providers take, and no two are the same."""
    names = set()
    for tool in tools:
        if not TOOL_NAME.fullmatch(tool.name):
            raise HistoryInvalid(None, f"a tool's name has 1 to 64 letters, digits, _ or -, unlike {tool.name[:80]!r}")
        if tool.name in names:
            raise HistoryInvalid(None, f"two tools are named {tool.name!r}")
        names.add(tool.name)


def check_history(entries: Sequence[Entry], tools: Sequence[ToolDefinition] = ()) -> None:
    """Raise HistoryInvalid unless this can be sent. A `HistoryGuard` is valid already and costs nothing here."""
    check_tools(tools)
    if isinstance(entries, HistoryGuard):
        entries.check_sendable()
        return
    before: Role | None = None
    pending = NONE_OPEN
    for index, entry in enumerate(entries):
        pending = _advance(index, entry.message, before, pending)
        before = entry.message.role
    _check_end(len(entries), before, pending)
