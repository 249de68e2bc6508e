"""Rendering loses no word, keeps every limit, and writes nothing that a service refuses, whatever the markdown.

`Words` is the measure: words in their order, with the spaces that separate them all alike. Spaces cannot be compared as they
are, since lines are moved into lists and columns, and those at the ends of a part are dropped; a word may be cut only where one
part ends and the next begins. Bullets, boxes, lines of tables and signs of quotes are no words, on either side.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hermes.platform import Capabilities
from hermes.rendering import plain_text, render
from hermes.rendering.parsing import parse
from hermes.rendering.plainly import as_it_is
from hermes.rendering.splitting import split
from hermes.rendering.units import is_visible, size, well_formed
from hermes.testing.slack_text import visible
from hermes.testing.telegram_text import MAX_RAW_BYTES, check_text, parse_html, units

pytestmark = pytest.mark.wall_clock_s(900)
MESSAGES = 5000 if os.environ.get("HERMES_FULL") == "1" else 500
ALIKE = os.environ.get("HERMES_FULL") != "1"  # every run the same, but the whole one, which searches further
Dialect = Literal["plain", "telegram_html", "discord", "markdown", "slack"]
DECORATION = frozenset("-•◦▪─☐☑>")
BREAK = "\0"

# --- what a text says


class Reading:
    """What words a markdown text has, read from the parser's tokens alone.

    An entry of several texts is a choice: a table is shown as one, or as a list that repeats the head's cells in each row.
    """

    def __init__(self, markdown: str, dialect: Dialect, room: int = 1 << 30, *, literal: bool = False) -> None:
        self.dialect = dialect
        self.longest = room // 4
        self.found: list[tuple[str, ...]] = []
        self.numbers: list[int | None] = []
        self.rows: list[list[str]] | None = None
        begins, quotes = -1, 0  # in how many quotes an item began that has said nothing yet
        for token in parse(markdown):
            kind = token.type
            if kind == "inline":
                words = self.line(token.children or ())
                task = re.match(r"\[[ xX]\](?=\s)", token.content) if begins == quotes else None
                if self.rows is not None:
                    self.rows[-1].append(words)
                else:
                    self.say(self.task(words) if task else words)
                begins = -1
            elif kind in ("fence", "code_block"):
                self.say(token.content)
            elif kind == "bullet_list_open":
                self.numbers.append(None)
            elif kind == "ordered_list_open":
                self.numbers.append(int(token.attrGet("start") or 0) if token.attrGet("start") is not None else 1)
            elif kind in ("bullet_list_close", "ordered_list_close"):
                self.numbers.pop()
            elif kind == "list_item_open":
                begins = quotes
                number = self.numbers[-1]
                if literal and token.info:  # lists that our own output puts side by side are one
                    number = int(token.info)
                if number is not None:
                    self.say(f"{number}{token.markup if dialect != 'discord' else '.'}")
                    self.numbers[-1] = number + 1
            elif kind == "table_open":
                self.rows = []
            elif kind == "tr_open" and self.rows is not None:
                self.rows.append([])
            elif kind == "table_close" and self.rows is not None:
                self.table(self.rows)
                self.rows = None
            quotes += token.nesting * kind.startswith("blockquote")
            if kind not in ("list_item_open", "paragraph_open", "inline", "blockquote_open", "blockquote_close"):
                begins = -1

    def say(self, *choice: str) -> None:
        self.found.append(tuple(map(words_of, choice)))

    def task(self, words: str) -> str:
        rest = re.sub(r"^\s*\[[ xX]\]", "", words)
        box = words[: len(words) - len(rest)]
        return (
            rest if self.dialect in ("telegram_html", "discord", "slack") else f"{'[x]' if 'x' in box.lower() else '[ ]'} {rest}"
        )

    def table(self, rows: list[list[str]]) -> None:
        head, *others = rows
        listed = " ".join(
            f"{' '.join(name.split())}{':' if name.strip() else ''} {cell}"
            for row in others for name, cell in zip(head, row, strict=True) if words_of(cell, keep=True)
        )  # fmt: skip
        self.say(" ".join(cell for row in rows for cell in row), listed)

    def line(self, tokens: Sequence[Any]) -> str:
        out: list[str] = []
        links: list[tuple[str, int]] = []
        for token in tokens:
            if token.type in ("text", "text_special", "code_inline"):
                out.append(token.content)
            elif token.type in ("softbreak", "hardbreak"):
                out.append(" ")
            elif token.type == "image":
                label = self.line(token.children or ())
                label = " ".join(label.split())
                inside = bool(links) and self.links_to(links[-1][0])
                out.append(
                    label
                    if label and self.links_to(token.attrGet("src")) and not inside
                    else self.beside(label, token.attrGet("src"))
                )
            elif token.type == "link_open":
                links.append((token.attrGet("href") or "", len(out)))
            elif token.type == "link_close":
                address, begin = links.pop()
                label = "".join(out[begin:])
                if not self.links_to(address) or not label.strip():
                    out[begin:] = [self.beside(label, address)]
        return "".join(out)

    def beside(self, label: str, address: str) -> str:
        if not address or label == address or "mailto:" + label == address:
            return label
        return f"{label} ({address})" if label.strip() else label + address

    def links_to(self, address: str) -> bool:
        if self.dialect == "telegram_html":  # as the service decides
            _, entities = parse_html(f'<a href="{address.replace("&", "&amp;")}">x</a>')
            return bool(entities) and "://" in address
        if self.dialect in ("discord", "slack"):
            return re.match(r"https?://[^/?#]", address, re.I) is not None and len(address) <= self.longest
        return self.dialect == "markdown" and 0 < len(address) <= self.longest


def words_of(text: str, *, keep: bool = False) -> str:
    words = text.replace("\u200b", "").split()
    return " ".join(each for each in words if keep or not DECORATION.issuperset(each))


def follow(stream: str, at: int, words: str) -> int | None:
    """Where a stream of parts has said these words; None if it says something else."""
    for character in words:
        if character == " " and stream[at : at + 1] in (" ", BREAK):
            at += 1
            continue
        while stream[at : at + 1] == BREAK:
            at += 1
        if stream[at : at + 1] != character:
            if character in DECORATION and stream[at - 1 : at] == BREAK:
                at -= 1  # cut off from its word, it was taken for a decoration
                continue
            return None
        at += 1
    return at


def says(parts: Sequence[str], found: Sequence[tuple[str, ...]]) -> bool:
    """Whether the parts say this and nothing else."""
    stream = BREAK + BREAK.join(each for each in map(words_of, parts) if each)
    places = {0}
    for choice in found:
        places = {
            place
            for at in places for each in choice
            if (place := follow(stream, at, " " + each if each else "")) is not None
        }  # fmt: skip
    return any(not stream[at:].strip(BREAK) for at in places)


def shown(part: str, dialect: Dialect) -> str:
    """What a reader sees of a part, by the service's rules."""
    if dialect == "telegram_html":
        return check_text(part, "HTML")[0] and parse_html(part)[0]
    if dialect == "slack":
        return visible(part, strict=True)
    if dialect == "plain":
        return part
    out: list[str] = []
    for choice in Reading(part, "markdown" if dialect == "markdown" else "discord", literal=True).found:
        out.append(choice[0])
    return " ".join(out)


