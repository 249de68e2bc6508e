"""What happens in a turn as named server-sent events that explain themselves: for runs and for `hermes chat`."""

from __future__ import annotations

from typing import Any

from hermes.http.api.stream import sse_event
from hermes.intake import ReasoningEvent, StepEvent, TextEvent, ToolFinished, ToolStarted, TurnEvent

MAX_ARGUMENTS = 2000  # characters of a call's arguments that are shown


def named_event(event: TurnEvent, number: int | None = None) -> bytes:
    """An event as a frame; nothing for those that are not shown under a name of their own.

    Args:
        number: its number in the feed, where clients may go on from it.
    """
    shown = _shown(event)
    return b"" if shown is None else sse_event(shown[0], shown[1], number)


def _shown(event: TurnEvent) -> tuple[str, dict[str, Any]] | None:
    match event:
        case TextEvent(text):
            return "message.delta", {"delta": text}
        case ReasoningEvent(text):
            return "reasoning.delta", {"delta": text}
        case StepEvent(number):
            return "step", {"number": number}
        case ToolStarted():
            cut = len(event.arguments) > MAX_ARGUMENTS
            arguments = event.arguments[:MAX_ARGUMENTS] + ("…" if cut else "")
            return "tool.started", {"call_id": event.call_id, "name": event.name, "arguments": arguments}
        case ToolFinished():
            return "tool.completed", {
                "call_id": event.call_id, "name": event.name, "ok": event.ok, "seconds": round(event.seconds, 3),
                "preview": event.preview,
            }  # fmt: skip
        case _:
            return None
