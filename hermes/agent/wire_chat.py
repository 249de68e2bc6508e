"""The `chat_completions` protocol: requests from cached messages, replies from its stream.

Source: OpenAI's API reference, "Chat Completions"; `reasoning_content`, `reasoning` and `reasoning_details` as
DeepSeek, vLLM and OpenRouter document them. Where servers differ, what they mean is accepted: see the comments.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from hermes.agent.calls import CallOptions, ModelRequest, ToolDefinition
from hermes.agent.sse import Event
from hermes.agent.wire import (
    ITEM_BYTES,
    CallSlot,
    Decoded,
    NotProtocol,
    ReplyBuilder,
    StreamCut,
    UpstreamError,
    decode_json,
    encoded_history,
    encoded_tools,
    fit_arguments,
    fit_name,
    mapping,
    origin_of,
    token_count,
    upstream_error,
)
from hermes.messages import Audio, Image, Message, Reasoning, Text, Usage
from hermes.settings import Endpoint

API = "chat_completions"
PATH = "/chat/completions"
_encode = msgspec.json.Encoder().encode

# Hosts whose current models want `max_completion_tokens`; everybody else understands `max_tokens`.
_NEW_LIMIT_HOSTS = ("openai.com", "openai.azure.com")
_RESERVED = frozenset({"model", "messages", "tools", "stream", "stream_options", "n"})

FINISH = {
    "stop": "stop",
    "end_turn": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


# --- requests


def encode_request(request: ModelRequest, endpoint: Endpoint) -> bytes:
    """The body of one call. The cost is that of joining: each message and each tool is encoded once in its life."""
    pieces = encoded_history(request.history, API, origin_of(API, endpoint.base_url, endpoint.model), encode_message)
    if request.system:
        pieces.insert(0, _encode({"role": "system", "content": request.system}))
    head: dict[str, Any] = {"model": endpoint.model, "stream": True, "stream_options": {"include_usage": True}}
    _put_options(head, request.options, endpoint, tools=bool(request.tools))
    body = [_encode(head)[:-1]]
    if request.tools:
        body += (b',"tools":', encoded_tools(request.tools, API, encode_tool))
    body += (b',"messages":[', b",".join(pieces), b"]}")
    return b"".join(body)


def _put_options(head: dict[str, Any], options: CallOptions, endpoint: Endpoint, *, tools: bool) -> None:
    head.update((name, value) for name, value in options.extra.items() if name not in _RESERVED)
    for name in (
        "temperature", "top_p", "stop", "response_format", "reasoning_effort", "seed",
        "frequency_penalty", "presence_penalty",
    ):  # fmt: skip
        value = getattr(options, name)
        if value is not None:
            head[name] = value
    if options.max_output_tokens is not None:
        host = urlsplit(endpoint.base_url).hostname or ""
        new = any(host == known or host.endswith("." + known) for known in _NEW_LIMIT_HOSTS)
        head["max_completion_tokens" if new else "max_tokens"] = options.max_output_tokens
    if tools:  # without tools both are an error to OpenAI
        if options.tool_choice is not None:
            head["tool_choice"] = options.tool_choice
        if options.parallel_tool_calls is not None:
            head["parallel_tool_calls"] = options.parallel_tool_calls


def encode_tool(tool: ToolDefinition) -> bytes:
    """A tool as an element of `tools`."""
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if tool.strict is not None:
        function["strict"] = tool.strict
    return _encode({"type": "function", "function": function})


def encode_message(message: Message, origin: str) -> bytes:
    """A message as an element of `messages`; reasoning goes back only to the endpoint that made it."""
    if message.role == "tool":
        return _encode({"role": "tool", "tool_call_id": message.tool_call_id, "content": message.text})
    if message.role == "system":
        return _encode({"role": "system", "content": message.text})
    if message.role == "user":
        shown: dict[str, Any] = {"role": "user", "content": _user_content(message)}
        if message.name:
            shown["name"] = fit_name(message.name)
        return _encode(shown)
    shown = {"role": "assistant", "content": message.text or (None if message.tool_calls else "")}
    for part in message.parts:
        if isinstance(part, Reasoning) and part.item is not None and part.endpoint == origin:
            shown["reasoning_details"] = part.item
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": fit_name(call.name), "arguments": fit_arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return _encode(shown)


def _user_content(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in message.parts) and len(message.parts) < 2:
        return message.text
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
            content.append({"type": "image_url", "image_url": image})
        elif isinstance(part, Audio):
            content.append({"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}})
    return content


# --- replies


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    reasoning_details: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)


def read_usage(usage: dict[str, Any]) -> Usage:
    """Usage under the names that providers use for it."""
    prompt = mapping(usage.get("prompt_tokens_details"))
    completion = mapping(usage.get("completion_tokens_details"))
    return Usage(
        input_tokens=token_count(usage.get("prompt_tokens")),
        output_tokens=token_count(usage.get("completion_tokens")),
        cached_tokens=token_count(prompt.get("cached_tokens")) or token_count(usage.get("prompt_cache_hit_tokens")),
        reasoning_tokens=token_count(completion.get("reasoning_tokens")),
    )


class ChatDecoder:
    """Decodes one answer; see `hermes.agent.wire.Decoder`."""

    def __init__(self, builder: ReplyBuilder, origin: str) -> None:
        self.done = False
        self._builder = builder
        self._origin = origin
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._model = ""
        self._slots: dict[int, CallSlot] = {}
        self._details: list[dict[str, Any]] = []
        self._seen = False

    @property
    def complete(self) -> bool:
        """The provider said why it stopped: what may follow is usage and the end mark."""
        return self.done or self._finish is not None

    def feed(self, event: Event) -> None:
        """Take one event of the stream."""
        data = event.data
        if data.startswith(b"[DONE]"):
            self.done = True
            return
        self._take(decode_json(_chunk, data), event.name, data)

    def whole(self, body: bytes) -> None:
        """Take an answer that came as one JSON document."""
        self._take(decode_json(_chunk, body), b"", body)
        if not self._seen:
            raise NotProtocol("the answer has no choices", body)
        self._finish = self._finish or "stop"
        self.done = True

    def _take(self, chunk: _Chunk, name: bytes, data: bytes) -> None:
        if chunk.error or name == b"error":
            raise upstream_error(chunk.error or data.decode("utf-8", "replace"))
        if chunk.model and not self._model:
            self._model = chunk.model
        if chunk.usage:
            self._usage = read_usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.index:
                continue  # only one reply was asked for
            self._seen = True
            delta = choice.delta or choice.message
            if delta is not None:
                self._delta(delta)
            if choice.finish_reason:
                if choice.finish_reason == "error":
                    raise UpstreamError("the provider ended its reply with an error")
                self._finish = choice.finish_reason

    def _delta(self, delta: _Delta) -> None:
        builder = self._builder
        # Some servers send the same thought under both names.
        thought = delta.reasoning_content or delta.reasoning
        if isinstance(thought, str) and thought:
            builder.reasoning(thought)
        if delta.reasoning_details:
            for detail in delta.reasoning_details:
                self._detail(detail)
        content = delta.content
        if content:
            if isinstance(content, str):
                builder.text(content)
            else:
                self._parts(content)
        if delta.refusal:
            builder.note = "refusal"
            builder.text(delta.refusal)
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._call(call)

    def _parts(self, content: list[Any]) -> None:
        """Content as a list of parts, as Mistral streams its reasoning models."""
        for part in content:
            if not isinstance(part, dict):
                continue
            if isinstance(part.get("text"), str):
                self._builder.text(part["text"])
            elif part.get("type") == "thinking" and isinstance(part.get("thinking"), list):
                for thought in part["thinking"]:
                    if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                        self._builder.reasoning(thought["text"])

    def _detail(self, detail: Any) -> None:
        """Put together the fragments of a reasoning detail: those of one type and index belong together."""
        if not isinstance(detail, dict):
            return
        grow = self._builder.grow
        last = self._details[-1] if self._details else None
        if last is None or any(last.get(key) != detail.get(key) for key in ("type", "index")):
            grow(ITEM_BYTES + len(_encode(detail)))
            self._details.append(dict(detail))
            return
        for key, value in detail.items():
            if key in ("text", "summary", "data") and isinstance(value, str) and isinstance(last.get(key), str):
                self._builder.spend(value)
                last[key] += value
            elif value is not None and value != last.get(key):
                grow(len(_encode({key: value})))
                last[key] = value

    def _call(self, call: _Call) -> None:
        """A piece of a tool call. Its index says of which; where servers leave it out or repeat it, the id."""
        function = call.function or _Function()
        slot = self._slots.get(call.index) if call.index is not None else None
        if call.index is None and not call.id and self._slots:
            slot = self._builder.calls[-1]
        elif call.index is None and call.id:
            slot = next((known for known in self._slots.values() if known.sent_id == call.id), None)
        # A new id together with a name is a new call even under an index that was used: some servers say 0 for each.
        if slot is not None and call.id and function.name and slot.sent_id and call.id != slot.sent_id:
            slot = None
        if slot is None:
            slot = self._builder.open_call(call.id or "")
            at = call.index if call.index is not None else len(self._builder.calls) - 1
            self._slots[at] = slot
        elif call.id and not slot.sent_id and not slot.announced:
            self._builder.identify(slot, call.id)
        if function.name and not slot.announced and function.name != slot.name:
            self._builder.name(slot, function.name)
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = _encode(arguments).decode()
        if arguments:
            self._builder.arguments(slot, arguments)

    def result(self) -> Decoded:
        """The reply."""
        if not self.complete:
            raise StreamCut("the stream ended before the reply was whole")
        if not self._seen:
            raise NotProtocol("the stream had no choices")
        builder = self._builder
        if self._details:
            item = msgspec.Raw(_encode(self._details))
            builder.items.append(Reasoning(text=builder.thoughts, item=item, endpoint=self._origin))
        message = builder.message()
        finish = FINISH.get(self._finish or "stop", "stop")
        if message.tool_calls and finish == "stop":
            finish = "tool_calls"
        elif not message.tool_calls and finish == "tool_calls":
            finish = "stop"
        return Decoded(message, finish, self._usage, self._model)
