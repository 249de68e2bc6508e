"""What the fake model server says and what it refuses: both protocols' events, a strict provider's view of history."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Refused(Exception):
    """A request that a strict provider answers with 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A scripted reply.

    Args:
        text: its words; a sequence is streamed in these pieces.
        calls: (name, arguments as JSON text) of each tool call; ids are made.
        call_ids: ids instead of made ones, `""` leaves an id out.
        reasoning: what the model thinks aloud.
        item: with `responses`, the reasoning comes as an item with this as its encrypted content.
        finish: instead of the finish reason that follows from the rest.
        usage: (input, output) tokens; None leaves usage out.
    """

    text: str | Sequence[str] = ""
    calls: Sequence[tuple[str, str]] = ()
    call_ids: Sequence[str] = ()
    reasoning: str = ""
    item: str = ""
    finish: str | None = None
    usage: tuple[int, int] | None = (7, 3)

    @property
    def pieces(self) -> list[str]:
        """The words as they are streamed."""
        if isinstance(self.text, str):
            return [self.text] if self.text else []
        return list(self.text)

    def call_id(self, index: int) -> str:
        """The id of a call."""
        return self.call_ids[index] if index < len(self.call_ids) else f"call_fake_{index}"

    @property
    def finish_reason(self) -> str:
        """As chat_completions names it."""
        return self.finish or ("tool_calls" if self.calls else "stop")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- chat_completions


def _chat_usage(reply: Reply) -> dict[str, Any]:
    read, written = reply.usage or (0, 0)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def chat_events(reply: Reply, model: str, *, include_usage: bool) -> Iterator[bytes]:
    """The stream's events, one after the other."""
    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return b"data: " + _json({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"

    yield chunk({"role": "assistant", "content": ""})
    if reply.reasoning:
        yield chunk({"reasoning_content": reply.reasoning})
    for piece in reply.pieces:
        yield chunk({"content": piece})
    for index, (name, arguments) in enumerate(reply.calls):
        half = len(arguments) // 2
        first: dict[str, Any] = {"index": index, "type": "function", "function": {"name": name, "arguments": ""}}
        if reply.call_id(index):
            first["id"] = reply.call_id(index)
        yield chunk({"tool_calls": [first]})
        for piece in (arguments[:half], arguments[half:]):
            if piece:
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, reply.finish_reason)
    if include_usage and reply.usage is not None:
        yield b"data: " + _json({**head, "choices": [], "usage": _chat_usage(reply)}) + b"\n\n"
    yield b"data: [DONE]\n\n"


def chat_document(reply: Reply, model: str) -> bytes:
    """The answer to a request without `stream`."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.pieces) or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = [
            {"id": reply.call_id(index), "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(reply.calls)
        ]
    document = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}],
    }
    if reply.usage is not None:
        document["usage"] = _chat_usage(reply)
    return _json(document)


# --- responses


def _output(reply: Reply) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.reasoning or reply.item:
        summary = [{"type": "summary_text", "text": reply.reasoning}] if reply.reasoning else []
        item: dict[str, Any] = {"id": "rs_fake", "type": "reasoning", "summary": summary}
        if reply.item:
            item["encrypted_content"] = reply.item
        items.append(item)
    words = "".join(reply.pieces)
    if words:
        part = {"type": "output_text", "text": words, "annotations": [], "logprobs": []}
        said = {"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed"}
        items.append({**said, "content": [part]})
    for index, (name, arguments) in enumerate(reply.calls):
        call = {"id": f"fc_{index}", "type": "function_call", "status": "completed", "call_id": reply.call_id(index)}
        items.append({**call, "name": name, "arguments": arguments})
    return items


def responses_document(reply: Reply, model: str, *, status: str = "completed") -> dict[str, Any]:
    """A response object."""
    finished = status != "in_progress"
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reply.finish or "")
    document: dict[str, Any] = {
        "id": "resp_fake", "object": "response", "created_at": 1, "model": model,
        "output": _output(reply) if finished else [],
        "status": "incomplete" if finished and reason else status, "error": None, "instructions": None, "metadata": {},
        "incomplete_details": {"reason": reason} if finished and reason else None, "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
    }  # fmt: skip
    if finished and reply.usage is not None:
        read, written = reply.usage
        document["usage"] = {
            "input_tokens": read,
            "output_tokens": written,
            "total_tokens": read + written,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
    return document


def responses_events(reply: Reply, model: str) -> Iterator[bytes]:
    """The stream's typed events, numbered."""
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        body = _json({"type": kind, "sequence_number": number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"

    started = responses_document(reply, model, status="in_progress")
    yield event("response.created", response=started)
    yield event("response.in_progress", response=started)
    for index, item in enumerate(_output(reply)):
        where: dict[str, Any] = {"output_index": index, "item_id": item["id"]}
        yield event("response.output_item.added", output_index=index, item=_begun(item))
        if item["type"] == "reasoning" and reply.reasoning:
            part = {"type": "summary_text", "text": ""}
            yield event("response.reasoning_summary_part.added", **where, summary_index=0, part=part)
            yield event("response.reasoning_summary_text.delta", **where, summary_index=0, delta=reply.reasoning)
            yield event("response.reasoning_summary_text.done", **where, summary_index=0, text=reply.reasoning)
        elif item["type"] == "message":
            empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield event("response.content_part.added", **where, content_index=0, part=empty)
            for piece in reply.pieces:
                yield event("response.output_text.delta", **where, content_index=0, delta=piece, logprobs=[])
            text = item["content"][0]["text"]
            yield event("response.output_text.done", **where, content_index=0, text=text, logprobs=[])
            yield event("response.content_part.done", **where, content_index=0, part=item["content"][0])
        elif item["type"] == "function_call":
            arguments = item["arguments"]
            for piece in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
                if piece:
                    yield event("response.function_call_arguments.delta", **where, delta=piece)
            done = {"arguments": arguments, "name": item["name"]}
            yield event("response.function_call_arguments.done", **where, **done)
        yield event("response.output_item.done", output_index=index, item=item)
    ended = responses_document(reply, model)
    yield event("response.incomplete" if ended["status"] == "incomplete" else "response.completed", response=ended)


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "message": {"content": [], "status": "in_progress"},
        "function_call": {"arguments": ""},
    }
    return {**item, **empty.get(item["type"], {"summary": []})}


# --- a strict provider


def _need(condition: object, reason: str) -> None:
    if not condition:
        raise Refused(reason)


def _check_json_object(text: Any, where: str) -> None:
    _need(isinstance(text, str), f"{where}: arguments are a string")
    try:
        value = json.loads(text)
    except ValueError:
        raise Refused(f"{where}: arguments are not JSON") from None
    _need(isinstance(value, dict), f"{where}: arguments are not an object")


def _check_names(names: list[Any]) -> None:
    for name in names:
        _need(isinstance(name, str) and NAME.fullmatch(name), f"invalid tool name {name!r}")
    _need(len(set(names)) == len(names), "tool names are not unique")


def check_chat(body: dict[str, Any]) -> None:
    """Raise Refused for any violation of pairing, role order, names or types."""
    _need(isinstance(body.get("model"), str) and body["model"], "model is a string")
    messages = body.get("messages")
    _need(isinstance(messages, list) and messages, "messages is a non-empty array")
    if "tools" in body:
        _need(body["tools"], "tools is not empty")
        _check_names([tool["function"]["name"] for tool in body["tools"]])
    _need("tools" in body or "tool_choice" not in body, "tool_choice without tools")
    pending: set[str] = set()
    before: dict[str, Any] = {"role": "system"}
    assert isinstance(messages, list)
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role")
        _need(role in ("system", "developer", "user", "assistant", "tool"), f"{where}: role {role!r}")
        if role == "tool":
            _need(message.get("tool_call_id") in pending, f"{where}: answers no open call")
            _need(isinstance(message.get("content"), (str, list)), f"{where}: content")
            pending.discard(message["tool_call_id"])
        else:
            _need(not pending, f"{where}: calls without results: {sorted(pending)}")
            _check_turn(where, message, before)
            calls = message.get("tool_calls") or []
            pending = {call["id"] for call in calls}
            _need(len(pending) == len(calls) and "" not in pending, f"{where}: call ids are unique")
        before = message
    _need(not pending, f"calls without results at the end: {sorted(pending)}")


def _check_turn(where: str, message: dict[str, Any], before: dict[str, Any]) -> None:
    role, last = message["role"], before["role"]
    if role in ("system", "developer"):
        _need(last in ("system", "developer"), f"{where}: a system message comes first")
    if role == last and role in ("user", "assistant"):
        _need(role == "user" and message.get("name") != before.get("name"), f"{where}: two {role} messages in a row")
    content = message.get("content")
    if role == "assistant":
        _need(isinstance(content, str) or message.get("tool_calls"), f"{where}: neither content nor calls")
        for call in message.get("tool_calls") or []:
            _need(call.get("type") == "function" and isinstance(call.get("id"), str), f"{where}: call")
            _need(NAME.fullmatch(call["function"]["name"]), f"{where}: name of a call")
            _check_json_object(call["function"]["arguments"], where)
    else:
        _need(isinstance(content, (str, list)), f"{where}: content is a string or parts")


def check_responses(body: dict[str, Any]) -> None:
    """Raise Refused for any violation of pairing, names or types."""
    _need(isinstance(body.get("model"), str) and body["model"], "model is a string")
    _need("messages" not in body, "unknown parameter: messages")
    for name in ("stop", "seed", "frequency_penalty", "presence_penalty", "max_tokens"):
        _need(name not in body, f"unsupported parameter: {name}")
    if "tools" in body:
        _check_names([tool["name"] for tool in body["tools"]])
    items = body.get("input")
    if isinstance(items, str):
        return
    _need(isinstance(items, list) and items, "input is a string or a non-empty array")
    pending: set[str] = set()
    assert isinstance(items, list)
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = item.get("type", "message")
        if kind == "function_call_output":
            _need(item.get("call_id") in pending, f"{where}: answers no open call")
            pending.discard(item["call_id"])
        elif kind == "function_call":
            _need(item.get("call_id") and item["call_id"] not in pending, f"{where}: call ids are unique")
            _need(NAME.fullmatch(str(item.get("name"))), f"{where}: name of a call")
            _check_json_object(item.get("arguments"), where)
            pending.add(item["call_id"])
        elif kind == "reasoning":
            _need(item.get("encrypted_content"), f"{where}: item {item.get('id')} not found")
        else:
            _need(kind == "message", f"{where}: type {kind!r}")
            _need(not pending, f"{where}: calls without results: {sorted(pending)}")
            _need(item.get("role") in ("system", "developer", "user", "assistant"), f"{where}: role")
    _need(not pending, f"calls without results at the end: {sorted(pending)}")
