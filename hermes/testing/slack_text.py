"""Slack's mrkdwn as a reader sees it; knows nothing of how we write it.

Source: https://docs.slack.dev/messaging/formatting-message-text. Where marks are read (at a space or punctuation outside, none
inside, within one line) is what Slack's own clients do; the documentation shows it by examples.
"""

from __future__ import annotations

import re
from html import unescape

NO_WIDTH = re.compile("[\u200b\u2060]")
_ANGLE = re.compile(r"<([^<>\n]*)>")
_QUOTE = re.compile(r"^(?:>|&gt;) ?", re.MULTILINE)
_OUTSIDE = r"\s?.,\-!^;:{}()\[\]%$#+=\"'*_~<>&\ue000\u200b"
_CODE = re.compile(rf"```\n?(.*?)\n?```|(?<![^{_OUTSIDE}])`(?=[^\s`])([^`\n]+?)`(?![^{_OUTSIDE}])", re.DOTALL)
_MARKS = tuple(
    re.compile(rf"(?<![^{_OUTSIDE}]){re.escape(sign)}(?=[^\s{re.escape(sign)}])([^\n{re.escape(sign)}]*?)(?<=\S){re.escape(sign)}(?![^{_OUTSIDE}])")
    for sign in "*_~"
)  # fmt: skip
_ENTITY = re.compile(r"&(?!(?:amp|lt|gt);)")


class BadMrkdwn(ValueError):
    """A text that Slack would show as something else than was meant."""


def visible(text: str, *, strict: bool = False) -> str:
    """The words that a person reads.

    Args:
        text: as it is sent.
        strict: complain about control characters that are not written as entities.

    Raises:
        BadMrkdwn: `strict`, and there are some.
    """
    kept: list[str] = []

    def keep(words: str) -> str:
        kept.append(words)
        return f"\ue000{len(kept) - 1}\ue001"

    def code(found: re.Match[str]) -> str:
        inside = found[1] if found[1] is not None else found[2]
        if strict and (_ENTITY.search(inside) or "<" in inside or ">" in inside):
            raise BadMrkdwn(f"bare control characters in code: {inside[:60]!r}")
        return keep(inside)

    def angle(found: re.Match[str]) -> str:
        return keep(_words_of(found[1]))

    text = _ANGLE.sub(angle, _QUOTE.sub("", _CODE.sub(code, text)))
    if strict and (_ENTITY.search(text) or "<" in text or ">" in text):
        raise BadMrkdwn(f"bare control characters: {text[:60]!r}")
    before = None
    while before != text:
        before = text
        for mark in _MARKS:
            text = mark.sub(r"\1", text)
    text = re.sub("\ue000(\\d+)\ue001", lambda found: kept[int(found[1])], text)
    return NO_WIDTH.sub("", unescape(text))


def _words_of(inside: str) -> str:
    """What is shown of a link or a mention."""
    target, bar, label = inside.partition("|")
    if target.startswith(("@", "#", "!")):
        return label if bar else target.replace("!", "@", 1)
    return label if bar else target
