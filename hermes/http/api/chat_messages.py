"""The `messages` of a chat-completions request as values, checked as strictly as the strictest provider would.

Source: OpenAI's API reference, "Create chat completion". What passes here can be sent anywhere: every call of an
assistant message has its result right after it, and nothing is fetched or opened on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hermes.agent.validate import TOOL_NAME
from hermes.errors import RequestError
from hermes.http.api.fields import Fields, wrong_type, wrong_value
from hermes.messages import Audio, Image, Message, Part, Text, ToolCall

MAX_MESSAGES = 10_000
MAX_CALLS = 128
ID_CHARS = 256
PARTICIPANT = re.compile(r"[^\s<|\\/>]{1,64}")
DETAILS = ("auto", "low", "high", "original")
AUDIO_FORMATS = ("wav", "mp3")
LINKS = ("data:", "https://", "http://")
_GAP = Text("\n\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a client sent as `messages`.

    Args:
        instructions: its system and developer messages, joined in order.
        prefix: the messages up to and including the last of an assistant.
        new: those after it: a user's, or the results of the client's own tools.
        loose: results in `new` answer calls that are not in `prefix`: only the session can know them.
    """

    instructions: str | None
    prefix: tuple[Message, ...]
    new: tuple[Message, ...]
    loose: bool


def read_conversation(body: Fields) -> Conversation:
    """The field `messages`. Raises RequestError 400 with the path of what is wrong."""
    items = body.require("messages", body.array("messages", most=MAX_MESSAGES))
    reader = _Reader()
    for index, item in enumerate(items):
        reader.take(body, item, f"messages[{index}]")
    return reader.finish(len(items))


class _Reader:
    """Reads message after message, and holds what the next one must fit to."""

    def __init__(self) -> None:
        self._instructions: list[str] = []
        self._messages: list[Message] = []
        self._after_assistant = 0  # messages up to and including the last of an assistant
        self._calls: dict[str, str] = {}  # calls of the last assistant message without a result yet: id -> name
        self._loose: set[str] = set()

    def take(self, body: Fields, item: Any, path: str) -> None:
        """Read one message."""
        if type(item) is dict and len(item) == 2 and item.get("role") == "user" and type(item.get("content")) is str:
            self._add_user(Message(role="user", parts=(Text(item["content"]),)), path)  # most messages are just words
            return
        fields = body.child(item, path)
        role = fields.require("role", fields.string("role"))
        match role:
            case "user":
                self._add_user(_user(fields), path)
            case "assistant":
                self._add_assistant(_assistant(fields), path)
            case "tool":
                self._add_result(fields)
            case "system" | "developer":
                fields.known("name")
                text = _words(fields, "content")
                if text.strip():
                    self._instructions.append(text)
            case _:
                raise wrong_value(
                    fields.at("role"), "must be one of 'system', 'developer', 'user', 'assistant', 'tool'"
                )

    def finish(self, count: int) -> Conversation:
        """What was read."""
        new = tuple(self._messages[self._after_assistant :])
        if not new:
            path = f"messages[{count - 1}]" if count else "messages"
            if self._calls:
                raise _unanswered(self._calls, path)
            raise wrong_value(path, "must be followed by a message of the user or the result of a tool")
        if self._calls:
            raise _unanswered(self._calls, f"messages[{count - 1}]")
        return Conversation(
            instructions="\n\n".join(self._instructions) or None,
            prefix=tuple(self._messages[: self._after_assistant]),
            new=new,
            loose=bool(self._loose),
        )

    def _add_user(self, message: Message, path: str) -> None:
        if self._calls:
            raise _unanswered(self._calls, path)
        self._messages.append(message)

    def _add_assistant(self, message: Message, path: str) -> None:
        if self._calls:
            raise _unanswered(self._calls, path)
        if self._loose:
            raise wrong_value(path, "follows results of calls that are not in messages", "unknown_tool_call")
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant":  # strict providers take no two in a row
            parts = (*last.parts, _GAP, *message.parts) if last.parts and message.parts else last.parts or message.parts
            message = Message(role="assistant", parts=parts, tool_calls=message.tool_calls)
            self._messages.pop()
        self._messages.append(message)
        self._after_assistant = len(self._messages)
        self._calls = {call.id: call.name for call in message.tool_calls}

    def _add_result(self, fields: Fields) -> None:
        call_id = fields.require("tool_call_id", fields.string("tool_call_id", most=ID_CHARS))
        fields.known("name")
        text = _words(fields, "content")
        name = self._calls.pop(call_id, None)
        if name is None:
            if self._after_assistant or call_id in self._loose or not call_id:
                raise wrong_value(
                    fields.at("tool_call_id"), "is not the id of an open call before it", "unknown_tool_call"
                )
            if any(message.role != "tool" for message in self._messages):
                raise wrong_value(fields.path, "must come before messages of the user")
            self._loose.add(call_id)
        self._messages.append(Message(role="tool", parts=(Text(text),), tool_call_id=call_id, name=name))


