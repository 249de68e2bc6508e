"""Markdown as output: the canonical kind, and what others that are close to it share. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from hermes.rendering.dialect import Dialect, Piece
from hermes.rendering.flanks import readable, touching
from hermes.rendering.inline import tidied, words_in
from hermes.rendering.leaves import Atom, Container, Leaf, Mark, Marks
from hermes.rendering.tree import leaves_of
from hermes.rendering.units import width

_DELIMITERS = {"strong": "**", "em": "*", "s": "~~", "spoiler": "||"}
HIDDEN = "\u200b"  # a space of no width, between what a service would read as one
TICKS = re.compile("`{3,}")
_LINE_START = re.compile(r"(?:#{1,6}|-#|[-+*=:]|[0-9]{1,9}[.)])(?=\s|$)|>|~~~|[-=:+][-=:|]")
_CLOSING = re.compile(r"(?<!\S)#+(?=\s*$)")
SPECIAL = re.compile(r"[\\*_`~|\[\]<&]")
# What is left of the marks, try by try, until what is written is read as what was meant.
_PLAINER = (
    {"strong", "em", "s", "spoiler", "code", "link", "address"},
    {"code", "link", "address"},
    {"link", "address"},
)
_SAFE = "/:?#@!$&+,;=%-._~'*"


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
        return "`" * max(3, *(len(each) + 1 for each in TICKS.findall(text)), 3)

    def code(self, text: str) -> str:
        """The text inside a fence."""
        return text

    def gap(self, before: Leaf, after: Leaf, shown: frozenset[Container]) -> Piece:
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
        return self.measured("\n" if close else f"\n{self.prefix(after, shown, same).rstrip()}\n")

    def marker(self, item: Container) -> str:
        task = "" if item.task is None else "[x] " if item.task else "[ ] "
        return f"{self.bullet(item)} {task}"

    def bullet(self, item: Container) -> str:
        return "-" if item.number is None else f"{item.number}{item.delimiter}"

    def marks(self, marks: Marks) -> Marks:
        return marks

    def inline(self, atoms: Sequence[Atom], rest: str, *, heading: bool = False) -> str:
        """The same; where that could be read otherwise it is read again, and loses marks until it has the words meant."""
        if not self.is_doubtful(atoms):
            return super().inline(atoms, rest, heading=heading)
        wanted = without_spaces("".join(each.text for each in atoms))
        bare: Sequence[Atom] = atoms
        for kinds in _PLAINER:
            bare = [each._replace(marks=tuple(mark for mark in each.marks if mark.kind in kinds)) for each in atoms]
            alone = super().inline(bare, "", heading=heading)
            if self.read(alone) == wanted:
                return alone if not rest else super().inline(bare, rest, heading=heading)
        return super().inline(bare, rest, heading=heading)

    def is_doubtful(self, atoms: Sequence[Atom]) -> bool:
        """Whether what is written might be read otherwise than it was meant."""
        return touching(atoms)

    def read(self, written: str) -> str:
        """What a reader of this dialect sees of a paragraph, without its spaces."""
        return without_spaces("".join(atom.text for leaf in leaves_of(written, bool) for atom in leaf.atoms))

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
        if heading:
            written = _CLOSING.sub(r"\\\g<0>", written)
        if written.endswith("!") and after is not None and any(each.kind == "link" for each in after.marks):
            written = written[:-1] + "\\!"
        return written

    def escaped(self, text: str) -> str:
        """A text with a backslash before each character that would mean something."""
        return SPECIAL.sub(escape, text) if SPECIAL.search(text) else text

    def frame(self, leaf: Leaf) -> tuple[int, int]:
        if leaf.kind != "code":
            return (20, 0)
        return 2 * len(self.fence(leaf.text)) + len(leaf.language) + 12, 0

    def bound(self, text: str) -> tuple[int, int]:
        return super().bound(text)[0] + 2, 0  # what begins a line, and a number's end


def _delimiter(columns: int, alignment: str) -> str:
    left = ":" if alignment in ("left", "center") else "-"
    right = ":" if alignment in ("right", "center") else "-"
    return f"| {left}{'-' * (columns - 2)}{right} "


def without_spaces(text: str) -> str:
    """What is compared of two readings."""
    return "".join(text.replace(HIDDEN, "").split())


def neighbours(found: re.Match[str]) -> tuple[str, str]:
    """The characters around a match; empty at an end of the text."""
    text = found.string
    return text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]


def escape(found: re.Match[str]) -> str:
    """A special character, with a backslash if it could mean something where it stands."""
    character = found[0]
    before, after = neighbours(found)
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
