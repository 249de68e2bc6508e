"""The `responses` protocol: requests from cached messages, replies from its stream of typed events.

Source: OpenAI's API reference, "Responses" and "Streaming events". Nothing is stored at the provider (`store:
false`): the history is ours, and the model's reasoning goes back as the encrypted items that it sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hermes.agent.calls import CallOptions, ModelRequest, ToolDefinition
from hermes.agent.sse import Event
from hermes.agent.wire import (
    CallSlot,
    Decoded,
    NotProtocol,
    ReplyBuilder,
    StreamCut,
    Unsupported,
    decode_json,
    encoded_history,
    encoded_tools,
    fit_arguments,
    fit_name,
    mapping,
    origin_of,
    sequence,
    token_count,
    upstream_error,
)
from hermes.messages import Audio, Image, Message, Reasoning, Text, Usage
from hermes.settings import Endpoint

API = "responses"
PATH = "/responses"
_encode = msgspec.json.Encoder().encode


# --- requests


def encode_request(request: ModelRequest, endpoint: Endpoint) -> bytes:
    """The body of one call; each message and each tool is encoded once in its life.

    Raises:
        Unsupported: an option that this protocol cannot express. To drop it silently would answer another question.
    """
    pieces = encoded_history(request.history, API, origin_of(API, endpoint.base_url, endpoint.model), encode_message)
    head: dict[str, Any] = {"model": endpoint.model, "stream": True, "store": False}
    if request.system:
        head["instructions"] = request.system
    _put_options(head, request.options, tools=bool(request.tools))
    body = [_encode(head)[:-1]]
    if request.tools:
        body += (b',"tools":', encoded_tools(request.tools, API, encode_tool))
    body += (b',"input":[', b",".join(filter(None, pieces)), b"]}")
    return b"".join(body)


def _put_options(head: dict[str, Any], options: CallOptions, *, tools: bool) -> None:
    for name in ("stop", "seed", "frequency_penalty", "presence_penalty"):
        if getattr(options, name):  # zero and nothing are the default
            raise Unsupported(f"`{name}` cannot be passed on: the responses protocol does not have it")
    for name in ("temperature", "top_p", "max_output_tokens"):
        value = getattr(options, name)
        if value is not None:
            head[name] = value
    if options.reasoning_effort is not None:
        head["reasoning"] = {"effort": options.reasoning_effort}
        # Asked of a model that does not reason this is an error, so only where the effort says that it does.
        head["include"] = ["reasoning.encrypted_content"]
    if options.response_format is not None:
        head["text"] = {"format": _text_format(options.response_format)}
    if tools:
        if options.tool_choice is not None:
            head["tool_choice"] = _tool_choice(options.tool_choice)
        if options.parallel_tool_calls is not None:
            head["parallel_tool_calls"] = options.parallel_tool_calls


def _text_format(shape: Any) -> Any:
    """`response_format` as chat_completions has it -> `text.format`: the schema's fields move up one level."""
    if isinstance(shape, dict) and shape.get("type") == "json_schema" and isinstance(shape.get("json_schema"), dict):
        return {"type": "json_schema", **shape["json_schema"]}
    return shape


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"type": "function", "name": choice["function"].get("name")}
    return choice


def encode_tool(tool: ToolDefinition) -> bytes:
    """A tool as an element of `tools`. Left out, `strict` would mean true here, which most schemas do not satisfy."""
    return _encode(
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": bool(tool.strict),
        }
    )


