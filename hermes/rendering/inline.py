"""What is in a line: the parser's tokens to atoms. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from hermes.rendering.leaves import Atom, Mark, MarkKind, Marks, words_of
from hermes.rendering.units import UNSPACED

if TYPE_CHECKING:
    from markdown_it.token import Token

LinkRule = Callable[[str], bool]

# A line may also be cut after the punctuation of scripts that put no spaces between words.
_ATOMS = re.compile(rf"\s+|[^\s{UNSPACED}]+[{UNSPACED}]*|[{UNSPACED}]+")
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]{1,31}:")
_NAMES = {"strong_open": "strong", "em_open": "em", "s_open": "s", "spoiler_open": "spoiler"}
_TICKS = re.compile("`+")


class Numbers(Protocol):
    """Gives links and code spans their numbers."""

    def __call__(self) -> int:
        """The next number, from 1."""


def atoms_of(tokens: Iterable[Token], is_link: LinkRule, number: Numbers, around: Marks = ()) -> tuple[Atom, ...]:
    """The words, spaces and line ends of a line's tokens.

    Args:
        tokens: children of an `inline` token.
        is_link: whether the dialect can link to this address; what it cannot link to is shown in brackets.
        number: for links and code spans.
        around: marks that all of it has.
    """
    return tidied(_split(_runs(tokens, is_link, number, around)))


def tidied(atoms: list[Atom]) -> tuple[Atom, ...]:
    """Spaces under the marks that both neighbours have, and none where a line begins or ends.

    So no mark begins or ends with a space, which most dialects would show as its literal characters.
    """
    found: list[Atom] = []
    for each in atoms:
        if each.text == "\n":
            while found and found[-1].text.isspace():  # with the end of a line before it: a blank line ends a block
                found.pop()
        elif each.text.isspace() and (not found or found[-1].text == "\n"):
            continue
        found.append(each)
    while found and found[-1].text.isspace():
        found.pop()
    begin = 0
    while begin < len(found) and found[begin].text.isspace():
        begin += 1
    del found[:begin]
    _share(found)
    return tuple(found)


def _share(atoms: list[Atom]) -> None:
    before: Marks = ()
    index = 0
    while index < len(atoms):
        if not atoms[index].text.isspace():
            before = atoms[index].marks
            index += 1
            continue
        begin = index
        while index < len(atoms) and atoms[index].text.isspace():
            index += 1
        both = _common(before, atoms[index].marks if index < len(atoms) else ())
        for at in range(begin, index):
            if atoms[at].marks != both:
                atoms[at] = atoms[at]._replace(marks=both)


def _common(one: Marks, other: Marks) -> Marks:
    if one == other:
        return one
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return one[:count]


def _split(runs: Iterator[tuple[str, Marks, bool]]) -> list[Atom]:
    """Atoms of runs; neighbours with the same marks are one text first, so that a word stays one."""
    found: list[Atom] = []
    text = ""
    marks: Marks = ()
    for more, under, is_break in runs:
        if is_break or under != marks:
            found.extend(words_in(text, marks))
            text, marks = "", under
        if is_break:
            found.append(Atom("\n", under, more != "\n"))
        else:
            text += more
    found.extend(words_in(text, marks))
    return found


def words_in(text: str, marks: Marks = ()) -> list[Atom]:
    """The words of a line, and the spaces between them."""
    if marks and marks[-1].kind == "address":
        return [Atom("".join(text.split()), marks)] if text.strip() else []
    if "\n" in text:
        text = text.replace("\n", " ")
    return [Atom(each, marks) for each in _ATOMS.findall(text)]


def _runs(
    tokens: Iterable[Token], is_link: LinkRule, number: Numbers, marks: Marks
) -> Iterator[tuple[str, Marks, bool]]:
    stack: list[tuple[Marks, str]] = []
    label = ""
    for token in tokens:
        kind = token.type
        if kind in ("text", "text_special"):
            label += token.content
            yield token.content, marks, False
        elif kind in ("softbreak", "hardbreak"):
            label += " "
            yield "\n" if kind == "softbreak" else "", marks, True
        elif kind == "code_inline":
            label += token.content
            yield token.content, (*marks, Mark("code", _fence(token.content), number())), False
        elif kind == "image":
            yield from _image(token, is_link, number, marks)
            label += token.content
        elif kind == "link_open":
            address = str(token.attrGet("href") or "")
            stack.append((marks, address))
            label = ""
            if is_link(address):
                marks = (*marks, Mark("address" if token.markup == "autolink" else "link", address, number()))
        elif kind == "link_close":
            marks, address = stack.pop()
            if not is_link(address):
                yield _beside(label, address), marks, False
            elif not label.strip():
                yield address, (*marks, Mark(_unlabelled(address), address, number())), False
        elif token.nesting > 0:
            stack.append((marks, ""))
            name = _NAMES.get(kind)
            if name is not None and all(each.kind != name for each in marks):
                marks = (*marks, Mark(name))  # type: ignore[arg-type]
        elif token.nesting < 0:
            marks, _ = stack.pop()


def _image(token: Token, is_link: LinkRule, number: Numbers, marks: Marks) -> Iterator[tuple[str, Marks, bool]]:
    """An image as a link to it."""
    address = str(token.attrGet("src") or "")
    label = words_of(atoms_of(token.children or (), lambda _: True, number))
    inside = any(each.kind == "link" for each in marks)
    if is_link(address) and not inside:
        yield label or address, (*marks, Mark("link" if label else _unlabelled(address), address, number())), False
    else:
        yield label, marks, False
        yield _beside(label, address), marks, False


def _unlabelled(address: str) -> MarkKind:
    """How an address stands for itself: not without a scheme, or where a reader of it would decode some."""
    return "address" if _SCHEME.match(address) and "%" not in address else "link"


def _beside(label: str, address: str) -> str:
    """What is shown after the words of a link that cannot be one."""
    if not address or address == label or address.removeprefix("mailto:") == label:
        return ""
    return f" ({address})" if label.strip() else address


def _fence(content: str) -> str:
    """Backticks that do not occur in it; a space beside them keeps its own apart, wherever it is cut."""
    ticks = set(map(len, _TICKS.findall(content)))
    fence = "`" * next(count for count in range(1, len(ticks) + 2) if count not in ticks)
    return f"{fence} " if ticks else fence
