"""Updates of the Bot API as events: pure (https://core.telegram.org/bots/api#update).

An update is whatever the service sent: every field may be missing or of another type. What cannot be an event is no event, and
never an exception but `NoEvent`.
"""

from __future__ import annotations

from typing import Any

from hermes.events import Address, ChatKind, EventKind, InboundEvent, Person, Quoted, ReplyRef
from platforms.telegram.attachments import attachments_of
from platforms.telegram.words import Json, Me, command, forwarded, mentions, units, words_of

UPDATES = ("message", "edited_message", "channel_post", "edited_channel_post", "callback_query")
KINDS: dict[str, ChatKind] = {"private": "dm", "group": "group", "supergroup": "group", "channel": "channel"}
LONG = 4000  # units; a person's client splits what is longer than 4,096
MAX_NAME = 256
MAX_QUOTED = 1000
DIRECT = "dm"  # before the number of a thread of a channel's direct messages


class NoEvent(ValueError):
    """An update that is not what the API says."""


def translate(update: Json, *, account: str, me: Me) -> InboundEvent | None:
    """The event that an update tells of; None for what concerns nobody, such as somebody joining a group.

    Raises:
        NoEvent: it is malformed.
    """
    for name in UPDATES:
        if isinstance(content := update.get(name), dict):
            if name == "callback_query":
                return _button(content, account)
            if name.startswith("edited"):
                return _edited(content, account, me, _whole(update, "update_id"))
            return _message(content, account, me)
    return None


def _message(message: Json, account: str, me: Me) -> InboundEvent | None:
    message_id = _named(message, me)
    moved = message.get("migrate_to_chat_id")
    if isinstance(moved, int) and not isinstance(moved, bool):
        return _event(message, message_id, account, me, "moved", text=str(moved))
    return _said(message, message_id, account, me, "message")


def _edited(message: Json, account: str, me: Me, number: int) -> InboundEvent | None:
    """An edit; its id is of the update, since a message can be edited twice in a second."""
    if isinstance(message.get("location"), dict):
        return None  # somebody shares where they are, and moves
    message_id = _named(message, me)
    return _said(message, f"{message_id}.{number}", account, me, "edited", edits=message_id)


def _named(message: Json, me: Me) -> str:
    """A message's name. Each bot numbers the messages of its direct chats and small groups by itself, from one, so that those of
    another bot, whose token was configured before, had the same numbers."""
    return f"{me.id}.{_whole(message, 'message_id')}"


def _said(
    message: Json, event_id: str, account: str, me: Me, kind: EventKind, edits: str | None = None
) -> InboundEvent | None:
    words, files = words_of(message), attachments_of(message)
    if not words and not files:
        return None
    text, addressed = command(words, me)
    quoted = _quoted(message, me)
    album = message.get("media_group_id")
    to_us = addressed is True or (addressed is None and (mentions(message, me) or (quoted is not None and quoted.ours)))
    return _event(
        message, event_id, account, me, kind,
        edits=edits,
        text=forwarded(message) + text,
        to_us=to_us,
        reply=ReplyRef(message_id=str(_whole(message, "message_id"))),
        quoted=quoted,
        attachments=files,
        album=album if isinstance(album, str) else None,
        continues=units(words) >= LONG,
    )  # fmt: skip


def _event(
    message: Json, event_id: str, account: str, me: Me, kind: EventKind, *, to_us: bool = False, **more: Any
) -> InboundEvent:
    address, chat_kind = _place(message, account)
    at = message.get("date")
    return InboundEvent(
        id=event_id, address=address, chat_kind=chat_kind, sender=_sender(message, me), kind=kind,
        to_us=to_us or chat_kind == "dm", at=float(at) if isinstance(at, int) and 0 < at < 1 << 40 else None, **more,
    )  # fmt: skip


def _button(query: Json, account: str) -> InboundEvent | None:
    message, data = query.get("message"), query.get("data")
    if not isinstance(message, dict) or not isinstance(data, str):
        return None  # of a game, or of a message that another bot's user sent
    address, chat_kind = _place(message, account)
    return InboundEvent(
        id=_text(query, "id"),
        address=address,
        chat_kind=chat_kind,
        sender=_person(_mapping(query, "from")),
        kind="button",
        text=data,
        to_us=True,
        reply=ReplyRef(message_id=str(_whole(message, "message_id"))),
    )


def _place(message: Json, account: str) -> tuple[Address, ChatKind]:
    """Where it is. A forum's topic is a thread, also in a direct message; what only answers something is in no thread."""
    chat = _mapping(message, "chat")
    kind = KINDS.get(_text(chat, "type"))
    if kind is None:
        raise NoEvent("a chat of an unknown type")
    thread, topic = message.get("message_thread_id"), message.get("direct_messages_topic")
    name = None
    if isinstance(topic, dict):  # everybody who writes to a channel has a thread there
        name = f"{DIRECT}{_whole(topic, 'topic_id')}"
    elif message.get("is_topic_message") is True and isinstance(thread, int):
        name = str(thread)
    return Address(account, str(_whole(chat, "id")), name), kind


def _sender(message: Json, me: Me) -> Person:
    """Who wrote: a person, or the chat in whose name an anonymous administrator or a channel speaks."""
    chat, author = message.get("sender_chat"), message.get("from")
    if isinstance(chat, dict) and not (isinstance(author, dict) and author.get("id") == me.id):
        return Person(str(_whole(chat, "id")), str(chat.get("title") or "")[:MAX_NAME])
    if not isinstance(author, dict):
        raise NoEvent("a message of nobody")
    return _person(author)


def _person(user: Json) -> Person:
    names = [str(user.get(part) or "") for part in ("first_name", "last_name")]
    name = " ".join(each for each in names if each) or str(user.get("username") or "")
    return Person(str(_whole(user, "id")), name[:MAX_NAME], user.get("is_bot") is True)


def _quoted(message: Json, me: Me) -> Quoted | None:
    """What it answers: here, or in another chat; of that the part that was chosen, or all."""
    chosen = message.get("quote")
    text = chosen.get("text") if isinstance(chosen, dict) else None
    answered = message.get("reply_to_message")
    if not isinstance(answered, dict):
        elsewhere = message.get("external_reply")
        number = elsewhere.get("message_id") if isinstance(elsewhere, dict) else None
        if not isinstance(number, int) or not isinstance(text, str):
            return None
        return Quoted(message_id=str(number), text=text[:MAX_QUOTED])
    if "forum_topic_created" in answered or not isinstance(answered.get("message_id"), int):
        return None  # in a topic, everything answers the message that opened it
    try:
        sender = _sender(answered, me)
    except NoEvent:
        sender = None
    return Quoted(
        message_id=str(answered["message_id"]),
        text=(text if isinstance(text, str) else words_of(answered))[:MAX_QUOTED],
        sender=sender,
        ours=sender is not None and sender.id == str(me.id),
    )


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
