"""Showing things by REST: send, edit, typing, reactions. Each makes one effect, by its last request; nothing is retried."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from hermes.errors import AddressGone, PlatformProtocolError, SendRejected, SendUncertain
from hermes.platform import Activity, Address, Content, Receipt, ReplyRef
from platforms.discord.faults import (
    INVALID_WEBHOOK_TOKEN,
    THREAD_EXISTS,
    UNKNOWN_CHANNEL,
    UNKNOWN_MESSAGE,
    UNKNOWN_WEBHOOK,
)
from platforms.discord.payload import edit_body, form, message_body
from platforms.discord.rest import Failed, Rest, decoded
from platforms.discord.translate import plain
from platforms.discord.wire import Message, Wire

LOADING = 1 << 7  # the flag of an answer that has been deferred and not given
THREAD_NAME = 80
THREAD_LASTS_MIN = 1440
VOID = (UNKNOWN_WEBHOOK, INVALID_WEBHOOK_TOKEN, UNKNOWN_MESSAGE, 10062)


class _Sent(Wire, frozen=True):
    id: str
    channel_id: str


class Sending:
    """What is shown through one token.

    Args:
        rest: the API.
        application: our application's id, which owns the answers to commands.
        clock: seconds since the epoch.
        mention: whether people who are named are notified.
        threads: a thread that is not there yet is made from the message of the same id.
    """

    def __init__(
        self, rest: Rest, application: str, clock: Callable[[], float], *, mention: bool, threads: bool
    ) -> None:
        self._rest = rest
        self._application = application
        self._clock = clock
        self._mention = mention
        self._threads = threads

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show one part; as `Platform.send`."""
        channel = _channel(to)
        if reply is not None and reply.token is not None and (reply.until is None or self._clock() < reply.until):
            answered = await self._answer(to, content, reply.token)
            if answered is not None:
                return answered
        in_thread = to.thread is not None and reply is not None and reply.message_id == to.thread
        body = message_body(
            content,
            key=key,
            reply=None if in_thread else reply,  # what the thread was made from is not in the thread
            channel=channel,
            mention=self._mention,
        )
        path = f"/channels/{channel}/messages"
        try:
            sent = await self._post(path, body, content)
        except Failed as failed:
            if failed.code != UNKNOWN_CHANNEL or to.thread is None or not self._threads:
                raise failed.meaning from None
            await self._make_thread(to.chat, to.thread)
            try:
                sent = await self._post(path, body, content)
            except Failed as again:
                raise again.meaning from None
        return _receipt(sent, to)

    async def _post(self, path: str, body: dict[str, object], content: Content) -> bytes:
        if content.file is not None:
            return await self._rest.ask("POST", path, parts=form(body, content.file), sends=True)
        return await self._rest.ask("POST", path, body=body, sends=True)

    async def _answer(self, to: Address, content: Content, token: str) -> Receipt | None:
        """Fill the deferred answer to a command; None if that has another content already, or the token is void."""
        path = f"/webhooks/{self._application}/{quote(token, safe='')}/messages/@original"
        body = edit_body(content, mention=self._mention)
        try:
            current = decoded(await self._rest.ask("GET", path, token=False), Message)
            if not current.flags & LOADING:
                same = current.content.strip() == content.text.strip() and bool(content.file) == bool(
                    current.attachments
                )
                return Receipt(message_id=current.id, address=to) if same else None
            parts = form(body, content.file) if content.file is not None else ()
            return _receipt(await self._rest.ask("PATCH", path, body=body, parts=parts, sends=True, token=False), to)
        except Failed as failed:
            if failed.code in VOID or failed.status in (401, 404):
                return None
            raise failed.meaning from None

    async def _make_thread(self, channel: str, message: str) -> None:
        """Make the thread that a message's answer goes to."""
        try:
            origin = await self._rest.read(f"/channels/{channel}/messages/{message}", Message)
            name = " ".join(plain(origin.content, origin.mentions, "").split())[:THREAD_NAME]
            await self._rest.ask(
                "POST",
                f"/channels/{channel}/messages/{message}/threads",
                body={"name": name or "Conversation", "auto_archive_duration": THREAD_LASTS_MIN},
            )
        except Failed as failed:
            if failed.code == UNKNOWN_MESSAGE:
                raise AddressGone("the thread is gone, and so is the message it was made from") from None
            if failed.code != THREAD_EXISTS:
                raise failed.meaning from None

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Make a message of ours show this; as `Platform.edit`. It may be repeated without harm."""
        channel = receipt.extra or _channel(receipt.address)
        path = f"/channels/{_id(channel)}/messages/{_id(receipt.message_id)}"
        body = edit_body(content, mention=self._mention)
        parts = form(body, content.file) if content.file is not None else ()
        try:
            await self._rest.ask("PATCH", path, body=body, parts=parts, sends=True)
        except Failed as failed:
            raise failed.meaning from None
        return receipt

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show that we type, or react; as `Platform.signal`."""
        channel = _channel(to)
        message = activity.reply.message_id if activity.reply else None
        try:
            if activity.kind == "typing":
                await self._rest.ask("POST", f"/channels/{channel}/typing")
            elif message is not None and to.thread == message and self._threads:
                await self._react(to.chat, message, activity.emoji)  # what a thread was made from is outside of it
            elif message is not None:
                await self._react(channel, message, activity.emoji)
        except Failed as failed:
            raise failed.meaning from None

    async def _react(self, channel: str, message: str, emoji: str | None) -> None:
        path = f"/channels/{channel}/messages/{_id(message)}"
        if emoji is not None:
            await self._rest.ask("PUT", f"{path}/reactions/{quote(emoji, safe='')}/@me")
            return
        shown = (await self._rest.read(path, Message)).reactions
        for name in [_emoji_name(each.emoji) for each in shown if each.me]:
            await self._rest.ask("DELETE", f"{path}/reactions/{quote(name, safe='')}/@me")


def _emoji_name(emoji: dict[str, object]) -> str:
    """An emoji as a path wants it: itself, or name and id of a server's own."""
    return f"{emoji.get('name')}:{emoji['id']}" if emoji.get("id") else str(emoji.get("name"))


def _id(text: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise SendRejected(f"{text[:40]!r} is no id of Discord's")
    return text


def _channel(to: Address) -> str:
    """The channel that an address means: a thread is a channel of its own."""
    _id(to.chat)
    return _id(to.thread or to.chat)


def _receipt(answer: bytes, to: Address) -> Receipt:
    try:
        sent = decoded(answer, _Sent)
    except PlatformProtocolError as exc:
        raise SendUncertain(f"Discord's answer to a message cannot be read: {exc}") from exc
    extra = sent.channel_id if sent.channel_id != (to.thread or to.chat) else ""
    return Receipt(message_id=sent.id, address=to, extra=extra)
