"""The contract of tools: what a tool is, how a function becomes one, how they are opened, combined, offered and run.

A toolset is a context manager that yields its tools: what they need together (a connection, a directory, a limit) is
opened before and gone after. A tool is a function with a schema; the built-in ones and those of plugins are alike.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import trio

from hermes.agent.calls import ToolDefinition
from hermes.context import TurnContext
from hermes.errors import ConfigError, Problem, ToolDenied, ToolError, ToolTimeout
from hermes.signatures import InvalidArguments, freeze, parse_arguments, read_signature

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_RESULT = 100_000  # characters of a result

Run = Callable[[TurnContext, Mapping[str, Any]], Awaitable[str]]
C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One callable with a schema.

    Args:
        name: 1 to 64 of letters, digits, `_` and `-`; unique among the tools that are offered together.
        description: what the model reads; short, since it is sent with every request.
        parameters: a JSON schema of type object. It is copied, and the copy cannot be changed.
        read_only: it changes nothing anywhere. Only such tools are offered to callers who may not change anything, and
            only calls of other tools are recorded as started before they run, so that nothing is run twice.
        for_chats: it is for conversations on messaging services: offered there to everybody who may speak, also where it is
            not read-only, and nowhere else. It must do nothing but what whoever asks could see or do in that chat.
        run: does the work. It gets the arguments as JSON values, checks them, and returns the text for the model; it
            raises ToolError for what the model should know. Cancellation: it may be cancelled at any await, and must
            then leave nothing running.
        definition: the tool as a model call carries it, made once.

    Raises:
        ValueError: the name or the schema is not one.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    read_only: bool
    for_chats: bool = False
    run: Run = field(repr=False)
    definition: ToolDefinition = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"not a name for a tool: {self.name!r}")
        if self.parameters.get("type") != "object":
            raise ValueError(f"the parameters of the tool {self.name} must be a JSON schema of type object")
        object.__setattr__(self, "parameters", freeze(self.parameters))
        definition = ToolDefinition(name=self.name, description=self.description, parameters=self.parameters)
        object.__setattr__(self, "definition", definition)


def tool(*, read_only: bool, for_chats: bool = False) -> Callable[[Callable[..., Awaitable[str]]], Tool]:
    """Make a Tool of `async def name(context: TurnContext, a: str, b: int = 1) -> str`.

    The description is the docstring's first paragraph, each argument's is in its section `Args:`. What the model sends
    is checked strictly against the signature: types, bounds, names it does not have, values that are missing.

    Args:
        read_only, for_chats: see Tool.

    Raises:
        TypeError: the function cannot be a tool; the message says why.
    """

    def make(function: Callable[..., Awaitable[str]]) -> Tool:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"the tool {function.__name__} must be an async function")
        signature = read_signature(function)

        async def run(context: TurnContext, arguments: Mapping[str, Any]) -> str:
            return await function(context, **signature.validate(arguments))

        return Tool(
            name=function.__name__,
            description=signature.description,
            parameters=signature.parameters,
            read_only=read_only,
            for_chats=for_chats,
            run=run,
        )

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsetHost:
    """All that a toolset is given beside its own settings.

    Args:
        home: the gateway's home, which no tool may touch.
        environment: the environment as the configuration read it. It holds secrets: a tool that starts a process hands
            on what it names, never the whole.
    """

    home: Path
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsetSpec(Generic[C]):
    """A toolset that can be opened; readable without importing anything heavy.

    Args:
        name: how the configuration names it.
        config: the frozen type of its settings; every field has a default.
        open: Lifetime: enter = the tools work, or it raises and leaves nothing; exit = nothing of them is left, also
            when it is cancelled.
    """

    name: str
    config: type[C]
    open: Callable[[C, ToolsetHost], AbstractAsyncContextManager[tuple[Tool, ...]]]


OnConflict = Callable[[Tool], None]


def refuse_conflict(unwanted: Tool) -> None:
    """The strict answer to two tools of one name: raise ConfigError."""
    raise ConfigError(Problem("agent.tools", f"two tools are named {unwanted.name}"))


def combine(*groups: Iterable[Tool], on_conflict: OnConflict = refuse_conflict) -> tuple[Tool, ...]:
    """All tools of all groups in order, each name once: the first of a name stays.

    Args:
        groups: tools of one toolset each.
        on_conflict: told of each tool whose name is taken; it raises, or warns and so skips it.
    """
    chosen: dict[str, Tool] = {}
    for one in (one for group in groups for one in group):
        if one.name in chosen:
            on_conflict(one)
        else:
            chosen[one.name] = one
    return tuple(chosen.values())


def resolve(tools: Iterable[Tool], *, may_change: bool, in_chat: bool = False) -> tuple[Tool, ...]:
    """What is offered to a caller: everything, or only what changes nothing; what is for chats only there, but to all."""
    return tuple(one for one in tools if (in_chat if one.for_chats else one.read_only or may_change))


ErrorKind = Literal["arguments", "failed", "denied", "timeout", "internal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """How one call ended.

    Args:
        text: for the model; bounded, valid Unicode, without NUL.
        ok: the tool did what it was asked.
        error: which kind of failure it was, None when ok.
        exception: the unforeseen exception behind `internal`, for the caller's log.
    """

    text: str
    ok: bool
    error: ErrorKind | None = None
    exception: Exception | None = None


async def run_tool(
    tool: Tool, context: TurnContext, arguments_json: str, *, max_chars: int = MAX_RESULT
) -> ToolOutcome:
    """Run one call as the model wrote it. Whatever it wrote, this returns; what cannot be understood is not run.

    Args:
        tool: what to run.
        context: for whom.
        arguments_json: the call's arguments as received; nothing but white space counts as no arguments.
        max_chars: the length of the result; what is longer loses its middle.

    Cancellation: passes through, from wherever the tool is.
    """
    await trio.lowlevel.checkpoint()
    try:
        if not (tool.read_only or tool.for_chats or context.may_change):
            raise ToolDenied(f"{tool.name} changes things, and this caller may not")
        text = await tool.run(context, parse_arguments(arguments_json))
        if not isinstance(text, str):
            raise TypeError(f"the tool {tool.name} returned {type(text).__name__}, not str")
        return ToolOutcome(text=clean(text, max_chars), ok=True)
    except Exception as error:  # noqa: BLE001  # the boundary of a tool call: one of the five named ones
        return _failure(error, max_chars)


def _failure(error: Exception, max_chars: int) -> ToolOutcome:
    leaves = _leaves(error)
    strange = next((leaf for leaf in leaves if not isinstance(leaf, ToolError)), None)
    if strange is not None:
        text = f"internal error: {type(strange).__name__}"
        return ToolOutcome(text=text, ok=False, error="internal", exception=error)
    kind = next(name for cls, name in _KINDS if isinstance(leaves[0], cls))
    return ToolOutcome(text=clean(f"error: {leaves[0]}", max_chars), ok=False, error=kind)


_KINDS: tuple[tuple[type[ToolError], ErrorKind], ...] = (
    (InvalidArguments, "arguments"),
    (ToolDenied, "denied"),
    (ToolTimeout, "timeout"),
    (ToolError, "failed"),
)


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors inside groups: a tool that works in a nursery raises its ToolError in one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def clean(text: str, limit: int) -> str:
    """Text as a store and every provider can take it: bounded, without NUL and without lone surrogates."""
    short = cut(text, limit)
    return short.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def cut(text: str, limit: int) -> str:
    """The text itself, or its beginning and end with a line between them that counts what was left out.

    Args:
        limit: characters of the whole, that line included; at least 100.
    """
    if len(text) <= limit:
        return text
    room = limit - 60
    head, tail = room - room // 3, room // 3
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"
