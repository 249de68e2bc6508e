"""What a parsed text is made of: leaves, each a block with its words, inside the quotes and items that hold it. Values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

MarkKind = Literal["strong", "em", "s", "spoiler", "code", "link", "address"]


class Mark(NamedTuple):
    """How a stretch of text is shown.

    Args:
        kind: `address` is a link whose words are its address.
        argument: the address; for `code` the backticks around it.
        number: tells one link or code span from its neighbour; 0 where neighbours may grow together.
    """

    kind: MarkKind
    argument: str = ""
    number: int = 0


Marks: TypeAlias = tuple[Mark, ...]


class Atom(NamedTuple):
    """A word, the space between two, or the end of a line, under its marks from the outside in."""

    text: str
    marks: Marks = ()
    hard: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """A quote, or an item of a list. Each is itself and equal to no other.

    Args:
        kind: which.
        group: the list that an item is of.
        number: of an ordered item, else None.
        delimiter: `.` or `)` after it.
        task: whether it is done, None if it is no task.
        depth: in how many items it is.
    """

    kind: Literal["quote", "item"]
    group: int = 0
    number: int | None = None
    delimiter: str = "."
    task: bool | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A block that holds no blocks.

    Args:
        kind: `text` and `heading` have atoms, `code` has text, `table` has rows, `rule` has nothing.
        containers: from the outside in.
        fresh: containers from this index on begin with this leaf; items among them show their markers.
        lines: its first line and the one after its last, in the source.
        level: of a heading, 1 to 6.
        language: of code.
    """

    kind: Literal["text", "heading", "code", "table", "rule"]
    containers: tuple[Container, ...] = ()
    fresh: int = 0
    lines: tuple[int, int] = (0, 0)
    atoms: tuple[Atom, ...] = ()
    level: int = 0
    text: str = ""
    language: str = ""
    rows: tuple[tuple[tuple[Atom, ...], ...], ...] = ()
    alignments: tuple[str, ...] = ()

    def rest(self, **left: object) -> Leaf:
        """What remains of this leaf after its beginning was taken away: its markers went with that."""
        return replace(self, fresh=len(self.containers), **left)  # type: ignore[arg-type]


def words_of(atoms: tuple[Atom, ...]) -> str:
    """The text of atoms without their marks."""
    return "".join(each.text for each in atoms)
