"""The agent loop: model and tools in turn until the model has said its last word.

The loop owns no state that outlives it: what happened is in the journal (committed) and in the history (what the
journal made whole). A cancel at any await leaves a step that the journal knows how to close.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio

from hermes.agent.calls import (
    CallDelta,
    CallOptions,
    Deadlines,
    Delta,
    ModelReply,
    ModelRequest,
    OnDelta,
    ReasoningDelta,
    TextDelta,
    ToolDefinition,
)
from hermes.agent.history import History
from hermes.context import TurnContext
from hermes.intake import CallEvent, ReasoningEvent, StepEvent, TextEvent, ToolFinished, ToolStarted, TurnEvent
from hermes.messages import Message, ToolCall, Usage, tool_result
from hermes.observe.logs import get_log
from hermes.settings import Endpoint
from hermes.store.steps import JournalCall
from hermes.toolset import Tool, run_tool

log = get_log(__name__)

PARALLEL_CALLS = 8
MAX_CALLS = 128  # of one reply; those beyond are answered and not run
PREVIEW_CHARS = 400
CUT = frozenset(("length", "content_filter"))  # finish reasons of a reply that is not all that was meant


class Door(Protocol):
    """Where models are asked."""

    async def ask(
        self, request: ModelRequest, *, endpoint: Endpoint | None, deadlines: Deadlines, on_delta: OnDelta
    ) -> ModelReply:
        """One call; see `hermes.agent.model`."""
        ...


class Journal(Protocol):
    """Where steps are committed; a step comes back when it is whole."""

    async def open(self, number: int, message: Message, calls: Sequence[JournalCall]) -> tuple[Message, ...]:
        """Commit the assistant's message and its calls before any runs."""
        ...

    async def start(self, number: int, position: int) -> None:
        """Commit that a call begins now."""
        ...

    async def finish(self, number: int, position: int, result: Message) -> tuple[Message, ...]:
        """Commit a result; what has happened is recorded even while the turn is being cut."""
        ...

    async def steered(self) -> Sequence[Message]:
        """Take in what was said to steer the turn, committed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What one run of the loop works with.

    Args:
        context: whose turn it is.
        system: the system prompt.
        tools: ours, by name.
        client_tools: the client's, handed back when called.
        options: sampling; `tool_choice` forces the first call only.
        endpoint: the model asked for; None = the configured one with its fallbacks.
        deadlines: of each model call.
        max_steps: model calls at most; the last one is made without tools.
        max_tokens: tokens of the turn at most; 0 = no limit.
    """

    context: TurnContext
    system: str
    tools: Mapping[str, Tool]
    client_tools: Mapping[str, ToolDefinition]
    options: CallOptions
    endpoint: Endpoint | None
    deadlines: Deadlines
    max_steps: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopEnd:
    """The last word of a turn.

    Args:
        message: the assistant's last message; its `tool_calls` are the client's to run.
        finish_reason: `stop`, `length`, `content_filter`, `tool_calls`.
        usage: of all calls together.
        model: as the provider named it.
        await_step: the number of the step that waits for the client's results.
    """

    message: Message
    finish_reason: str
    usage: Usage
    model: str
    await_step: int | None = None


async def run_loop(
    settings: LoopSettings,
    history: History,
    *,
    door: Door,
    journal: Journal,
    emit: Callable[[TurnEvent], None],
    spent: Callable[[Usage], None] = lambda _usage: None,
    first_step: int = 1,
) -> LoopEnd:
    """Ask, run what is called, ask again, until the model answers in words.

    Args:
        spent: told what each call used, also of a turn that comes to no end.

    Raises:
        ModelError: as the door raises it.
        StoreUnavailable: a step could not be committed; nothing of it ran.

    Cancellation: at any point; the journal holds the open step, the history only whole ones.
    """
    usage = Usage()
    on_delta = functools.partial(_pass_on, emit, bool(settings.client_tools))
    definitions = (*(tool.definition for tool in settings.tools.values()), *settings.client_tools.values())
    number = first_step
    while True:
        over = bool(settings.max_tokens) and usage.total_tokens >= settings.max_tokens
        last = number - first_step + 1 >= settings.max_steps or over
        if number > first_step:
            emit(StepEvent(number))
            history.extend(await journal.steered())
        options = _options(settings.options, first=number == first_step, last=last, tools=bool(definitions))
        request = ModelRequest(system=settings.system, history=history.entries, tools=definitions, options=options)
        reply = await door.ask(request, endpoint=settings.endpoint, deadlines=settings.deadlines, on_delta=on_delta)
        if reply.usage is not None:
            usage += reply.usage
            spent(reply.usage)
        calls = reply.message.tool_calls
        if not calls or reply.finish_reason in CUT or last:
            # A call cut by the length limit or by a filter is not run: its arguments may be half of what was meant.
            return LoopEnd(
                message=msgspec.structs.replace(reply.message, tool_calls=()),
                finish_reason=_without_calls(reply, last=last), usage=usage, model=reply.model,
            )  # fmt: skip
        theirs = await _run_step(settings, history, journal, emit, number, reply.message)
        if theirs:
            return LoopEnd(
                message=msgspec.structs.replace(reply.message, tool_calls=theirs), finish_reason="tool_calls", usage=usage,
                model=reply.model, await_step=number,
            )  # fmt: skip
        number += 1


