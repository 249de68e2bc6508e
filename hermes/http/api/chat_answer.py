"""How a turn looks as a chat completion: one JSON object, or chunks of a stream.

Source: OpenAI's API reference, "The chat completion object" and "The chat completion chunk object". Reasoning is given as
`reasoning_content`, as most servers that speak this protocol do.
"""

from __future__ import annotations

from typing import Any

from hermes.http.api.answers import encode_json, failure_object
from hermes.http.api.stream import Batch, sse_data
from hermes.intake import CallEvent, Ended, ReasoningEvent, StepEvent, TextEvent, TurnEnd
from hermes.messages import Message, Reasoning, ToolCall, Usage

DONE = b"data: [DONE]\n\n"
BETWEEN_STEPS = "\n\n"


def completion_id(event_id: str) -> str:
    """The id of a completion: of the event it answers, so that it is known before its turn begins and a replay has it too."""
    return f"chatcmpl-{event_id}"


def usage_object(usage: Usage) -> dict[str, Any]:
    """Tokens as chat completions count them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def completion(end: TurnEnd, model: str) -> dict[str, Any]:
    """A turn that ended well, as one object.

    Args:
        end: state `done`.
        model: the name the client used.
    """
    message = end.message or Message(role="assistant")
    return {
        "id": completion_id(end.event_id),
        "object": "chat.completion",
        "created": int(end.created_at),
        "model": model,
        "choices": [
            {"index": 0, "message": _message(message), "logprobs": None, "finish_reason": end.finish_reason},
        ],
        "usage": usage_object(end.usage),
        "system_fingerprint": None,
    }


def _message(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": "assistant", "content": message.text, "refusal": None}
    if message.tool_calls:
        shown["content"] = message.text or None
        shown["tool_calls"] = [_call(call) for call in message.tool_calls]
    thoughts = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if thoughts:
        shown["reasoning_content"] = thoughts
    return shown


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class ChunkWriter:
    """The chunks of one stream, made from the turn's events in order.

    Args:
        event_id: the event that is answered.
        model: the name the client used.
        created: seconds since the epoch.
        tools: the names of the client's own functions; calls of any other tool are ours and not shown.
        include_usage: whether the stream ends with the usage.
    """

    def __init__(
        self, event_id: str, model: str, created: float, tools: frozenset[str], *, include_usage: bool
    ) -> None:
        head = {
            "id": completion_id(event_id),
            "object": "chat.completion.chunk",
            "created": int(created),
            "model": model,
            "system_fingerprint": None,
        }
        self._head = encode_json(head)[:-1]
        self._usage = b',"usage":null' if include_usage else b""
        self._text = b'data: %b,"choices":[{"index":0,"delta":{"content":' % self._head
        self._reasoning = b'data: %b,"choices":[{"index":0,"delta":{"reasoning_content":' % self._head
        self._after = b'},"logprobs":null,"finish_reason":null}]%b}\n\n' % self._usage
        self._tools = tools
        self._include_usage = include_usage
        self._said = False  # words of an earlier step stand before those that come
        self._step_said = False
        self._indexes: dict[int, int | None] = {}  # of a call in this step -> in the stream; None: ours
        self._calls = 0

    def opening(self) -> bytes:
        """The first chunk: who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def render(self, batch: Batch) -> bytes:
        """The chunks of some events; words that are there at once go into one."""
        frames: list[bytes] = []
        words: list[str] = []
        for _, event in batch:
            if type(event) is TextEvent:
                words.append(event.text)
                continue
            if words:
                frames.append(self._words(words))
                words = []
            match event:
                case ReasoningEvent():
                    frames.append(b"%b%b%b" % (self._reasoning, encode_json(event.text), self._after))
                case CallEvent():
                    frames.append(self._call_piece(event))
                case StepEvent():
                    self._said = self._said or self._step_said
                    self._step_said = False
                    self._indexes.clear()
                case Ended():
                    frames.append(self._end(event.end))
        if words:
            frames.append(self._words(words))
        return b"".join(frames)

    def _words(self, words: list[str]) -> bytes:
        text = words[0] if len(words) == 1 else "".join(words)
        if not text:
            return b""
        if not self._step_said:
            self._step_said = True
            if self._said:
                text = BETWEEN_STEPS + text
        return b"%b%b%b" % (self._text, encode_json(text), self._after)

    def _call_piece(self, event: CallEvent) -> bytes:
        """A piece of a call; the first one of its index names the tool."""
        if event.index not in self._indexes:
            self._indexes[event.index] = self._calls if event.name in self._tools else None
            if event.name not in self._tools:
                return b""
            self._calls += 1
            call = ToolCall(id=event.id, name=event.name, arguments=event.arguments)
            return self._chunk({"tool_calls": [{"index": self._indexes[event.index], **_call(call)}]})
        index = self._indexes[event.index]
        if index is None or not event.arguments:
            return b""
        return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": event.arguments}}]})

    def _end(self, end: TurnEnd) -> bytes:
        """What is left to say after the commit."""
        if end.state != "done":
            assert end.failure is not None
            return sse_data(failure_object(end.failure))
        message = end.message or Message(role="assistant")
        frames = []
        if message.text and not self._step_said:  # a reply that came whole
            frames.append(self._words([message.text]))
        for number, call in enumerate(message.tool_calls[self._calls :], self._calls):
            frames.append(self._chunk({"tool_calls": [{"index": number, **_call(call)}]}))
        frames.append(self._chunk({}, end.finish_reason))
        if self._include_usage:
            frames.append(b'data: %b,"choices":[],"usage":%b}\n\n' % (self._head, encode_json(usage_object(end.usage))))
        frames.append(DONE)
        return b"".join(frames)

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return b'data: %b,"choices":[%b]%b}\n\n' % (self._head, encode_json(choice), self._usage)
