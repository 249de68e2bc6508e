"""A `POST /v1/responses` body as a value. Pure. Source: OpenAI's API reference, "Create a model response"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hermes.agent.calls import CallOptions
from hermes.errors import RequestError
from hermes.http.api.asking import MAX_INSTRUCTIONS
from hermes.http.api.fields import Fields, wrong_type, wrong_value
from hermes.http.api.responses_input import Input, read_input
from hermes.http.api.tools import MAX_TOOLS, check_names, client_tool
from hermes.intake import ClientTool

MAX_METADATA = 16  # pairs
MAX_KEY, MAX_VALUE = 64, 512  # characters of a pair
MAX_TOKENS = 10_000_000
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
SUMMARIES = ("auto", "concise", "detailed")
IGNORED = (
    "include", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "stream_options",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """What was asked.

    Args:
        input: the messages it brings.
        conversation: the name of a conversation to go on with.
        previous: the response to go on from.
        echo: the fields that the response object shows again.
    """

    input: Input
    model: str | None
    instructions: str | None
    previous: str | None
    conversation: str | None
    stream: bool
    store: bool
    tools: tuple[ClientTool, ...]
    options: CallOptions
    echo: dict[str, Any]


def read_create(fields: Fields) -> Create:
    """The body of a request. Raises RequestError 400 with the path of what is wrong."""
    fields.known(*IGNORED)
    _refuse(fields)
    model = fields.string("model", most=256)
    instructions = fields.string("instructions", most=MAX_INSTRUCTIONS)
    previous = fields.string("previous_response_id", most=256)
    conversation = _conversation(fields)
    if previous is not None and conversation is not None:
        raise RequestError(
            400, "previous_response_id and conversation cannot be used together", code="invalid_request",
            param="conversation",
        )  # fmt: skip
    tools = _tools(fields)
    stream, store = fields.boolean("stream"), fields.boolean("store")
    options, echo = _options(fields, tools)
    echo |= {
        "model": model, "instructions": instructions, "previous_response_id": previous,
        "conversation": None if conversation is None else {"id": conversation}, "store": store is not False,
        "metadata": _metadata(fields), "user": fields.string("user", most=1024),
        "truncation": fields.string("truncation", choices=("auto", "disabled")) or "disabled",
        "tools": [_shown(tool) for tool in tools],
    }  # fmt: skip
    return Create(
        input=read_input(fields), model=model, instructions=instructions, previous=previous, conversation=conversation,
        stream=bool(stream), store=store is not False, tools=tools, options=options, echo=echo,
    )  # fmt: skip


def _refuse(fields: Fields) -> None:
    """What would change the answer and is not served."""
    if fields.boolean("background"):
        raise wrong_value("background", "is not served; /v1/runs starts work that goes on alone", "unsupported_value")
    for name in ("prompt", "max_tool_calls"):
        if fields.value(name) is not None:
            raise wrong_value(name, "is not served", "unsupported_parameter")
    if fields.integer("top_logprobs", 0, 20):
        raise wrong_value("top_logprobs", "is not served", "unsupported_parameter")


def _conversation(fields: Fields) -> str | None:
    """A name, or an object with an id."""
    fields.known("conversation")
    value = fields.data.get("conversation")
    if value is None:
        return None
    path, name = "conversation", value
    if type(value) is dict:
        inner = fields.child(value, path)
        path, name = inner.at("id"), inner.require("id", inner.string("id"))
    if type(name) is not str:
        raise wrong_type(path, "a string or an object with an id", name)
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise wrong_value(path, "must have 1 to 200 printable characters")
    return name


def _options(fields: Fields, tools: tuple[ClientTool, ...]) -> tuple[CallOptions, dict[str, Any]]:
    temperature = fields.number("temperature", 0, 2)
    top_p = fields.number("top_p", 0, 1)
    most = fields.integer("max_output_tokens", 1, MAX_TOKENS)
    parallel = fields.boolean("parallel_tool_calls")
    effort, summary = _reasoning(fields)
    shape, text = _text(fields)
    choice, shown_choice = _tool_choice(fields, tools)
    options = CallOptions(
        temperature=temperature, top_p=top_p, max_output_tokens=most, tool_choice=choice, parallel_tool_calls=parallel,
        response_format=shape, reasoning_effort=effort,
    )  # fmt: skip
    return options, {
        "temperature": temperature, "top_p": top_p, "max_output_tokens": most, "text": text,
        "parallel_tool_calls": parallel is not False, "tool_choice": shown_choice,
        "reasoning": {"effort": effort, "summary": summary},
    }  # fmt: skip


def _reasoning(fields: Fields) -> tuple[str | None, str | None]:
    reasoning = fields.object("reasoning")
    if reasoning is None:
        return None, None
    effort = reasoning.string("effort", choices=EFFORTS)
    summary = reasoning.string("summary", choices=SUMMARIES)
    return effort, summary or reasoning.string("generate_summary", choices=SUMMARIES)


def _text(fields: Fields) -> tuple[Any, dict[str, Any]]:
    """The form of the reply: as a model call takes it, and as the response shows it."""
    text = fields.object("text")
    if text is None:
        return None, {"format": {"type": "text"}}
    if text.string("verbosity", choices=("low", "medium", "high")) not in (None, "medium"):
        raise wrong_value(text.at("verbosity"), "is not served but as 'medium'", "unsupported_value")
    form = text.object("format")
    if form is None:
        return None, {"format": {"type": "text"}}
    kind = form.require("type", form.string("type", choices=("text", "json_object", "json_schema")))
    if kind != "json_schema":
        return None if kind == "text" else {"type": kind}, {"format": {"type": kind}}
    name = form.require("name", form.string("name", most=64))
    inner: dict[str, Any] = {"name": name, "schema": form.require("schema", form.opaque("schema"))}
    description, strict = form.string("description"), form.boolean("strict")
    inner |= {"description": description} if description is not None else {}
    inner |= {"strict": strict} if strict is not None else {}
    return {"type": kind, "json_schema": inner}, {"format": {"type": kind, **inner, "strict": strict}}


def _tools(fields: Fields) -> tuple[ClientTool, ...]:
    tools: list[ClientTool] = []
    for each in fields.objects("tools", most=MAX_TOOLS) or ():
        kind = each.require("type", each.string("type"))
        if kind != "function":
            raise wrong_value(
                each.at("type"), f"is a hosted tool that is not served here: {kind!r}", "unsupported_tool"
            )
        each.known("output_schema", "defer_loading", "allowed_callers", "async")
        tools.append(client_tool(each))
    check_names(tools, "tools")
    return tuple(tools)


def _shown(tool: ClientTool) -> dict[str, Any]:
    return {
        "type": "function", "name": tool.name, "description": tool.description or None,
        "parameters": tool.parameters or None, "strict": bool(tool.strict),
    }  # fmt: skip


def _tool_choice(fields: Fields, tools: tuple[ClientTool, ...]) -> tuple[Any, Any]:
    """As a model call takes it, and as the response shows it."""
    fields.known("tool_choice")
    value = fields.data.get("tool_choice")
    if value is None:
        return None, "auto"
    if type(value) is str:
        if value == "required" and not tools:
            raise wrong_value("tool_choice", "needs tools")
        return fields.string("tool_choice", choices=("none", "auto", "required")), value
    choice = fields.object("tool_choice")
    assert choice is not None
    kind = choice.require("type", choice.string("type"))
    if kind != "function":
        raise wrong_value(choice.at("type"), f"is not served here: {kind!r}", "unsupported_value")
    name = choice.require("name", choice.string("name"))
    if name not in {tool.name for tool in tools}:
        raise wrong_value(choice.at("name"), f"names no tool of this request: {name!r}")
    return {"type": "function", "function": {"name": name}}, {"type": "function", "name": name}


def _metadata(fields: Fields) -> dict[str, str]:
    metadata = fields.object("metadata")
    if metadata is None:
        return {}
    if len(metadata.data) > MAX_METADATA:
        raise wrong_value("metadata", f"has more than {MAX_METADATA} pairs")
    for key in metadata.data:
        if len(key) > MAX_KEY:
            raise wrong_value("metadata", f"has a key longer than {MAX_KEY} characters")
        if metadata.string(key, most=MAX_VALUE) is None:
            raise wrong_type(metadata.at(key), "a string", None)
    return dict(metadata.data)
