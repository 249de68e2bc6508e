"""Batches: lines that belong together, kept until the last of them is there. Plain.

Source: IRCv3, "Batch".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from platforms.irc.lines import Line

MAX_OPEN = 64
MAX_LINES = 5000  # of one batch; what is beyond is not kept


@dataclass(slots=True)
class Batch:
    """One batch.

    Args:
        kind: such as `chathistory` or `netsplit`.
        params: what its kind needs.
        label: of the question that it answers.
        parent: the batch around it; empty = none.
        lines: what is in it, and in those inside.
    """

    kind: str
    params: tuple[str, ...]
    label: str = ""
    parent: str = ""
    lines: list[Line] = field(default_factory=list)


class Batches:
    """Those that are open."""

    def __init__(self) -> None:
        self._open: dict[str, Batch] = {}

    def take(self, line: Line) -> Batch | Line | None:
        """Take in a line.

        Returns:
            the line itself if it is in no batch, the batch that it ends, or None where there is more to come.
        """
        around = line.tags.get("batch", "")
        if line.command != "BATCH":
            if (batch := self._open.get(around)) is None:
                return line
            if len(batch.lines) < MAX_LINES:
                batch.lines.append(line)
            return None
        name = line.param(0)[1:]
        if line.param(0).startswith("+"):
            self._open[name] = Batch(line.param(1), line.params[2:], line.tags.get("label", ""), around)
            while len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
            return None
        ended = self._open.pop(name, None)
        if ended is not None and (parent := self._open.get(ended.parent)) is not None:
            parent.lines.extend(ended.lines[: MAX_LINES - len(parent.lines)])
            return None
        return ended
