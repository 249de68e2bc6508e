"""The words of an HTML mail, lines and quotes as in a plain one. Pure."""

from __future__ import annotations

import re
from html.parser import HTMLParser

MAX_QUOTES = 9
MAX_NESTED = 2000
PIECE = 65_536  # characters that are parsed at once
MAX_TAIL = 2000  # of what has no end
_HIDDEN = frozenset(("head", "script", "style", "title", "template", "noscript", "svg", "object"))
_BLOCKS = frozenset(
    ("address", "article", "blockquote", "dd", "div", "dl", "dt", "fieldset", "footer", "form", "h1", "h2", "h3", "h4", "h5",
     "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul")
)  # fmt: skip
_PARAGRAPHS = frozenset(("p", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "pre"))
_SPACES = re.compile(r"[ \t\r\n\f]+")


class _Words(HTMLParser):
    """Collects words, line by line."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self._line = ""
        self._quotes = 0
        self._hidden = 0
        self._pre = 0
        self._link: str | None = None
        self._linked = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in _HIDDEN:
            self._hidden += tag != "object"
            return
        if tag == "br":
            self._end_line()
        elif tag == "img":
            self._say((found.get("alt") or "")[:200])
        elif tag == "a":
            self._link, self._linked = found.get("href"), ""
        elif tag in ("td", "th"):
            self._say(" ")
        if tag in _BLOCKS:
            self._break(tag)
        if tag == "blockquote":
            self._quotes = min(self._quotes + 1, MAX_NESTED)
        elif tag == "pre":
            self._pre += 1
        elif tag == "li":
            self._say("- ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - (tag != "object"))
            return
        if tag == "a":
            self._end_link()
        if tag in _BLOCKS:
            self._break(tag)
        if tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)
        elif tag == "pre":
            self._pre = max(0, self._pre - 1)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._pre:
            first, *more = data.split("\n")
            self._say(first)
            for line in more:
                self._end_line()
                self._say(line)
            return
        said = _SPACES.sub(" ", data)
        self._say(said.lstrip(" ") if not self._line or self._line.endswith(" ") else said)

    def _say(self, said: str) -> None:
        if not self._hidden:
            self._line += said
            if self._link is not None:
                self._linked += said

    def _end_link(self) -> None:
        link, said = self._link, self._linked.strip()
        self._link = None
        if link and link.startswith(("http://", "https://")) and said.rstrip("/") != link.rstrip("/"):
            self._say(f" ({link[:500]})")

    def _break(self, tag: str) -> None:
        if self._line.strip():
            self._end_line()
        if tag in _PARAGRAPHS and self.lines and self.lines[-1].strip("> "):
            self._end_line()

    def _end_line(self) -> None:
        line = self._line.rstrip().replace("\u00a0", " ")
        self.lines.append((">" * min(self._quotes, MAX_QUOTES) + " " + line).rstrip() if self._quotes else line)
        self._line = ""

    def close(self) -> None:
        """End. Of a tag without end the library's parser would look for that end once for each `<` in it: hours, for a megabyte."""
        tail = ""
        if len(self.rawdata) > MAX_TAIL:
            tail, self.rawdata = self.rawdata, ""
        if not self.cdata_elem:
            self._say(_without_tags(tail))
        super().close()
        if self._line.strip():
            self._end_line()


def _without_tags(document: str) -> str:
    return _SPACES.sub(" ", re.sub(r"<[^<>]*>", " ", document)).strip()


def words_of_html(document: str) -> str:
    """The words of a document; what is quoted has `>` before its lines, a link its target behind it."""
    found = _Words()
    try:
        for start in range(0, len(document), PIECE):
            found.feed(document[start : start + PIECE])
        found.close()
    except (AssertionError, ValueError):  # what the parser of the library trips over, such as an unknown declaration
        return _without_tags(document)
    while found.lines and not found.lines[-1].strip("> "):
        found.lines.pop()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(found.lines)).strip()
