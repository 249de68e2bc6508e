"""A chat-completions request as values: what is passed on, what is accepted, what is refused. Pure.

Source: OpenAI's API reference, "Create chat completion". No field that changes the answer is dropped in silence: it is
passed on to the model or refused; what only concerns OpenAI's own books is accepted and goes nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hermes.agent.calls import CallOptions
from hermes.errors import RequestError
from hermes.http.api.chat_messages import Conversation, read_conversation
from hermes.http.api.fields import Fields, wrong_type, wrong_value
from hermes.http.api.tools import chat_tool_choice, chat_tools
from hermes.intake import ClientTool

MAX_STOP = 4
MAX_STOP_CHARS = 1000
MAX_OUTPUT = 10_000_000
SEED = 2**63
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
FORMAT_NAME = 64
ACCEPTED = (
    "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
)  # fmt: skip  # strings that concern OpenAI's own service
REFUSED = ("functions", "function_call", "audio", "web_search_options", "prediction", "moderation")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a client asked.

    Args:
        model: the name it used.
        conversation: its messages.
        tools: its own functions.
        options: sampling and form.
        stream: whether it wants the answer as it is made.
        include_usage: whether a stream ends with the usage.
    """

    model: str
    conversation: Conversation
    tools: tuple[ClientTool, ...]
    options: CallOptions
    stream: bool
    include_usage: bool


def read_chat(body: Fields) -> ChatRequest:
    """A whole request. Raises RequestError 400 with the path of what is wrong."""
    stream = bool(body.boolean("stream"))
    include_usage = _stream_options(body, stream=stream)
    _refuse(body)
    model = body.require("model", body.string("model"))
    tools = chat_tools(body)
    options = _options(body, chat_tool_choice(body, tools))
    return ChatRequest(
        model=model,
        conversation=read_conversation(body),
        tools=tools,
        options=options,
        stream=stream,
        include_usage=include_usage,
    )


def _stream_options(body: Fields, *, stream: bool) -> bool:
    options = body.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise wrong_value("stream_options", "needs stream")
    options.boolean("include_obfuscation")
    return bool(options.boolean("include_usage"))


def _refuse(body: Fields) -> None:
    """Refuse what cannot be passed on; accept what changes nothing."""
    for name in REFUSED:
        if body.value(name) is not None:
            raise _unsupported(name)
    if body.integer("n", 1, 128) not in (None, 1):
        raise wrong_value("n", "must be 1", "unsupported_value")
    if body.boolean("logprobs") or body.integer("top_logprobs", 0, 20):
        raise _unsupported("logprobs")
    if body.opaque("logit_bias"):
        raise _unsupported("logit_bias")
    if body.string("verbosity", choices=("low", "medium", "high")) not in (None, "medium"):
        raise _unsupported("verbosity")
    modalities = body.strings("modalities", most=4)
    if modalities is not None and modalities != ("text",):
        raise wrong_value("modalities", "must be ['text']", "unsupported_value")
    for name in ACCEPTED:
        body.string(name)
    body.boolean("store")
    metadata = body.object("metadata")
    if metadata is not None:
        for key in metadata.data:
            metadata.string(key)


def _unsupported(name: str) -> RequestError:
    return wrong_value(name, "is not supported", "unsupported_parameter")


def _options(body: Fields, tool_choice: Any) -> CallOptions:
    limit = body.integer("max_tokens", 1, MAX_OUTPUT)
    newer = body.integer("max_completion_tokens", 1, MAX_OUTPUT)
    return CallOptions(
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        max_output_tokens=newer if newer is not None else limit,
        stop=_stop(body),
        tool_choice=tool_choice,
        parallel_tool_calls=body.boolean("parallel_tool_calls"),
        response_format=_response_format(body),
        reasoning_effort=body.string("reasoning_effort", choices=EFFORTS),
        seed=body.integer("seed", -SEED, SEED - 1),
        frequency_penalty=body.number("frequency_penalty", -2, 2),
        presence_penalty=body.number("presence_penalty", -2, 2),
    )


def _stop(body: Fields) -> tuple[str, ...] | None:
    value = body.value("stop")
    if type(value) is str:
        stop: tuple[str, ...] | None = (value,)
    elif value is None or type(value) is list:
        stop = body.strings("stop", most=MAX_STOP) or None
    else:
        raise wrong_type("stop", "a string or an array of strings", value)
    for each in stop or ():
        if not 1 <= len(each) <= MAX_STOP_CHARS:
            raise wrong_value("stop", f"must be of 1 to {MAX_STOP_CHARS} characters")
    return stop


def _response_format(body: Fields) -> Any:
    value = body.value("response_format")
    fields = body.object("response_format")
    if fields is None:
        return None
    kind = fields.require("type", fields.string("type", choices=("text", "json_object", "json_schema")))
    if kind == "text":
        return None
    if kind == "json_schema":
        schema = fields.require("json_schema", fields.object("json_schema"))
        if not schema.require("name", schema.string("name", most=FORMAT_NAME)):
            raise wrong_value(schema.at("name"), "must not be empty")
        schema.string("description")
        schema.boolean("strict")
        schema.opaque("schema")
    return value
