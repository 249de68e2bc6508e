"""The values a conversation is made of: messages, their parts, tool calls, usage. No I/O, no storage ids.

The stored form is msgspec's JSON of `Message`. What goes to a provider is derived from it in `hermes.agent.wire_*`, once per
message: an `Entry` keeps the encoded bytes beside the message, because a long history is sent again with every call.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]


class Text(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """Words."""

    text: str


class Image(msgspec.Struct, frozen=True, tag="image", omit_defaults=True):
    """A picture by reference: a `data:` URL or a link, passed on to the model and never fetched by us."""

    url: str
    detail: str | None = None


class Audio(msgspec.Struct, frozen=True, tag="audio", omit_defaults=True):
    """Sound as base64, in the format the client named (`wav`, `mp3`)."""

    data: str
    format: str


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """What the model thought aloud.

    `text` is what may be shown. `item` is the provider's own opaque JSON object (a `responses` reasoning item, or
    `reasoning_details`), which must go back unchanged to the endpoint that made it and to no other.
    """

    text: str = ""
    item: msgspec.Raw | None = None
    endpoint: str | None = None


Part = Text | Image | Audio | Reasoning


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call the model asks for; `arguments` is the JSON text exactly as received."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation.

    Args:
        role: who speaks. `tool` is the result of one call.
        parts: the content in order.
        tool_calls: the calls of an assistant message, in order; ids are unique within it.
        tool_call_id: for role `tool`, the call this answers.
        name: for role `tool`, the tool's name; for role `user`, the participant's name where the client gave one.
        note: why the message looks as it does when it is not what somebody said: `interrupted`, `not run`, …
    """

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    note: str | None = None

    @property
    def text(self) -> str:
        """All words of the message, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


def user(text: str) -> Message:
    """A user message of words alone."""
    return Message(role="user", parts=(Text(text),))


def assistant(text: str, *, note: str | None = None) -> Message:
    """An assistant message of words alone."""
    return Message(role="assistant", parts=(Text(text),), note=note)


def tool_result(call: ToolCall, text: str, *, note: str | None = None) -> Message:
    """The result of one call."""
    return Message(role="tool", parts=(Text(text),), tool_call_id=call.id, name=call.name, note=note)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)
_many = msgspec.json.Decoder(tuple[Message, ...])


def encode_message(message: Message) -> bytes:
    """The stored form of a message."""
    return _encoder.encode(message)


def decode_message(body: bytes) -> Message:
    """The message whose stored form this is. Raises msgspec.ValidationError for anything else."""
    return _decoder.decode(body)


def encode_messages(messages: tuple[Message, ...]) -> bytes:
    """The stored form of several messages (a JSON array)."""
    return _encoder.encode(messages)


def decode_messages(body: bytes) -> tuple[Message, ...]:
    """The messages whose stored form this is."""
    return _many.decode(body)


class Entry:
    """A message in a live history, with the bytes each provider protocol sends for it, encoded once.

    `encoded` maps a protocol's name (`chat_completions`, `responses`) to the JSON that goes into the request's array.
    """

    __slots__ = ("encoded", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.encoded: dict[str, bytes] = {}


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