# --- nasty markdown

WORDS = st.sampled_from(
    (
        "a",
        "word",
        "Hello,",
        "end.",
        "x_y_z",
        "2*3",
        "e.g.",
        "שלום",
        "مرحبا",
        "عليكم",
        "日本語のとても長い文章。続き",
        "e\u0301",
        "n\u0303o",
        "\u202bab\u202c",
        "👩‍👩‍👧‍👦",
        "👍🏽",
        "🇩🇪🇫🇷",
        "1️⃣",
        "क्षि",
        "zalgo\u0300\u0301\u0302",
        "<b>",
        "</i>",
        "&amp;",
        "&lt",
        "&",
        "<",
        ">",
        "a<b>c",
        "\\",
        "\\*",
        "#",
        "#hash",
        "1.",
        "2)",
        "-",
        "+",
        "=",
        "|",
        "||",
        "a|b",
        "*",
        "_",
        "~~",
        "`",
        "``",
        "[",
        "]",
        "[x]",
        "[ ]",
        "](",
        "!",
        "!",
        "@everyone",
        "@here",
        "<@123>",
        "https://example.com/a?b=1&c=2",
        "snake_case",
        "_under",
        "under_",
        "'quote'",
        '"quoted"',
        "C++",
        "...",
        "---",
        "&copy;",
        "&#0;",
        "x" * 70,
        "é" * 90,
        "👩‍🚀" * 40,
        "https://e.org/" + "p" * 200,
        ":--",
        "```",
        "~~~",
        "\u00a0",
        "tab\there",
        "||hid||",
    )
)
ADDRESSES = st.sampled_from(
    (
        "https://example.com",
        "http://e.org/a_b_(c)",
        "tg://resolve?domain=x",
        "mailto:a@b.co",
        "/relative",
        "http://localhost:80/x",
        "",
        'https://q.org/?a="b"&c=<d>',
        "javascript:alert(1)",
        "https://u.example/" + "y" * 120,
        "file.md",
        "ftp://f.org/x",
    )
)


