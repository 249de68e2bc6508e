"""A text to parts: leaves are packed; one that is too long is cut at a sentence, a space, or between what one sees as letters.

Every part is written for itself: its marks are closed, its code has its fences, its quotes are quotes. Sizes are counted on
what is written, so nothing is ever cut out of a string of markup.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from hermes.rendering.dialect import Dialect, Piece
from hermes.rendering.discord import Discord
from hermes.rendering.inline import tidied
from hermes.rendering.irc import Irc
from hermes.rendering.leaves import Atom, Container, Leaf, Marks
from hermes.rendering.marked import Markdown
from hermes.rendering.slack import SlackMrkdwn
from hermes.rendering.tables import without_table
from hermes.rendering.telegram import TelegramHtml
from hermes.rendering.tree import leaves_of
from hermes.rendering.units import UNSPACED, Unit, fitting, is_visible, size

_SENTENCE = re.compile(r"""[.!?\u2026\u3002\uff01\uff1f][)\]"'\u00bb\u201d\u2019]*$""")
_NOTHING = Piece("", 0, 0)
_UNBOUNDED = 1 << 62
Cost = tuple[int, int]  # units, and raw bytes
_DIALECTS = {
    "plain": Dialect,
    "telegram_html": TelegramHtml,
    "discord": Discord,
    "markdown": Markdown,
    "slack": SlackMrkdwn,
    "irc": Irc,
}


def split(
    text: str, name: Literal["plain", "telegram_html", "discord", "markdown", "slack", "irc"], unit: Unit, room: int
) -> tuple[str, ...]:
    """The parts of a markdown text.

    Args:
        text: well-formed.
        name: the dialect.
        unit: of room.
        room: at most so much for each part.
    """
    dialect = _DIALECTS[name](unit, room)
    packing = _Packing(dialect)
    for leaf in leaves_of(text, dialect.is_link):
        for each in dialect.prepared(leaf):
            packing.add(each)
    packing.flush()
    return tuple(packing.parts)


