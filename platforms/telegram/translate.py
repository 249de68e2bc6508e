"""Updates of the Bot API as events: pure (https://core.telegram.org/bots/api#update).

An update is whatever the service sent: every field may be missing or of another type. What cannot be an event is no event, and
never an exception but `NoEvent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hermes.events import (
    Address,
    AttachmentKind,
    AttachmentRef,
    ChatKind,
    EventKind,
    InboundEvent,
    Person,
    Quoted,
    ReplyRef,
)

UPDATES = ("message", "edited_message", "channel_post", "edited_channel_post", "callback_query")
KINDS: Mapping[str, ChatKind] = {"private": "dm", "group": "group", "supergroup": "group", "channel": "channel"}
LONG = 4000  # units; a person's client splits what is longer than 4,096
MAX_QUOTED = 1000
Json = Mapping[str, Any]


class NoEvent(ValueError):
    """An update that is not what the API says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who we are: the id and the user name of the bot."""

    id: int
    username: str


def translate(update: Json, *, account: str, me: Me) -> InboundEvent | None:
    """The event that an update tells of; None for what concerns nobody, such as somebody joining a group.

    Raises:
        NoEvent: it is malformed.
    """
    for name in UPDATES:
        if isinstance(content := update.get(name), dict):
            if name == "callback_query":
                return _button(content, account)
            return _message(content, account, me, edited=name.startswith("edited"))
    return None


def _message(message: Json, account: str, me: Me, *, edited: bool) -> InboundEvent | None:
    chat = _mapping(message, "chat")
    kind = KINDS.get(_text(chat, "type"))
    message_id = _whole(message, "message_id")
    if kind is None:
        raise NoEvent("a chat of an unknown type")
    thread = message.get("message_thread_id") if message.get("is_topic_message") is True else None
    address = Address(account, str(_whole(chat, "id")), str(thread) if isinstance(thread, int) else None)
    sender = _sender(message, me)
    if isinstance(moved := message.get("migrate_to_chat_id"), int):
        return _event(message, str(message_id), address, kind, sender, "moved", text=str(moved))
    words = _words(message)
    files = tuple(_attachments(message))
    if not words and not files:
        return None
    text, addressed = _command(words, me)
    quoted = _quoted(message, me)
    identity = f"{message_id}.{message.get('edit_date', 0)}" if edited else str(message_id)
    album = message.get("media_group_id")
    return _event(
        message, identity, address, kind, sender, "edited" if edited else "message",
        edits=str(message_id) if edited else None,
        text=_forwarded(message) + text,
        to_us=kind == "dm" or addressed is True or (addressed is None and _speaks_to(message, words, me, quoted)),
        reply=ReplyRef(message_id=str(message_id)),
        quoted=quoted,
        attachments=files,
        album=album if isinstance(album, str) else None,
        continues=units(words) >= LONG,
    )  # fmt: skip


def _event(
    message: Json, event_id: str, address: Address, chat_kind: ChatKind, sender: Person, kind: EventKind, **more: Any
) -> InboundEvent:
    at = message.get("date")
    return InboundEvent(
        id=event_id, address=address, chat_kind=chat_kind, sender=sender, kind=kind,
        at=float(at) if isinstance(at, int) and at > 0 else None, **more,
    )  # fmt: skip


def _button(query: Json, account: str) -> InboundEvent | None:
    message = query.get("message")
    data = query.get("data")
    if not isinstance(message, dict) or not isinstance(data, str):
        return None  # of a game, or of a message that is too old to be told about
    chat = _mapping(message, "chat")
    kind = KINDS.get(_text(chat, "type"))
    if kind is None:
        raise NoEvent("a chat of an unknown type")
    thread = message.get("message_thread_id") if message.get("is_topic_message") is True else None
    return InboundEvent(
        id=_text(query, "id"),
        address=Address(account, str(_whole(chat, "id")), str(thread) if isinstance(thread, int) else None),
        chat_kind=kind,
        sender=_person(_mapping(query, "from")),
        kind="button",
        text=data,
        to_us=True,
        reply=ReplyRef(message_id=str(_whole(message, "message_id"))),
    )


def _sender(message: Json, me: Me) -> Person:
    """Who wrote: a person, or the chat in whose name an anonymous administrator or a channel speaks."""
    chat = message.get("sender_chat")
    author = message.get("from")
    if isinstance(chat, dict) and not (isinstance(author, dict) and author.get("id") == me.id):
        return Person(str(_whole(chat, "id")), str(chat.get("title") or "")[:256])
    if not isinstance(author, dict):
        raise NoEvent("a message of nobody")
    return _person(author)


def _person(user: Json) -> Person:
    names = [str(user.get(part) or "") for part in ("first_name", "last_name")]
    name = " ".join(each for each in names if each) or str(user.get("username") or "")
    return Person(str(_whole(user, "id")), name[:256], user.get("is_bot") is True)


def _words(message: Json) -> str:
    for name in ("text", "caption"):
        if isinstance(found := message.get(name), str) and found:
            return found
    if isinstance(place := message.get("venue"), dict):
        return f"[place: {place.get('title')}, {place.get('address')}; {_position(place.get('location'))}]"
    if isinstance(place := message.get("location"), dict):
        return f"[location: {_position(place)}]"
    if isinstance(contact := message.get("contact"), dict):
        return f"[contact: {contact.get('first_name')} {contact.get('phone_number')}]"
    if isinstance(poll := message.get("poll"), dict):
        return f"[poll: {poll.get('question')}]"
    if isinstance(sticker := message.get("sticker"), dict) and isinstance(sticker.get("emoji"), str):
        return str(sticker["emoji"])
    if isinstance(dice := message.get("dice"), dict):
        return f"[{dice.get('emoji')} {dice.get('value')}]"
    return ""


def _position(place: object) -> str:
    return f"{place.get('latitude')}, {place.get('longitude')}" if isinstance(place, dict) else "unknown"


def _forwarded(message: Json) -> str:
    origin = message.get("forward_origin")
    if not isinstance(origin, dict):
        return ""
    user, chat = origin.get("sender_user"), origin.get("chat") or origin.get("sender_chat")
    name = origin.get("sender_user_name")
    if isinstance(user, dict):
        name = user.get("first_name")
    elif isinstance(chat, dict):
        name = chat.get("title")
    whose = " ".join(str(name or "somebody").replace("[", "(").replace("]", ")").split())[:64]
    return f"[forwarded from {whose}] "


def _command(words: str, me: Me) -> tuple[str, bool | None]:
    """The text with our name taken off a command; True if it is ours, False if it is another bot's, None if there is none."""
    if not words.startswith("/"):
        return words, None
    name, blank, rest = words.partition(" ")
    command, at, bot = name.partition("@")
    if not at:
        return words, True
    if bot.lower() != me.username.lower():
        return words, False
    return command + blank + rest, True


