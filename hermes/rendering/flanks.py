"""Where CommonMark reads `*` and `~` as marks: by what stands on both sides (https://spec.commonmark.org/0.31.2/#left-flanking-delimiter-run).

A mark that was read once stands where it can be read, but what was around it may be written differently. Pure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from hermes.rendering.leaves import Atom, Mark

FLANKED = ("strong", "em", "s")


def readable(atoms: Sequence[Atom]) -> Sequence[Atom]:
    """The same without emphasis that would not be read as such, and without code that touches other code."""
    found = _apart(atoms)
    depth = 0
    while depth < max((len(each.marks) for each in found), default=0):
        begin = 0
        kept = True
        while begin < len(found):
            if len(found[begin].marks) <= depth:
                begin += 1
                continue
            end = begin + 1
            under = found[begin].marks[: depth + 1]
            while end < len(found) and found[end].marks[: depth + 1] == under:
                end += 1
            if under[depth].kind in FLANKED and not _is_read(found, begin, end, depth):
                kept = False
                for index in range(begin, end):
                    found[index] = _without(found[index], depth)
            begin = end
        depth += kept
    return found


def _apart(atoms: Sequence[Atom]) -> list[Atom]:
    """Of two code spans with nothing between, whose backticks would be one run, the second is plain."""
    found: list[Atom] = []
    plain = 0
    for each in atoms:
        last = each.marks[-1] if each.marks else None
        if last is not None and last.kind == "code":
            before = found[-1].marks if found else ()
            if before and before[:-1] == each.marks[:-1] and before[-1].kind == "code" and before[-1] != last:
                plain = last.number
            if last.number == plain:
                found.append(each._replace(marks=each.marks[:-1]))
                continue
        found.append(each)
    return found


def _without(atom: Atom, depth: int) -> Atom:
    return atom._replace(marks=(*atom.marks[:depth], *atom.marks[depth + 1 :]))


def _is_read(atoms: Sequence[Atom], begin: int, end: int, depth: int) -> bool:
    first, last = atoms[begin], atoms[end - 1]
    before = atoms[begin - 1] if begin else None
    after = atoms[end] if end < len(atoms) else None
    inner_first = "(" if _is_closed(first.marks[depth + 1 :]) else first.text[0]
    inner_last = ")" if _is_closed(last.marks[depth + 1 :]) else last.text[-1]
    outer_before = " " if before is None else ")" if _is_closed(before.marks[depth:]) else before.text[-1]
    outer_after = " " if after is None else "(" if _is_closed(after.marks[depth:]) else after.text[0]
    if (
        depth
        and (before is None or before.marks[:depth] != first.marks[:depth])
        and _is_closed(first.marks[depth - 1 : depth])
    ):
        outer_before = "("
    if (
        depth
        and (after is None or after.marks[:depth] != last.marks[:depth])
        and _is_closed(last.marks[depth - 1 : depth])
    ):
        outer_after = ")"
    return (not _is_punctuation(inner_first) or _is_open(outer_before)) and (
        not _is_punctuation(inner_last) or _is_open(outer_after)
    )


def _is_closed(marks: Sequence[Mark]) -> bool:
    """Whether these marks are written with punctuation that is no mark of emphasis."""
    return any(each.kind not in FLANKED for each in marks)


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _is_open(character: str) -> bool:
    return character.isspace() or _is_punctuation(character)


def touching(atoms: Sequence[Atom]) -> bool:
    """Whether marks begin or end inside of words, or where others do: only there they could be read otherwise."""
    before: Atom | None = None
    for each in atoms:
        if any(mark.kind == "spoiler" for mark in each.marks):
            return True
        if before is not None and before.marks != each.marks and not _is_apart(before, each):
            return True
        before = each
    return False


def _is_apart(before: Atom, after: Atom) -> bool:
    """Whether a space, or punctuation after a letter, stands where the marks change."""
    if before.text.isspace() or after.text.isspace():
        return True
    return not after.marks and after.text[0] in ".,:;!?)" and before.text[-1].isalnum() and len(before.marks) == 1