def encode_message(message: Message, origin: str) -> bytes:
    """A message as elements of `input`, joined by commas; nothing for an empty assistant message."""
    if message.role == "tool":
        return _encode({"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text})
    if message.role != "assistant":
        content = [_content(part) for part in message.parts if not isinstance(part, Reasoning)]
        return _encode({"type": "message", "role": message.role, "content": content})
    thoughts = [part for part in message.parts if isinstance(part, Reasoning)]
    items = [bytes(part.item) for part in thoughts if part.item is not None and part.endpoint == origin]
    if message.text:
        said = {"type": "output_text", "text": message.text, "annotations": []}
        items.append(_encode({"type": "message", "role": "assistant", "content": [said]}))
    for call in message.tool_calls:
        called = {
            "type": "function_call",
            "call_id": call.id,
            "name": fit_name(call.name),
            "arguments": fit_arguments(call.arguments),
        }
        items.append(_encode(called))
    return b",".join(items)


def _content(part: Text | Image | Audio) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}


# --- replies


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    output_index: int | None = None
    summary_index: int | None = None
    item: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    arguments: Any = None
    error: Any = None
    code: Any = None
    message: Any = None


_event = msgspec.json.Decoder(_Event)
_document = msgspec.json.Decoder(dict[str, Any])
_REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_FAILED = ("response.failed", "error", "response.error")


def read_usage(usage: dict[str, Any]) -> Usage:
    """Usage as this protocol names it."""
    read, written = mapping(usage.get("input_tokens_details")), mapping(usage.get("output_tokens_details"))
    return Usage(
        input_tokens=token_count(usage.get("input_tokens")),
        output_tokens=token_count(usage.get("output_tokens")),
        cached_tokens=token_count(read.get("cached_tokens")),
        reasoning_tokens=token_count(written.get("reasoning_tokens")),
    )


class ResponsesDecoder:
    """Decodes one answer; see `hermes.agent.wire.Decoder`."""

    def __init__(self, builder: ReplyBuilder, origin: str) -> None:
        self.done = False
        self._builder = builder
        self._origin = origin
        self._slots: dict[int, CallSlot] = {}
        self._texts: set[int] = set()  # items whose text came as deltas
        self._thoughts: dict[int, list[str]] = {}
        self._part: tuple[int | None, int | None] | None = None
        self._finish = "stop"
        self._usage: Usage | None = None
        self._model = ""

    @property
    def complete(self) -> bool:
        """The final event came."""
        return self.done

    def feed(self, event: Event) -> None:
        """Take one event of the stream."""
        data = event.data
        if data.startswith(b"[DONE]"):
            return
        said = decode_json(_event, data)
        kind = said.type or event.name.decode("utf-8", "replace")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            self._text(said, refusal=kind == "response.refusal.delta")
        elif kind == "response.function_call_arguments.delta":
            slot = self._slots.get(said.output_index or 0)
            if slot is None:
                raise NotProtocol("arguments of a call that was not announced", data)
            if isinstance(said.delta, str) and said.delta:
                self._builder.arguments(slot, said.delta)
        elif kind in _REASONING:
            self._reasoning(said)
        elif kind == "response.output_item.added":
            if said.item is not None and said.item.get("type") == "function_call":
                self._open_call(said.output_index or 0, said.item)
        elif kind == "response.output_item.done":
            if said.item is not None:
                self._item(said.output_index or 0, said.item)
        elif kind in ("response.completed", "response.incomplete", "response.done"):
            self._end(said.response or {})
        elif kind in _FAILED:
            error = said.error or (said.response or {}).get("error")
            raise upstream_error(error or {"message": said.message or "the response failed", "code": said.code})
        elif kind == "response.created" and said.response is not None:
            self._model = str(said.response.get("model") or "")

    def whole(self, body: bytes) -> None:
        """Take an answer that came as one JSON document."""
        document = decode_json(_document, body)
        if document.get("error"):
            raise upstream_error(document["error"])
        output = document.get("output")
        if not isinstance(output, list):
            raise NotProtocol("the answer has no output", body)
        for index, item in enumerate(output):
            if isinstance(item, dict):
                self._item(index, item)
        self._end(document)

    def _text(self, said: _Event, *, refusal: bool) -> None:
        if not isinstance(said.delta, str) or not said.delta:
            return
        self._texts.add(said.output_index or 0)
        if refusal:
            self._builder.note = "refusal"
        self._builder.text(said.delta)

    def _reasoning(self, said: _Event) -> None:
        if not isinstance(said.delta, str) or not said.delta:
            return
        at = (said.output_index, said.summary_index)
        piece = said.delta if self._part in (None, at) else "\n\n" + said.delta
        self._part = at
        self._thoughts.setdefault(said.output_index or 0, []).append(piece)
        self._builder.reasoning(piece)

    def _open_call(self, index: int, item: dict[str, Any]) -> CallSlot:
        slot = self._slots.get(index)
        if slot is None:
            slot = self._slots[index] = self._builder.open_call(str(item.get("call_id") or item.get("id") or ""))
            self._builder.name(slot, str(item.get("name") or ""))
        return slot

    def _item(self, index: int, item: dict[str, Any]) -> None:
        """A finished item: what its deltas did not bring, and reasoning to be sent back."""
        kind = item.get("type")
        if kind == "function_call":
            slot = self._open_call(index, item)
            arguments = item.get("arguments")
            if not slot.arguments and isinstance(arguments, str) and arguments:
                self._builder.arguments(slot, arguments)
        elif kind == "message" and index not in self._texts:
            for part in sequence(item.get("content")):
                words = part.get("text") or part.get("refusal") if isinstance(part, dict) else None
                if isinstance(words, str) and words:
                    if part.get("refusal"):
                        self._builder.note = "refusal"
                    self._builder.text(words)
        elif kind == "reasoning":
            self._reasoning_item(index, item)

    def _reasoning_item(self, index: int, item: dict[str, Any]) -> None:
        if index not in self._thoughts:
            for part in (*sequence(item.get("summary")), *sequence(item.get("content"))):
                if isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"]:
                    self._reasoning(_Event(delta=part["text"], output_index=index, summary_index=id(part)))
        if not item.get("encrypted_content"):
            return  # without it the provider would look for an item that it did not store
        kept = {key: value for key, value in item.items() if key != "status"}
        raw = _encode(kept)
        self._builder.spend(raw.decode())
        thoughts = "".join(self._thoughts.get(index, ()))
        self._builder.items.append(Reasoning(text=thoughts, item=msgspec.Raw(raw), endpoint=self._origin))

    def _end(self, response: dict[str, Any]) -> None:
        if response.get("status") == "failed" or response.get("error"):
            raise upstream_error(response.get("error") or {"message": "the response failed"})
        self._model = str(response.get("model") or self._model)
        if isinstance(response.get("usage"), dict):
            self._usage = read_usage(response["usage"])
        reason = mapping(response.get("incomplete_details")).get("reason")
        if reason == "max_output_tokens":
            self._finish = "length"
        elif reason == "content_filter":
            self._finish = "content_filter"
        elif response.get("status") == "incomplete":
            self._finish = "length"
        self.done = True

    def result(self) -> Decoded:
        """The reply."""
        if not self.done:
            raise StreamCut("the stream ended before the reply was whole")
        message = self._builder.message()
        finish = "tool_calls" if message.tool_calls and self._finish == "stop" else self._finish
        return Decoded(message, finish, self._usage, self._model)
