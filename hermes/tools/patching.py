"""Replacing an exact piece of a text, and saying where it might be when it is not there. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hermes.errors import ToolError

COMPARED_LINES = 2000  # of a file, when looking for what is nearest
COMPARED_CHARS = 200  # of a line
SHOWN_LINES = 3


@dataclass(frozen=True, slots=True)
class Patched:
    """A text after its replacement.

    Args:
        text: the whole new text.
        lines: the line numbers (from 1, in the old text) at which a replacement begins.
    """

    text: str
    lines: tuple[int, ...]


def apply_patch(text: str, old: str, new: str, *, replace_all: bool = False) -> Patched:
    """Replace `old` by `new`, exactly as written, where `old` occurs once, or everywhere if that was asked.

    A text whose lines all end in CR LF is matched, and written, as if `old` and `new` had such line ends too.

    Raises:
        ToolError: `old` is empty, equals `new`, is not there (with the nearest lines), or is there more than once (with
            the line numbers).
    """
    if not old:
        raise ToolError("old is empty: name the text to replace, or use write_file")
    if old == new:
        raise ToolError("old and new are the same: nothing to do")
    if old not in text and "\r\n" in text and text.count("\n") == text.count("\r\n"):
        old, new = _with_crlf(old), _with_crlf(new)
    starts = _starts(text, old)
    if not starts:
        raise ToolError(f"old was not found. {_nearest(text, old)}")
    lines = _line_numbers(text, starts)
    if len(starts) > 1 and not replace_all:
        shown = ", ".join(map(str, lines[:10])) + (", ..." if len(lines) > 10 else "")
        raise ToolError(
            f"old occurs {len(starts)} times (at lines {shown}): add lines around it until it is the only one, "
            "or set replace_all"
        )
    return Patched(text.replace(old, new), lines)


def _with_crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _starts(text: str, old: str) -> list[int]:
    found, at = [], text.find(old)
    while at >= 0:
        found.append(at)
        at = text.find(old, at + len(old))
    return found


def _line_numbers(text: str, starts: list[int]) -> tuple[int, ...]:
    numbers, line, before = [], 1, 0
    for at in starts:
        line += text.count("\n", before, at)
        before = at
        numbers.append(line)
    return tuple(numbers)


def _nearest(text: str, old: str) -> str:
    """What to look at instead: the first telling line of `old` with other white space, else the most similar line."""
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")[:COMPARED_CHARS]
    if not wanted:
        return "It holds only white space: add a line that can be told from others."
    lines = [line.strip()[:COMPARED_CHARS] for line in text.splitlines()[:COMPARED_LINES]]
    same = [number for number, line in enumerate(lines, 1) if line == wanted]
    if same:
        where = ", ".join(map(str, same[:SHOWN_LINES]))
        return (
            f"Its first line is at line {where} except for white space, or what follows differs: read that part again."
        )
    best, score = 0, 0.6
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
    for number, line in enumerate(lines, 1):
        matcher.set_seq1(line)
        if matcher.real_quick_ratio() > score and matcher.quick_ratio() > score and (ratio := matcher.ratio()) > score:
            best, score = number, ratio
    if not best:
        return "Nothing in the file is similar: read it again."
    return f"The nearest is line {best}: {lines[best - 1]!r}"
