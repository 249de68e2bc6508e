"""The methods of the fake Bot API but `getUpdates`, as plain functions over its state, with the service's checks and words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hermes.testing.telegram_text import BadRequest, check_text

MAX_UPLOAD = 50_000_000
ACTIONS = (
    "typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice", "upload_document",
    "choose_sticker", "find_location", "record_video_note", "upload_video_note",
)  # fmt: skip
# https://core.telegram.org/bots/api#reactiontypeemoji
REACTIONS = frozenset((
    *"👍👎❤🔥🥰👏😁🤔🤯😱🤬😢🎉🤩🤮💩🙏👌🕊🤡🥱🥴😍🐳🌚🌭💯🤣⚡🍌🏆💔🤨😐🍓🍾💋🖕😈😴😭🤓👻👀🎃🙈😇😨🤝✍🤗🫡🎅🎄☃💅🤪🗿🆒💘🙉🦄😘💊🙊😎👾🤷😡",
    "❤\u200d🔥", "👨\u200d💻", "🤷\u200d♂", "🤷\u200d♀",
))  # fmt: skip
BOT_ID = 4242


class TelegramError(Exception):
    """An error answer of the service."""

    def __init__(self, code: int, description: str, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters


@dataclass(slots=True, kw_only=True)
class Shown:
    """A message that people see: its words, how it is marked up, its file, and how often it was changed."""

    text: str
    message: dict[str, Any]
    file: tuple[str, bytes] | None = None
    reactions: list[Any] = field(default_factory=list)
    edits: int = 0


class State(Protocol):
    """What of the fake server the methods work on."""

    shown: dict[tuple[int | str, int], Shown]
    webhook: str
    hook: dict[str, Any]
    updates: deque[dict[str, Any]]
    commands: list[Any]
    files: dict[str, tuple[str, bytes]]
    gone: dict[str, str]
    pressed: list[str]
    reactions: dict[tuple[int | str, int], list[str]]

    def next_message(self) -> int:
        """A new message id."""


def _bad(words: str) -> TelegramError:
    return TelegramError(400, f"Bad Request: {words}")


def _get_me(_state: State, _params: dict[str, Any]) -> Any:
    return {
        "id": BOT_ID, "is_bot": True, "first_name": "Hermes", "username": "hermes_test_bot", "can_join_groups": True,
        "can_read_all_group_messages": False, "supports_inline_queries": False,
    }  # fmt: skip


def _get_webhook_info(state: State, _params: dict[str, Any]) -> Any:
    return {
        "url": state.webhook, "has_custom_certificate": False, "pending_update_count": len(state.updates),
        **{name: state.hook[name] for name in ("last_error_date", "last_error_message") if name in state.hook},
    }  # fmt: skip


def _set_webhook(state: State, params: dict[str, Any]) -> Any:
    url, secret = str(params.get("url", "")), str(params.get("secret_token", ""))
    if url and not url.startswith(("https://", "http://127.0.0.1")):
        raise _bad("bad webhook: An HTTPS URL must be provided for webhook")
    if len(secret) > 256:
        raise _bad("secret token is too long")
    if not all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in secret):
        raise _bad("secret token contains unallowed characters")
    state.webhook = url
    state.hook = {"secret_token": secret} if url else {}
    return True


def _delete_webhook(state: State, params: dict[str, Any]) -> Any:
    state.webhook, state.hook = "", {}
    if params.get("drop_pending_updates"):
        state.updates.clear()
    return True


def _set_my_commands(state: State, params: dict[str, Any]) -> Any:
    commands = params.get("commands")
    if not isinstance(commands, list) or len(commands) > 100:
        raise _bad("can't parse commands list")
    for each in commands:
        name, about = str(each.get("command")), str(each.get("description"))
        if not 1 <= len(name) <= 32 or not name.replace("_", "").isalnum() or name != name.lower():
            raise _bad("BOT_COMMAND_INVALID")
        if not 1 <= len(about) <= 256:
            raise _bad("command description is empty")
    state.commands = commands
    return True


def _place(state: State, params: dict[str, Any]) -> int | str:
    chat: int | str = params.get("chat_id", "")
    if isinstance(chat, str) and chat.lstrip("-").isdigit():
        chat = int(chat)
    why = state.gone.get(str(chat))
    if why is not None:
        if why.startswith("moved "):
            raise TelegramError(
                400, "Bad Request: group chat was upgraded to a supergroup chat", {"migrate_to_chat_id": int(why[6:])}
            )
        raise TelegramError(403 if why.startswith("Forbidden") else 400, why)
    if chat == "":
        raise _bad("chat_id is empty")
    if chat == 0:
        raise _bad("chat not found")
    return chat


def _words(params: dict[str, Any], name: str) -> tuple[str, list[dict[str, Any]]]:
    try:
        text, entities = check_text(str(params.get(name, "")), params.get("parse_mode"), caption=name == "caption")
    except BadRequest as error:
        raise _bad(str(error)) from None
    return text, [
        {key: getattr(each, key) for key in ("type", "offset", "length", "url", "language") if getattr(each, key) is not None}
        for each in entities
    ]  # fmt: skip


def _show(state: State, params: dict[str, Any], name: str, more: dict[str, Any], file: Any = None) -> Any:
    chat = _place(state, params)
    text, entities = _words(params, name)
    markup = _markup(params)
    replied = params.get("reply_parameters")
    number = state.next_message()
    kind = "private" if isinstance(chat, int) and chat > 0 else "supergroup"
    message: dict[str, Any] = {
        "message_id": number, "date": 1_700_000_000, "chat": {"id": chat, "type": kind},
        "from": {"id": BOT_ID, "is_bot": True, "first_name": "Hermes", "username": "hermes_test_bot"}, **more,
    }  # fmt: skip
    if kind == "private":
        message["chat"]["first_name"] = "Somebody"
    if text:
        message[name] = text
    if entities:
        message["entities" if name == "text" else "caption_entities"] = entities
    if markup:
        message["reply_markup"] = markup
    if params.get("message_thread_id") is not None:
        message |= {"message_thread_id": int(params["message_thread_id"]), "is_topic_message": True}
    if isinstance(replied, dict) and (chat, replied.get("message_id")) in state.shown:
        message["reply_to_message"] = state.shown[chat, replied["message_id"]].message
    state.shown[chat, number] = Shown(text=text, message=message, file=file)
    return message


def _markup(params: dict[str, Any]) -> dict[str, Any] | None:
    markup = params.get("reply_markup")
    if not isinstance(markup, dict) or "inline_keyboard" not in markup:
        return None
    for row in markup["inline_keyboard"]:
        for button in row:
            if not button.get("text"):
                raise _bad("inline keyboard button text is empty")
            if len(str(button.get("callback_data", "")).encode()) > 64:
                raise _bad("BUTTON_DATA_INVALID")
    return dict(markup)


def _send_message(state: State, params: dict[str, Any]) -> Any:
    return _show(state, params, "text", {})


def _send_file(kind: str) -> Callable[[State, dict[str, Any]], Any]:
    def send(state: State, params: dict[str, Any]) -> Any:
        file = params.get(kind)
        if isinstance(file, str) and file.startswith("attach://"):
            file = params.get(file.removeprefix("attach://"))
        if not isinstance(file, tuple) or not file[1]:
            raise _bad(f"there is no {kind} in the request")
        if len(file[1]) > MAX_UPLOAD:
            raise TelegramError(413, "Request Entity Too Large")
        ref = f"file-{len(state.files) + 1}"
        state.files[ref] = (f"{kind}s/{ref}", file[1])
        made: Any = {"file_id": ref, "file_unique_id": f"u-{ref}", "file_size": len(file[1])}
        if kind == "photo":
            made = [{**made, "width": 1, "height": 1}]
        elif kind in ("video", "animation"):
            made |= {"width": 1, "height": 1, "duration": 1}
        elif kind in ("voice", "audio"):
            made |= {"duration": 1}
        else:
            made |= {"file_name": file[0]}
        return _show(state, params, "caption", {kind: made}, file)

    return send


def _edit(name: str) -> Callable[[State, dict[str, Any]], Any]:
    def edit(state: State, params: dict[str, Any]) -> Any:
        chat = _place(state, params)
        shown = state.shown.get((chat, int(params.get("message_id", 0))))
        if shown is None:
            raise _bad("message to edit not found")
        text, entities = _words(params, name)
        markup = _markup(params)
        key = "entities" if name == "text" else "caption_entities"
        if (
            shown.text == text
            and shown.message.get(key, []) == entities
            and shown.message.get("reply_markup") == markup
        ):
            raise _bad(
                "message is not modified: specified new message content and reply markup are exactly the same as a current"
                " content and reply markup of the message"
            )
        shown.text = shown.message[name] = text
        shown.message[key] = entities
        shown.message["reply_markup"] = markup
        shown.edits += 1
        return {**{k: v for k, v in shown.message.items() if v}, "edit_date": 1_700_000_001}

    return edit


def _send_chat_action(state: State, params: dict[str, Any]) -> Any:
    _place(state, params)
    if params.get("action") not in ACTIONS:
        raise _bad("wrong parameter action in request")
    return True


def _react(state: State, params: dict[str, Any]) -> Any:
    chat, number = _place(state, params), int(params.get("message_id", 0))
    reactions = list(params.get("reaction", ()))
    if any(each.get("type") == "emoji" and each.get("emoji") not in REACTIONS for each in reactions):
        raise _bad("REACTION_INVALID")
    if (shown := state.shown.get((chat, number))) is not None:
        shown.reactions = reactions
    state.reactions[chat, number] = [each.get("emoji", "") for each in reactions]
    return True


def _get_file(state: State, params: dict[str, Any]) -> Any:
    found = state.files.get(str(params.get("file_id")))
    if found is None:
        raise _bad("invalid file_id")
    path, data = found
    if len(data) > 20_000_000:
        raise _bad("file is too big")
    return {"file_id": params["file_id"], "file_unique_id": "u", "file_size": len(data), "file_path": path}


def _answer_callback_query(state: State, params: dict[str, Any]) -> Any:
    if not params.get("callback_query_id"):
        raise _bad("query is too old and response timeout expired or query ID is invalid")
    state.pressed.append(str(params["callback_query_id"]))
    return True


METHODS: Mapping[str, Callable[[Any, dict[str, Any]], Any]] = {
    "getme": _get_me,
    "getwebhookinfo": _get_webhook_info,
    "setwebhook": _set_webhook,
    "deletewebhook": _delete_webhook,
    "setmycommands": _set_my_commands,
    "sendmessage": _send_message,
    **{f"send{kind}": _send_file(kind) for kind in ("photo", "document", "video", "animation", "voice", "audio")},
    "editmessagetext": _edit("text"),
    "editmessagecaption": _edit("caption"),
    "sendchataction": _send_chat_action,
    "setmessagereaction": _react,
    "getfile": _get_file,
    "answercallbackquery": _answer_callback_query,
    "logout": lambda _state, _params: True,
    "close": lambda _state, _params: True,
}
