"""A reply as it comes: words, tools while they run, and a sign of life while nothing is to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from hermes.cli.chat.conversation import Completed, Failed, Finished, Started, Step, Thoughts, Told, Words
from hermes.cli.chat.terminal import Terminal
from hermes.cli.chat.text import cut, one_line, short_arguments, width_of

FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_S: Final = 0.1
QUIET_S: Final = 0.2
"""Silence before a sign of life is shown."""


@dataclass(slots=True)
class _Running:
    """A tool that runs."""

    name: str
    arguments: str
    since: float


class Reply:
    """Shows one turn.

    Args:
        terminal: where.
        reasoning: whether what the model thinks aloud is shown.
    """

    def __init__(self, terminal: Terminal, *, reasoning: bool) -> None:
        self._terminal = terminal
        self._painter = terminal.painter
        self._reasoning = reasoning
        self._running: dict[str, _Running] = {}
        self._silent_since: float | None = trio.current_time()
        self._frame = 0
        self._began = False

    def show(self, told: Told) -> bool:
        """Show an event; False for the one that says that the turn did not end well."""
        match told:
            case Words(text):
                self._say(text)
            case Thoughts(text):
                if self._reasoning:
                    self._silent_since = None
                    self._put(self._painter.words(text, "dim"))
            case Step():
                self._put(self._painter.end_words())
                self._began = False
                self._silent_since = trio.current_time()
            case Started():
                self._put(self._painter.end_words())
                self._running[told.call_id] = _Running(
                    one_line(told.name), short_arguments(told.arguments), trio.current_time()
                )
                self._put(self._painter.below(self._below()))
            case Finished():
                self._finish(told)
            case Completed(finish):
                if finish == "length":
                    self._put(self._painter.paragraph("(cut at the model's length limit)", "dim"))
            case Failed(reason):
                self._put(self._painter.paragraph(f"✗ {one_line(reason)}", "bad"))
                return False
        return True

    def end(self) -> None:
        """The turn is over, or nobody waits for it any more; tools that seemed to run are left as they were."""
        for tool in self._running.values():
            self._put(self._painter.line(self._line(tool.name, tool.arguments, "not finished", "bad")))
        self._running.clear()
        self._put(self._painter.end_words())

    async def animate(self) -> None:
        """Show what goes on while nothing else is to be seen; never returns."""
        while True:
            await trio.sleep(FRAME_S)
            self._frame += 1
            below = self._below()
            if below:
                self._put(self._painter.below(below))

    def _say(self, text: str) -> None:
        self._silent_since = None
        if not self._began:
            text = text.lstrip("\n")
            self._began = bool(text)
        self._put(self._painter.words(text))

    def _finish(self, told: Finished) -> None:
        tool = self._running.pop(told.call_id, None)
        arguments = tool.arguments if tool is not None else ""
        outcome = f"{'ok' if told.ok else 'failed'} {_seconds(told.seconds)}"
        self._put(self._painter.line(self._line(one_line(told.name), arguments, outcome, "good" if told.ok else "bad")))
        if not told.ok and (why := one_line(told.preview)):
            self._put(self._painter.line(self._painter.style("  " + cut(why, self._painter.columns - 2), "dim")))
        below = self._below()
        if below:
            self._put(self._painter.below(below))

    def _line(self, name: str, arguments: str, outcome: str, style: str) -> str:
        painter = self._painter
        room = painter.columns - width_of(name) - width_of(outcome) - 6
        shown = cut(arguments, max(8, room)) if painter.control else arguments
        good = style == "good"
        return (
            f"{painter.style('●', 'good' if good else 'bad')} {painter.style(name, 'bold')}"
            f"{'  ' + shown if shown else ''}  {painter.style(outcome, 'dim' if good else 'bad')}"
        )

    def _below(self) -> list[str]:
        frame = FRAMES[self._frame % len(FRAMES)]
        now = trio.current_time()
        if self._running:
            columns = self._painter.columns
            return [
                cut(f"{frame} {tool.name}  {tool.arguments}", columns - 10) + f"  {_seconds(now - tool.since)}"
                for tool in self._running.values()
            ]
        if self._silent_since is None or now - self._silent_since < QUIET_S:
            return []
        return [f"{frame} thinking  {now - self._silent_since:.0f} s · Control-C interrupts"]

    def _put(self, text: str) -> None:
        self._terminal.put(text)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"
