"""The `input` of a `/v1/responses` request as messages. Pure.

Items of one assistant turn (reasoning, words, function calls) become one message, because histories alternate.
"""

from __future__ import annotations

from dataclasses import dataclass

from hermes.agent.validate import HistoryGuard, HistoryInvalid
from hermes.errors import RequestError
from hermes.http.api.chat_messages import LINKS
from hermes.http.api.fields import Fields, wrong_type, wrong_value
from hermes.messages import Audio, Entry, Image, Message, Part, Reasoning, Text, ToolCall, user

MAX_ITEMS = 20_000
MAX_PARTS = 1000
ROLES = ("user", "assistant", "system", "developer")
GAP = Text("\n\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a request brings.

    Args:
        messages: in order; neither system nor developer messages are among them.
        system: the words of its system and developer messages.
    """

    messages: tuple[Message, ...]
    system: str

    @property
    def unmatched(self) -> frozenset[str]:
        """Ids of results whose calls are not among the messages."""
        called = {call.id for each in self.messages for call in each.tool_calls}
        return frozenset(str(each.tool_call_id) for each in self.messages if each.role == "tool") - called


def read_input(fields: Fields, name: str = "input") -> Input:
    """The field that holds what is said: a string or an array of items. Raises RequestError 400."""
    fields.known(name)
    value = fields.require(name, fields.data.get(name))
    if type(value) is str:
        return Input(messages=(user(value),), system="")
    if type(value) is not list:
        raise wrong_type(fields.at(name), "a string or an array", value)
    items = fields.objects(name, most=MAX_ITEMS) or []
    if not items:
        raise wrong_value(fields.at(name), "is empty")
    collected = _Collector()
    for item in items:
        _read_item(item, collected)
    collected.flush()
    return Input(messages=tuple(collected.messages), system="\n\n".join(collected.system))


class _Collector:
    """Puts items together into messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.system: list[str] = []
        self._parts: list[Part] = []
        self._calls: list[ToolCall] = []
        self._names: dict[str, str] = {}

    def say(self, parts: list[Part]) -> None:
        """Words or thoughts of the assistant."""
        if any(isinstance(each, Text) for each in self._parts) and any(isinstance(each, Text) for each in parts):
            self._parts.append(GAP)
        self._parts += parts

    def call(self, call: ToolCall) -> None:
        """A call of the assistant."""
        self._calls.append(call)
        self._names[call.id] = call.name

    def add(self, message: Message) -> None:
        """A message of somebody else."""
        self.flush()
        self.messages.append(message)

    def result(self, call_id: str, text: str) -> None:
        """The result of a call."""
        self.add(Message(role="tool", parts=(Text(text),), tool_call_id=call_id, name=self._names.get(call_id)))

    def flush(self) -> None:
        """End the assistant's message, if one is being put together."""
        if self._parts or self._calls:
            self.messages.append(Message(role="assistant", parts=tuple(self._parts), tool_calls=tuple(self._calls)))
            self._parts, self._calls = [], []


def _read_item(item: Fields, collected: _Collector) -> None:
    kind = item.string("type")
    item.known("id", "status")
    if kind == "message" or (kind is None and "role" in item.data):
        _read_message(item, collected)
    elif kind == "function_call":
        call_id = _name(item, "call_id")
        arguments = item.require("arguments", item.string("arguments"))
        collected.call(ToolCall(id=call_id, name=_name(item, "name"), arguments=arguments))
    elif kind == "function_call_output":
        collected.result(_name(item, "call_id"), _output(item))
    elif kind == "reasoning":
        text = "\n\n".join(_thoughts(item))
        item.known("encrypted_content")
        if text:
            collected.say([Reasoning(text=text)])
    elif kind == "item_reference":
        raise wrong_value(
            item.path, "is a reference to an item; send the item, or previous_response_id", "unsupported_item"
        )
    else:
        raise wrong_value(item.at("type"), f"is not served here: {kind!r}", "unsupported_item")


def _name(item: Fields, field: str) -> str:
    value = item.require(field, item.string(field, most=256))
    if not value:
        raise wrong_value(item.at(field), "is empty")
    return value


def _read_message(item: Fields, collected: _Collector) -> None:
    role = item.require("role", item.string("role", choices=ROLES))
    parts = _content(item, "content", role)
    if role == "assistant":
        collected.say(parts)
    elif role == "user":
        collected.add(Message(role="user", parts=tuple(parts)))
    else:
        collected.system.append("".join(part.text for part in parts if isinstance(part, Text)))


def _content(item: Fields, name: str, role: str) -> list[Part]:
    item.known(name, "phase")
    value = item.require(name, item.data.get(name))
    if type(value) is str:
        return [Text(value)]
    if type(value) is not list:
        raise wrong_type(item.at(name), "a string or an array", value)
    parts = item.objects(name, most=MAX_PARTS) or []
    if not parts:
        raise wrong_value(item.at(name), "is empty")
    return [_part(part, role) for part in parts]


def _part(part: Fields, role: str) -> Part:
    kind = part.require("type", part.string("type"))
    if kind in ("input_text", "output_text", "text"):
        part.known("annotations", "logprobs")
        return Text(part.require("text", part.string("text")))
    if kind == "refusal":
        return Text(part.require("refusal", part.string("refusal")))
    if kind == "input_image" and role == "user":
        if part.string("file_id") is not None:
            raise wrong_value(part.at("file_id"), "cannot be used: no files are kept here", "unsupported_content")
        link = part.require("image_url", part.string("image_url"))
        if not link.lower().startswith(LINKS):
            raise wrong_value(part.at("image_url"), "must be a data: URL or a link with http or https")
        return Image(link, part.string("detail"))
    if kind == "input_audio" and role == "user":
        audio = part.require("input_audio", part.object("input_audio"))
        data = audio.require("data", audio.string("data"))
        return Audio(data, audio.require("format", audio.string("format", most=32)))
    raise wrong_value(
        part.at("type"), f"is not served here in a message of the {role}: {kind!r}", "unsupported_content"
    )


def _output(item: Fields) -> str:
    parts = _content(item, "output", "tool")
    return "".join(part.text for part in parts if isinstance(part, Text))


def _thoughts(item: Fields) -> list[str]:
    pieces = [*(item.objects("summary", most=MAX_PARTS) or ()), *(item.objects("content", most=MAX_PARTS) or ())]
    for piece in pieces:
        piece.known("type")
    return [piece.require("text", piece.string("text")) for piece in pieces]


def split_history(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The client's own history, up to the last word of the assistant, and what is new after it."""
    last = max((index for index, each in enumerate(messages) if each.role == "assistant"), default=-1)
    return messages[: last + 1], messages[last + 1 :]


def check_new(messages: tuple[Message, ...]) -> None:
    """Raise RequestError 400 unless a conversation can begin with these messages."""
    _guard(messages)
    if not messages or messages[-1].role == "assistant":
        raise wrong_value("input", "must end with a message of the user or a function_call_output")


def continue_with(
    messages: tuple[Message, ...], awaited: frozenset[str], previous: Message | None
) -> tuple[Message, ...]:
    """What a request adds to a conversation that exists.

    Args:
        messages: of the request.
        awaited: ids of the client's calls that the conversation waits for.
        previous: their message, when it must be said again in front (a fork does not hold it).

    Raises:
        RequestError: 400 a result of a call that nobody made, or an order that no provider takes.
    """
    echoed = tuple(_without_echo(messages, awaited))
    supplied = tuple(each for each in echoed if each.role == "tool" and each.tool_call_id in awaited)
    rest = tuple(each for each in echoed if each not in supplied)
    calls = tuple(ToolCall(str(each.tool_call_id), each.name or "call", "{}") for each in supplied)
    before = Message(role="assistant", parts=(Text("…"),), tool_calls=calls)
    _guard((before, *supplied, *rest))
    if (not supplied and not rest) or (rest and rest[-1].role == "assistant"):
        raise wrong_value("input", "must end with a message of the user or a function_call_output")
    if previous is None or not previous.tool_calls:
        return (*supplied, *rest)
    given = {each.tool_call_id: each for each in supplied}
    results = (given.get(call.id) or _not_provided(call) for call in previous.tool_calls)
    return (previous, *results, *rest)


def _without_echo(messages: tuple[Message, ...], awaited: frozenset[str]) -> list[Message]:
    """Without calls that the conversation holds already: some clients send them again with their results."""
    return [each for each in messages if not (each.tool_calls and all(call.id in awaited for call in each.tool_calls))]


def _not_provided(call: ToolCall) -> Message:
    words = "not provided: the conversation went on without a result"
    return Message(role="tool", parts=(Text(words),), tool_call_id=call.id, name=call.name, note="not run")


def _guard(messages: tuple[Message, ...]) -> None:
    try:
        HistoryGuard(map(Entry, messages)).check_sendable()
    except HistoryInvalid as error:
        raise RequestError(400, f"input: {error.reason}", code="invalid_input", param="input") from None
