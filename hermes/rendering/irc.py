"""IRC's formatting codes: each switches something on, and the same code switches it off (modern.ircdocs.horse, "IRC Formatting").

They may last over the end of a line; on the wire, where each line stands for itself, the platform switches them on again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hermes.rendering.dialect import Dialect
from hermes.rendering.leaves import Atom, Leaf, Mark, Marks
from hermes.rendering.tree import strong

_CODES: Mapping[str, str] = MappingProxyType({"strong": "\x02", "em": "\x1d", "s": "\x1e", "code": "\x11"})
_CONTROL = dict.fromkeys(range(0x20))  # a code in the source is none of ours
del _CONTROL[0x09], _CONTROL[0x0A]


class Irc(Dialect):
    """Bold, italics, strikethrough and monospace."""

    def prepared(self, leaf: Leaf) -> Sequence[Leaf]:
        if leaf.kind == "heading":
            return (replace(leaf, atoms=strong(leaf.atoms)),)
        return super().prepared(leaf)

    def body(self, leaf: Leaf, rest: str) -> str:
        if leaf.kind != "code":
            return super().body(leaf, rest)
        code = _CODES["code"]
        return code + leaf.text.translate(_CONTROL).replace("\n", "\n" + rest) + code

    def marks(self, marks: Marks) -> Marks:
        return tuple(each for each in marks if each.kind in _CODES)

    def open(self, mark: Mark) -> str:
        return _CODES[mark.kind]

    def close(self, mark: Mark) -> str:
        return _CODES[mark.kind]

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:  # noqa: ARG002
        return text.translate(_CONTROL)

    def frame(self, leaf: Leaf) -> tuple[int, int]:
        units, raw = super().frame(leaf)
        return units + 2, raw
