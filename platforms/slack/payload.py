"""What we show, as arguments of the Web API's methods. Pure.

Source: https://docs.slack.dev/reference/methods/chat.postMessage, …/chat.update, https://docs.slack.dev/reference/block-kit
"""

from __future__ import annotations

from typing import Any

from hermes.errors import SendRejected
from hermes.platform import Button, Content
from platforms.slack.translate import OURS

MAX_TEXT = 3000
MAX_IN_A_ROW, MAX_BLOCKS = 25, 50
MAX_LABEL = 75
EVENT_TYPE = "hermes_part"  # of the metadata by which a message is found again
Params = dict[str, Any]


def text_of(content: Content) -> str:
    """The text in Slack's own form."""
    if content.dialect == "slack":
        return content.text
    return content.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def message(channel: str, thread: str | None, content: Content, key: str) -> Params:
    """The arguments of `chat.postMessage`.

    Args:
        channel: where.
        thread: the message that it hangs on.
        content: without a file.
        key: by which it can be found again.

    Raises:
        SendRejected: Slack would not take it.
    """
    _check(content)
    params: Params = {
        "channel": channel,
        "text": text_of(content),
        "unfurl_links": False,
        "unfurl_media": False,
        "metadata": metadata(key),
    }
    if (shown := blocks(content)) is not None:
        params["blocks"] = shown
    if thread is not None:
        params["thread_ts"] = thread
    return params


def update(channel: str, stamp: str, content: Content, key: str) -> Params:
    """The arguments of `chat.update`; left out, `parse` would be `client`, by which `@here` in a text is a mention."""
    _check(content)
    params: Params = {
        "channel": channel,
        "ts": stamp,
        "text": text_of(content),
        "parse": "none",
        "link_names": False,
        "blocks": blocks(content) or [],
    }
    if key:
        params["metadata"] = metadata(key)
    return params


def completion(file: str, channel: str, thread: str | None, content: Content) -> Params:
    """The arguments of `files.completeUploadExternal`, by which an uploaded file is shown."""
    assert content.file is not None
    params: Params = {"files": [{"id": file, "title": content.file.name or "file"}], "channel_id": channel}
    if thread is not None:
        params["thread_ts"] = thread
    if content.buttons:  # Slack takes either words or blocks
        params["blocks"] = blocks(content)
    elif content.text:
        params["initial_comment"] = text_of(content)
    return params


def response(content: Content) -> Params:
    """The body for a response URL: only who typed the command sees it."""
    _check(content)
    body: Params = {"response_type": "ephemeral", "text": text_of(content)}
    if (shown := blocks(content)) is not None:
        body["blocks"] = shown
    return body


def metadata(key: str) -> Params:
    """What goes with a message and is seen by nobody."""
    return {"event_type": EVENT_TYPE, "event_payload": {"key": key}}


def blocks(content: Content) -> list[Params] | None:
    """The blocks that show a content; None where its text does."""
    if content.dialect == "slack" and not content.buttons:
        return None
    found: list[Params] = []
    if content.text:
        kind = "mrkdwn" if content.dialect == "slack" else "plain_text"
        text: Params = {"type": kind, "text": content.text}
        found.append({"type": "section", "text": text if kind == "mrkdwn" else text | {"emoji": False}})
    for row, buttons in enumerate(_rows(content.buttons)):
        elements = [_button(each, f"{OURS}:{row}:{place}") for place, each in enumerate(buttons)]
        found.append({"type": "actions", "elements": elements})
    return found


def _check(content: Content) -> None:
    if len(content.text) > MAX_TEXT:
        raise SendRejected(f"a message has at most {MAX_TEXT} characters, and this one {len(content.text)}")
    if not content.text.strip():
        raise SendRejected("a message without text cannot be sent")


def _rows(rows: tuple[tuple[Button, ...], ...]) -> list[tuple[Button, ...]]:
    found = [row[start : start + MAX_IN_A_ROW] for row in rows for start in range(0, len(row), MAX_IN_A_ROW)]
    if len(found) > MAX_BLOCKS - 1:
        raise SendRejected(f"a message has at most {MAX_BLOCKS - 1} rows of buttons")
    return found


def _button(button: Button, action: str) -> Params:
    label = {"type": "plain_text", "text": button.text[:MAX_LABEL] or "·", "emoji": False}
    return {"type": "button", "text": label, "action_id": action, "value": button.data}