class _Packing:
    """Parts that are done, and the leaves of the next one."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.parts: list[str] = []
        self.written: list[tuple[Leaf, Piece, Piece]] = []
        self.shown: frozenset[Container] = frozenset()
        self.size = self.raw = 0

    def add(self, leaf: Leaf) -> None:
        """Put a leaf into this part or the next, or cut it over several."""
        while True:
            gap = self.dialect.gap(self.written[-1][0], leaf, self.shown) if self.written else _NOTHING
            if self._put_whole(leaf, gap):
                return
            alone = self._fits_alone(leaf)
            if self.written and (alone or self._room(gap)[0] < self.dialect.room // 4):
                self._turn_page()
            elif leaf.kind == "table":
                for each in without_table(leaf):
                    self.add(each)
                return
            else:
                head, tail = cut(self.dialect, leaf, self.shown, *self._room(gap))
                line = leaf.text.partition("\n")[0] if self.written else ""
                if head is not None and len(head.text) < len(line):  # rather a line of code in the next part
                    self._turn_page()
                    continue
                if head is not None:
                    self._put(head, gap, self.dialect.piece(head, self.shown))
                self.flush()
                if tail is None:
                    return
                leaf = tail

    def _put_whole(self, leaf: Leaf, gap: Piece) -> bool:
        room, raw = self._room(gap)
        if _is_longer(leaf, room):
            return False
        piece = self.dialect.piece(leaf, self.shown)
        if piece.size > room or piece.raw > raw:
            return False
        self._put(leaf, gap, piece)
        return True

    def flush(self) -> None:
        """End this part."""
        if self.written:
            part = self.dialect.joined([(leaf, gap.text, piece.text) for leaf, gap, piece in self.written])
            if is_visible(self.dialect.bare(part)):
                self.parts.append(part)
        self.written = []
        self.shown = frozenset()
        self.size = self.raw = 0

    def _turn_page(self) -> None:
        """End this part, and take a heading at its end along to what it is the heading of."""
        last = self.written[-1][0]
        if last.kind == "heading" and len(self.written) > 1:
            self.written.pop()
            self.flush()
            self._put(last, _NOTHING, self.dialect.piece(last, frozenset()))
        else:
            self.flush()

    def _room(self, gap: Piece) -> tuple[int, int]:
        raw = self.dialect.raw_room - self.raw - gap.raw if self.dialect.raw_room else _UNBOUNDED
        return self.dialect.room - self.size - gap.size, raw

    def _fits_alone(self, leaf: Leaf) -> bool:
        if _is_longer(leaf, self.dialect.room):
            return False
        piece = self.dialect.piece(leaf, frozenset())
        return piece.size <= self.dialect.room and piece.raw <= (self.dialect.raw_room or _UNBOUNDED)

    def _put(self, leaf: Leaf, gap: Piece, piece: Piece) -> None:
        self.written.append((leaf, gap, piece))
        self.size += gap.size + piece.size
        self.raw += gap.raw + piece.raw
        self.shown |= frozenset(leaf.containers[leaf.fresh :])


def _is_longer(leaf: Leaf, room: int) -> bool:
    """Whether a leaf is too long whatever its markup: found out without writing it, and without reading all of it."""
    used = len(leaf.text)
    for atoms in (leaf.atoms, *(cell for row in leaf.rows for cell in row)):
        for each in atoms:
            used += len(each.text)
            if used > room:
                return True
    return used > room


def cut(
    dialect: Dialect, leaf: Leaf, shown: frozenset[Container], room: int, raw: int
) -> tuple[Leaf | None, Leaf | None]:
    """The beginning of a leaf that fits, and what is left of it.

    Args:
        dialect: in which it is written.
        leaf: too long as a whole.
        shown: the items whose markers this part has.
        room: units left.
        raw: bytes left, where the dialect bounds them.

    Returns:
        None for a beginning where there is no room for any; None for a rest where there is none.
    """
    first, rest = dialect.prefixes(leaf, shown)
    units, bytes_ = dialect.frame(leaf)
    line = size(rest, dialect.unit) + 1, 6 * len(rest) + 1
    room -= units + size(first, dialect.unit) + line[0]  # code ends with a line of its own
    raw -= bytes_ + 6 * len(first) + line[1]
    if room < 8 + line[0] or raw < 256:
        return None, leaf
    return (_cut_code if leaf.kind == "code" else _cut_text)(dialect, leaf, line, room, raw)


def _cut_code(dialect: Dialect, leaf: Leaf, line: Cost, room: int, raw: int) -> tuple[Leaf | None, Leaf | None]:
    text, at = leaf.text, 0
    while at < len(text):
        end = text.find("\n", at, at + room + 1) + 1 or min(len(text), at + room + 1)
        units, bytes_ = dialect.bound(text[at:end])
        room, raw = room - units - line[0], raw - bytes_ - line[1]
        if room < 0 or raw < 0:
            if not at:
                at = fitting(text[:end], min(room + units, (raw + bytes_) // 6), dialect.punctuation, dialect.unit)
            break
        at = end
    left = _without_blank_lines(text[at:])
    head = replace(leaf, text=text[:at].rstrip())
    if not head.text:  # it began with spaces; what is left has the markers still to show
        return None, replace(leaf, text=left)
    return head, leaf.rest(text=left) if left else None


def _without_blank_lines(text: str) -> str:
    """Code from its first line on that has anything in it."""
    first = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, first) + 1 :]


def _cut_text(dialect: Dialect, leaf: Leaf, line: Cost, room: int, raw: int) -> tuple[Leaf | None, Leaf | None]:
    atoms = leaf.atoms
    sentence, space, index, used, used_raw = 0, 0, 0, 0, 0
    under: Marks | None = None
    for index, atom in enumerate(atoms):
        if atom.text.isspace() and index:
            space = index
            if used > room // 2 and (atom.text == "\n" or _SENTENCE.search(atoms[index - 1].text)):
                sentence = index
        units, bytes_ = line if atom.text == "\n" else dialect.bound(atom.text)
        if atom.marks != under:
            more, more_raw = dialect.marks_bound(atom.marks)
            units, bytes_, under = units + more, bytes_ + more_raw, atom.marks
        used, used_raw = used + units, used_raw + bytes_
        if used > room or used_raw > raw:
            break
        if atom.text[-1] in UNSPACED:
            space = index + 1
    else:
        return leaf, None
    at = sentence or space or index
    if at == 0:
        atoms, at = _halved(dialect, atoms, room, raw), 1
    end, begin = at, at
    while end and atoms[end - 1].text.isspace():
        end -= 1
    while begin < len(atoms) and atoms[begin].text.isspace():
        begin += 1
    head = replace(leaf, atoms=atoms[:end]) if end else None
    return head, leaf.rest(atoms=atoms[begin:]) if begin < len(atoms) else None


def _halved(dialect: Dialect, atoms: tuple[Atom, ...], room: int, raw: int) -> tuple[Atom, ...]:
    """The same with the first word, which does not fit, in two; without its marks where those leave no room for it."""
    word, *others = atoms
    units, bytes_ = dialect.marks_bound(word.marks)
    if any(each.kind == "address" for each in word.marks) or units + 8 > room or bytes_ + 64 > raw:
        word, units, bytes_ = word._replace(marks=()), 0, 0
        others = list(tidied([word, *others])[1:])  # no mark may begin with the space after it
    room = min(room - units - 2, (raw - bytes_) // 6)
    at = fitting(word.text, room, dialect.punctuation, dialect.unit)
    halves = (word._replace(text=each) for each in (word.text[:at], word.text[at:]) if each)
    return (*halves, *others)
