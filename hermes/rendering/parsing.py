"""Markdown to a tree: the parser, with what its users' texts need changed. The only place that knows markdown-it.

Three things differ from CommonMark with tables and strikethrough. HTML is text, and so is a definition of a link's address
(`[a]: b`), so that no word a model wrote is lost. What is nested deeper than `MAX_DEPTH` is one paragraph. `||hidden||` is a spoiler.
"""

from __future__ import annotations

import functools
import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

MAX_DEPTH = 20  # levels of the parser; a list takes two
MAX_CELLS = 20_000  # of a table, those that a short row leaves out counted: they cost a token each
MAX_BRACKETS = 5_000  # `[` of a paragraph: each is looked for the end of
_SPOILER = re.compile(r"\|\|(?=[^\s|])((?:\\.|[^\\])*?(?:\\.|[^\s|\\]))\|\|(?!\|)", re.DOTALL)
_MAX_SPOILER = 1_000  # characters that are looked through for the end of one


@functools.lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": MAX_DEPTH + 20})
    parser.enable(["table", "strikethrough"])
    parser.disable(["reference", "html_block", "html_inline"])
    parser.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.before("table", "depth", _too_deep)
    parser.core.ruler.at("inline", _lines)
    parser.inline.ruler.before("emphasis", "spoiler", _spoiler)
    parser.inline.add_terminator_char("|")
    return parser


def parse(text: str) -> list[Token]:
    """The blocks of a text, opened and closed in order; what is in a line is below its `inline` token."""
    return _parser().parse(text)


def _too_deep(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Lines below the depth that we follow, as one paragraph; the parser itself would drop them."""
    if silent or state.level < MAX_DEPTH:
        return False
    state.push("paragraph_open", "p", 1).map = [start, end]
    inline = state.push("inline", "", 0)
    inline.map = [start, end]
    inline.content = state.getLines(start, end, state.blkIndent, keepLastLF=False).strip()
    inline.children = []
    state.push("paragraph_close", "p", -1)
    state.line = end
    return True


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A table, unless its rows, filled up to the columns of its head, would be out of proportion to its text."""
    if not table(state, start, end, True):  # noqa: FBT003 - the signature of a rule
        return False
    columns = state.src.count("|", state.bMarks[start], state.eMarks[start]) + 1
    most = min(end, start + MAX_CELLS // columns + 3)
    line = start
    while line < most and not state.isEmpty(line):
        line += 1
    if line - start > MAX_CELLS // columns + 2:
        return False
    return silent or table(state, start, end, False)  # noqa: FBT003


def _lines(state: StateCore) -> None:
    """What is in the lines; a paragraph with more brackets than any text has is one of plain words."""
    for token in state.tokens:
        if token.type != "inline" or token.children is None:
            continue
        if token.content.count("[") <= MAX_BRACKETS:
            state.md.inline.parse(token.content, state.md, state.env, token.children)
            continue
        for index, line in enumerate(token.content.split("\n")):
            if index:
                token.children.append(Token("softbreak", "br", 0))
            token.children.append(Token("text", "", 0, content=line.strip()))


def _spoiler(state: StateInline, silent: bool) -> bool:
    """`||hidden||`, with no space inside its ends: `a || b || c` is none."""
    if state.src[state.pos] != "|":
        return False
    found = _SPOILER.match(state.src, state.pos, min(state.posMax, state.pos + _MAX_SPOILER))
    if found is None:
        return False
    if not silent:
        most = state.posMax
        state.push("spoiler_open", "", 1)
        state.pos, state.posMax = found.start(1), found.end(1)
        state.linkLevel += 1  # an address cannot be inside half of one
        state.md.inline.tokenize(state)
        state.linkLevel -= 1
        state.push("spoiler_close", "", -1)
        state.posMax = most
    state.pos = found.end()
    return True
