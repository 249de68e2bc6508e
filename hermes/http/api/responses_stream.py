"""A turn's feed as the events of a streamed response. Source: OpenAI's API reference, "Streaming events" (Responses).

Each step of the turn may show thoughts, words, and calls of the client's own functions, each as an item of the output.
Calls of our own tools are not shown. The last event follows the commit, because the feed's does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hermes.http.api.responses_object import (
    Object,
    call_item,
    finished,
    item_id,
    message_item,
    reasoning_item,
    said,
    text_part,
    thoughts_of,
)
from hermes.http.api.stream import Batch, sse_event
from hermes.intake import CallEvent, Ended, ReasoningEvent, StepEvent, TextEvent, ToolStarted, TurnEnd
from hermes.messages import ToolCall


class _Item:
    """An item that is being written."""

    __slots__ = ("call", "id", "index", "pieces")

    def __init__(self, id_: str, index: int, call: ToolCall | None = None) -> None:
        self.id = id_
        self.index = index
        self.call = call
        self.pieces: list[str] = []


class ResponseEvents:
    """Renders one response.

    Args:
        base: the object as `skeleton` made it.
        functions: names of the client's own functions.
        whole: leave out the deltas, and show what the end says in whole items: the answer is a replay.
    """

    def __init__(self, base: Object, functions: Collection[str], *, whole: bool = False) -> None:
        self._base = base
        self._functions = functions
        self._whole = whole
        self._id = str(base["id"])
        self._sequence = 0
        self._items = 0
        self._step = 1
        self._thoughts: _Item | None = None
        self._thoughts_over = False
        self._words: _Item | None = None
        self._calls: dict[int, _Item | None] = {}  # by the call's index; None for calls of our own tools

    def opening(self) -> bytes:
        """The events before all others; nothing when they have been given."""
        if self._sequence:
            return b""
        frames = self._event("response.created", response=self._base)
        return frames + self._event("response.in_progress", response=self._base)

    def render(self, batch: Batch) -> bytes:
        """The frames of some events."""
        frames = [self.opening()]
        for _, event in batch:
            if isinstance(event, Ended):
                frames.append(self._end(event.end))
            elif self._whole:
                continue
            elif isinstance(event, TextEvent):
                frames.append(self._text(event.text))
            elif isinstance(event, ReasoningEvent):
                frames.append(self._reasoning(event.text))
            elif isinstance(event, CallEvent):
                frames.append(self._call(event))
            elif isinstance(event, StepEvent):
                frames.append(self._close())
                self._step += 1
                self._thoughts_over = False
            elif isinstance(event, ToolStarted):
                frames.append(self._close())
        return b"".join(frames)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._sequence
        self._sequence += 1
        return sse_event(kind, {"type": kind, "sequence_number": number, **fields})

    def _added(self, item: Object) -> bytes:
        return self._event("response.output_item.added", output_index=self._items - 1, item=item)

    def _new(self, id_: str, call: ToolCall | None = None) -> _Item:
        item = _Item(id_, self._items, call)
        self._items += 1
        return item

    # -- words ----------------------------------------------------------------------------------------------------------

    def _text(self, text: str) -> bytes:
        head = b""
        item = self._words
        if item is None:
            head = self._close_thoughts()
            item = self._words = self._new(item_id("msg", self._id, self._step))
            empty = {**message_item(item.id, "", complete=True), "status": "in_progress", "content": []}
            head += self._added(empty) + self._event(
                "response.content_part.added", item_id=item.id, output_index=item.index, content_index=0,
                part=text_part(""),
            )  # fmt: skip
        item.pieces.append(text)
        return head + self._event(
            "response.output_text.delta", item_id=item.id, output_index=item.index, content_index=0, delta=text,
            logprobs=[],
        )  # fmt: skip

    def _close_words(self, *, complete: bool) -> bytes:
        item, self._words = self._words, None
        if item is None:
            return b""
        text = "".join(item.pieces)
        where: Object = {"item_id": item.id, "output_index": item.index, "content_index": 0}
        return (
            self._event("response.output_text.done", **where, text=text, logprobs=[])
            + self._event("response.content_part.done", **where, part=text_part(text))
            + self._done(item, message_item(item.id, text, complete=complete))
        )

    def _done(self, item: _Item, value: Object) -> bytes:
        return self._event("response.output_item.done", output_index=item.index, item=value)

    # -- thoughts -------------------------------------------------------------------------------------------------------

    def _reasoning(self, text: str) -> bytes:
        if self._thoughts_over:
            return b""  # a provider that thinks on while it speaks: the finished response has it
        head = b""
        item = self._thoughts
        if item is None:
            item = self._thoughts = self._new(item_id("rs", self._id, self._step))
            empty = {**reasoning_item(item.id, ""), "summary": [], "status": "in_progress"}
            head = self._added(empty) + self._event(
                "response.reasoning_summary_part.added", **_summary(item), part={"type": "summary_text", "text": ""}
            )
        item.pieces.append(text)
        return head + self._event("response.reasoning_summary_text.delta", **_summary(item), delta=text)

    def _close_thoughts(self) -> bytes:
        self._thoughts_over = True
        item, self._thoughts = self._thoughts, None
        if item is None:
            return b""
        text = "".join(item.pieces)
        return (
            self._event("response.reasoning_summary_text.done", **_summary(item), text=text)
            + self._event(
                "response.reasoning_summary_part.done", **_summary(item), part={"type": "summary_text", "text": text}
            )
            + self._done(item, reasoning_item(item.id, text))
        )

    # -- calls ----------------------------------------------------------------------------------------------------------

    def _call(self, event: CallEvent) -> bytes:
        head = b""
        if event.index not in self._calls:
            item = None
            if event.name in self._functions:
                position = sum(each is not None for each in self._calls.values())
                head = self._close_thoughts()
                call = ToolCall(event.id, event.name, "")
                item = self._new(item_id("fc", self._id, self._step, position), call)
                head += self._added(call_item(item.id, call, "in_progress"))
            self._calls[event.index] = item
        item = self._calls[event.index]
        if item is None or not event.arguments:
            return head
        item.pieces.append(event.arguments)
        return head + self._event(
            "response.function_call_arguments.delta", item_id=item.id, output_index=item.index, delta=event.arguments
        )

    def _close_call(self, item: _Item, *, complete: bool) -> bytes:
        assert item.call is not None
        arguments = "".join(item.pieces) or "{}"
        call = ToolCall(item.call.id, item.call.name, arguments)
        return self._event(
            "response.function_call_arguments.done", item_id=item.id, output_index=item.index, name=call.name,
            arguments=arguments,
        ) + self._done(item, call_item(item.id, call, "completed" if complete else "incomplete"))  # fmt: skip

    # -- ends -----------------------------------------------------------------------------------------------------------

    def _close(self, *, complete: bool = True) -> bytes:
        """End every item that this step has begun."""
        frames = self._close_thoughts() + self._close_words(complete=complete)
        for item in self._calls.values():
            if item is not None:
                frames += self._close_call(item, complete=complete)
        self._calls.clear()
        return frames

    def _end(self, end: TurnEnd) -> bytes:
        final = finished(self._base, end)
        complete = final["status"] == "completed"
        frames = self._retell(end, complete=complete) if self._whole else self._close(complete=complete)
        return frames + self._event(f"response.{final['status']}", response=final)

    def _retell(self, end: TurnEnd, *, complete: bool) -> bytes:
        """What a turn that is over has shown, each item in one piece."""
        frames: list[bytes] = []
        messages = said(end)
        for step, message in enumerate(messages, 1):
            last = step == len(messages)
            self._step, self._thoughts_over = step, False
            if thoughts := thoughts_of(message):
                frames.append(self._reasoning(thoughts))
            if message.text:
                frames.append(self._text(message.text))
            calls = end.message.tool_calls if last and end.message is not None else ()
            for index, call in enumerate(calls):
                frames.append(self._call(CallEvent(index, call.id, call.name, call.arguments)))
            frames.append(self._close(complete=complete or not last))
        return b"".join(frames)


def _summary(item: _Item) -> Object:
    return {"item_id": item.id, "output_index": item.index, "summary_index": 0}
