"""How Telegram reads HTML in a message, and what it refuses (https://core.telegram.org/bots/api#html-style).

Written from the service's rules, for the fake server; it knows nothing of how we render.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TEXT = 4096
MAX_CAPTION = 1024
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
TAGS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "tg-spoiler": "spoiler", "span": "spoiler",
    "a": "text_link", "code": "code", "pre": "pre", "blockquote": "blockquote", "tg-emoji": "custom_emoji",
}  # fmt: skip
_TAG = re.compile(r"<(/?)([a-zA-Z0-9-]*)((?:\s+[a-zA-Z-]+(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))?)*)\s*>")
_ATTRIBUTE = re.compile(r"([a-zA-Z-]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"']+)))?")
_REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#x([0-9a-fA-F]{1,6})|([a-z]+));")


class BadRequest(ValueError):
    """What the service answers, without its `Bad Request: `."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A stretch of the text, in UTF-16 code units."""

    type: str
    offset: int
    length: int
    url: str | None = None
    language: str | None = None


def units(text: str) -> int:
    """Length in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def parse_html(html: str) -> tuple[str, list[Entity]]:
    """The words and the entities of a text.

    Raises:
        BadRequest: the service would not take it.
    """
    text, entities, opened, at = "", list[Entity](), list[tuple[str, str, int]](), 0
    while at < len(html):
        letter = html[at]
        if letter == "&" and (reference := _REFERENCE.match(html, at)) and (known := _referred(reference)) is not None:
            text += known
            at = reference.end()
        elif letter == "<":
            at = _tag(html, at, units(text), entities, opened)
        else:
            text += letter
            at += 1
    if opened:
        raise BadRequest(f"can't parse entities: Can't find end tag corresponding to start tag \"{opened[-1][0]}\"")
    return text, entities


def _tag(html: str, at: int, offset: int, entities: list[Entity], opened: list[tuple[str, str, int]]) -> int:
    where = len(html[:at].encode("utf-8", "surrogatepass"))
    found = _TAG.match(html, at)
    if found is None:
        raise BadRequest(f"can't parse entities: Unsupported start tag at byte offset {where}")
    ends, name, attributes = found[1], found[2].lower(), found[3]
    if ends:
        if not opened:
            raise BadRequest(f"can't parse entities: Unexpected end tag at byte offset {where}")
        began, kept, start = opened.pop()
        if name not in ("", began):
            raise BadRequest(
                f'can\'t parse entities: Unmatched end tag at byte offset {where}, expected "</{began}>", found "</{name}>"'
            )
        if offset > start:
            _close(began, kept, start, offset, entities)
        return found.end()
    if name not in TAGS:
        raise BadRequest(f'can\'t parse entities: Unsupported start tag "{name}" at byte offset {where}')
    values = {each[1].lower(): each[2] or each[3] or each[4] or "" for each in _ATTRIBUTE.finditer(attributes)}
    if name == "span" and values.get("class") != "tg-spoiler":
        raise BadRequest(f'can\'t parse entities: Tag "span" must have class "tg-spoiler" at byte offset {where}')
    opened.append((name, values.get("href", values.get("class", "")), offset))
    return found.end()


def _close(name: str, kept: str, start: int, end: int, entities: list[Entity]) -> None:
    length = end - start
    if name == "a":
        if kept:
            entities.append(Entity(type="text_link", offset=start, length=length, url=_unescaped(kept)))
    elif name == "code" and kept.startswith("language-"):
        entities.append(Entity(type="code", offset=start, length=length, language=kept.removeprefix("language-")))
    else:
        entities.append(Entity(type=TAGS[name], offset=start, length=length))


def _referred(reference: re.Match[str]) -> str | None:
    if reference[3]:
        return NAMED.get(reference[3])
    number = int(reference[1]) if reference[1] else int(reference[2], 16)
    return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else None


def _unescaped(value: str) -> str:
    return _REFERENCE.sub(lambda found: _referred(found) or found[0], value)


def check_text(text: str, parse_mode: str | None, *, caption: bool = False) -> tuple[str, list[Entity]]:
    """What the service would show.

    Raises:
        BadRequest: nothing, and why.
    """
    if parse_mode not in (None, "", "HTML"):
        raise BadRequest("unsupported parse_mode")
    plain, entities = parse_html(text) if parse_mode == "HTML" else (text, [])
    if any("\ud800" <= letter <= "\udfff" for letter in plain):
        raise BadRequest("strings must be encoded in UTF-8")
    shown = plain.strip()
    if not shown and not caption:
        raise BadRequest("message text is empty")
    if units(shown) > (MAX_CAPTION if caption else MAX_TEXT):
        raise BadRequest("message caption is too long" if caption else "message is too long")
    return shown, entities