@st.composite
def lines(draw: st.DrawFn, most: int = 14) -> str:
    out = []
    for word in draw(st.lists(WORDS, min_size=1, max_size=most)):
        how = draw(st.integers(0, 24))
        if how < 12:
            out.append(word)
        elif how < 18:
            mark = ("**", "*", "_", "~~", "`", "||")[how - 12]
            out.append(f"{mark}{word}{mark}")
        elif how == 18:
            out.append(f"[{word}]({draw(ADDRESSES)})")
        elif how == 19:
            out.append(f"![{word}](<{draw(ADDRESSES)}>)")
        elif how == 20:
            out.append(f"**{word} *inner* {word}**")
        elif how == 21:
            out.append(f"<{draw(ADDRESSES)}>")
        elif how == 22:
            out.append(f"``{word} ` {word}``")
        elif how == 23:
            out.append(f"***{word}** {word}*")
        else:
            out.append(f"[**{word}** `{word}`]({draw(ADDRESSES)})")
    glue = draw(st.sampled_from((" ", " ", " ", "", "\n", "  \n", "\\\n")))
    return glue.join(out)


@st.composite
def codes(draw: st.DrawFn) -> str:
    fence = draw(st.sampled_from(("```", "~~~~", "``````")))
    body = draw(
        st.lists(
            st.sampled_from(
                (
                    "x = 1",
                    "  if a < b && c:",
                    "",
                    "\t# <tag> &amp;",
                    "```",
                    "`" * 5,
                    "long " * 40,
                    "y" * 300,
                    "é日本" * 30,
                )
            ),
            max_size=9,
        )
    )
    language = draw(st.sampled_from(("", "python", "c++", "<x>", "a b c", "x" * 40)))
    end = draw(st.sampled_from((fence, fence, "")))
    return "\n".join((fence + language, *body, end))


@st.composite
def tables(draw: st.DrawFn) -> str:
    columns = draw(st.integers(1, 5))
    cells = lines(most=draw(st.integers(1, 6))).map(lambda text: text.replace("\n", " "))
    rows = [[draw(cells) for _ in range(columns)] for _ in range(draw(st.integers(1, 4)))]
    rule = draw(st.lists(st.sampled_from(("---", ":-:", "--:", ":--")), min_size=columns, max_size=columns))
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def quoted(block: str) -> str:
    return "\n".join("> " + line for line in block.split("\n"))


@st.composite
def listed(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    marker = draw(st.sampled_from(("-", "*", "1.", "7)", "- [ ]", "- [x]", "12345.")))
    items = draw(st.lists(inner, min_size=1, max_size=3))
    space = " " * (len(marker.split()[0]) + 1)
    gap = draw(st.sampled_from(("\n", "\n\n")))
    return gap.join(f"{marker} " + each.replace("\n", "\n" + space) for each in items)


LEAVES = st.one_of(
    lines(),
    lines(),
    lines(),
    codes(),
    tables(),
    st.sampled_from(("---", "***", "", "    indented <code>", "[a]: http://x.y", "<div>\nx")),
    st.builds(lambda level, text: "#" * level + " " + text, st.integers(1, 7), lines(5)),
    lines(4).map(lambda text: text + "\n==="),
)
BLOCKS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(quoted),
        listed(inner),
        st.tuples(inner, inner).map("\n\n".join),
        st.tuples(inner, inner).map("\n".join),
    ),
    max_leaves=8,
)
SOUP = st.text(st.sampled_from("*_`[]()<>|~#-+.!\\&:=\n\n  \t1ab€é😀\u0301\u200d\ud83d\x00\r"), max_size=150)
MARKDOWN = st.one_of(
    st.lists(BLOCKS, min_size=1, max_size=4).map("\n\n".join),
    BLOCKS,
    SOUP,
    st.lists(st.one_of(BLOCKS, SOUP), max_size=5).map("\n".join),
)
ROOMS = st.sampled_from((160, 170, 200, 300, 1000, 2000, 4096))
UNITS = st.sampled_from(("utf16", "codepoint", "byte"))


