"""What a message says: its text, and in words what has no text; commands and mentions in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

MAX_WORDS = 300  # characters of what a stranger typed, inside brackets of ours
MAX_OPTIONS = 12
# A command as the service marks it up (https://core.telegram.org/bots/features#commands), at the beginning of a text.
_COMMAND = re.compile(r"/([A-Za-z0-9_]{1,64})(?:@([A-Za-z0-9_]{3,64}))?(?=\s|\Z)")
_FLAT = str.maketrans({"[": "(", "]": ")"})
# What people can send and the Bot API does not show to bots.
_HIDDEN = {
    "story": "a story", "paid_media": "paid media", "game": "a game", "invoice": "an invoice", "giveaway": "a giveaway",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who we are: the id and the user name of the bot, and the commands it answers."""

    id: int
    username: str
    commands: frozenset[str] = frozenset()


def words_of(message: Json) -> str:
    """The text or caption; else in words what else it is; empty for what says nothing."""
    for name in ("text", "caption"):
        if isinstance(found := message.get(name), str) and found:
            return found
    return _described(message)


def _described(message: Json) -> str:
    if isinstance(found := message.get("venue"), dict):
        place = _position(found.get("location"))
        return f"[place: {plain(found.get('title'))}, {plain(found.get('address'))}; {place}]"
    if isinstance(found := message.get("location"), dict):
        return f"[location: {_position(found)}]"
    if isinstance(found := message.get("contact"), dict):
        return f"[contact: {plain(found.get('first_name'))} {plain(found.get('phone_number'))}]"
    if isinstance(found := message.get("poll"), dict):
        return f"[poll: {plain(found.get('question'))}{_list(found.get('options'))}]"
    if isinstance(found := message.get("checklist"), dict):
        return f"[checklist: {plain(found.get('title'))}{_list(found.get('tasks'))}]"
    if isinstance(found := message.get("sticker"), dict) and isinstance(found.get("emoji"), str):
        return plain(found["emoji"])
    if isinstance(found := message.get("dice"), dict):
        return f"[{plain(found.get('emoji'))} {plain(found.get('value'))}]"
    for name, what in _HIDDEN.items():
        if isinstance(message.get(name), dict):
            return f"[{what}, which bots cannot see]"
    return ""


def _position(place: object) -> str:
    return f"{plain(place.get('latitude'))}, {plain(place.get('longitude'))}" if isinstance(place, dict) else "unknown"


def _list(options: object) -> str:
    found = [each for each in options if isinstance(each, dict)] if isinstance(options, list) else []
    return "".join(f"; {plain(each.get('text'))}" for each in found[:MAX_OPTIONS])


def forwarded(message: Json) -> str:
    """Where a forwarded message comes from, to stand before its text; empty for one that is not."""
    origin = message.get("forward_origin")
    if not isinstance(origin, dict):
        return ""
    user, chat = origin.get("sender_user"), origin.get("chat") or origin.get("sender_chat")
    name = origin.get("sender_user_name")
    if isinstance(user, dict):
        name = user.get("first_name")
    elif isinstance(chat, dict):
        name = chat.get("title")
    return f"[forwarded from {plain(name, 64) or 'somebody'}] "


def plain(value: object, most: int = MAX_WORDS) -> str:
    """A stranger's words on one line, without what ends our brackets."""
    if value is None or isinstance(value, dict | list):
        return ""
    return " ".join(str(value)[:most].translate(_FLAT).split())


def command(words: str, me: Me) -> tuple[str, bool | None]:
    """The text with our name taken off a command; True if it is ours, False if another bot's, None if nobody knows."""
    found = _COMMAND.match(words)
    if found is None:
        return words, None
    if found[2] is None:
        return words, True if found[1].lower() in me.commands else None
    if found[2].lower() != me.username.lower():
        return words, False
    return f"/{found[1]}{words[found.end() :]}", True


def mentions(message: Json, me: Me) -> bool:
    """Whether the text or the caption names us."""
    for text, marks in (("text", "entities"), ("caption", "caption_entities")):
        words, entities = message.get(text), message.get(marks)
        if isinstance(words, str) and isinstance(entities, list):
            return any(_names(words, each, me) for each in entities if isinstance(each, dict))
    return False


def _names(words: str, entity: Json, me: Me) -> bool:
    if entity.get("type") == "text_mention":
        user = entity.get("user")
        return isinstance(user, dict) and user.get("id") == me.id
    return entity.get("type") == "mention" and _part(words, entity).lower() == f"@{me.username}".lower()


def _part(words: str, entity: Json) -> str:
    """The characters of an entity: its offset and length count UTF-16 code units."""
    offset, length = entity.get("offset"), entity.get("length")
    if not isinstance(offset, int) or not isinstance(length, int) or offset < 0 or length < 0:
        return ""
    data = words.encode("utf-16-le", "surrogatepass")[2 * offset : 2 * (offset + length)]
    return data.decode("utf-16-le", "replace")


def units(text: str) -> int:
    """The length of a text as the service counts it: in UTF-16 code units."""
    return len(text) + sum(letter > "\uffff" for letter in text)
