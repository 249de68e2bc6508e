"""The built-in demo model: no network, deterministic, honest about what it is; with it a fresh installation answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from hermes.agent.calls import CallDelta, ModelRequest, OnDelta, TextDelta, ToolDefinition
from hermes.agent.wire import Decoded
from hermes.messages import Entry, Message, Text, ToolCall, Usage

NAME = "hermes-demo"
ABOUT = (
    "This is Hermes' built-in demo model: it follows a few fixed rules and understands nothing. For a real model set "
    "OPENAI_API_KEY (and OPENAI_BASE_URL for another service or a local server) in the environment and restart, or write "
    "it into .env, or a `model:` section into config.yaml: files in the home, which `hermes status` names; they are read "
    "again when they change."
)
EXCERPT_CHARS = 2000
_encode = msgspec.json.Encoder().encode
_WORDS = re.compile(r"\S+\s*|\s+")
_GREETING = re.compile(r"\b(hi|hello|hey|hallo|good (?:morning|evening|day))\b", re.IGNORECASE)


async def answer(request: ModelRequest, on_delta: OnDelta) -> Decoded:
    """The demo model's reply to a request.

    Its rules: "list files", "search for X", "read FILE" and "run: COMMAND" call the tool of that purpose if it is
    offered; a tool's result is reported; a `tool_choice` that demands a call gets one; everything else is echoed.
    Each reply in words ends with what this model is and how to configure a real one.

    Cancellation: between any two words.
    """
    call = _call(request)
    if call is not None:
        await trio.lowlevel.checkpoint()
        on_delta(CallDelta(0, call.id, call.name, call.arguments))
        message = Message(role="assistant", tool_calls=(call,))
        return Decoded(message, "tool_calls", _usage(request, call.arguments), NAME)
    words = f"{_words(request)}\n\n{ABOUT}"
    for word in _WORDS.findall(words):
        await trio.lowlevel.checkpoint()
        on_delta(TextDelta(word))
    return Decoded(Message(role="assistant", parts=(Text(words),)), "stop", _usage(request, words), NAME)


def _usage(request: ModelRequest, said: str) -> Usage:
    read = len(request.system.split()) + sum(len(entry.message.text.split()) for entry in request.history)
    return Usage(input_tokens=read, output_tokens=len(said.split()))


def _words(request: ModelRequest) -> str:
    last = request.history[-1].message
    if last.role == "tool":
        return "\n\n".join(_report(entry.message) for entry in _results(request.history))
    said = last.text.strip()
    if not said:
        return "You sent no words, so there is nothing to echo."
    if _GREETING.match(said):
        return "Hello! It works: your message reached the agent and this is its reply."
    return f"You wrote: {said[:EXCERPT_CHARS]}"


def _results(history: Sequence[Entry]) -> list[Entry]:
    results: list[Entry] = []
    for entry in reversed(history):
        if entry.message.role != "tool":
            break
        results.append(entry)
    return results[::-1]


def _report(message: Message) -> str:
    text = message.text
    shown = text[:EXCERPT_CHARS] + (" […]" if len(text) > EXCERPT_CHARS else "")
    return f"The tool {message.name or message.tool_call_id} answered:\n{shown}"


def _call(request: ModelRequest) -> ToolCall | None:
    """The call that this request should get, if any."""
    choice = request.options.tool_choice
    last = request.history[-1].message
    if choice == "none" or not request.tools or last.role == "tool":
        return None
    offered = {tool.name: tool for tool in request.tools}
    number = sum(len(entry.message.tool_calls) for entry in request.history)
    call_id = f"call_demo_{number}"
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        if name in offered:
            return ToolCall(call_id, str(name), _minimal(offered[str(name)], last.text))
        return None
    asked = _asked(last.text)
    if asked is not None and asked[0] in offered:
        tool = offered[asked[0]]
        known = tool.parameters.get("properties") or {}
        arguments = {name: value for name, value in asked[1].items() if name in known}
        return ToolCall(call_id, tool.name, _encode(_complete(tool, arguments, last.text)).decode())
    if choice == "required":
        return ToolCall(call_id, request.tools[0].name, _minimal(request.tools[0], last.text))
    return None


def _asked(said: str) -> tuple[str, dict[str, Any]] | None:
    """The tool a person's words ask for, with its arguments."""
    said = said.strip()
    if found := re.match(r"(?is)run:\s*(.+)", said):
        return "terminal", {"command": found[1].strip()}
    if re.match(r"(?i)(?:please )?list (?:the |my |all )?files\b", said):
        return "search_files", {"pattern": "*", "query": "*", "kind": "name"}
    if found := re.match(r"(?i)(?:please )?search for (.+)", said):
        words = _unquoted(found[1])
        return "search_files", {"pattern": words, "query": words, "kind": "content"}
    if found := re.match(r"(?i)(?:please )?read (?:the file )?(\S+)", said):
        return "read_file", {"path": _unquoted(found[1]), "file": _unquoted(found[1])}
    return None


def _unquoted(words: str) -> str:
    words = words.strip()
    try:
        parts = shlex.split(words)
    except ValueError:
        return words
    return parts[0] if len(parts) == 1 else words


def _minimal(tool: ToolDefinition, said: str) -> str:
    return _encode(_complete(tool, {}, said)).decode()


def _complete(tool: ToolDefinition, arguments: dict[str, Any], said: str) -> dict[str, Any]:
    """Arguments with everything the schema requires, as small as it allows."""
    properties = tool.parameters.get("properties") or {}
    for name in tool.parameters.get("required") or ():
        if name not in arguments:
            arguments[name] = _value(properties.get(name) or {}, said, 0)
    return arguments


def _value(schema: Any, said: str, depth: int) -> Any:
    """The smallest value that fits a JSON schema's obvious parts."""
    if not isinstance(schema, Mapping) or depth > 8:
        return said
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _value(schema[key][0], said, depth + 1)
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: _value(properties.get(name), said, depth + 1) for name in schema.get("required") or ()}
    if kind == "array":
        return [_value(schema.get("items"), said, depth + 1)] * int(schema.get("minItems") or 0)
    return {"boolean": False, "null": None}.get(str(kind), said)
