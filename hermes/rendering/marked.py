"""Markdown as output: the canonical kind, and Discord's, which is close to it. Pure.

Discord reads by patterns, from the left, without CommonMark's rules (https://support.discord.com/hc/articles/210298617).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from hermes.rendering.dialect import Dialect, Piece
from hermes.rendering.flanks import readable, touching
from hermes.rendering.inline import tidied, words_in
from hermes.rendering.leaves import Atom, Container, Leaf, Mark, Marks
from hermes.rendering.tree import leaves_of, strong
from hermes.rendering.units import Unit, width

_DELIMITERS = {"strong": "**", "em": "*", "s": "~~", "spoiler": "||"}
_HIDDEN = "\u200b"  # a space of no width, between what Discord would read as one
_TICKS = re.compile("`{3,}")
_LINE_START = re.compile(r"(?:#{1,6}|-#|[-+*=:]|[0-9]{1,9}[.)])(?=\s|$)|>|~~~|[-=:+][-=:|]")
_CLOSING = re.compile(r"(?<!\S)#+(?=\s*$)")
_SPECIAL = re.compile(r"[\\*_`~|\[\]<&]")
# What Discord shows as more than its characters, and what a backslash would break.
_KEPT = re.compile(r"https?://[^\s<>*`|\\]+|<(?:a?:\w+:|[@#][!&]?|t:-?)[0-9]+(?::\w)?>")
_PING = re.compile(r"@(?=everyone|here)")


class Markdown(Dialect):
    """Canonical CommonMark with tables, strikethrough and spoilers: parsed again, it has the same text."""

    keeps_indent = False  # indented by four, what continues a nested item would be code
    punctuation = 2

    def is_link(self, address: str) -> bool:
        return bool(address) and len(address) <= self.longest_address

    def prepared(self, leaf: Leaf) -> Sequence[Leaf]:
        if leaf.kind == "table" and self._is_plain(leaf):
            return (leaf,)
        if leaf.kind == "code" and len(self.fence(leaf.text)) > self.room // 8:
            lines = [atom for line in leaf.text.split("\n") for atom in (*words_in(line), Atom("\n"))]
            return (replace(leaf, kind="text", text="", atoms=tidied(lines)),)
        return super().prepared(leaf)

    def _is_plain(self, leaf: Leaf) -> bool:
        """Whether a table can be written as one: in the code of a cell, a `|` would be its end."""
        return not any(
            mark.kind == "code" and "|" in atom.text
            for row in leaf.rows for cell in row for atom in cell for mark in atom.marks
        )  # fmt: skip

    def body(self, leaf: Leaf, rest: str) -> str:
        if leaf.kind == "code":
            fence = self.fence(leaf.text)
            return f"{fence}{leaf.language}\n{self.code(leaf.text)}\n{fence}".replace("\n", "\n" + rest)
        if leaf.kind == "rule":
            return "***"
        if leaf.kind == "table":
            return self._table(leaf).replace("\n", "\n" + rest)
        lead = "#" * leaf.level + " " if leaf.kind == "heading" else ""
        return lead + self.inline(leaf.atoms, rest, heading=leaf.kind == "heading")

    def _table(self, leaf: Leaf) -> str:
        rows = [[self.inline(cell, "") for cell in row] for row in leaf.rows]
        widths = [max(3, *(width(row[column]) for row in rows)) for column in range(len(rows[0]))]
        lines = ["".join(f"| {cell}{' ' * (most - width(cell))} " for cell, most in zip(row, widths, strict=True)) + "|"
                 for row in rows]  # fmt: skip
        lines.insert(1, "".join(map(_delimiter, widths, leaf.alignments)) + "|")
        return "\n".join(lines)

    def fence(self, text: str) -> str:
        """Longer than any in the code."""
        return "`" * max(3, *(len(each) + 1 for each in _TICKS.findall(text)), 3)

    def code(self, text: str) -> str:
        """The text inside a fence."""
        return text

    def gap(self, before: Leaf, after: Leaf) -> Piece:
        """A blank line, which quotes go on over; none between the items of a list that had none."""
        same = 0
        for one, other in zip(before.containers, after.containers, strict=False):
            if one is not other:
                break
            same += 1
        own = after.containers[same : same + 1]
        siblings = any(each.group == other.group for each in before.containers[same : same + 1] for other in own)
        inside = any(each.kind == "item" for each in after.containers[:same]) and before.kind == "text"
        begun = before.fresh < len(before.containers)  # what goes on from an earlier part has lost its item
        adjacent = begun and after.lines[0] <= before.lines[1]
        close = adjacent and own and own[0].kind == "item" and (siblings or inside)
        quoted = "> " * sum(each.kind == "quote" for each in after.containers[:same])
        return self.measured("\n" if close else f"\n{quoted.rstrip()}\n")

    def marker(self, item: Container) -> str:
        task = "" if item.task is None else "[x] " if item.task else "[ ] "
        return f"{self.bullet(item)} {task}"

    def bullet(self, item: Container) -> str:
        return "-" if item.number is None else f"{item.number}{item.delimiter}"

    def marks(self, marks: Marks) -> Marks:
        return marks

    def inline(self, atoms: Sequence[Atom], rest: str, *, heading: bool = False) -> str:
        """The same; where marks touch, it is read again, and has no emphasis if that would show other words."""
        written = super().inline(atoms, rest, heading=heading)
        if not touching(atoms):
            return written
        alone = super().inline(atoms, "", heading=heading) if rest else written
        if _read(alone) == "".join("".join(each.text for each in atoms).replace(_HIDDEN, "").split()):
            return written
        bare = [
            each._replace(marks=tuple(mark for mark in each.marks if mark.kind not in _DELIMITERS)) for each in atoms
        ]
        return super().inline(bare, rest, heading=heading)

    def markable(self, atoms: Sequence[Atom]) -> Sequence[Atom]:
        return readable(atoms) if any(each.marks for each in atoms) else atoms

    def open(self, mark: Mark) -> str:
        if mark.kind == "code":
            return mark.argument
        return {"link": "[", "address": "<"}.get(mark.kind) or _DELIMITERS[mark.kind]

    def close(self, mark: Mark) -> str:
        if mark.kind == "code":
            return mark.argument[::-1]
        if mark.kind == "link":
            return f"]({quote(mark.argument, safe=_SAFE)})"
        return ">" if mark.kind == "address" else _DELIMITERS[mark.kind]

    def line_end(self, *, hard: bool) -> str:
        return "\\\n" if hard else "\n"

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:
        if any(each.kind in ("code", "address") for each in marks):
            return text
        written = self.escaped(text)
        if begins and _LINE_START.match(text):
            digits = len(text) - len(text.lstrip("0123456789"))
            written = written if written[digits] == "\\" else f"{written[:digits]}\\{written[digits:]}"
        elif heading:
            written = _CLOSING.sub(r"\\\g<0>", written)
        if written.endswith("!") and after is not None and any(each.kind == "link" for each in after.marks):
            written = written[:-1] + "\\!"
        return written

    def escaped(self, text: str) -> str:
        """A text with a backslash before each character that would mean something."""
        return _SPECIAL.sub(_escape, text) if _SPECIAL.search(text) else text

    def frame(self, leaf: Leaf) -> tuple[int, int]:
        if leaf.kind != "code":
            return (20, 0)
        return 2 * len(self.fence(leaf.text)) + len(leaf.language) + 12, 0

    def bound(self, text: str) -> tuple[int, int]:
        return super().bound(text)[0] + 2, 0  # what begins a line, and a number's end


_SAFE = "/:?#@!$&+,;=%-._~'*"


class Discord(Markdown):
    """Discord's markdown. Its `allowed_mentions` decide who is notified; two words are also made harmless here."""

    punctuation = 2

    def __init__(self, unit: Unit, room: int) -> None:
        super().__init__(unit, room)
        if unit == "byte":
            self.punctuation = 4  # the space of no width has three bytes

    def is_link(self, address: str) -> bool:
        return self.is_web(address)

    def prepared(self, leaf: Leaf) -> Sequence[Leaf]:
        if leaf.kind == "heading" and (leaf.level > 3 or any(each.kind == "item" for each in leaf.containers)):
            return (replace(leaf, kind="text", atoms=strong(leaf.atoms)),)
        return Dialect.prepared(self, leaf)

    def piece(self, leaf: Leaf, shown: frozenset[Container]) -> Piece:
        if leaf.kind == "code":  # read at the left edge only; quotes go on, items cannot hold it
            first, _ = self.prefixes(leaf, shown)
            quotes = "> " * min(1, sum(each.kind == "quote" for each in leaf.containers))
            own = f"{first.rstrip()}\n" if leaf.fresh < len(leaf.containers) and first.strip(" >") else ""
            return self.measured(f"{own}{quotes}{self.body(leaf, quotes)}")
        return super().piece(leaf, shown)

    def gap(self, before: Leaf, after: Leaf) -> Piece:
        return Dialect.gap(self, before, after)

    def body(self, leaf: Leaf, rest: str) -> str:
        return "─" * 10 if leaf.kind == "rule" else super().body(leaf, rest)

    def marker(self, item: Container) -> str:
        task = "" if item.task is None else "☑ " if item.task else "☐ "
        return f"{self.bullet(item)} {task}"

    def bullet(self, item: Container) -> str:
        return "-" if item.number is None else f"{item.number}."

    def fence(self, text: str) -> str:  # noqa: ARG002 - it knows no longer ones
        return "```"

    def code(self, text: str) -> str:
        return _TICKS.sub(lambda found: _HIDDEN.join(found[0]), text)

    def open(self, mark: Mark) -> str:
        return "" if mark.kind == "address" else super().open(mark)

    def close(self, mark: Mark) -> str:
        return "" if mark.kind == "address" else super().close(mark)

    def line_end(self, *, hard: bool) -> str:  # noqa: ARG002 - every line's end is seen
        return "\n"

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:
        if marks and marks[-1].kind == "address":
            # Bare it has a preview; among marks it would swallow their ends.
            return text if len(marks) == 1 else f"<{text}>"
        written = super().run(text, marks, begins=begins, after=after, heading=heading)
        kinds = [each.kind for each in marks]
        if "link" in kinds and "code" not in kinds:
            written = written.replace("]", "\\]")
        return _PING.sub("@" + _HIDDEN, written) if "@" in written else written

    def escaped(self, text: str) -> str:
        if not _SPECIAL.search(text):
            return text
        out, at = [], 0
        for found in _KEPT.finditer(text):
            out += [_SPECIAL.sub(_escape_for_discord, text[at : found.start()]), found[0]]
            at = found.end()
        return "".join(out) + _SPECIAL.sub(_escape_for_discord, text[at:])


def _delimiter(columns: int, alignment: str) -> str:
    left = ":" if alignment in ("left", "center") else "-"
    right = ":" if alignment in ("right", "center") else "-"
    return f"| {left}{'-' * (columns - 2)}{right} "


def _read(written: str) -> str:
    """What a reader of CommonMark sees of a paragraph, without its spaces."""
    words = "".join(atom.text for leaf in leaves_of(written, bool) for atom in leaf.atoms)
    return "".join(words.replace(_HIDDEN, "").split())


def _neighbours(found: re.Match[str]) -> tuple[str, str]:
    text = found.string
    return text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    before, after = _neighbours(found)
    if character == "\\" and after.isalnum():
        return character
    if character == "_" and before.isalnum() and after.isalnum():
        return character
    if character == "~" and "~" not in (before, after) and before and after:
        return character
    if character == "<" and after and not (after.isalpha() or after in "/!?"):
        return character
    if character == "&" and after and not (after.isalnum() or after == "#"):
        return character
    return "\\" + character


def _escape_for_discord(found: re.Match[str]) -> str:
    character = found[0]
    before, after = _neighbours(found)
    if character in "<&]":
        return character
    if character == "|" and "|" not in (before, after) and before and after:
        return character
    return _escape(found)
