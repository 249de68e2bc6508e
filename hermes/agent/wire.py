"""What the two protocols share: joining cached messages, collecting a reply, and what may be wrong with its bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from hermes.agent.calls import CallDelta, OnDelta, ReasoningDelta, TextDelta, ToolDefinition
from hermes.agent.sse import Event
from hermes.messages import Entry, Message, Part, Reasoning, Text, ToolCall, Usage

T = TypeVar("T")
MAX_CALLS = 1000  # of one reply; and what a call or an item costs besides its words
ITEM_BYTES = 64
MAX_ID_CHARS = 256
MAX_TOKENS = 2**40  # what a provider counts beyond it is no count, and a sum of such numbers fits into no database
_UNFIT_NAME = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NotProtocol(Exception):
    """The provider's bytes are not its protocol; `sample` is the beginning of what came instead."""

    def __init__(self, reason: str, sample: bytes = b"") -> None:
        super().__init__(reason)
        self.sample = sample[:500].decode("utf-8", "replace")


class StreamCut(Exception):
    """The stream ended before the reply was whole."""


class ReplyTooLarge(Exception):
    """The reply is larger than `max_output_bytes`."""


class RequestTooLarge(Exception):
    """The request is larger than any provider takes."""


class Unsupported(Exception):
    """This protocol has no way to say what the request asks for."""


class UpstreamError(Exception):
    """An error object inside an answer whose HTTP status promised success."""

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def upstream_error(error: Any) -> UpstreamError:
    """An error object of whatever shape as an exception: `code` may be a status, and `type` a code."""
    if not isinstance(error, dict):
        return UpstreamError(str(error)[:2000])
    code, status = error.get("code"), error.get("status")
    for number in (code, status, error.get("status_code")):
        if isinstance(number, str) and number.isdecimal() and len(number) == 3:
            number = int(number)
        if isinstance(number, int) and 300 <= number <= 599:
            status = number
            break
    else:
        status = None
    words = [word for word in (code, error.get("type")) if isinstance(word, str)]
    return UpstreamError(str(error.get("message") or error)[:2000], status=status, code=" ".join(words))


