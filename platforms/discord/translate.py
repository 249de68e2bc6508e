"""Messages of Discord's as events. Pure.

Source: Discord's reference, "Message Object" and "Message Formatting".
"""

from __future__ import annotations

import re

from hermes.events import AttachmentKind, AttachmentRef, InboundEvent, Person, Quoted, ReplyRef
from platforms.discord.places import Place
from platforms.discord.wire import Embed, File, Member, Message, Sticker, User, sent_at

SAID = (0, 19)  # an ordinary message, and one that answers another; every other type is the service's own
FORWARD = 1
VOICE_MESSAGE = 1 << 13
LONGEST = 2000  # what an ordinary person can send at once
MAX_QUOTE = 2000
MAX_EMBED = 4000

_MENTION = re.compile(r"<@!?([0-9]{1,20})>")
_EMOJI = re.compile(r"<a?(:\w{1,64}:)[0-9]{1,20}>")


def person(user: User, member: Member | None = None, *, bot: bool = False) -> Person:
    """Who somebody is; the name is what the server shows."""
    name = (member.nick if member else None) or user.global_name or user.username
    return Person(user.id, name, bot or user.bot)


def message_event(
    message: Message,
    place: Place,
    account: str,
    me: str,
    *,
    edited: bool = False,
    auto_thread: bool = False,
    follows: bool = False,
) -> InboundEvent | None:
    """A message, new or edited; None if nobody said it, or we did.

    Args:
        message: as the service describes it.
        place: of its channel.
        account: ours.
        me: our user id.
        edited: it is there already and has this text now.
        auto_thread: a message to us in a server's channel is answered in a thread made from it.
        follows: somebody has spoken to us in this thread: people who go on there speak to us, unless somebody else is named.
    """
    if message.author.id == me or message.type not in SAID:
        return None
    if edited and message.edited_timestamp is None:
        return None  # the service has added a link's preview
    quoted = _quoted(message, me)
    mentioned = any(user.id == me for user in message.mentions)
    to_us = place.chat_kind == "dm" or mentioned or (quoted is not None and quoted.ours)
    text = "\n".join(filter(None, (plain(message.content, message.mentions, me), *_carried(message))))
    attachments = _attachments(message)
    if follows and not message.mentions and not message.author.bot and message.webhook_id is None:
        to_us = to_us or bool(text or attachments)
    address = place.address(account)
    if auto_thread and to_us and place.threadable and message.webhook_id is None and not message.author.bot:
        # A thread that is made from a message has the message's id, so its address is known before there is one.
        address = type(address)(account, place.id, message.id)
    return InboundEvent(
        id=f"{message.id}.{message.edited_timestamp}" if edited else message.id,
        edits=message.id if edited else None,
        address=address,
        chat_kind=place.chat_kind,
        sender=person(message.author, message.member, bot=message.webhook_id is not None),
        kind="edited" if edited else "message",
        text=text,
        to_us=to_us,
        reply=ReplyRef(message_id=message.id),
        quoted=quoted,
        attachments=attachments,
        at=sent_at(message.id),
        continues=len(message.content) >= LONGEST,
    )


def plain(text: str, mentions: tuple[User, ...], me: str) -> str:
    """The words as a person reads them: names for mentions, and ours left out where it begins or ends the text."""
    ours = rf"<@!?{me}>"
    text = re.sub(rf"^\s*({ours}[\s,:]*)+|(\s*{ours})+\s*\Z", "", text)
    names = {user.id: user.global_name or user.username for user in mentions}
    text = _MENTION.sub(lambda found: f"@{names.get(found[1]) or found[1]}", text)
    return _EMOJI.sub(r"\1", text).strip()


def _quoted(message: Message, me: str) -> Quoted | None:
    reference = message.message_reference
    if reference is None or reference.type == FORWARD or reference.message_id is None:
        return None
    answered = message.referenced_message
    if answered is None:
        return Quoted(message_id=reference.message_id)  # deleted, or not sent along
    return Quoted(
        message_id=answered.id,
        text=plain(answered.content, answered.mentions, "")[:MAX_QUOTE],
        sender=person(answered.author, answered.member, bot=answered.webhook_id is not None),
        ours=answered.author.id == me,
    )


def _carried(message: Message) -> list[str]:
    """What a message says beside its words: what it forwards, and what programs show in it."""
    lines = []
    for snapshot in message.message_snapshots:
        lines.append(f"[forwarded] {plain(snapshot.message.content, (), '')}".rstrip())
        lines += [shown for embed in snapshot.message.embeds if (shown := embed_text(embed))]
    lines += [shown for embed in message.embeds if (shown := embed_text(embed))]
    return lines


def embed_text(embed: Embed) -> str:
    """The words of an embed, in the order in which they are shown."""
    lines = [embed.title, embed.description]
    lines += [f"{field.name}: {field.value}" for field in embed.fields]
    return "\n".join(line for line in lines if line)[:MAX_EMBED]


def _attachments(message: Message) -> tuple[AttachmentRef, ...]:
    files = list(message.attachments)
    for snapshot in message.message_snapshots:
        files += snapshot.message.attachments
    voice = bool(message.flags & VOICE_MESSAGE)
    return (*(_file(each, voice=voice) for each in files), *map(_sticker, message.sticker_items))


def _file(file: File, *, voice: bool) -> AttachmentRef:
    media_type = (file.content_type or "").partition(";")[0].strip()
    kinds: dict[str, AttachmentKind] = {"image": "image", "audio": "voice" if voice else "audio", "video": "video"}
    return AttachmentRef(
        kind=kinds.get(media_type.partition("/")[0], "document"),
        ref=file.url,
        name=file.filename,
        media_type=media_type,
        size_bytes=file.size,
    )


def _sticker(sticker: Sticker) -> AttachmentRef:
    """Source: Discord's reference, "CDN Endpoints" and "Sticker Format Types"."""
    suffix, media_type = {3: ("json", "application/json"), 4: ("gif", "image/gif")}.get(
        sticker.format_type, ("png", "image/png")
    )
    host = "media.discordapp.net" if suffix == "gif" else "cdn.discordapp.com"
    return AttachmentRef(
        kind="sticker",
        ref=f"https://{host}/stickers/{sticker.id}.{suffix}",
        name=sticker.name,
        media_type=media_type,
    )
