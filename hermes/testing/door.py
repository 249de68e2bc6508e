"""A model without a network for tests of what stands above the model door: scripted replies, held until the test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from hermes.agent.calls import CallDelta, Deadlines, ModelReply, ModelRequest, OnDelta, ReasoningDelta, TextDelta
from hermes.agent.validate import check_history
from hermes.messages import Message, Part, Reasoning, Text, ToolCall, Usage
from hermes.settings import Endpoint


@dataclass(slots=True, kw_only=True)
class Say:
    """One reply.

    Args:
        text: its words, passed on in one delta.
        words: the same in several deltas, instead of `text`.
        reasoning: what it thinks aloud before.
        calls: its tool calls.
        streamed: pass the calls on as they are written, in two pieces each, as a provider does.
        finish_reason: `tool_calls` where there are calls and nothing else is said.
        hold: an event to wait for after the words were passed on.
        hold_before: an event to wait for before anything is passed on.
        error: raised instead of an end.
    """

    text: str = ""
    words: Sequence[str] = ()
    reasoning: str = ""
    streamed: bool = False
    calls: Sequence[ToolCall] = ()
    finish_reason: str = ""
    hold: trio.Event | None = None
    hold_before: trio.Event | None = None
    error: Exception | None = None


@dataclass(slots=True)
class ScriptedDoor:
    """A model door that answers from a script; after its end, and without one, it echoes the last user message.

    Args:
        script: replies in order, or a function from the request to a reply.

    Attributes:
        requests: what was asked, in order; every one passed the provider's own history rules.
        asking: set anew each time a request arrives.
    """

    script: list[Say] | Callable[[ModelRequest], Say] = field(default_factory=list)
    requests: list[ModelRequest] = field(default_factory=list)
    histories: list[list[Message]] = field(default_factory=list)
    asking: trio.Event = field(default_factory=trio.Event)

    async def ask(
        self, request: ModelRequest, *, endpoint: Endpoint | None = None, deadlines: Deadlines, on_delta: OnDelta
    ) -> ModelReply:
        """One call, as `hermes.agent.model.ModelDoor.ask`."""
        assert deadlines.first_byte_s > 0
        check_history(request.history, request.tools)
        self.requests.append(request)
        self.histories.append([entry.message for entry in request.history])
        self.asking.set()
        say = self._next(request)
        if say.hold_before is not None:
            await say.hold_before.wait()
        await trio.lowlevel.checkpoint()
        self._pass_on(say, on_delta)
        if say.hold is not None:
            await say.hold.wait()
        if say.error is not None:
            raise say.error
        text = say.text or "".join(say.words)
        thoughts: tuple[Part, ...] = (Reasoning(say.reasoning),) if say.reasoning else ()
        words: tuple[Part, ...] = (Text(text),) if text else ()
        return ModelReply(
            message=Message(role="assistant", parts=(*thoughts, *words), tool_calls=tuple(say.calls)),
            finish_reason=say.finish_reason or ("tool_calls" if say.calls else "stop"),
            usage=Usage(input_tokens=len(request.history), output_tokens=1),
            model=endpoint.model if endpoint is not None else "scripted",
            endpoint="scripted",
        )

    def _pass_on(self, say: Say, on_delta: OnDelta) -> None:
        if say.reasoning:
            on_delta(ReasoningDelta(say.reasoning))
        for words in (say.text, *say.words):
            if words:
                on_delta(TextDelta(words))
        for index, call in enumerate(say.calls if say.streamed else ()):
            half = len(call.arguments) // 2
            on_delta(CallDelta(index, call.id, call.name, call.arguments[:half]))
            on_delta(CallDelta(index, arguments=call.arguments[half:]))

    def _next(self, request: ModelRequest) -> Say:
        if callable(self.script):
            return self.script(request)
        if self.script:
            return self.script.pop(0)
        last = [entry.message for entry in request.history if entry.message.role == "user"]
        return Say(text=f"echo: {last[-1].text if last else ''}")
