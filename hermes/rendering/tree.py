"""Markdown to leaves: the parser's tree, walked once. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hermes.rendering.inline import LinkRule, atoms_of, tidied
from hermes.rendering.leaves import Atom, Container, Leaf, Mark
from hermes.rendering.parsing import parse

if TYPE_CHECKING:
    from markdown_it.token import Token

_TASK = re.compile(r"\[([ xX])\](?=\s)")
_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)+")
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,32}(?=\s|$)")


@dataclass(slots=True)
class _List:
    group: int
    number: int | None
    delimiter: str


@dataclass(slots=True)
class _Walk:
    is_link: LinkRule
    leaves: list[Leaf] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    lists: list[_List] = field(default_factory=list)
    shown: int = 0  # containers up to here have a leaf already
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def number(self) -> int:
        return next(self.numbers)

    def walk(self, tokens: Sequence[Token]) -> None:
        level, table = 0, _Table()
        for index, token in enumerate(tokens):
            kind = token.type
            if kind == "inline":
                if table.open:
                    table.cell(atoms_of(token.children or (), self.is_link, self.number))
                else:
                    begins = index > 1 and tokens[index - 2].type == "list_item_open"
                    self.text(token, level, tokens[index - 1].map or token.map or [0, 0], begins=begins)
            elif kind == "heading_open":
                level = int(token.tag[1:])
            elif kind == "heading_close":
                level = 0
            elif kind in ("fence", "code_block"):
                self.code(token)
            elif kind == "hr":
                self.leaf(Leaf(kind="rule"), token.map)
            elif kind == "table_open":
                table = _Table(open=True, lines=token.map or [0, 0])
            elif kind == "table_close":
                if any(cell for row in table.rows for cell in row):
                    self.leaf(Leaf(kind="table", rows=table.done(), alignments=tuple(table.alignments)), table.lines)
                table = _Table()
            elif table.open:
                table.step(token)
            else:
                self.container(token)

    def leaf(self, leaf: Leaf, lines: Sequence[int] | None) -> None:
        begin, end = lines or (0, 0)
        self.leaves.append(replace(leaf, containers=tuple(self.containers), fresh=self.shown, lines=(begin, end)))
        self.shown = len(self.containers)

    def text(self, token: Token, level: int, lines: Sequence[int], *, begins: bool) -> None:
        """A paragraph or a heading; `begins`: an item begins with it."""
        atoms = atoms_of(token.children or (), self.is_link, self.number)
        if begins and not level:
            done = _TASK.match(token.content)
            if done is not None:
                self.containers[-1] = replace(self.containers[-1], task=done[1] != " ")
                atoms = tidied(list(atoms[3 if done[1] == " " else 1 :]))
        if level:
            atoms = tuple(each._replace(text=" ") if each.text == "\n" else each for each in atoms)
        if atoms:
            self.leaf(Leaf(kind="heading" if level else "text", level=level, atoms=atoms), lines)

    def code(self, token: Token) -> None:
        language = _LANGUAGE.match(token.info.strip()) if token.info else None
        text = token.content[found.end() if (found := _BLANK_LINES.match(token.content)) else 0 :].rstrip()
        if text:
            self.leaf(Leaf(kind="code", text=text, language=language.group() if language else ""), token.map)

    def container(self, token: Token) -> None:
        kind = token.type
        if kind in ("bullet_list_open", "ordered_list_open"):
            start = None if kind[0] == "b" else _start(token)
            self.lists.append(_List(self.number(), start, token.markup))
        elif kind in ("bullet_list_close", "ordered_list_close"):
            self.lists.pop()
        elif kind == "list_item_open":
            of = self.lists[-1]
            depth = sum(each.kind == "item" for each in self.containers)
            item = Container("item", of.group, of.number, of.delimiter, depth=depth)
            if of.number is not None:
                of.number += 1
            self.containers.append(item)
        elif kind == "blockquote_open":
            self.containers.append(Container("quote"))
        elif kind in ("list_item_close", "blockquote_close"):
            if kind == "list_item_close" and self.shown < len(self.containers):
                self.leaf(Leaf(kind="text"), self.leaves[-1].lines[1:] * 2 if self.leaves else None)
            self.containers.pop()
            self.shown = min(self.shown, len(self.containers))


@dataclass(slots=True)
class _Table:
    open: bool = False
    lines: Sequence[int] = (0, 0)
    rows: list[list[tuple[Atom, ...]]] = field(default_factory=list)
    alignments: list[str] = field(default_factory=list)

    def step(self, token: Token) -> None:
        if token.type == "tr_open":
            self.rows.append([])
        elif token.type == "th_open":
            style = str(token.attrGet("style") or "")
            self.alignments.append(style.removeprefix("text-align:"))

    def cell(self, atoms: tuple[Atom, ...]) -> None:
        self.rows[-1].append(atoms)

    def done(self) -> tuple[tuple[tuple[Atom, ...], ...], ...]:
        return tuple(map(tuple, self.rows))


def leaves_of(text: str, is_link: LinkRule) -> list[Leaf]:
    """The leaves of a markdown text, in order."""
    walk = _Walk(is_link)
    walk.walk(parse(text))
    return walk.leaves


def _start(token: Token) -> int:
    start = token.attrGet("start")
    return 1 if start is None else int(start)


def strong(atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
    """The same in bold."""
    mark = Mark("strong")
    return tuple(
        each._replace(marks=(mark, *(other for other in each.marks if other.kind != "strong"))) for each in atoms
    )
