"""Whether a part is shown: read back by the metadata that each message carries, or by the file that was uploaded for it."""

from __future__ import annotations

from typing import Any

from hermes.errors import AddressGone, SendRejected, SendUncertain
from hermes.platform import Address, Receipt
from platforms.slack.api import SlackApi
from platforms.slack.files import Files
from platforms.slack.payload import EVENT_TYPE
from platforms.slack.uploads import Uploads
from platforms.slack.workspaces import Workspaces, is_stamp

PAGE, MAX_PAGES = 200, 5
CLOCKS_DIFFER_S = 120.0


async def find(
    api: SlackApi, spaces: Workspaces, files: Files, uploads: Uploads, to: Address, *, key: str, since: float
) -> Receipt | None:
    """The receipt of what was sent to an address with a key, or None; as `ReadsBack.find`.

    Source: https://docs.slack.dev/messaging/message-metadata, "Retrieving metadata".

    Raises:
        SendUncertain: more was written there since than is read, or it may not be read.
        PlatformError: the service cannot be asked now.
    """
    try:
        return await _find(api, spaces, files, uploads, to, key=key, since=since)
    except (AddressGone, SendRejected) as error:
        raise SendUncertain(f"it cannot be read what is shown there: {error}") from None


async def _find(
    api: SlackApi, spaces: Workspaces, files: Files, uploads: Uploads, to: Address, *, key: str, since: float
) -> Receipt | None:
    space, channel = spaces.locate(to.chat)
    channel = await files.conversation(space, channel)
    address = Address(to.account, space.outside(channel), to.thread)
    uploaded = await uploads.of(key)
    if uploaded is not None:
        shown = await files.message_of(space, channel, uploaded) is not None
        return Receipt(message_id=uploaded, address=address, extra="file") if shown else None
    params = {
        "channel": channel,
        "oldest": f"{max(0.0, since - CLOCKS_DIFFER_S):.6f}",
        "limit": str(PAGE),
        "include_all_metadata": "true",
    }
    method = "conversations.history"
    if to.thread is not None:
        method, params["ts"] = "conversations.replies", to.thread
    for _ in range(MAX_PAGES):
        body = await api.ask(method, params, space.token)
        for each in messages_in(body):
            if space.is_us(each.get("user"), each.get("bot_id")) and _key_of(each) == key and is_stamp(each.get("ts")):
                return Receipt(message_id=each["ts"], address=address, extra=key)
        cursor = next_page(body)
        if cursor is None:
            return None
        params["cursor"] = cursor
    raise SendUncertain("more was written there than is read to find one message")


def messages_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a history."""
    found = body.get("messages")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def next_page(body: dict[str, Any]) -> str | None:
    """Where a history goes on; None at its end."""
    more = body.get("response_metadata")
    cursor = more.get("next_cursor") if isinstance(more, dict) else None
    return cursor if isinstance(cursor, str) and cursor else None


def _key_of(message: dict[str, Any]) -> object:
    found = message.get("metadata")
    if not isinstance(found, dict) or found.get("event_type") != EVENT_TYPE:
        return None
    carried = found.get("event_payload")
    return carried.get("key") if isinstance(carried, dict) else None