def _unanswered(calls: dict[str, str], path: str) -> RequestError:
    return wrong_value(path, f"comes before the result of the call {next(iter(calls))!r}", "missing_tool_result")


def _words(fields: Fields, name: str) -> str:
    """Content that is words alone: a string or text parts, joined."""
    value = fields.value(name)
    if type(value) is str:
        return value
    if type(value) is not list:
        if value is None:
            fields.require(name, None)
        raise wrong_type(fields.at(name), "a string or an array of text parts", value)
    texts = []
    for index, item in enumerate(value):
        part = fields.child(item, f"{fields.at(name)}[{index}]")
        part.string("type", choices=("text",))
        texts.append(part.require("text", part.string("text")))
    return "".join(texts)


def _user(fields: Fields) -> Message:
    name = fields.string("name")
    if name is not None and not PARTICIPANT.fullmatch(name):
        raise wrong_value(fields.at("name"), "must have 1 to 64 characters without spaces and < | \\ / >")
    content = fields.value("content")
    path = fields.at("content")
    if type(content) is str:
        return Message(role="user", parts=(Text(content),), name=name)
    if type(content) is not list:
        if content is None:
            fields.require("content", None)
        raise wrong_type(path, "a string or an array of parts", content)
    if not content:
        raise wrong_value(path, "must not be empty")
    parts = tuple(_user_part(fields.child(item, f"{path}[{index}]")) for index, item in enumerate(content))
    return Message(role="user", parts=parts, name=name)


def _user_part(part: Fields) -> Part:
    kind = part.require("type", part.string("type"))
    match kind:
        case "text":
            return Text(part.require("text", part.string("text")))
        case "image_url":
            image = part.require("image_url", part.object("image_url"))
            url = image.require("url", image.string("url"))
            if not url.lower().startswith(LINKS):
                raise wrong_value(image.at("url"), "must be a data: URL or a link with http or https")
            return Image(url, image.string("detail", choices=DETAILS))
        case "input_audio":
            audio = part.require("input_audio", part.object("input_audio"))
            data = audio.require("data", audio.string("data"))
            return Audio(data, audio.require("format", audio.string("format", choices=AUDIO_FORMATS)))
        case "file":
            raise wrong_value(part.path, "is a file, which is not supported here", "unsupported_content")
    raise wrong_value(part.at("type"), "must be one of 'text', 'image_url', 'input_audio'")


def _assistant(fields: Fields) -> Message:
    fields.known("name", "annotations", "reasoning_content", "reasoning")
    for name in ("function_call", "audio"):
        if fields.value(name) is not None:
            raise wrong_value(fields.at(name), "is not supported", "unsupported_parameter")
    calls = _calls(fields)
    refusal = fields.string("refusal")
    content = fields.value("content")
    parts: list[Part] = []
    if type(content) is list:
        path = fields.at("content")
        parts = [_assistant_part(fields.child(item, f"{path}[{index}]")) for index, item in enumerate(content)]
    elif content is not None:
        if type(content) is not str:
            raise wrong_type(fields.at("content"), "a string or an array of parts", content)
        if content or not calls:
            parts = [Text(content)]
    if refusal:
        parts.append(Text(refusal))
    if not parts and not calls:
        fields.require("content", None)
    return Message(role="assistant", parts=tuple(parts), tool_calls=calls)


def _assistant_part(part: Fields) -> Part:
    kind = part.require("type", part.string("type", choices=("text", "refusal")))
    return Text(part.require(kind, part.string(kind)))


def _calls(fields: Fields) -> tuple[ToolCall, ...]:
    calls: dict[str, ToolCall] = {}
    for each in fields.objects("tool_calls", most=MAX_CALLS) or ():
        each.string("type", choices=("function",))
        call_id = each.require("id", each.string("id", most=ID_CHARS))
        if not call_id or call_id in calls:
            raise wrong_value(each.at("id"), "must be there and differ from those of the other calls")
        function = each.require("function", each.object("function"))
        name = function.require("name", function.string("name"))
        if not TOOL_NAME.fullmatch(name):
            raise wrong_value(function.at("name"), "must have 1 to 64 characters of a-z A-Z 0-9 _ -")
        arguments = function.require("arguments", function.string("arguments"))
        calls[call_id] = ToolCall(id=call_id, name=name, arguments=arguments)
    return tuple(calls.values())
