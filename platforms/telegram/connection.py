"""One connection to Telegram: who we are, and the doors in and out."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn

import msgspec

from hermes.errors import PlatformProtocolError, PlatformRefused, SendRejected, Unreachable
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    Content,
    Host,
    HttpClient,
    Inbox,
    Receipt,
    ReplyRef,
)
from platforms.telegram import sending
from platforms.telegram.api import CALL_S, TelegramApi
from platforms.telegram.config import CAPABILITIES, TelegramConfig
from platforms.telegram.polling import poll
from platforms.telegram.translate import Me

CONNECTIONS = 16  # at once: one polls
MAX_COMMANDS = 100  # https://core.telegram.org/bots/api#setmycommands


class TelegramPlatform:
    """A `Platform`; see `hermes.platform`."""

    def __init__(self, api: TelegramApi, http: HttpClient, config: TelegramConfig, host: Host, me: Me) -> None:
        self._api = api
        self._http = http
        self._config = config
        self._host = host
        self._me = me

    @property
    def capabilities(self) -> Capabilities:
        """All that the service can do."""
        return CAPABILITIES

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Poll for updates."""
        await poll(self._api, inbox, cursors, config=self._config, account=self._host.account, me=self._me)

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:  # noqa: ARG002  # it has no use for the key
        """Show one part; Telegram drops no repeats, so the key is of no use."""
        method, params, parts = sending.message(to, content, reply)
        shown = await self._api.show(method, params, parts=parts)
        return sending.receipt(shown, to, content)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Make a message show this."""
        method, params = sending.edit(receipt, content)
        try:
            await self._api.show(method, params)
        except SendRejected as error:
            if "message is not modified" not in str(error):
                raise
        return receipt

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show that we type, or react."""
        if (found := sending.signal(to, activity)) is not None:
            await self._api.call(*found)

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:
        """Open the bytes of a file; Telegram keeps its path for an hour."""
        return self._fetch(attachment, max_bytes)

    @asynccontextmanager
    async def _fetch(self, attachment: AttachmentRef, max_bytes: int) -> AsyncIterator[ByteStream]:
        found = await self._api.call("getFile", {"file_id": attachment.ref})
        path = found.get("file_path") if isinstance(found, dict) else None
        size = found.get("file_size") if isinstance(found, dict) else None
        if not isinstance(path, str) or ".." in path.split("/") or path.startswith("/"):
            raise SendRejected("the file is not there")
        if isinstance(size, int) and size > max_bytes:
            raise SendRejected(f"the file has {size} bytes, more than the {max_bytes} that are taken")
        async with self._http.stream("GET", self._api.file_url(path), timeout_s=CALL_S) as (answer, pieces):
            if answer.status != 200:
                raise SendRejected(f"the file is not there ({answer.status})")
            yield _Bounded(pieces, max_bytes)


class _Bounded:
    """Bytes up to a bound."""

    def __init__(self, pieces: ByteStream, most: int) -> None:
        self._pieces = pieces
        self._left = most

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.__anext__()
        self._left -= len(piece)
        if self._left < 0:
            raise SendRejected("the file is larger than what is taken")
        return piece


@asynccontextmanager
async def open_telegram(config: TelegramConfig, host: Host) -> AsyncIterator[TelegramPlatform]:
    """A connection whose token is known to be good, without a webhook in the way of its polls, and with our commands shown.

    Raises:
        PlatformRefused: the token is none.
        PlatformError: as `hermes.errors` says.
    """
    async with host.http(proxy=config.proxy, max_connections=CONNECTIONS) as http:
        api = TelegramApi(http, config)
        me = who(await api.call("getMe", {}))
        hook = await api.call("getWebhookInfo", {})
        if isinstance(hook, dict) and hook.get("url"):
            await api.call("deleteWebhook", {"drop_pending_updates": False})
        await _show_commands(api, host)
        yield TelegramPlatform(api, http, config, host, me)


def who(found: Any) -> Me:
    """Who we are, by `getMe`."""
    if not isinstance(found, dict) or not isinstance(found.get("id"), int):
        raise PlatformProtocolError("getMe does not say who we are", sample=repr(found)[:200])
    return Me(id=found["id"], username=str(found.get("username") or ""))


async def _show_commands(api: TelegramApi, host: Host) -> None:
    """Register what people may type, when it is not what was registered last."""
    commands = [{"command": each.name, "description": each.help[:256]} for each in host.commands[:MAX_COMMANDS]]
    digest = hashlib.sha256(msgspec.json.encode(commands)).digest()
    if await host.memory.get("commands") == digest:
        return
    try:
        await api.call("setMyCommands", {"commands": commands})
    except (SendRejected, Unreachable, PlatformRefused):  # a menu that is not shown harms nobody
        return
    await host.memory.put("commands", digest)
