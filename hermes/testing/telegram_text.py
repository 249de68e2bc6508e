"""How Telegram reads the HTML of a message, and what it refuses. For the fake server; it knows nothing of how we render.

The rules are those of https://core.telegram.org/bots/api#html-style, and where that page is silent, what the Bot API server
itself does (https://github.com/tdlib/telegram-bot-api, https://github.com/tdlib/td): its offsets count bytes, its names of
tags and attributes end at a space, a character reference may lack its semicolon, and an unknown one is text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace

MAX_TEXT = 4096
MAX_CAPTION = 1024
MAX_RAW_BYTES = 1 << 15
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
TAGS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "tg-spoiler": "spoiler", "span": "spoiler",
    "a": "text_link", "code": "code", "pre": "pre", "blockquote": "blockquote", "tg-emoji": "custom_emoji",
    "tg-time": "date_time",
}  # fmt: skip
STYLES = ("bold", "italic", "underline", "strikethrough", "spoiler")
_END = "\0"  # the server reads up to the first
_SPACES = " \t\r\n\v\0"
_TOKEN = frozenset(string.ascii_letters + string.digits + ".-")
_REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]*)|#([0-9]*)|([a-zA-Z]*));?")
_HOST = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]*://)?(?:[^/?#@]*@)?(\[[0-9a-fA-F:.]+\]|[^/?#:@\[\]]*)")
# What the server makes of control characters, and what it takes out: marks and orders that break lines or directions.
_CLEANED = {each: " " for each in range(32) if each not in (10, 13)} | dict.fromkeys(
    (13, *range(0x2028, 0x202F), 0x333, 0x33F, 0x30A)
)
_UNSEEN = re.compile("[\\s\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180e\u2000-\u200f\u202f\u205f-\u206f"
                     "\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufffc\U000e0000-\U000e007f]*")  # fmt: skip


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

    @property
    def end(self) -> int:
        """Where it is over."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class _Tag:
    name: str
    argument: str
    offset: int
    shown: int  # pieces of the text that stand before it


