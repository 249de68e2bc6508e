"""The response object of `/v1/responses`, made from what a turn ended with. Pure.

Source: OpenAI's API reference, "The response object". The items are named after the response and the step that made
them, so that a stream and a later retrieval name the same item alike. Calls of our own tools are not shown: a client
takes a `function_call` for one that it must answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes.http.api.asking import usage_object
from hermes.intake import Failure, TurnEnd
from hermes.messages import Message, Reasoning, ToolCall

Object = dict[str, Any]
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def skeleton(response_id: str, echo: Object, *, model: str, created_at: float) -> Object:
    """The object before anything has happened; `echo` holds what the request said."""
    return {
        "id": response_id, "object": "response", "created_at": int(created_at), "status": "in_progress",
        "background": False, "error": None, "incomplete_details": None, "output": [], "usage": None,
        **echo, "model": model,
    }  # fmt: skip


def finished(base: Object, end: TurnEnd) -> Object:
    """The object of a turn that is over.

    Args:
        base: as `skeleton` made it.
        end: how the turn ended.
    """
    if end.failure is not None:
        return {**base, "status": "failed", "error": _error(end.failure)}
    reason = INCOMPLETE.get(end.finish_reason)
    return {
        **base,
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output_items(str(base["id"]), end),
        "usage": usage_object(end.usage),
    }


def _error(failure: Failure) -> Object:
    limited = failure.code == "rate_limit_exceeded"
    return {"code": "rate_limit_exceeded" if limited else "server_error", "message": failure.message}


def said(end: TurnEnd) -> Sequence[Message]:
    """What the assistant said in this turn, step by step."""
    messages = [each for each in end.transcript if each.role == "assistant"]
    if end.message is not None and (not messages or messages[-1] != end.message):
        messages.append(end.message)
    return messages


def thoughts_of(message: Message) -> str:
    """What the model thought aloud before it said this."""
    return "".join(part.text for part in message.parts if isinstance(part, Reasoning))


def output_items(response_id: str, end: TurnEnd) -> list[Object]:
    """The items of a finished response."""
    items: list[Object] = []
    cut = end.finish_reason in INCOMPLETE
    messages = said(end)
    for step, message in enumerate(messages, 1):
        last = step == len(messages)
        if thoughts := thoughts_of(message):
            items.append(reasoning_item(item_id("rs", response_id, step), thoughts))
        if message.text:
            items.append(message_item(item_id("msg", response_id, step), message.text, complete=not (cut and last)))
        if last and end.message is not None:
            for position, call in enumerate(end.message.tool_calls):
                items.append(call_item(item_id("fc", response_id, step, position), call))
    return items


def item_id(kind: str, response_id: str, step: int, position: int = 0) -> str:
    """The id of an item: of a step's thoughts (`rs`), words (`msg`), or one of its calls (`fc`)."""
    suffix = f"_{position}" if kind == "fc" else ""
    return f"{kind}_{response_id.partition('_')[2]}_{step}{suffix}"


def reasoning_item(id_: str, text: str) -> Object:
    """What the model thought aloud."""
    return {"id": id_, "type": "reasoning", "summary": [{"type": "summary_text", "text": text}], "status": "completed"}


def message_item(id_: str, text: str, *, complete: bool) -> Object:
    """What the model said."""
    status = "completed" if complete else "incomplete"
    return {"id": id_, "type": "message", "status": status, "role": "assistant", "content": [text_part(text)]}


def text_part(text: str) -> Object:
    """The one content part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(id_: str, call: ToolCall, status: str = "completed") -> Object:
    """A call of a function of the client's own."""
    return {
        "id": id_, "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
        "arguments": call.arguments,
    }  # fmt: skip
