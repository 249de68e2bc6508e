"""What Slack tells us as events. Pure: everything that decides is an argument.

Source: Slack's reference, "message event", "app_mention event", "block_actions payload", "Slash commands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hermes.events import Address, AttachmentKind, AttachmentRef, ChatKind, InboundEvent, Person, ReplyRef
from platforms.slack.wire import Attachment, Callback, Command, File, Interaction, Message
from platforms.slack.words import command, mentioned, plain, slash
from platforms.slack.workspaces import Workspace

SAID = (None, "file_share", "thread_broadcast", "me_message", "bot_message")  # the other subtypes are the service's own
GONE_MODES = ("tombstone", "hidden_by_limit")
RESPONSE_LASTS_S = 1700.0  # a response URL is good for thirty minutes
OURS = "hermes"  # begins the action ids of our buttons
MAX_CARRIED = 4000
MAX_VALUE = 64  # bytes of what a button carries


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How an account looks at what happens.

    Args:
        account: our id in the configuration.
        commands: what people may type.
        thread_replies: a mention in a channel is answered in a thread of its own.
        follows: whether somebody has spoken to us in this thread of this chat.
        names: of people, by their ids, as far as they are known.
    """

    account: str
    commands: frozenset[str] = frozenset()
    thread_replies: bool = True
    follows: Callable[[str, str], bool] = field(default=lambda chat, thread: False)  # noqa: ARG005
    names: Mapping[str, str] = field(default_factory=dict)


def people_in(message: Message) -> tuple[str, ...]:
    """The ids of everybody whose name a message needs."""
    inner = message.message or message
    return tuple(dict.fromkeys(filter(None, (inner.user, *mentioned(inner.text or "")))))


def happened(callback: Callback, space: Workspace, view: View) -> InboundEvent | None:
    """The event of an `events_api` envelope; None for what nobody said, and for what we said."""
    event = callback.event
    if event.type == "channel_id_changed":
        return _moved(event, space, view)
    if event.type not in ("message", "app_mention") or event.channel is None:
        return None
    if event.subtype == "message_changed" and event.message is not None:
        return _edited(event, event.message, space, view)
    return message_event(event, event.channel, space, view)


def message_event(message: Message, channel: str, space: Workspace, view: View) -> InboundEvent | None:
    """A message that somebody wrote, from an event or a history."""
    if message.subtype not in SAID or message.ts is None or space.is_us(message.user, message.bot_id):
        return None
    sender = person(message, space, view)
    if sender is None:
        return None
    words, files = words_of(message, space, view), attachments_of(message, space)
    if not words and not files:
        return None
    chat_kind: ChatKind = "dm" if message.channel_type == "im" or channel.startswith("D") else "group"
    chat, thread = space.outside(channel), thread_of(message)
    to_us = chat_kind == "dm" or _to_us(message, chat, thread, space, view)
    if thread is None and chat_kind == "group" and to_us and view.thread_replies and not sender.bot:
        thread = message.ts  # a thread is named by the message that it hangs on
    return InboundEvent(
        id=message.ts,
        address=Address(view.account, chat, thread),
        chat_kind=chat_kind,
        sender=sender,
        text=words,
        to_us=to_us,
        reply=ReplyRef(message_id=message.ts),
        attachments=files,
        at=float(message.ts),
    )


def thread_of(message: Message) -> str | None:
    """The thread that a message is in; the one that a thread hangs on is not in it."""
    return message.thread_ts if message.thread_ts != message.ts else None


def person(message: Message, space: Workspace, view: View) -> Person | None:
    """Who wrote; None if nobody did. What comes through a webhook is a program's."""
    id_ = message.user or message.bot_id
    if id_ is None:
        return None
    bot = message.bot_id is not None or message.subtype == "bot_message" or id_ == "USLACKBOT"
    return Person(space.outside(id_), view.names.get(id_) or message.username or "", bot)


def words_of(message: Message, space: Workspace, view: View) -> str:
    """What a message says, with what it carries beside its words."""
    said = command(plain(message.text or "", space.user, view.names), view.commands)
    carried = [_carried(each, view) for each in message.attachments or ()]
    gone = ["[a file that is not there any more]" for each in message.files or () if each.mode in GONE_MODES]
    return "\n".join(filter(None, (said, *carried, *gone)))


