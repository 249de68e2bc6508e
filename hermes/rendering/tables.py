"""Tables where a service has none: aligned columns in a monospaced font, or, too wide for that, a list of the rows. Pure."""

from __future__ import annotations

from dataclasses import replace

from hermes.rendering.inline import tidied
from hermes.rendering.leaves import Atom, Container, Leaf, words_of
from hermes.rendering.tree import strong
from hermes.rendering.units import is_visible, width

MAX_WIDTH = 48  # columns: about what a telephone shows without wrapping
_GAP = "  "


def without_table(leaf: Leaf) -> list[Leaf]:
    """A table as the leaves that show it, each cell's words once, in order; in a list each row repeats the head's.

    Columns would be code, which holds no links, so a table with some is a list, too. Where no row has any words, the head
    alone is shown.
    """
    rows = [[words_of(cell) for cell in row] for row in leaf.rows]
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    wide = sum(widths) + len(_GAP) * (len(widths) - 1) > MAX_WIDTH
    if not any(widths):
        return []
    if (wide and len(rows) > 1) or _has_links(leaf):
        return _as_list(leaf)
    return [replace(leaf, kind="code", rows=(), text=aligned(rows, widths, leaf.alignments))]


def _has_links(leaf: Leaf) -> bool:
    return any(
        mark.kind in ("link", "address") for row in leaf.rows for cell in row for atom in cell for mark in atom.marks
    )


def aligned(rows: list[list[str]], widths: list[int], alignments: tuple[str, ...]) -> str:
    """Lines with the cells in columns, the head underlined."""
    lines = [_GAP.join(map(_padded, row, widths, alignments)).rstrip() for row in rows]
    lines.insert(1, _GAP.join("─" * max(each, 1) for each in widths))
    return "\n".join(lines)


def _padded(text: str, columns: int, alignment: str) -> str:
    space = columns - width(text)
    left = space if alignment == "right" else space // 2 if alignment == "center" else 0
    return " " * left + text + " " * (space - left)


def _as_list(leaf: Leaf) -> list[Leaf]:
    found: list[Leaf] = []
    head = leaf.rows[0]
    depth = sum(each.kind == "item" for each in leaf.containers)
    for row in leaf.rows[1:]:
        atoms: list[Atom] = []
        for name, cell in zip(head, row, strict=True):
            if is_visible(words_of(cell)):
                atoms += [*strong(name), *([Atom(":"), Atom(" ")] if name else []), *cell, Atom("\n")]
        if not atoms:
            continue
        item = Container("item", group=-1 - leaf.lines[0], depth=depth)
        fresh = leaf.fresh if not found else len(leaf.containers)
        containers = (*leaf.containers, item)
        lines = leaf.lines if not found else (leaf.lines[1], leaf.lines[1])
        found.append(Leaf(kind="text", containers=containers, fresh=fresh, lines=lines, atoms=tidied(atoms)))
    if found:
        return found
    atoms = [each for name in head if name for each in (*strong(name), Atom("\n"))]
    return [replace(leaf, kind="text", rows=(), atoms=tidied(atoms))]