def units(text: str) -> int:
    """Length in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def parse_html(html: str) -> tuple[str, list[Entity]]:
    """The words and the entities of a text, as the service parses them before it looks at either.

    Raises:
        BadRequest: the service would not take it.
    """
    return _Reader(html).read()


class _Reader:
    def __init__(self, html: str) -> None:
        self.html = html
        self.text = html + _END
        self.at = 0
        self.words: list[str] = []
        self.offset = 0
        self.entities: list[Entity] = []
        self.opened: list[_Tag] = []

    def read(self) -> tuple[str, list[Entity]]:
        while self.at < len(self.html):
            letter = self.text[self.at]
            if letter == "<":
                begins = self.at
                self.at += 1
                if self.text[self.at] == "/":
                    self._end_tag(begins)
                else:
                    self._start_tag(begins)
                self.at += 1
            else:
                self._show(self._reference() if letter == "&" else None)
        if self.opened:
            raise _unparsed(f'Can\'t find end tag corresponding to start tag "{self.opened[-1].name}"')
        words = "".join(self.words)
        if any("\ud800" <= each <= "\udfff" for each in words):
            raise _unparsed("Text contains invalid Unicode characters after decoding HTML entities, "
                            "check for unmatched surrogate code units")  # fmt: skip
        return words, _settled(self.entities)

    def _show(self, referred: str | None) -> None:
        """The character that was referred to, or all up to the next that might mean something."""
        if referred is None:
            end = self.at + 1
            while end < len(self.html) and self.text[end] not in "<&":
                end += 1
            referred, self.at = self.text[self.at : end], end
        self.words.append(referred)
        self.offset += units(referred)

    def _reference(self) -> str | None:
        """The character that stands for what begins here with `&`, stepped over; None if it is an `&`."""
        found = _REFERENCE.match(self.html, self.at)
        if found is None:
            return None
        hexadecimal, decimal, name = found.groups()
        if name is not None:
            character = NAMED.get(name)
        else:
            digits = decimal if hexadecimal is None else hexadecimal
            number = int(digits or "0", 10 if hexadecimal is None else 16)
            longest = len(found[0].removesuffix(";")) < 10
            character = chr(number) if 0 < number < 0x10FFFF and longest else None
        if character is not None:
            self.at = found.end()
        return character

    def _start_tag(self, begins: int) -> None:
        while self.text[self.at] not in _SPACES and self.text[self.at] != ">":
            self.at += 1
        if self.text[self.at] == _END:
            raise _unparsed(f"Unclosed start tag at byte offset {self._bytes(begins)}")
        name = self.text[begins + 1 : self.at].lower()
        if name not in TAGS:
            raise _unparsed(f'Unsupported start tag "{name}" at byte offset {self._bytes(begins)}')
        argument = ""
        while self.text[self.at] != ">":
            self._spaces()
            if self.text[self.at] == ">":
                break
            argument = _argument(name, *self._attribute(name, begins)) or argument
        if name == "span" and argument != "spoiler":
            raise _unparsed(f'Tag "span" must have class "tg-spoiler" at byte offset {self._bytes(begins)}')
        self.opened.append(_Tag(name, argument, self.offset, len(self.words)))

    def _attribute(self, tag: str, begins: int) -> tuple[str, str | None]:
        """The next attribute's name and its value; None where it has none."""
        start = self.at
        while self.text[self.at] not in _SPACES + "=>/\"'":
            self.at += 1
        name = self.text[start : self.at]
        where = self._bytes(begins)
        if not name:
            raise _unparsed(f'Empty attribute name in the tag "{tag}" at byte offset {where}')
        self._spaces()
        if self.text[self.at] == "=":
            self.at += 1
            self._spaces()
        elif self.text[self.at] != _END:
            return name, None
        if self.text[self.at] == _END:
            raise _unparsed(f'Unclosed start tag "{tag}" at byte offset {where}')
        value = self._quoted() if self.text[self.at] in "\"'" else self._bare()
        if self.text[self.at] == _END:
            raise _unparsed(f"Unclosed start tag at byte offset {where}")
        return name, value

    def _quoted(self) -> str:
        quote, out = self.text[self.at], []
        self.at += 1
        while self.text[self.at] not in (quote, _END):
            referred = self._reference() if self.text[self.at] == "&" else None
            if referred is None:
                out.append(self.text[self.at])
                self.at += 1
            else:
                out.append(referred)
        if self.text[self.at] == quote:
            self.at += 1
        return "".join(out)

    def _bare(self) -> str:
        start = self.at
        while self.text[self.at] in _TOKEN:
            self.at += 1
        if self.text[self.at] not in _SPACES + ">":
            raise _unparsed(f"Unexpected end of name token at byte offset {self._bytes(start)}")
        return self.text[start : self.at].lower()

    def _end_tag(self, begins: int) -> None:
        where = self._bytes(begins)
        if not self.opened:
            raise _unparsed(f"Unexpected end tag at byte offset {where}")
        while self.text[self.at] not in _SPACES and self.text[self.at] != ">":
            self.at += 1
        name = self.text[begins + 2 : self.at].lower()
        self._spaces()
        if self.text[self.at] != ">":
            raise _unparsed(f"Unclosed end tag at byte offset {where}")
        tag = self.opened[-1]
        if name not in ("", tag.name):
            raise _unparsed(f'Unmatched end tag at byte offset {where}, expected "</{tag.name}>", found "</{name}>"')
        self.opened.pop()
        if self.offset > tag.offset:
            self._entity(tag)

    def _entity(self, tag: _Tag) -> None:
        found = Entity(type=TAGS[tag.name], offset=tag.offset, length=self.offset - tag.offset)
        last = self.entities[-1] if self.entities else None
        same = last is not None and (last.offset, last.length) == (found.offset, found.length)
        if tag.name == "a":
            link = _link(tag.argument or "".join(self.words[tag.shown :]))
            if link is None:
                return
            found = replace(found, type=link[0], url=link[1])
        elif tag.name == "tg-emoji" and not (tag.argument.isdecimal() and int(tag.argument)):
            raise _unparsed("Invalid custom emoji identifier specified")
        elif tag.name == "blockquote" and tag.argument:
            found = replace(found, type="expandable_blockquote")
        elif tag.name == "code":
            found = replace(found, language=tag.argument or None)
            if same and last is not None and last.type == "pre" and tag.argument:
                found = replace(self.entities.pop(), language=tag.argument)
        elif tag.name == "pre" and same and last is not None and last.type == "code" and last.language:
            found = replace(self.entities.pop(), type="pre")
        self.entities.append(found)

    def _spaces(self) -> None:
        while self.at < len(self.html) and self.text[self.at] in _SPACES:
            self.at += 1

    def _bytes(self, at: int) -> int:
        return len(self.html[:at].encode("utf-8", "surrogatepass"))


def _unparsed(words: str) -> BadRequest:
    return BadRequest(f"can't parse entities: {words}")


