"""Slack's mrkdwn: https://docs.slack.dev/messaging/formatting-message-text

Its three control characters are written as entities. Marks are read by patterns where they touch a space or punctuation outside
and none inside, and there is no way to escape one: a joiner of no width makes a literal sign look like part of a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from hermes.rendering.dialect import Dialect, Piece
from hermes.rendering.leaves import Atom, Container, Leaf, Mark, Marks
from hermes.rendering.tree import strong
from hermes.rendering.units import Unit, size

_SIGNS = {"strong": "*", "em": "_", "s": "~", "code": "`"}
_JOINER = "\u2060"  # keeps a sign from being read as a mark
_APART = "\u200b"  # lets a mark be read inside of a word
_BEFORE = re.compile(r"[\s?.,\-!^;:{(\[%$#+=\"*_~\u200b]\Z")  # what may stand before a mark
_AFTER = re.compile(r"[\s?.,\-!^;:})\]%$#+=\"'*_~]")  # and after it
_BARE = re.compile(
    r"(?<!\w)https?://[^\s<>*`|\\]*[\w/=&%#+~)-]"
)  # an address in the text, without what ends a sentence
_LITERAL = re.compile(r"(?<!\w)[*_~`](?!\s)|(?<!\s)[*_~`](?!\w)|`")
_TICKS = re.compile("`{3,}")


class SlackMrkdwn(Dialect):
    """`mrkdwn` of a message's text and of a section."""

    def __init__(self, unit: Unit, room: int) -> None:
        super().__init__(unit, room)
        self.punctuation = 7 if unit == "byte" else 6  # an entity of five with a joiner
        self._signs: frozenset[str] = frozenset()  # that occur in the block at hand often enough to be read as marks
        self._closed = False  # a mark has just ended

    def is_link(self, address: str) -> bool:
        return self.is_web(address)

    def prepared(self, leaf: Leaf) -> Sequence[Leaf]:
        if leaf.kind == "heading":
            return (replace(leaf, kind="text", atoms=strong(leaf.atoms)),)
        return super().prepared(leaf)

    def piece(self, leaf: Leaf, shown: frozenset[Container]) -> Piece:
        if leaf.kind == "code":  # it begins at the left edge; a marker before it has a line of its own
            first, _ = self.prefixes(leaf, shown)
            own = f"{first.rstrip()}\n" if leaf.fresh < len(leaf.containers) and first.strip(" >") else ""
            return self.measured(f"{own}{self.body(leaf, '')}")
        return super().piece(leaf, shown)

    def body(self, leaf: Leaf, rest: str) -> str:
        if leaf.kind == "code":
            inside = _TICKS.sub(lambda found: _APART.join(found[0]), leaf.text)
            return f"```\n{escape(inside, quote=False)}\n```"
        return super().body(leaf, rest)

    def prefixes(self, leaf: Leaf, shown: frozenset[Container]) -> tuple[str, str]:
        first, rest = super().prefixes(leaf, shown)
        return _quoting(first), _quoting(rest)

    def gap(self, before: Leaf, after: Leaf, shown: frozenset[Container]) -> Piece:
        first, *lines = super().gap(before, after, shown).text.split("\n")
        return self.measured("\n".join([first, *map(_quoting, lines)]))

    def marker(self, item: Container) -> str:
        task = "" if item.task is None else "☑ " if item.task else "☐ "
        return f"{self.bullet(item)} {task}"

    # lines

    def markable(self, atoms: Sequence[Atom]) -> Sequence[Atom]:
        """The same as Slack can read it: marks end with a line, a link is on one, and no mark holds its own sign."""
        found = []
        for each in atoms:
            if each.text == "\n":
                linked = any(mark.kind == "link" for mark in each.marks)
                found.append(each._replace(text=" ") if linked else each._replace(marks=()))
            else:
                found.append(each)
        for kind, sign in _SIGNS.items():
            _without_own(found, kind, sign)
        return found

    def marks(self, marks: Marks) -> Marks:
        """The words of a link hold no mark; there are no spoilers."""
        kept: list[Mark] = []
        for each in marks:
            if each.kind != "spoiler":
                kept.append(each)
            if each.kind in ("link", "address", "code"):
                break
        return tuple(kept)

    def inline(self, atoms: Sequence[Atom], rest: str, *, heading: bool = False) -> str:
        text = "".join(each.text for each in atoms)
        used = {_SIGNS[mark.kind] for each in atoms for mark in each.marks if mark.kind in _SIGNS}
        self._signs = frozenset(sign for sign in "*_~`" if sign in used or text.count(sign) > 1)
        self._closed = False
        return super().inline(atoms, rest, heading=heading)

    def _turn(self, out: list[str], opened: Marks, wanted: Marks) -> None:
        same = 0
        while same < len(opened) and same < len(wanted) and opened[same] == wanted[same]:
            same += 1
        closes, at = len(opened) - same, len(out) + len(opened) - same
        super()._turn(out, opened, wanted)
        self._closed = self._closed or closes > 0
        before = next((each for each in reversed(out[max(0, at - 4) : at]) if each), "")
        if any(each.kind in _SIGNS for each in wanted[same:]) and before and (closes or not _BEFORE.search(before)):
            out.insert(at, _APART)
            self._closed = False

    def open(self, mark: Mark) -> str:
        if mark.kind in ("link", "address"):
            return f"<{_address(mark.argument)}|"
        return _SIGNS.get(mark.kind, "")

    def close(self, mark: Mark) -> str:
        return ">" if mark.kind in ("link", "address") else _SIGNS.get(mark.kind, "")

    def line_end(self, *, hard: bool) -> str:  # noqa: ARG002 - every line's end is seen
        self._closed = False
        return "\n"

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:  # noqa: ARG002
        written = self._words(text, self.marks(marks)) if self._signs else escape(text, quote=False)
        if begins and written.startswith("&gt;"):  # at the beginning of a line it would be a quote
            written = _JOINER + written
        apart = self._closed and not _AFTER.match(written)
        self._closed = False
        return _APART + written if apart else written

    def _words(self, text: str, marks: Marks) -> str:
        """What would be read as a mark disarmed; an address that a mark ends or that has signs of its own as a link."""
        kinds = {each.kind for each in marks}
        if kinds & {"code", "address"}:
            return escape(text, quote=False)
        out: list[str] = []
        at = 0
        for found in _BARE.finditer(text) if "link" not in kinds else ():
            address = found[0] if "(" in found[0] else found[0].rstrip(")")
            if not kinds and self._signs.isdisjoint(address):
                continue
            out += [self._disarmed(text[at : found.start()]), f"<{_address(address)}>"]
            at = found.start() + len(address)
        return "".join([*out, self._disarmed(text[at:])])

    def _disarmed(self, text: str) -> str:
        return escape(_LITERAL.sub(self._literal, text), quote=False)

    def _literal(self, found: re.Match[str]) -> str:
        return f"{_JOINER}{found[0]}{_JOINER}" if found[0] in self._signs else found[0]

    # room, from above

    def bound(self, text: str) -> tuple[int, int]:
        joiners = sum(text.count(sign) for sign in "*_~`>") + 1
        links = 2 * text.count("://")
        return size(escape(text, quote=False), self.unit) + 2 * joiners * size(_JOINER, self.unit) + links + 3, 0

    def marks_bound(self, marks: Marks) -> tuple[int, int]:
        return super().marks_bound(marks)[0] + 2 * size(_APART, self.unit), 0

    def frame(self, leaf: Leaf) -> tuple[int, int]:
        return (12, 0) if leaf.kind == "code" else (30, 0)


def _without_own(atoms: list[Atom], kind: str, sign: str) -> None:
    """Take a mark away from each stretch whose words have its sign."""
    begin = 0
    while begin < len(atoms):
        end = begin
        while end < len(atoms) and any(mark.kind == kind for mark in atoms[end].marks):
            end += 1
        if any(sign in each.text for each in atoms[begin:end]):
            for index in range(begin, end):
                kept = tuple(mark for mark in atoms[index].marks if mark.kind != kind)
                atoms[index] = atoms[index]._replace(marks=kept)
        begin = max(end, begin + 1)


def _quoting(prefix: str) -> str:
    """A prefix as it is written: only a `>` at the beginning of a line is a quote, and a quote holds none."""
    quoted = prefix.startswith(">")
    return ">" * quoted + escape(prefix[quoted:], quote=False)


def _address(address: str) -> str:
    """An address inside of a link."""
    return address.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("`", "%60").replace("&", "&amp;")