def decode_json(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode, tolerating what some servers send and JSON forbids: broken UTF-8 and half surrogate pairs become `?`.

    Raises:
        NotProtocol: this is not JSON, or not of the expected shape.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            loose = json.loads(data.decode("utf-8", "replace"))
            return decoder.decode(json.dumps(loose, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError) as exc:
            raise NotProtocol(f"the answer is not the protocol's JSON: {exc}", data) from None


def token_count(value: Any) -> int:
    """A number of tokens as a provider says it: 0 for what is no number, never more than `MAX_TOKENS`."""
    return int(min(value, MAX_TOKENS)) if isinstance(value, (int, float)) and value > 0 else 0


def mapping(value: Any) -> dict[str, Any]:
    """What a provider sent where an object belongs; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """What a provider sent where an array belongs; an empty one for anything else."""
    return value if isinstance(value, list) else []


def origin_of(api: str, base_url: str, model: str) -> str:
    """Names the endpoint that made a reasoning item, without credentials; stored beside the item."""
    parts = urlsplit(base_url)
    return f"{api} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} {model}"


def fit_name(name: str) -> str:
    """A tool's name as every provider takes it; models invent others, and a history with one is refused for ever."""
    return _UNFIT_NAME.sub("_", name)[:64] or "unnamed"


def fit_arguments(arguments: str) -> str:
    """The arguments if they are a JSON object, else `{}`: some providers parse them again and refuse the history."""
    try:
        _object.decode(arguments.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return "{}"
    return arguments


def encoded_history(
    history: Sequence[Entry], api: str, origin: str, encode: Callable[[Message, str], bytes]
) -> list[bytes]:
    """The bytes of each message, encoded once and kept in its entry; with a reasoning item inside, per endpoint."""
    found = [entry.encoded.get(api) for entry in history]
    return [
        _encoded(history[index], api, origin, encode) if piece is None else piece for index, piece in enumerate(found)
    ]


def _encoded(entry: Entry, api: str, origin: str, encode: Callable[[Message, str], bytes]) -> bytes:
    cache = entry.encoded
    piece = cache.get(api)
    if piece is None:
        piece = cache.get(origin)
    if piece is None:
        bound = any(isinstance(part, Reasoning) and part.item is not None for part in entry.message.parts)
        piece = cache[origin if bound else api] = encode(entry.message, origin)
    return piece


def encoded_tools(tools: Iterable[ToolDefinition], api: str, encode: Callable[[ToolDefinition], bytes]) -> bytes:
    """The tools as a JSON array, each encoded once and kept in its definition."""
    pieces = []
    for tool in tools:
        piece = tool.encoded.get(api)
        if piece is None:
            piece = tool.encoded[api] = encode(tool)
        pieces.append(piece)
    return b"[" + b",".join(pieces) + b"]"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A whole reply as the provider's protocol gave it."""

    message: Message
    finish_reason: str
    usage: Usage | None
    model: str


class Decoder(Protocol):
    """Turns one provider's answer into deltas and a reply.

    `done`: the stream said that it is over. `complete`: nothing of the reply is missing, though more may come.
    """

    done: bool

    @property
    def complete(self) -> bool: ...

    def feed(self, event: Event) -> None:
        """Take one event of the stream. Raises NotProtocol, UpstreamError, ReplyTooLarge."""

    def whole(self, body: bytes) -> None:
        """Take an answer that came as one JSON document instead of a stream."""

    def result(self) -> Decoded:
        """The reply. Raises StreamCut if the stream ended before it was whole."""


class CallSlot:
    """A tool call that is being received."""

    __slots__ = ("announced", "arguments", "id", "index", "name", "sent_id")

    def __init__(self, index: int, sent_id: str) -> None:
        self.index = index
        self.sent_id = sent_id  # as the provider named it; `id` may differ, to be unique
        self.id = sent_id
        self.name = ""
        self.arguments: list[str] = []
        self.announced = False


class ReplyBuilder:
    """Collects a reply, passes its pieces on, and bounds it.

    Args:
        emit: called with each delta.
        max_bytes: bound on everything the reply contains.
        taken: the call ids that this conversation uses already; asked for at the first call.
        new_id: makes a call id where the provider gave none, or one that is taken.
    """

    def __init__(self, emit: OnDelta, max_bytes: int, taken: Callable[[], set[str]], new_id: Callable[[], str]) -> None:
        self._emit = emit
        self._left = max_bytes
        self._max = max_bytes
        self._taken = taken
        self._ids: set[str] | None = None
        self._new_id = new_id
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self.calls: list[CallSlot] = []
        self.items: list[Reasoning] = []
        self.note: str | None = None

    @property
    def empty(self) -> bool:
        """Nothing has been received yet."""
        return not (self._text or self._reasoning or self.calls or self.items)

    def spend(self, content: str) -> None:
        """Count content against the bound. Raises ReplyTooLarge."""
        self.grow(len(content) if content.isascii() else len(content.encode("utf-8", "replace")))

    def grow(self, size: int) -> None:
        """Count bytes that are kept against the bound. Raises ReplyTooLarge."""
        self._left -= size
        if self._left < 0:
            raise ReplyTooLarge(f"the reply is larger than {self._max} bytes")

    def text(self, piece: str) -> None:
        """More words."""
        self.spend(piece)
        self._text.append(piece)
        self._emit(TextDelta(piece))

    def reasoning(self, piece: str) -> None:
        """More of what the model thinks aloud."""
        self.spend(piece)
        self._reasoning.append(piece)
        self._emit(ReasoningDelta(piece))

    def open_call(self, call_id: str) -> CallSlot:
        """A new tool call. Raises ReplyTooLarge."""
        if len(self.calls) >= MAX_CALLS:
            raise ReplyTooLarge(f"the reply has more than {MAX_CALLS} calls")
        self.grow(ITEM_BYTES)
        slot = CallSlot(len(self.calls), "")
        self.identify(slot, call_id)
        self.calls.append(slot)
        return slot

    def identify(self, slot: CallSlot, call_id: str) -> None:
        """The id of a call that is not announced yet; one longer than any client could send back is not kept."""
        self.spend(call_id)
        slot.sent_id = call_id
        slot.id = call_id if len(call_id) <= MAX_ID_CHARS else ""

    def name(self, slot: CallSlot, piece: str) -> None:
        """More of a call's name."""
        self.spend(piece)
        slot.name += piece

    def arguments(self, slot: CallSlot, piece: str) -> None:
        """More of a call's arguments; the first piece announces the call, whose name is complete by then."""
        self.spend(piece)
        slot.arguments.append(piece)
        if slot.announced:
            self._emit(CallDelta(slot.index, arguments=piece))
        else:
            self._announce(slot, piece)

    def _announce(self, slot: CallSlot, piece: str) -> None:
        if self._ids is None:
            self._ids = self._taken()
        while not slot.id or slot.id in self._ids:
            slot.id = self._new_id()
        self._ids.add(slot.id)
        slot.announced = True
        self._emit(CallDelta(slot.index, slot.id, slot.name, piece))

    def message(self) -> Message:
        """The assistant's message; calls without arguments are announced now."""
        parts: list[Part] = []
        thoughts = "".join(self._reasoning)
        if self.items:
            parts.extend(self.items)
        elif thoughts:
            parts.append(Reasoning(text=thoughts))
        if self._text:
            parts.append(Text("".join(self._text)))
        calls = []
        for slot in self.calls:
            if not slot.announced:
                self._announce(slot, "")
            calls.append(ToolCall(id=slot.id, name=slot.name, arguments="".join(slot.arguments) or "{}"))
        return Message(role="assistant", parts=tuple(parts), tool_calls=tuple(calls), note=self.note)

    @property
    def thoughts(self) -> str:
        """The reasoning text so far."""
        return "".join(self._reasoning)
