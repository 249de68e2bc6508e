"""Progress: one line below a reply that takes long, in the same message, edited in place. It goes with the reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from hermes.delivery.live import LiveReply

DRAW_S: Final = 0.2  # joining a reply for each token would cost more than the tokens
CLEAR_S: Final = 2.5
SPEAKS_S: Final = 10.0  # words that came so short ago say themselves that it works
NOTHING: Final = "…"  # what is left of a line where nothing was said: a message cannot be taken back everywhere
MOST_NAMED: Final = 3


@dataclass(slots=True)
class Progress:
    """A turn at work, as it is shown.

    Args:
        live: where.
        after_s: how long a turn may take before anything is said of that; None = nothing ever is.
        every_s: how often the line is written anew.
    """

    live: LiveReply
    after_s: float | None
    every_s: float
    _began: float = field(default_factory=trio.current_time)
    _next: float = 0.0
    _said_at: float = float("-inf")
    _pieces: Sequence[str] = ()
    _words: str = ""
    _shows: bool = False  # the line may be shown: no words that came after it are known to be
    _spoken: bool = False  # words came after it
    _running: dict[str, str] = field(default_factory=dict)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _ended: trio.Event = field(default_factory=trio.Event)

    def words(self, pieces: Sequence[str]) -> None:
        """The reply is these pieces so far; they may grow before the next call."""
        self._pieces = pieces
        now = self._said_at = trio.current_time()
        if now >= self._next:
            self._next = now + DRAW_S
            if self._shows and self._spoken and self.live.drawn == self._words:
                self._shows = False
            self._words = "".join(pieces)
            self._spoken = True
            self.live.update(self._words)

    def began(self, call_id: str, tool: str) -> None:
        """A tool began to run."""
        self._running[call_id] = tool

    def ended(self, call_id: str) -> None:
        """It ended."""
        self._running.pop(call_id, None)

    async def run(self) -> None:
        """Write the line now and whenever it is due, until closed; to be begun after `after_s`."""
        try:
            with self._scope:
                await trio.lowlevel.checkpoint_if_cancelled()  # begun as the turn ended
                while True:
                    if trio.current_time() - self._said_at >= min(SPEAKS_S, self.every_s):
                        self._words = "".join(self._pieces) or self._words
                        self._shows, self._spoken = True, False
                        self.live.update(_below(self._words, self._line()))
                    await trio.sleep(self.every_s)
        finally:
            self._ended.set()

    def _line(self) -> str:
        return line(trio.current_time() - self._began, tuple(self._running.values()))

    async def close(self, *, cut: bool) -> None:
        """Write no more.

        Args:
            cut: no reply follows, which would take the line's place, so that it is taken back, within a bound.
        """
        self._scope.cancel("what was at work has ended")
        with trio.CancelScope(shield=True):
            await self._ended.wait()  # it waits for nothing but the time
        if cut and self._shows:
            await self.live.settle(self._words or NOTHING, CLEAR_S)


def line(seconds: float, running: Sequence[str]) -> str:
    """What is said of a turn that takes long; pure, markdown."""
    took = f"{int(seconds // 60)} min" if seconds >= 60 else f"{int(seconds)} s"
    names = list(dict.fromkeys(running))
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    runs = f", running {', '.join(names[:MOST_NAMED])}{more}" if names else ""
    return f"*still working, {took}{runs}*"


def _below(words: str, what: str) -> str:
    """A line below a text; a fence that is still being written ends before it."""
    if not words.strip():
        return what
    fence = "\n```" if words.count("```") % 2 else ""
    return f"{words.rstrip()}{fence}\n\n{what}"
