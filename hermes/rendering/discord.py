"""Discord's markdown, which its clients read by patterns and without CommonMark's rules (`discord_reading`). Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from hermes.rendering.dialect import Dialect, Piece
from hermes.rendering.discord_reading import seen
from hermes.rendering.inline import words_in
from hermes.rendering.leaves import Atom, Container, Leaf, Mark, Marks, words_of
from hermes.rendering.marked import HIDDEN, SPECIAL, TICKS, Markdown, escape, neighbours, without_spaces
from hermes.rendering.tree import strong
from hermes.rendering.units import Unit

# What Discord shows as more than its characters, and what a backslash would break.
_SPECIAL_OR_KEPT = re.compile(
    r"(?P<address>https?://[^\s<]+)|(?P<kept><(?:a?:\w+:|[@#][!&]?|t:-?)[0-9]+(?::\w)?>)|[\\*_`~|\[\]<&]"
)
_BARE = re.compile(r"[^>*`|\\]+")  # an address in which Discord finds no mark
_HAS_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_LAST_ADDRESS = re.compile(r"https?://[^\s<]+\Z")
_PING = re.compile(r"@(?=everyone|here)")
_ENDS = (".", ",", ":", ";")  # after an address, they are not taken for a part of it


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
        kinds = [each.kind for each in leaf.containers]
        if leaf.kind == "heading" and (leaf.level > 3 or "item" in kinds or kinds.count("quote") > 1):
            leaf = replace(leaf, kind="text", atoms=strong(leaf.atoms))
        return [
            replace(each, atoms=_for_discord(each)) if each.atoms else each for each in Dialect.prepared(self, leaf)
        ]

    def piece(self, leaf: Leaf, shown: frozenset[Container]) -> Piece:
        if leaf.kind == "code":  # read at the left edge only; quotes go on, items cannot hold it
            first, _ = self.prefixes(leaf, shown)
            quotes = "> " * min(1, sum(each.kind == "quote" for each in leaf.containers))
            own = f"{first.rstrip()}\n" if leaf.fresh < len(leaf.containers) and first.strip(" >") else ""
            return self.measured(f"{own}{quotes}{self.body(leaf, quotes)}")
        return super().piece(leaf, shown)

    def gap(self, before: Leaf, after: Leaf, shown: frozenset[Container]) -> Piece:
        return Dialect.gap(self, before, after, shown)

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
        return TICKS.sub(lambda found: HIDDEN.join(found[0]), text)

    def open(self, mark: Mark) -> str:
        return "" if mark.kind == "address" else super().open(mark).rstrip()

    def close(self, mark: Mark) -> str:
        return "" if mark.kind == "address" else super().close(mark).lstrip()

    def line_end(self, *, hard: bool) -> str:  # noqa: ARG002 - every line's end is seen
        return "\n"

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:
        if marks and marks[-1].kind == "address":
            # Bare it has a preview; among marks, or before more of a word, it would swallow those.
            ends = after is None or after.text.isspace() or after.text in _ENDS
            return text if len(marks) == 1 and ends else f"<{text}>"
        if marks and marks[-1].kind == "code":
            return f"{' ' * text.startswith('`')}{text}{' ' * text.endswith('`')}"
        last = _LAST_ADDRESS.search(text) if after is not None and set(after.marks) - set(marks) else None
        if last is not None:  # it would take the mark that begins after it for its own
            return self.run(text[: last.start()], marks, begins=begins, after=None, heading=heading) + _unaddressed(
                last[0]
            )
        written = super().run(text, marks, begins=begins, after=after, heading=heading)
        if heading and begins and text.startswith("#"):
            written = "\\" + written.removeprefix("\\")
        kinds = [each.kind for each in marks]
        if "link" in kinds and "code" not in kinds:
            written = written.replace("]", "\\]")
        return _PING.sub("@" + HIDDEN, written) if "@" in written else written

    def is_doubtful(self, atoms: Sequence[Atom]) -> bool:
        return any(each.marks or "://" in each.text for each in atoms)

    def read(self, written: str) -> str:
        return without_spaces(seen(written))

    def escaped(self, text: str) -> str:
        if not SPECIAL.search(text):
            return text
        return _SPECIAL_OR_KEPT.sub(_escape, text)


def _for_discord(leaf: Leaf) -> tuple[Atom, ...]:
    """The words of a leaf with marks as Discord takes them.

    In a quote some clients read each line by itself, so there a mark ends with its line. A link whose words hold an address
    is none: it could pretend to lead there. Code is none if it holds backticks in a row, of which three begin a block, or
    brackets inside a link, whose words they would end.
    """
    found = []
    atoms = _without_posing_links(leaf.atoms)
    plain = {each.marks[-1] for each in atoms if each.marks and each.marks[-1].kind == "code" and _is_no_code(each)}
    for each in atoms:
        marks = each.marks
        if marks and marks[-1] in plain:
            marks = marks[:-1]
        if each.text == "\n" and leaf.containers:
            marks = ()
        found.append(each if marks is each.marks else each._replace(marks=marks))
    return tuple(found)


def _is_no_code(atom: Atom) -> bool:
    if "``" in atom.text:
        return True
    return any(mark.kind == "link" for mark in atom.marks) and ("[" in atom.text or "]" in atom.text)


def _without_posing_links(atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
    found: list[Atom] = []
    for link, group in itertools.groupby(atoms, lambda each: next((m for m in each.marks if m.kind == "link"), None)):
        inside = list(group)
        label = words_of(tuple(inside))
        if link is None or not _HAS_ADDRESS.search(label):
            found += inside
            continue
        found += (each._replace(marks=tuple(mark for mark in each.marks if mark != link)) for each in inside)
        if label != link.argument:
            found += (Atom(" "), *words_in(f"({link.argument})"))
    return tuple(found)


def _unaddressed(address: str) -> str:
    """An address that is none to Discord, so that its signs can be escaped."""
    scheme, _, rest = address.partition("//")
    return f"{scheme}\\//{_SPECIAL_OR_KEPT.sub(_escape, rest)}"


def _escape(found: re.Match[str]) -> str:
    if found["kept"]:
        return found["kept"]
    if found["address"]:
        if _BARE.fullmatch(found["address"]) and found.string[found.end() : found.end() + 1] != "<":
            return found["address"]
        return _unaddressed(found["address"])
    character = found[0]
    before, after = neighbours(found)
    if character in "&]":
        return character
    if character == "<":
        return "\\<" if found.string[found.end() : found.end() + 4].lower() == "http" else character
    if character == "_":  # the end of a slanted stretch may be anywhere below, even in code
        return "\\_"
    if character == "\\" and not after.isascii():
        return "\\\\"
    if character == "|" and "|" not in (before, after) and before and after:
        return character
    return escape(found)
