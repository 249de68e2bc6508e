"""What we show, as parameters of the Bot API's methods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes.errors import SendUncertain
from hermes.platform import Activity, Address, Content, OutboundFile, Receipt, ReplyRef, UploadPart
from platforms.telegram.translate import DIRECT

MAX_PHOTO = 10_000_000  # bytes; what is larger goes as a document (https://core.telegram.org/bots/api#sending-files)
# What is said of a picture with extreme sides, a file that is not what its type says, a person who wants no voice messages.
NOT_AS_THIS = (
    "PHOTO_INVALID_DIMENSIONS", "PHOTO_EXT_INVALID", "PHOTO_SAVE_FILE_INVALID", "IMAGE_PROCESS_FAILED",
    "VOICE_MESSAGES_FORBIDDEN", "VIDEO_CONTENT_TYPE_INVALID",
)  # fmt: skip
Params = dict[str, Any]


def message(
    to: Address, content: Content, reply: ReplyRef | None, *, as_document: bool = False
) -> tuple[str, Params, tuple[UploadPart, ...]]:
    """The method, its parameters and its files for one part.

    Args:
        as_document: a file is sent as it is, whatever it is.
    """
    params = _place(to)
    if reply is not None and reply.message_id is not None and _number(reply.message_id) is not None:
        params["reply_parameters"] = {"message_id": _number(reply.message_id), "allow_sending_without_reply": True}
    if content.silent:
        params["disable_notification"] = True
    if content.buttons:
        params["reply_markup"] = _keyboard(content)
    if content.file is None:
        return "sendMessage", {**params, "text": content.text, **_dialect(content)}, ()
    method, field = ("sendDocument", "document") if as_document else _method(content.file)
    if content.text:
        params |= {"caption": content.text, **_dialect(content)}
    name = content.file.name or field  # without one it would be no file
    return method, params, (
        UploadPart(name=field, content=content.file, file_name=name, media_type=content.file.media_type),
    )  # fmt: skip


def only_as_document(method: str, why: str) -> bool:
    """Whether the service took nothing, and only because a file is not what the method is for, or not welcome as such."""
    return method not in ("sendMessage", "sendDocument") and any(words in why for words in NOT_AS_THIS)


def edit(receipt: Receipt, content: Content) -> tuple[str, Params]:
    """The method and its parameters that make a message show this."""
    params: Params = {"chat_id": _chat(receipt.address.chat), "message_id": _number(receipt.message_id)}
    if content.buttons:
        params["reply_markup"] = _keyboard(content)
    if receipt.extra == "caption":
        return "editMessageCaption", {**params, "caption": content.text, **_dialect(content)}
    return "editMessageText", {**params, "text": content.text, **_dialect(content)}


def signal(to: Address, activity: Activity) -> tuple[str, Params] | None:
    """The method and its parameters of a sign; None for one that has no place."""
    if activity.kind == "typing":
        return "sendChatAction", {**_place(to), "action": "typing"}
    number = _number(activity.reply.message_id) if activity.reply is not None else None
    if number is None:
        return None
    reaction = [{"type": "emoji", "emoji": activity.emoji}] if activity.emoji else []
    return "setMessageReaction", {"chat_id": _chat(to.chat), "message_id": number, "reaction": reaction}


def receipt(shown: Any, to: Address, content: Content) -> Receipt:
    """What an edit of the message needs.

    Raises:
        SendUncertain: the answer does not say which message it is.
    """
    number = shown.get("message_id") if isinstance(shown, dict) else None
    if not isinstance(number, int):
        raise SendUncertain("Telegram did not say which message it made")
    return Receipt(message_id=str(number), address=to, extra="caption" if content.file is not None else "")


def _place(to: Address) -> Params:
    params: Params = {"chat_id": _chat(to.chat)}
    thread = to.thread or ""
    if thread.startswith(DIRECT) and (topic := _number(thread.removeprefix(DIRECT))) is not None:
        params["direct_messages_topic_id"] = topic
    elif (topic := _number(thread)) is not None:
        params["message_thread_id"] = topic
    return params


def _chat(chat: str) -> int | str:
    number = _number(chat)
    return chat if number is None else number  # `@channelname` is one, too


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _dialect(content: Content) -> Mapping[str, str]:
    return {"parse_mode": "HTML"} if content.dialect == "telegram_html" else {}


def _keyboard(content: Content) -> Params:
    return {
        "inline_keyboard": [
            [{"text": button.text, "callback_data": button.data} for button in row] for row in content.buttons
        ]
    }


def _method(file: OutboundFile) -> tuple[str, str]:
    kind = file.media_type.lower()
    if kind in ("image/jpeg", "image/png", "image/webp") and file.size_bytes <= MAX_PHOTO:
        return "sendPhoto", "photo"
    if kind == "image/gif":
        return "sendAnimation", "animation"
    if kind in ("audio/ogg", "audio/opus"):
        return "sendVoice", "voice"
    if kind in ("audio/mpeg", "audio/mp4", "audio/m4a"):
        return "sendAudio", "audio"
    return ("sendVideo", "video") if kind == "video/mp4" else ("sendDocument", "document")