@given(MARKDOWN, ROOMS)
@settings(max_examples=MESSAGES)
def test_telegram_takes_every_part_and_shows_every_word(markdown: str, room: int) -> None:
    parts = render(markdown, Capabilities(dialect="telegram_html", max_text=room, unit="utf16"))
    for part in parts:
        seen, _ = check_text(part, "HTML")
        assert 0 < units(seen) <= units(parse_html(part)[0]) <= room
        assert len(part.encode()) <= MAX_RAW_BYTES
        assert "<b></b>" not in part
    text = well_formed(markdown)
    assert says([shown(each, "telegram_html") for each in parts], Reading(text, "telegram_html").found if parts else [])


@pytest.mark.parametrize("dialect", ["plain", "discord", "markdown", "slack"])
@given(MARKDOWN, ROOMS, UNITS)
@settings(max_examples=MESSAGES // 5, derandomize=ALIKE)
def test_other_dialects_keep_limits_and_words(dialect: Dialect, markdown: str, room: int, unit: Any) -> None:
    parts = render(markdown, Capabilities(dialect=dialect, max_text=room + 20, unit=unit), suffix_room=20)
    assert all(0 < size(each, unit) <= room and is_visible(each) for each in parts)
    text = well_formed(markdown)
    assert says([shown(each, dialect) for each in parts], Reading(text, dialect, room).found if parts else [])


@given(
    st.text(st.sampled_from("ab. ,!?'\"()%$€é日א😀1\n@:/-+="), max_size=80),
    st.sampled_from(("plain", "telegram_html", "discord", "markdown", "slack")),
)
@settings(max_examples=MESSAGES // 5)
def test_the_short_way_leads_to_the_same(text: str, dialect: Dialect) -> None:
    """What is passed on as it is, is what the parser and the dialect would have made of it."""
    short = as_it_is(text, "utf16", 4096)
    if short is not None and is_visible(text):
        assert split(text, dialect, "utf16", 4096) == (short,)


@given(MARKDOWN)
@settings(max_examples=MESSAGES // 10)
def test_plain_text_has_all_words_in_one_piece(markdown: str) -> None:
    found = plain_text(markdown)
    assert says([found], Reading(well_formed(markdown), "plain").found if found else [])


@given(st.lists(st.one_of(BLOCKS, SOUP), min_size=20, max_size=40), st.sampled_from(("telegram_html", "discord", "slack")))
@settings(max_examples=max(3, MESSAGES // 500), phases=[Phase.generate], derandomize=ALIKE)
def test_a_hundred_kilobytes(blocks: list[str], dialect: Dialect) -> None:
    whole = "\n\n".join(blocks)
    text = "\n\n".join([whole] * (100_000 // (len(whole) + 2) + 1))[:100_000]
    parts = render(text, Capabilities(dialect=dialect, max_text=2000, unit="utf16"))
    for part in parts:
        assert units(check_text(part, "HTML")[0] if dialect == "telegram_html" else part) <= 2000
    assert says(
        [shown(each, dialect) for each in parts], Reading(well_formed(text), dialect, 2000).found if parts else []
    )


HOSTILE = {
    "brackets": "[",
    "pairs of brackets": "[a](",
    "images": "![",
    "stars": "*a **b ",
    "backticks": "`a",
    "spoilers": "||a ",
    "lines": "a\n",
    "items": "- a\n",
    "deep items": "- ",
    "quotes": ">",
    "definitions": "[a]: b\n",
    "heads": "# a\n",
    "fences": "```\n",
    "rows": "|a|b|\n",
    "flags": "🇩🇪",
    "marks": "e\u0301",
    "one word": "x",
    "entities": "&#35;",
    "strikes": "~~a ",
    "tables": "|a|b|\n|-|-|\n|c|d|\n\n",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_four_times_the_text_takes_no_more_than_a_few_times_the_steps(piece: str) -> None:
    """Linear, counted in calls of functions: time would say more of the machine."""

    def calls(length: int) -> int:
        count = 0

        def note(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        text = piece * (length // len(piece))
        sys.setprofile(note)
        try:
            render(text, Capabilities(dialect="telegram_html", unit="utf16"))
        finally:
            sys.setprofile(None)
        return count

    calls(100)
    assert calls(24_000) < 7 * calls(6_000) + 20_000
