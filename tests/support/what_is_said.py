"""What a markdown text says, and whether the parts of a rendering say it: the measure that renderings are held against.

`words_of` is the measure: words in their order, with the spaces that separate them all alike. Spaces cannot be compared as they
are, since lines are moved into lists and columns, and those at the ends of a part are dropped; a word may be cut only where one
part ends and the next begins. Bullets, boxes, lines of tables and signs of quotes are no words, on either side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from hermes.rendering.discord_reading import seen
from hermes.rendering.parsing import parse
from hermes.rendering.units import is_visible
from hermes.testing.slack_text import visible
from hermes.testing.telegram_text import check_text, parse_html

Dialect = Literal["plain", "telegram_html", "discord", "markdown", "slack"]
DECORATION = frozenset("-•◦▪─☐☑>")
BREAK = "\0"


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
        begins = False  # an item begins with what comes next
        for token in parse(markdown):
            kind = token.type
            if kind == "inline":
                words = self.line(token.children or ())
                task = re.match(r"\[[ xX]\](?=\s)", token.content) if begins else None
                if self.rows is not None:
                    self.rows[-1].append(words)
                else:
                    self.say(self.task(words) if task else words)
            elif kind in ("fence", "code_block"):
                self.say(token.content)
            elif kind == "bullet_list_open":
                self.numbers.append(None)
            elif kind == "ordered_list_open":
                self.numbers.append(int(token.attrGet("start") or 0) if token.attrGet("start") is not None else 1)
            elif kind in ("bullet_list_close", "ordered_list_close"):
                self.numbers.pop()
            elif kind == "list_item_open":
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
            begins = kind == "list_item_open" or (begins and kind == "paragraph_open")

    def say(self, *choice: str) -> None:
        self.found.append(tuple(map(words_of, choice)))

    def task(self, words: str) -> str:
        rest = re.sub(r"^\s*\[[ xX]\]", "", words)
        box = words[: len(words) - len(rest)]
        return (
            rest
            if self.dialect in ("telegram_html", "discord", "slack")
            else f"{'[x]' if 'x' in box.lower() else '[ ]'} {rest}"
        )

    def table(self, rows: list[list[str]]) -> None:
        head, *others = rows
        listed = " ".join(
            f"{' '.join(name.split())}{':' if name.strip() else ''} {cell}"
            for row in others for name, cell in zip(head, row, strict=True) if words_of(cell, keep=True)
        )  # fmt: skip
        self.say(" ".join(cell for row in rows for cell in row), listed or " ".join(head))

    def line(self, tokens: Sequence[Any]) -> str:
        out: list[str] = []
        links: list[tuple[str, int]] = []
        for token in tokens:
            if token.type in ("text", "text_special", "code_inline"):
                out.append(token.content)
            elif token.type in ("softbreak", "hardbreak"):
                out.append(" ")
            elif token.type == "image":
                label = " ".join(Reading("", "markdown").line(token.children or ()).split())
                inside = bool(links) and self.links_to(links[-1][0])
                out.append(
                    label
                    if label
                    and self.links_to(token.attrGet("src"))
                    and not inside
                    and not self.poses(label, token.attrGet("src"))
                    else self.beside(label, token.attrGet("src"))
                )
            elif token.type == "link_open":
                links.append((token.attrGet("href") or "", len(out)))
            elif token.type == "link_close":
                address, begin = links.pop()
                label = "".join(out[begin:])
                if self.poses(label, address) or not self.links_to(address) or not label.strip():
                    out[begin:] = [self.beside(label, address)]
        return "".join(out)

    def beside(self, label: str, address: str) -> str:
        if not address or label == address or "mailto:" + label == address:
            return label
        return f"{label} ({address})" if label.strip() else label + address

    def poses(self, label: str, address: str) -> bool:
        """Whether words could pretend to lead where they do not, so that they are no link."""
        return (
            self.dialect == "discord" and re.search("https?://", label, re.I) is not None and label.strip() != address
        )

    def links_to(self, address: str) -> bool:
        if self.dialect == "telegram_html":  # as the service decides
            _, entities = parse_html(f'<a href="{address.replace("&", "&amp;")}">x</a>')
            return bool(entities) and "://" in address
        if self.dialect in ("discord", "slack"):
            return re.match(r"https?://[^/?#]", address, re.I) is not None and len(address) <= self.longest
        return self.dialect == "markdown" and 0 < len(address) <= self.longest


def words_of(text: str, *, keep: bool = False) -> str:
    """Its words but those that decorate (`keep` has them, too) and those of characters that nobody sees."""
    words = text.replace("\u200b", "").split()
    return " ".join(each for each in words if is_visible(each) and (keep or not DECORATION.issuperset(each)))


def follow(stream: str, at: int, words: str) -> set[int]:
    """Where a stream of parts may have said these words; nowhere if it says something else."""
    places = {at}
    for character in words:
        after: set[int] = set()
        for place in places:
            if character == " " and stream[place : place + 1] in (" ", BREAK):
                after.add(place + 1)
                continue
            begin = place
            while stream[place : place + 1] == BREAK:
                place += 1
            if stream[place : place + 1] == character:
                after.add(place + 1)
            if character in DECORATION and (place > begin or stream[begin - 1 : begin] == BREAK):
                after.add(begin)  # cut off from its word, it was taken for a decoration
        places = after
    return places


def says(parts: Sequence[str], found: Sequence[tuple[str, ...]]) -> bool:
    """Whether the parts say this and nothing else."""
    stream = BREAK + BREAK.join(each for each in map(words_of, parts) if each)
    places = {0}
    for choice in found:
        places = {
            place for at in places for each in choice for place in (follow(stream, at, " " + each) if each else {at})
        }
    return any(not stream[at:].strip(BREAK) for at in places)


def shown(part: str, dialect: Dialect) -> str:
    """What a reader sees of a part, by the service's rules."""
    if dialect == "telegram_html":
        return check_text(part, "HTML")[0] and parse_html(part)[0]
    if dialect == "plain":
        return part
    if dialect == "slack":
        return visible(part, strict=True)
    if dialect == "discord":
        return seen(part)
    out: list[str] = []
    for choice in Reading(part, "markdown", literal=True).found:
        out.append(choice[0])
    return " ".join(out)
