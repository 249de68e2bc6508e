"""What we show, as bodies of requests. Pure.

Source: Discord's reference, "Create Message", "Edit Message", "Component Reference", "Uploading Files".
"""

from __future__ import annotations

from typing import Any

import msgspec

from hermes.errors import SendRejected
from hermes.platform import Button, Content, OutboundFile, ReplyRef, UploadPart

MAX_TEXT = 2000
MAX_ROWS, MAX_IN_A_ROW = 5, 5
MAX_LABEL = 80
SUPPRESS_NOTIFICATIONS = 1 << 12
ROW, BUTTON, SECONDARY = 1, 2, 2


def message_body(
    content: Content, *, key: str | None = None, reply: ReplyRef | None = None, channel: str = "", mention: bool = False
) -> dict[str, Any]:
    """The body that shows this content.

    Args:
        content: one part.
        key: makes the service drop a repeat of it.
        reply: what it answers.
        channel: where that is.
        mention: people who are named are notified.

    Raises:
        SendRejected: the service would not take it.
    """
    if len(content.text) > MAX_TEXT:
        raise SendRejected(f"a message has at most {MAX_TEXT} characters, and this one {len(content.text)}")
    if not content.text.strip() and content.file is None:
        raise SendRejected("a message without text or file cannot be sent")
    body: dict[str, Any] = {
        "content": content.text,
        "allowed_mentions": {"parse": ["users"] if mention else [], "replied_user": mention},
        "components": _rows(content.buttons),
    }
    if content.silent:
        body["flags"] = SUPPRESS_NOTIFICATIONS
    if key is not None:
        body |= {"nonce": key, "enforce_nonce": True}
    if reply is not None and reply.message_id is not None:
        body["message_reference"] = {
            "message_id": reply.message_id,
            "channel_id": channel,
            "fail_if_not_exists": False,
        }
    if content.file is not None:
        body["attachments"] = [{"id": 0, "filename": content.file.name}]
    return body


def edit_body(content: Content, *, mention: bool = False) -> dict[str, Any]:
    """The body that makes a message show this content; what it does not name stays as it is."""
    body = message_body(content, mention=mention)
    body.pop("flags", None)  # a notification has been given or not
    return body


def form(body: dict[str, Any], file: OutboundFile) -> tuple[UploadPart, ...]:
    """A body with a file beside it."""
    return (
        UploadPart(name="payload_json", content=msgspec.json.encode(body), media_type="application/json"),
        UploadPart(name="files[0]", content=file, file_name=file.name, media_type=file.media_type),
    )


def _rows(rows: tuple[tuple[Button, ...], ...]) -> list[dict[str, Any]]:
    """Buttons in rows of five at most, in the order in which they were given."""
    found = [row[start : start + MAX_IN_A_ROW] for row in rows for start in range(0, len(row), MAX_IN_A_ROW)]
    if len(found) > MAX_ROWS:
        raise SendRejected(f"a message has at most {MAX_ROWS} rows of {MAX_IN_A_ROW} buttons")
    return [{"type": ROW, "components": [_button(each) for each in row]} for row in found]


def _button(button: Button) -> dict[str, Any]:
    return {"type": BUTTON, "style": SECONDARY, "label": button.text[:MAX_LABEL] or "·", "custom_id": button.data}
