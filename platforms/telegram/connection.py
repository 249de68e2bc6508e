"""One connection to Telegram: who we are, and the doors in and out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn

import msgspec

from hermes.errors import (
    PlatformConflict,
    PlatformProtocolError,
    PlatformUnavailable,
    RateLimited,
    SendError,
    SendRejected,
)
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    CommandSpec,
    Content,
    Host,
    HttpClient,
    Inbox,
    Receipt,
    ReplyRef,
)
from platforms.telegram import sending, webhook
from platforms.telegram.api import TelegramApi
from platforms.telegram.config import CAPABILITIES, TelegramConfig
from platforms.telegram.fetching import open_file
from platforms.telegram.polling import poll
from platforms.telegram.words import Me

log = logging.getLogger(__name__)

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
        self._in_the_way = False  # a webhook that another program has set since we opened

    @property
    def capabilities(self) -> Capabilities:
        """All that the service can do, and is to do here."""
        return replace(CAPABILITIES, drafts=self._config.drafts)

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Ask for updates, or take them."""
        if self._config.mode == "webhook":
            await webhook.receive(self._api, inbox, config=self._config, host=self._host, me=self._me)
        if self._in_the_way:  # it stays set when that program has ended, and would end every poll
            await _clear_the_way(self._api)
            self._in_the_way = False
        try:
            await poll(self._api, inbox, cursors, config=self._config, account=self._host.account, me=self._me)
        except PlatformConflict as error:
            self._in_the_way = "webhook" in str(error).lower()
            raise

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:  # noqa: ARG002  # it has no use for the key
        """Show one part; Telegram drops no repeats, so the key is of no use."""
        method, params, parts = sending.message(to, content, reply)
        try:
            shown = await self._api.show(method, params, parts=parts)
        except SendRejected as error:
            if not sending.only_as_document(method, str(error)):
                raise
            method, params, parts = sending.message(to, content, reply, as_document=True)
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
        """Open the bytes of a file."""
        return open_file(self._api, self._http, attachment.ref, max_bytes)


@asynccontextmanager
async def open_telegram(config: TelegramConfig, host: Host) -> AsyncIterator[TelegramPlatform]:
    """A connection whose token is known to be good, without a webhook in the way of its polls, and with our commands shown.

    Raises:
        PlatformRefused: the token is none.
        PlatformError: as `hermes.errors` says.
    """
    async with host.http(proxy=config.proxy, max_connections=CONNECTIONS) as http:
        api = TelegramApi(http, config)
        try:
            me = await _prepare(api, config, host)
        except SendError as error:  # nothing was sent: it is the connection that cannot be had
            wait_s = error.retry_after_s if isinstance(error, RateLimited) else None
            raise PlatformUnavailable(str(error), retry_after_s=wait_s) from None
        yield TelegramPlatform(api, http, config, host, me)


async def _prepare(api: TelegramApi, config: TelegramConfig, host: Host) -> Me:
    me = who(await api.call("getMe", {}), host.commands)
    if config.mode == "webhook":
        webhook.reachable(config)
        webhook.secret_of(config)
    else:
        await _clear_the_way(api)
    await _show_commands(api, host, me)
    return me


async def _clear_the_way(api: TelegramApi) -> None:
    """Take a webhook away; what waits is kept."""
    hook = await api.call("getWebhookInfo", {})
    if isinstance(hook, dict) and hook.get("url"):
        await api.call("deleteWebhook", {"drop_pending_updates": False})


def who(found: Any, commands: tuple[CommandSpec, ...] = ()) -> Me:
    """Who we are, by `getMe`."""
    number = found.get("id") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise PlatformProtocolError("getMe does not say who we are", sample=repr(found)[:200])
    return Me(id=number, username=str(found.get("username") or ""), commands=frozenset(each.name for each in commands))


async def _show_commands(api: TelegramApi, host: Host, me: Me) -> None:
    """Register what people may type, when it is not what was registered last for this bot."""
    commands = [{"command": each.name, "description": each.help[:256]} for each in host.commands[:MAX_COMMANDS]]
    digest = hashlib.sha256(msgspec.json.encode((me.id, commands))).digest()
    if await host.memory.get("commands") == digest:
        return
    try:
        await api.call("setMyCommands", {"commands": commands})
    except (SendError, PlatformUnavailable, PlatformProtocolError) as error:  # a menu that is not shown harms nobody
        log.info("the commands are not shown: %s", error)
    else:
        await host.memory.put("commands", digest)
