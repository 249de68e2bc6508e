"""YAML to plain values from parser events: no objects, tags or duplicate keys; bounded in size, depth and repetition.

Building from events and not with a loader keeps nesting off the C stack, makes duplicate keys visible and lets an alias
cost what it stands for. Plain scalars follow the YAML 1.2 core schema: `no`, `1:30` and `2026-01-01` are text.
`${NAME}` is text wherever it stands, also unquoted between braces, where YAML alone would take its brace for syntax.
"""

from __future__ import annotations

import re
from typing import Any, Final

from hermes.decode import join, segment
from hermes.errors import Problem

MAX_BYTES: Final = 1_048_576
MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 24

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_ODD_NUMBER: Final = re.compile(r"[-+]?(0[0-9]+|0[xo][0-9a-fA-F]+|[1-9][0-9]{18,})\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?\Z")
_WORDS: Final = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_TRUTH: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,99})\}")
_HIDDEN_REFERENCE: Final = re.compile("\ue000\ue000([A-Za-z0-9_]+)\ue001")

# The parser's own words are repeated only when they are one of these: others quote the file, which may hold a secret.
_HARMLESS: Final = frozenset(
    {
        "mapping values are not allowed in this context",
        "mapping values are not allowed here",
        "could not find expected ':'",
        "did not find expected key",
        "did not find expected node content",
        "did not find expected ',' or '}'",
        "did not find expected ',' or ']'",
        "did not find expected '-' indicator",
        "did not find expected <document start>",
        "found character that cannot start any token",
        "found unexpected end of stream",
        "found unknown escape character",
        "found a tab character that violates indentation",
        "found undefined tag handle",
        "block sequence entries are not allowed in this context",
    }
)


class Unreadable(Exception):
    """The text is not YAML, or more than is taken; the text says where and repeats nothing of it."""


class _Open:
    """A mapping or list that is still being filled."""

    __slots__ = ("anchor", "keys", "name", "node", "path", "size")

    def __init__(self, node: dict[str, Any] | list[Any], anchor: str | None, path: str) -> None:
        self.node = node
        self.anchor = anchor
        self.path = path
        self.size = 1
        self.keys = 0
        self.name: str | None = None


_SKIP: Final = object()


class _Builder:
    """Fills the tree; one method for each kind of event."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.root: Any = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def scalar(self, event: Any) -> None:
        if self._awaits_key():
            self._key(event)
            return
        value: Any = event.value
        if event.tag not in (None, "!"):
            self._problem(event, "has a tag; tags are not used here")
        elif any("\ud800" <= letter <= "\udfff" for letter in value):
            self._problem(event, "has half of a surrogate pair, which no text may have")
        elif event.style in (None, "") and event.tag is None:
            value = self._plain(event)
        self._place(value, event.anchor, 1)

    def begin(self, event: Any, node: dict[str, Any] | list[Any]) -> None:
        if self._awaits_key():
            raise Unreadable(f"{_at(event)}: a key must be text")
        if len(self._stack) >= MAX_DEPTH:
            raise Unreadable(f"{_at(event)}: nested deeper than {MAX_DEPTH} levels")
        path = self._here()
        if event.tag not in (None, "!"):
            self._problem(event, "has a tag; tags are not used here")
        self._count(1)
        self._stack.append(_Open(node, event.anchor, path))

    def end(self) -> None:
        done = self._stack.pop()
        self._nodes -= done.size  # _place counts it again, as a part of what holds it
        self._place(done.node, done.anchor, done.size)

    def alias(self, event: Any) -> None:
        if self._awaits_key():
            raise Unreadable(f"{_at(event)}: a key must be text")
        if event.anchor not in self._anchors:
            raise Unreadable(f"{_at(event)}: an alias to something that is not there, or to what it stands in")
        value, size = self._anchors[event.anchor]
        self._place(value, None, size)

    def _awaits_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].node, dict) and self._stack[-1].name is None

    def _key(self, event: Any) -> None:
        top = self._stack[-1]
        name = event.value
        where = join(top.path, segment(name, top.keys))
        top.keys += 1
        top.name = name
        if event.style in (None, "") and (name in _WORDS or name == "<<"):
            self.problems.append(Problem(where, f"is not a key (line {event.start_mark.line + 1})"))
        elif event.anchor is not None or event.tag not in (None, "!"):
            self.problems.append(Problem(where, f"has an anchor or a tag at a key (line {event.start_mark.line + 1})"))
        elif any("\ud800" <= letter <= "\udfff" for letter in name):
            self.problems.append(Problem(where, f"is not text (line {event.start_mark.line + 1})"))
        elif isinstance(top.node, dict) and name in top.node:
            self.problems.append(Problem(where, f"is given twice (line {event.start_mark.line + 1})"))

    def _plain(self, event: Any) -> Any:
        value: str = event.value
        if value in _WORDS:
            return None
        if value in _TRUTH:
            return _TRUTH[value]
        if _INTEGER.match(value):
            return int(value)
        if _ODD_NUMBER.match(value):
            self._problem(event, "is a number with leading zeros, another base or too many digits")
            return value
        return float(value) if _FLOAT.match(value) else value

    def _place(self, value: Any, anchor: str | None, size: int) -> None:
        self._count(size)
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self.root = value
            return
        top = self._stack[-1]
        top.size += size
        if isinstance(top.node, list):
            top.node.append(value)
            return
        name, top.name = top.name, None
        if name is not None and name not in top.node:
            top.node[name] = value

    def _here(self) -> str:
        if not self._stack:
            return ""
        top = self._stack[-1]
        if isinstance(top.node, list):
            return f"{top.path}[{len(top.node)}]"
        return join(top.path, segment(top.name, top.keys - 1))

    def _problem(self, event: Any, reason: str) -> None:
        self.problems.append(Problem(self._here(), f"{reason} (line {event.start_mark.line + 1})"))

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise Unreadable(f"holds more than {MAX_NODES} values, counting what its aliases stand for")


def read_tree(text: str) -> tuple[Any, list[Problem]]:
    """Read one YAML document into dicts, lists, text, numbers, booleans and None.

    Args:
        text: the document, at most MAX_BYTES characters.

    Returns:
        The tree, and mistakes that leave the rest of it readable, with their paths.

    Raises:
        Unreadable: not YAML, several documents, too deep, too large.
    """
    if len(text) > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES} bytes")
    if "\ue000" in text or "\ue001" in text:
        raise Unreadable("has characters for private use (U+E000, U+E001)")
    import yaml  # only a home with a file pays for it

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    documents = 0
    try:
        for event in yaml.parse(_REFERENCE.sub("\ue000\ue000\\1\ue001", text), Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                event.value = _HIDDEN_REFERENCE.sub(r"${\1}", event.value)
                builder.scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                builder.begin(event, {})
            elif isinstance(event, yaml.SequenceStartEvent):
                builder.begin(event, [])
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                builder.end()
            elif isinstance(event, yaml.AliasEvent):
                builder.alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise Unreadable(f"{_at(event)}: a second document begins; there may be only one")
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_why(error)) from None
    except (yaml.YAMLError, ValueError):
        raise Unreadable("has characters that YAML does not allow") from None
    return builder.root, builder.problems


def _at(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


def _why(error: Any) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + "is not valid YAML" + (f" ({error.problem})" if error.problem in _HARMLESS else "")