def _speaks_to(message: Json, words: str, me: Me, quoted: Quoted | None) -> bool:
    if quoted is not None and quoted.ours:
        return True
    found = message.get("entities") or message.get("caption_entities")
    for entity in found if isinstance(found, list) else ():
        if not isinstance(entity, dict):
            continue
        user = entity.get("user")
        if entity.get("type") == "text_mention" and isinstance(user, dict) and user.get("id") == me.id:
            return True
        if entity.get("type") == "mention" and _part(words, entity).lower() == f"@{me.username}".lower():
            return True
    return False


def _part(words: str, entity: Json) -> str:
    """The characters of an entity: its offset and length count UTF-16 code units."""
    offset, length = entity.get("offset"), entity.get("length")
    if not isinstance(offset, int) or not isinstance(length, int) or offset < 0 or length < 0:
        return ""
    return words.encode("utf-16-le")[2 * offset : 2 * (offset + length)].decode("utf-16-le", "replace")


def units(text: str) -> int:
    """The length of a text as the service counts it: in UTF-16 code units."""
    return len(text) + sum(letter > "\uffff" for letter in text)


def _quoted(message: Json, me: Me) -> Quoted | None:
    answered = message.get("reply_to_message")
    if not isinstance(answered, dict) or "forum_topic_created" in answered:
        return None  # in a topic, everything answers the message that opened it
    if not isinstance(answered.get("message_id"), int):
        return None
    part = message.get("quote")
    text = part.get("text") if isinstance(part, dict) else None
    try:
        sender = _sender(answered, me)
    except NoEvent:
        sender = None
    return Quoted(
        message_id=str(answered["message_id"]),
        text=(text if isinstance(text, str) else _words(answered))[:MAX_QUOTED],
        sender=sender,
        ours=sender is not None and sender.id == str(me.id),
    )


def _attachments(message: Json) -> list[AttachmentRef]:
    photos = message.get("photo")
    if isinstance(photos, list) and (sizes := [each for each in photos if isinstance(each, dict)]):
        return _file(max(sizes, key=_area), "image", "image/jpeg")
    for name, kind, media_type in _FILES:
        if isinstance(found := message.get(name), dict):
            return _file(found, kind, media_type)
    return []


_FILES: tuple[tuple[str, AttachmentKind, str], ...] = (
    ("animation", "video", "video/mp4"),
    ("video", "video", "video/mp4"),
    ("video_note", "video", "video/mp4"),
    ("voice", "voice", "audio/ogg"),
    ("audio", "audio", ""),
    ("sticker", "sticker", "image/webp"),
    ("document", "document", ""),
)


def _area(size: Json) -> int:
    width, height = size.get("width"), size.get("height")
    return width * height if isinstance(width, int) and isinstance(height, int) else 0


def _file(file: Json, kind: AttachmentKind, media_type: str) -> list[AttachmentRef]:
    ref, size, name = file.get("file_id"), file.get("file_size"), file.get("file_name")
    if not isinstance(ref, str) or not 0 < len(ref) <= 512:
        return []
    claimed = file.get("mime_type")
    return [
        AttachmentRef(
            kind=kind,
            ref=ref,
            name=name[:256] if isinstance(name, str) else "",
            media_type=claimed[:100] if isinstance(claimed, str) else media_type,
            size_bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        )
    ]


def _mapping(found: Json, name: str) -> Json:
    value = found.get(name)
    if not isinstance(value, dict):
        raise NoEvent(f"no {name}")
    return value


def _text(found: Json, name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise NoEvent(f"no {name}")
    return value


def _whole(found: Json, name: str) -> int:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise NoEvent(f"no {name}")
    return value
