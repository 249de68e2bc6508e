"""Showing things: send, edit, signs. Each makes one effect, by its last request; nothing is retried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hermes.errors import AddressGone, PlatformUnavailable, SendRejected, SendUncertain
from hermes.platform import Activity, Address, Content, Receipt, ReplyRef
from platforms.slack import payload
from platforms.slack.api import Failed, SlackApi
from platforms.slack.emoji import name_of
from platforms.slack.faults import NOT_THERE
from platforms.slack.files import Files, trusted
from platforms.slack.workspaces import Workspace, Workspaces, is_stamp

FILE, RESPONSE = "file", "response"  # kinds of receipts that are no message's
STATUS = "is writing…"
SETTLED = ("already_reacted", "no_reaction")


class Sending:
    """What is shown through one app.

    Args:
        api: the Web API.
        spaces: where the app is.
        files: how files are shown.
        status: whether a thread shows that an answer is being written.
    """

    def __init__(self, api: SlackApi, spaces: Workspaces, files: Files, *, status: bool) -> None:
        self._api = api
        self._spaces = spaces
        self._files = files
        self._status = status

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show one part; as `Platform.send`."""
        space, channel = self._spaces.locate(to.chat)
        thread = _thread(to)
        if content.file is not None:
            return await self._files.show(space, channel, thread, to, content, key=key)
        params = payload.message(channel, thread, content, key)
        body: dict[str, Any] | None = None
        try:
            body = await self._api.call("chat.postMessage", params, space.token, shows=True)
        except Failed as failed:
            if failed.error not in NOT_THERE or thread is not None or not self._may_respond(reply):
                raise failed.meaning from None
        if body is None:
            assert reply is not None
            return await self._respond(reply.token or "", to, content)
        stamp, shown_in = body.get("ts"), body.get("channel")
        if not isinstance(stamp, str) or not is_stamp(stamp):
            raise SendUncertain("Slack did not say which message it made")
        address = to
        if isinstance(shown_in, str) and shown_in and shown_in != channel:  # it was sent to a person: here is the chat
            address = replace_chat(to, space.outside(shown_in))
        return Receipt(message_id=stamp, address=address, extra=key)

    def _may_respond(self, reply: ReplyRef | None) -> bool:
        """Whether a command was typed where the app is not, and can still be answered there."""
        if reply is None or reply.token is None or (reply.until is not None and reply.until <= self._api.clock()):
            return False
        return trusted(reply.token, self._api.base_url)

    async def _respond(self, url: str, to: Address, content: Content) -> Receipt:
        answer = await self._api.respond(url, payload.response(content))
        if answer.status >= 500 or answer.status == 429:
            raise PlatformUnavailable(f"Slack answered {answer.status} to the answer of a command")
        if answer.status != 200:
            raise AddressGone(
                f"the command can no longer be answered there ({answer.status}), and the app is not in the channel"
            )
        return Receipt(message_id="response", address=to, extra=RESPONSE)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Make a message of ours show this; as `Platform.edit`. It may be repeated without harm."""
        if receipt.extra == RESPONSE:
            raise SendRejected("what answers a command in a channel without the app cannot be changed")
        space, channel = self._spaces.locate(receipt.address.chat)
        stamp, key = receipt.message_id, receipt.extra
        if receipt.extra == FILE:
            found = await self._files.message_of(space, channel, receipt.message_id)
            if found is None:
                raise PlatformUnavailable("Slack does not show the file yet")
            stamp, key = found, ""
        if not is_stamp(stamp):
            raise SendRejected(f"{stamp[:40]!r} is no message of Slack's")
        params = payload.update(channel, stamp, replace(content, file=None), key)
        await self._api.ask("chat.update", params, space.token, shows=True)
        return receipt

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show that we write, or react; as `Platform.signal`."""
        space, channel = self._spaces.locate(to.chat)
        if activity.kind == "typing":
            thread = _thread(to)
            if self._status and thread is not None:  # Slack shows it there alone, and ends it with our next message
                params = {"channel_id": channel, "thread_ts": thread, "status": STATUS}
                await self._api.ask("assistant.threads.setStatus", params, space.token)
            return
        stamp = activity.reply.message_id if activity.reply is not None else None
        if stamp is not None and is_stamp(stamp):
            await self._react(space, channel, stamp, activity.emoji)

    async def _react(self, space: Workspace, channel: str, stamp: str, emoji: str | None) -> None:
        at = {"channel": channel, "timestamp": stamp}
        if emoji is not None:
            name = name_of(emoji)
            if name is None:
                raise SendRejected(f"Slack's name of the emoji {emoji[:10]} is not known")
            await self._settled("reactions.add", {**at, "name": name}, space)
            return
        body = await self._api.ask("reactions.get", at, space.token)
        message = body.get("message")
        shown = message.get("reactions") if isinstance(message, dict) else None
        for each in shown if isinstance(shown, list) else ():
            if isinstance(each, dict) and space.user in (each.get("users") or ()):
                await self._settled("reactions.remove", {**at, "name": str(each.get("name"))}, space)

    async def _settled(self, method: str, params: dict[str, str], space: Workspace) -> None:
        try:
            await self._api.call(method, params, space.token)
        except Failed as failed:
            if failed.error not in SETTLED:
                raise failed.meaning from None


def replace_chat(to: Address, chat: str) -> Address:
    """The same place in another chat."""
    return Address(to.account, chat, to.thread)


def _thread(to: Address) -> str | None:
    if to.thread is not None and not is_stamp(to.thread):
        raise SendRejected(f"{to.thread[:40]!r} is no thread of Slack's")
    return to.thread
