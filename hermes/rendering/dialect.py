"""What a dialect is: how leaves are written, and how much room that takes. The base writes plain text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from hermes.rendering.leaves import Atom, Container, Leaf, Mark, Marks
from hermes.rendering.tables import without_table
from hermes.rendering.units import Unit, size

_WEB = re.compile(r"https?://[^\s/?#]+", re.IGNORECASE)
_BULLETS = "•◦▪"


class Piece(NamedTuple):
    """A leaf as written.

    Args:
        text: it.
        size: units that the service counts.
        raw: bytes of the text, where the service bounds those beside; else 0.
    """

    text: str
    size: int
    raw: int = 0


class Dialect:
    """Plain text, and what other dialects share: where they differ, they override.

    Args:
        unit: what is counted.
        room: units of a part.
    """

    raw_room = 0
    keeps_indent = True  # of what continues an item that began in an earlier part
    punctuation = 1  # units that an ASCII punctuation mark takes at most, escaped

    def __init__(self, unit: Unit, room: int) -> None:
        self.unit = unit
        self.room = room
        self.longest_address = min(2000, room // 4)

    # what a text may hold

    def is_link(self, address: str) -> bool:  # noqa: ARG002 - plain text has none
        """Whether this dialect can link to an address; others are shown beside the words."""
        return False

    def is_web(self, address: str) -> bool:
        """An http address that may be part of a marked text without filling it."""
        return len(address) <= self.longest_address and _WEB.match(address) is not None

    def prepared(self, leaf: Leaf) -> Sequence[Leaf]:
        """A leaf as those that the dialect can write."""
        if leaf.kind == "table":
            return without_table(leaf)
        if len(leaf.language) > self.room // 8:
            return (replace(leaf, language=""),)
        return (leaf,)

    # writing

    def piece(self, leaf: Leaf, shown: frozenset[Container]) -> Piece:
        """A leaf, written.

        Args:
            leaf: one of `prepared`.
            shown: the items whose markers the same part has already.
        """
        first, rest = self.prefixes(leaf, shown)
        return self.measured(first + self.body(leaf, rest) if leaf.atoms or leaf.kind != "text" else first.rstrip())

    def body(self, leaf: Leaf, rest: str) -> str:
        """A leaf without the prefix of its first line."""
        if leaf.kind == "code":
            return leaf.text.replace("\n", "\n" + rest)
        if leaf.kind == "rule":
            return "─" * 10
        return self.inline(leaf.atoms, rest)

    def measured(self, text: str) -> Piece:
        """A text that is sent as it is."""
        return Piece(text, size(text, self.unit))

    def gap(self, before: Leaf, after: Leaf, shown: frozenset[Container]) -> Piece:  # noqa: ARG002
        """What stands between two leaves: a blank line if the source had one there.

        Args:
            before: one.
            after: the other, as it will be written.
            shown: the items whose markers the same part has already.
        """
        quoted = "> " * sum(
            one is other and one.kind == "quote"
            for one, other in zip(before.containers, after.containers, strict=False)
        )
        adjacent = after.lines[0] <= before.lines[1]
        return self.measured("\n" if adjacent else f"\n{quoted.rstrip()}\n")

    def joined(self, written: Sequence[tuple[Leaf, str, str]]) -> str:
        """A part of leaves, each with the gap before it and its text."""
        return "".join(gap + text for _, gap, text in written)

    def bare(self, part: str) -> str:
        """A part without what nobody sees of it even where nothing is marked."""
        return part

    # prefixes

    def prefixes(self, leaf: Leaf, shown: frozenset[Container]) -> tuple[str, str]:
        """What the first line of a leaf begins with, and the others."""
        columns = self._columns(leaf, shown)
        return "".join(first for first, _ in columns), "".join(rest for _, rest in columns)

    def prefix(self, leaf: Leaf, shown: frozenset[Container], count: int) -> str:
        """What its lines but the first begin with by the outermost `count` containers."""
        return "".join(rest for _, rest in self._columns(leaf, shown)[:count])

    def _columns(self, leaf: Leaf, shown: frozenset[Container]) -> list[tuple[str, str]]:
        """For each container what it adds to the first line and to the others: the outermost nothing, where it gets too much."""
        found: list[tuple[str, str]] = []
        for index, each in enumerate(leaf.containers):
            if each.kind == "quote":
                one = other = self.quote()
            else:
                one = self.marker(each)
                other = " " * self.indent(each)
                if index < leaf.fresh:
                    one = other = other if self.keeps_indent or each in shown else ""
            found.append((one, other))
        for index in range(len(found)):
            first, rest = ("".join(each) for each in zip(*found, strict=True))
            if max(size(first, self.unit), size(rest, self.unit)) <= self.room // 4:
                break
            found[index] = ("", "")
        return found

    def quote(self) -> str:
        """What each line of a quote begins with."""
        return "> "

    def marker(self, item: Container) -> str:
        """What the first line of an item begins with."""
        task = "" if item.task is None else "[x] " if item.task else "[ ] "
        return f"{self.bullet(item)} {task}"

    def bullet(self, item: Container) -> str:
        """Its number or bullet."""
        if item.number is None:
            return _BULLETS[min(item.depth, len(_BULLETS) - 1)]
        return f"{item.number}{item.delimiter}"

    def indent(self, item: Container) -> int:
        """Columns by which its other lines are moved."""
        return len(self.bullet(item)) + 1

    # lines

    def inline(self, atoms: Sequence[Atom], rest: str, *, heading: bool = False) -> str:
        """The words of a block with their marks; every line but the first begins with `rest`."""
        out: list[str] = []
        opened: Marks = ()
        begins = True
        atoms = self.markable(atoms)
        index = 0
        while index < len(atoms):
            atom = atoms[index]
            marks = self.marks(atom.marks) if atom.marks else ()
            if marks != opened:
                self._turn(out, opened, marks)
                opened = marks
            index += 1
            if atom.text == "\n":
                out.append(self.line_end(hard=atom.hard) + rest)
                begins = True
                continue
            first = index - 1
            while index < len(atoms) and atoms[index].marks == atom.marks and atoms[index].text != "\n":
                index += 1
            text = "".join([each.text for each in atoms[first:index]])
            after = atoms[index] if index < len(atoms) else None
            out.append(self.run(text, atom.marks, begins=begins, after=after, heading=heading))
            begins = False
        self._turn(out, opened, ())
        return "".join(out)

    def markable(self, atoms: Sequence[Atom]) -> Sequence[Atom]:
        """The same without marks that the dialect could not read back where they are."""
        return atoms

    def _turn(self, out: list[str], opened: Marks, wanted: Marks) -> None:
        """Close what is not wanted any more, innermost first, and open what is."""
        same = 0
        while same < len(opened) and same < len(wanted) and opened[same] == wanted[same]:
            same += 1
        out.extend(self.close(mark) for mark in reversed(opened[same:]))
        out.extend(self.open(mark) for mark in wanted[same:])

    def marks(self, marks: Marks) -> Marks:
        """Those that the dialect can show together."""
        return () if marks else marks

    def open(self, mark: Mark) -> str:  # noqa: ARG002
        """What begins a mark."""
        return ""

    def close(self, mark: Mark) -> str:  # noqa: ARG002
        """What ends it."""
        return ""

    def line_end(self, *, hard: bool) -> str:  # noqa: ARG002
        """The end of a line inside a block: in a chat it is always seen."""
        return "\n"

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:  # noqa: ARG002
        """Words under the same marks, with what needs it escaped.

        Args:
            text: they.
            marks: of the source.
            begins: nothing stands before them in their line.
            after: what follows.
            heading: of a heading.
        """
        return text

    # room, from above

    def bound(self, text: str) -> tuple[int, int]:
        """Units and raw bytes that a text takes at most."""
        units = size(text, self.unit)
        if self.punctuation > 1:
            units += (self.punctuation - 1) * sum(map(_is_punctuation, text))
        return units, 0

    def marks_bound(self, marks: Marks) -> tuple[int, int]:
        """Units and raw bytes that these marks take at most, opened and closed."""
        text = "".join(self.open(each) + self.close(each) for each in self.marks(marks))
        return size(text, self.unit), 0

    def frame(self, leaf: Leaf) -> tuple[int, int]:
        """Units and raw bytes that a leaf takes beside its prefixes, its words and their marks."""
        return (0, 0) if leaf.kind != "rule" else (30, 0)


def _is_punctuation(character: str) -> bool:
    return character < "\x7f" and not character.isalnum() and character not in " \n"