def _carried(attachment: Attachment, view: View) -> str:
    lines = (attachment.pretext, attachment.title, attachment.text)
    words = "\n".join(filter(None, lines)) or attachment.fallback or ""
    words = plain(words, "", view.names)[:MAX_CARRIED]
    return f"[forwarded] {words}" if words and (attachment.is_share or attachment.is_msg_unfurl) else words


def _to_us(message: Message, chat: str, thread: str | None, space: Workspace, view: View) -> bool:
    """Beyond a mention: who goes on in a thread with us speaks to us, unless somebody else is named."""
    named = mentioned(message.text or "")
    if space.user in named or message.type == "app_mention":
        return True
    if thread is None or named:
        return False
    return message.parent_user_id == space.user or view.follows(chat, thread)


def attachments_of(message: Message, space: Workspace) -> tuple[AttachmentRef, ...]:
    """The files, by their ids: where their bytes are is asked when they are wanted."""
    return tuple(_file(each, space) for each in message.files or () if each.mode not in GONE_MODES)


def _file(file: File, space: Workspace) -> AttachmentRef:
    media_type = (file.mimetype or "").partition(";")[0].strip()
    kinds: dict[str, AttachmentKind] = {"image": "image", "audio": "audio", "video": "video"}
    kind = kinds.get(media_type.partition("/")[0], "document")
    if file.subtype == "slack_audio":  # a clip, recorded in Slack
        kind = "voice"
    return AttachmentRef(
        kind=kind, ref=space.outside(file.id), name=file.name or "", media_type=media_type, size_bytes=file.size
    )


def _edited(event: Message, message: Message, space: Workspace, view: View) -> InboundEvent | None:
    """Somebody changed their words; a link's preview changes a message as well, and leaves them alone."""
    before = event.previous_message
    if message.edited is None or (before is not None and before.text == message.text):
        return None
    assert event.channel is not None
    found = message_event(message, event.channel, space, view)
    if found is None:
        return None
    return InboundEvent(
        id=f"{found.id}.{message.edited.ts}", kind="edited", edits=found.id, address=found.address,
        chat_kind=found.chat_kind, sender=found.sender, text=found.text, to_us=found.to_us, reply=found.reply,
        attachments=found.attachments, at=found.at,
    )  # fmt: skip


def _moved(event: Message, space: Workspace, view: View) -> InboundEvent | None:
    """A channel has another id."""
    if event.old_channel_id is None or event.new_channel_id is None:
        return None
    return InboundEvent(
        id=event.event_ts or event.new_channel_id,
        address=Address(view.account, space.outside(event.old_channel_id)),
        chat_kind="group",
        sender=Person(space.outside(space.user), bot=True),
        kind="moved",
        text=space.outside(event.new_channel_id),
    )


def commanded(found: Command, space: Workspace, view: View, now: float) -> InboundEvent:
    """A slash command.

    Args:
        found: as it came.
        now: seconds since the epoch; Slack does not say when.
    """
    url = found.response_url
    return InboundEvent(
        id=found.trigger_id,
        address=Address(view.account, space.outside(found.channel_id)),
        chat_kind="dm" if found.channel_id.startswith("D") else "group",
        sender=Person(space.outside(found.user_id), view.names.get(found.user_id) or found.user_name),
        text=slash(found.command, plain(found.text, "", view.names), view.commands),
        to_us=True,
        reply=ReplyRef(token=url, until=now + RESPONSE_LASTS_S) if url else None,
    )


def pressed(found: Interaction, space: Workspace, view: View) -> InboundEvent | None:
    """A button of ours under a message; None for any other interaction."""
    channel, url = found.channel, found.response_url
    stamp = found.message.ts if found.message is not None else found.container.message_ts
    if found.type != "block_actions" or stamp is None or channel is None or not found.actions:
        return None
    action = found.actions[0]
    if action.type != "button" or action.value is None or not action.action_id.startswith(OURS):
        return None
    if len(action.value.encode()) > MAX_VALUE:
        return None
    thread = thread_of(found.message) if found.message is not None else found.container.thread_ts
    return InboundEvent(
        id=f"{stamp}.{action.action_ts}.{found.user.id}",
        address=Address(view.account, space.outside(channel.id), thread),
        chat_kind="dm" if channel.id.startswith("D") else "group",
        sender=Person(
            space.outside(found.user.id), view.names.get(found.user.id) or found.user.name or found.user.username
        ),
        kind="button",
        text=action.value,
        to_us=True,
        reply=ReplyRef(message_id=stamp, token=url, until=float(action.action_ts) + RESPONSE_LASTS_S if url else None),
        at=float(action.action_ts),
    )