def _without_calls(reply: ModelReply, *, last: bool) -> str:
    if reply.finish_reason == "tool_calls":
        return "length" if last else "stop"
    return reply.finish_reason


def _options(options: CallOptions, *, first: bool, last: bool, tools: bool) -> CallOptions:
    """A forced choice holds for the first call; afterwards the model may stop calling, or it would call for ever."""
    choice = options.tool_choice
    if not tools:
        choice = None
    elif last:
        choice = "none"
    elif not first and choice not in (None, "none", "auto"):
        choice = "auto"
    return options if choice == options.tool_choice else msgspec.structs.replace(options, tool_choice=choice)


def _pass_on(emit: Callable[[TurnEvent], None], has_client_tools: bool, delta: Delta) -> None:
    """Tell what arrives; calls as they are written matter only to a client that has functions of its own."""
    match delta:
        case TextDelta(text):
            emit(TextEvent(text))
        case ReasoningDelta(text):
            emit(ReasoningEvent(text))
        case CallDelta() if has_client_tools:
            emit(CallEvent(delta.index, delta.id, delta.name, delta.arguments))


async def _run_step(
    settings: LoopSettings,
    history: History,
    journal: Journal,
    emit: Callable[[TurnEvent], None],
    number: int,
    message: Message,
) -> tuple[ToolCall, ...]:
    """Commit a step, run its calls together, take it into the history. Returns the client's calls, if it has any."""
    calls = message.tool_calls
    at_once = len(calls) <= PARALLEL_CALLS
    entries = [_journal_call(settings, call, at_once=at_once) for call in calls[:MAX_CALLS]]
    entries += [_refused(call, f"not run: at most {MAX_CALLS} calls in one reply") for call in calls[MAX_CALLS:]]
    whole = await journal.open(number, message, entries)
    runner = _Runner(settings, journal, emit, number, trio.CapacityLimiter(PARALLEL_CALLS))
    runner.whole = whole
    async with trio.open_nursery() as nursery:
        for position, (call, entry) in enumerate(zip(calls, entries, strict=True)):
            if not entry.client and entry.result is None:
                nursery.start_soon(runner.run, position, call, entry, name=f"tool {call.name}")
    theirs = tuple(call for call, entry in zip(calls, entries, strict=True) if entry.client)
    if not theirs:
        history.extend(runner.whole)
    return theirs


def _journal_call(settings: LoopSettings, call: ToolCall, *, at_once: bool) -> JournalCall:
    if call.name in settings.client_tools:
        return JournalCall(call_id=call.id, name=call.name, client=True, changes=False, started=False)
    tool = settings.tools.get(call.name)
    if tool is None:
        known = ", ".join(settings.tools) or "none"
        return _refused(call, f"there is no tool {call.name[:64]!r}; the tools are: {known}")
    return JournalCall(call_id=call.id, name=call.name, client=False, changes=not tool.read_only, started=at_once)


def _refused(call: ToolCall, words: str) -> JournalCall:
    result = tool_result(call, words, note="not run")
    return JournalCall(call_id=call.id, name=call.name, client=False, changes=False, started=False, result=result)


class _Runner:
    """Runs the calls of one step; `whole` is the step once the last result is committed."""

    def __init__(
        self,
        settings: LoopSettings,
        journal: Journal,
        emit: Callable[[TurnEvent], None],
        number: int,
        limit: trio.CapacityLimiter,
    ) -> None:
        self.whole: tuple[Message, ...] = ()
        self._settings = settings
        self._journal = journal
        self._emit = emit
        self._number = number
        self._limit = limit

    async def run(self, position: int, call: ToolCall, entry: JournalCall) -> None:
        async with self._limit:
            if not entry.started:
                await self._journal.start(self._number, position)
            self._emit(ToolStarted(call.id, call.name, call.arguments))
            began = trio.current_time()
            outcome = await run_tool(self._settings.tools[call.name], self._settings.context, call.arguments)
            if outcome.exception is not None:
                log.error("tool.bug", self._settings.context, error=outcome.exception, tool=call.name)
            result = tool_result(call, outcome.text, note=None if outcome.ok else "error")
            self.whole = await self._journal.finish(self._number, position, result) or self.whole
            seconds = trio.current_time() - began
            self._emit(ToolFinished(call.id, call.name, outcome.ok, seconds, outcome.text[:PREVIEW_CHARS]))
