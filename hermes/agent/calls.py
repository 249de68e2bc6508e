"""What one model call is asked and what it answers: the values between the agent loop and the model door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hermes.messages import Entry, Message, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDefinition:
    """A tool as the model sees it. `parameters` is a JSON schema of type object; `encoded` caches the bytes per protocol."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool | None = None
    encoded: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)


class CallOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling and form of one reply; None = the provider's default, not sent at all.

    `extra` holds fields that are passed on unchanged to a `chat_completions` endpoint.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    tool_choice: Any = None  # "none" | "auto" | "required" | {"type": "function", "function": {"name": …}}
    parallel_tool_calls: bool | None = None
    response_format: Any = None  # chat_completions' shape: {"type": "json_schema", "json_schema": {…}}
    reasoning_effort: str | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    extra: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One call: the system prompt, the history as a provider may see it, the tools on offer, the options."""

    system: str
    history: Sequence[Entry]
    tools: tuple[ToolDefinition, ...] = ()
    options: CallOptions = CallOptions()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More words of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks aloud."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A tool call is being written: `name` once, then pieces of `arguments`. `index` counts the calls of this reply."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


Delta = TextDelta | ReasoningDelta | CallDelta
OnDelta = Callable[[Delta], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """A whole reply.

    Args:
        message: the assistant's message; its call ids are unique and not empty.
        finish_reason: `stop`, `tool_calls`, `length`, `content_filter`.
        usage: as the provider counted, None if it said nothing.
        model: the model's name as the provider gave it.
        endpoint: which endpoint answered (its provider and model).
        attempts: requests made for this call, over all endpoints.
    """

    message: Message
    finish_reason: str
    usage: Usage | None
    model: str
    endpoint: str
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that one model call may be silent: before its first byte, and between bytes."""

    first_byte_s: float
    stall_s: float
