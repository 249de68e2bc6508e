"""Sessions and their messages as clients see them. Pure."""

from __future__ import annotations

from typing import Any

from hermes.http.api.asking import usage_object
from hermes.intake import TurnEnd
from hermes.messages import Audio, Image, Message, Reasoning, Text
from hermes.store.rows import SessionRow, StoredMessage

Object = dict[str, Any]


def session_object(row: SessionRow, *, turning: bool) -> Object:
    """A session; `turning`: a turn of it runs now."""
    return {
        "id": row.id, "object": "session", "title": row.title, "model": row.model, "instructions": row.instructions,
        "source": row.source, "parent_id": row.parent_id, "created_at": row.created_at, "updated_at": row.updated_at,
        "ended_at": row.ended_at, "end_reason": row.end_reason, "expires_at": row.expires_at,
        "ephemeral": row.expires_at is not None, "turns": row.turns, "messages": row.messages, "turning": turning,
        "usage": {"input_tokens": row.input_tokens, "output_tokens": row.output_tokens},
    }  # fmt: skip


def message_object(message: Message) -> Object:
    """A message in the shape of chat completions; `note` says why it is not what somebody said."""
    shown: Object = {"role": message.role, "content": _content(message)}
    thoughts = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if thoughts:
        shown["reasoning_content"] = thoughts
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    for name in ("tool_call_id", "name", "note"):
        if getattr(message, name) is not None:
            shown[name] = getattr(message, name)
    return shown


def stored_object(stored: StoredMessage) -> Object:
    """A message with its place in the session."""
    return {
        "seq": stored.seq, "turn_id": stored.turn_id or None, "created_at": stored.created_at,
        **message_object(stored.message),
    }  # fmt: skip


def _content(message: Message) -> str | list[Object]:
    """Words as a string; parts, where there is more than words."""
    if all(isinstance(part, (Text, Reasoning)) for part in message.parts):
        return message.text
    return [_part(part) for part in message.parts if isinstance(part, (Text, Image, Audio))]


def _part(part: Text | Image | Audio) -> Object:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail or "auto"}}
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}


def turn_object(end: TurnEnd) -> Object:
    """A turn that ended well, as `/chat` answers it."""
    said = [each for each in end.transcript if each.role == "assistant"]
    tools = [call.name for each in said for call in each.tool_calls]
    return {
        "object": "session.turn", "session_id": end.session_id, "run_id": end.event_id, "turn_id": end.turn_id,
        "created_at": end.created_at, "model": end.model, "finish_reason": end.finish_reason,
        "message": message_object(end.message) if end.message is not None else None,
        "steps": len(said), "tools_used": list(dict.fromkeys(tools)), "usage": usage_object(end.usage),
    }  # fmt: skip
