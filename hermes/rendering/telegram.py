"""Telegram's HTML: https://core.telegram.org/bots/api#html-style

The service counts the text after its entities are parsed, and takes 32,768 bytes of it before. Entities must nest; `pre` and
`code` hold none; a quote holds no quote. A link to what has no dot in its host is dropped without an error, so it is none here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from hermes.rendering.dialect import Dialect, Piece
from hermes.rendering.leaves import Atom, Container, Leaf, Mark, Marks, words_of
from hermes.rendering.tree import strong
from hermes.rendering.units import size

RAW_BYTES = 32_768
_QUOTE = ("<blockquote>", "</blockquote>")
_TAGS = {"strong": "b", "em": "i", "s": "s", "spoiler": "tg-spoiler", "code": "code"}
_TAG = re.compile("<[^>]*>")
_LINKED = re.compile(
    r"(?:https?://(?:[^\s/?#@:]*\.[^\s/?#@:]+|\[[0-9a-f:.]+\])(?::\d{1,5})?(?:[/?#]|$)|tg://[\w-]+(?:[/?]|$))", re.I
)


class TelegramHtml(Dialect):
    """`parse_mode=HTML`."""

    raw_room = RAW_BYTES

    def is_link(self, address: str) -> bool:
        return len(address) <= 2000 and _LINKED.match(address) is not None

    def prepared(self, leaf: Leaf) -> Sequence[Leaf]:
        if leaf.kind == "heading":
            return (replace(leaf, atoms=strong(leaf.atoms)),)
        return super().prepared(leaf)

    def piece(self, leaf: Leaf, shown: frozenset[Container]) -> Piece:
        first, rest = self.prefixes(leaf, shown)
        if leaf.kind == "code":
            return self._code(leaf, first)
        if leaf.kind == "text" and not leaf.atoms:
            first = first.rstrip()
        text = escape(first, quote=False) + self.body(leaf, escape(rest, quote=False))
        visible = first + (
            words_of(leaf.atoms).replace("\n", "\n" + rest) if leaf.kind != "rule" else self.body(leaf, "")
        )
        return Piece(text, size(visible, self.unit), len(text.encode()) + self._quoting(leaf))

    def _code(self, leaf: Leaf, first: str) -> Piece:
        """Code begins at the left edge; a marker before it has a line of its own."""
        inside = escape(leaf.text, quote=False)
        if leaf.language:
            inside = f'<code class="language-{leaf.language}">{inside}</code>'
        own = f"{first.rstrip()}\n" if leaf.fresh < len(leaf.containers) and first.strip() else ""
        text = f"{escape(own, quote=False)}<pre>{inside}</pre>"
        return Piece(text, size(own + leaf.text, self.unit), len(text.encode()) + self._quoting(leaf))

    def prefixes(self, leaf: Leaf, shown: frozenset[Container]) -> tuple[str, str]:
        """As text, and without the outermost quote: that is an entity, and an item that began before it is outside."""
        quote = next((index for index, each in enumerate(leaf.containers) if each.kind == "quote"), None)
        if quote is None:
            return super().prefixes(leaf, shown)
        inner = (*leaf.containers[min(leaf.fresh, quote) : quote], *leaf.containers[quote + 1 :])
        return super().prefixes(replace(leaf, containers=inner, fresh=max(leaf.fresh - quote - 1, 0)), shown)

    def _quoting(self, leaf: Leaf) -> int:
        return sum(map(len, _QUOTE)) if _quote_of(leaf) is not None else 0

    def gap(self, before: Leaf, after: Leaf, shown: frozenset[Container]) -> Piece:  # noqa: ARG002
        text = "\n" if after.lines[0] <= before.lines[1] else "\n\n"
        return Piece(text, len(text), len(text))

    def joined(self, written: Sequence[tuple[Leaf, str, str]]) -> str:
        out: list[str] = []
        quote: Container | None = None
        for leaf, gap, text in written:
            now = _quote_of(leaf)
            if now is not quote:
                out += [_QUOTE[1] if quote is not None else "", gap, _QUOTE[0] if now is not None else ""]
                quote = now
            else:
                out.append(gap)
            out.append(text)
        if quote is not None:
            out.append(_QUOTE[1])
        return "".join(out)

    def bare(self, part: str) -> str:
        return _TAG.sub("", part)

    def marker(self, item: Container) -> str:
        if item.task is None:
            return f"{self.bullet(item)} "
        box = "☑ " if item.task else "☐ "
        return box if item.number is None else f"{self.bullet(item)} {box}"

    def marks(self, marks: Marks) -> Marks:
        """Code holds no entity; in a link it gives way, since the address cannot be shown otherwise."""
        if not any(each.kind == "code" for each in marks):
            return marks
        linked = tuple(each for each in marks if each.kind in ("link", "address"))
        return linked or tuple(each for each in marks if each.kind == "code")

    def open(self, mark: Mark) -> str:
        tag = _TAGS.get(mark.kind)
        if tag is not None:
            return f"<{tag}>"
        address = escape(mark.argument, quote=False).replace('"', "&quot;")
        return f'<a href="{address}">'

    def close(self, mark: Mark) -> str:
        return f"</{_TAGS.get(mark.kind, 'a')}>"

    def run(self, text: str, marks: Marks, *, begins: bool, after: Atom | None, heading: bool) -> str:  # noqa: ARG002
        return escape(text, quote=False)

    def bound(self, text: str) -> tuple[int, int]:
        return size(text, self.unit), len(escape(text, quote=False).encode())

    def marks_bound(self, marks: Marks) -> tuple[int, int]:
        return 0, sum(len((self.open(each) + self.close(each)).encode()) for each in self.marks(marks))

    def frame(self, leaf: Leaf) -> tuple[int, int]:  # noqa: ARG002
        return (1, 150)  # a quote, `pre`, and `code` with the longest name of a language


def _quote_of(leaf: Leaf) -> Container | None:
    return next((each for each in leaf.containers if each.kind == "quote"), None)