def _argument(tag: str, name: str, value: str | None) -> str:
    """What an attribute means to its tag; empty if nothing."""
    if (tag, name) == ("blockquote", "expandable"):
        return "1"
    if value is None:
        return ""
    prefix = {("a", "href"): "", ("code", "class"): "language-", ("span", "class"): "tg-", ("tg-emoji", "emoji-id"): ""}
    begins = prefix.get((tag, name))
    return value.removeprefix(begins) if begins is not None and value.startswith(begins) else ""


def _link(url: str) -> tuple[str, str] | None:
    """The type and the address of a link; None for one that the server drops without a word."""
    if re.match(r"tg:(//)?user\?id=\d+", url, re.IGNORECASE):
        return "text_mention", url
    if re.match(r"(tg|ton|tonsite):(//)?[\w.-]+", url, re.IGNORECASE):
        return "text_link", url
    host = _HOST.match(url)
    if host is None or ("." not in host[1] and "[" not in host[1]) or re.search(r"\s", host[1]):
        return None
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", url)
    return None if scheme is not None and scheme[1].lower() not in ("http", "https") else ("text_link", url)


def _settled(entities: Iterable[Entity]) -> list[Entity]:
    """Entities as the server keeps them: `pre` and `code` hold none and split the styles around them, quotes hold no quote."""
    each_of = [replace(each, language=None) if each.type == "code" else each for each in entities]
    code = [each for each in each_of if each.type in ("pre", "code")]
    code = [each for each in code if not any(_inside(each, other) for other in code)]
    kept: list[Entity] = []
    for each in each_of:
        if each.type in STYLES:
            kept += _without(each, code)
        elif each.type in ("pre", "code"):
            kept += [each] if each in code else []
        elif "blockquote" in each.type:
            kept += [] if any("blockquote" in other.type and _inside(each, other) for other in each_of) else [each]
        elif not any(_inside(each, other) or _inside(other, each) or each.offset == other.offset for other in code):
            kept.append(each)
    return sorted(kept, key=lambda each: (each.offset, -each.length))


def _inside(one: Entity, other: Entity) -> bool:
    return one is not other and other.offset <= one.offset and one.end <= other.end


def _without(style: Entity, code: list[Entity]) -> list[Entity]:
    found, begin = [], style.offset
    for each in sorted(code, key=lambda each: each.offset):
        if each.offset >= style.end or each.end <= begin:
            continue
        if each.offset > begin:
            found.append(replace(style, offset=begin, length=each.offset - begin))
        begin = each.end
    if begin < style.end:
        found.append(replace(style, offset=begin, length=style.end - begin))
    return found


def check_text(text: str, parse_mode: str | None, *, caption: bool = False) -> tuple[str, list[Entity]]:
    """What the service would show: parsed, cleaned of control characters, without spaces at its ends.

    Args:
        text: as it is sent.
        parse_mode: `HTML` in any case, or none.
        caption: it stands under a file, and may be empty.

    Raises:
        BadRequest: nothing, and why.
    """
    if not text and not caption:
        raise BadRequest("message text is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadRequest("strings must be encoded in UTF-8")
    if len(text.encode()) > MAX_RAW_BYTES:
        raise BadRequest("text is too long")
    if (parse_mode or "").lower() not in ("", "none", "html"):
        raise BadRequest("unsupported parse_mode")
    plain, entities = parse_html(text) if (parse_mode or "").lower() == "html" else (text, [])
    shown, entities = _cleaned(plain, entities)
    if not shown and not caption:
        raise BadRequest("text must be non-empty")
    if _UNSEEN.fullmatch(shown) and not caption:
        raise BadRequest("message text is empty")
    if units(shown) > (MAX_CAPTION if caption else MAX_TEXT):
        raise BadRequest("message caption is too long" if caption else "message is too long")
    return shown, entities


def _cleaned(plain: str, entities: list[Entity]) -> tuple[str, list[Entity]]:
    """Without what the server takes out and the spaces around; spaces at the beginning stay where an entity holds them."""
    places, moved = [0], 0
    for letter in plain:  # where each unit of the text comes to stand
        if _CLEANED.get(ord(letter), letter) is not None:
            moved += units(letter)
        places += [moved] * units(letter)
    text = plain.translate(_CLEANED).rstrip(" \n")
    most = min((places[each.offset] for each in entities), default=len(text))
    lead = min(len(text) - len(text.lstrip(" \n")), most)
    end = units(text)
    found = []
    for each in entities:
        begin, over = places[each.offset] - lead, min(places[each.end], end) - lead
        if over > begin:
            found.append(replace(each, offset=begin, length=over - begin))
    return text[lead:], found
