"""`PlatformSpec.open`: an account that is authenticated and can send; receiving comes and goes inside it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn

from hermes.errors import PlatformError, PlatformRefused, RateLimited, SendError
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
    Platform,
    Receipt,
    ReplyRef,
)
from platforms.discord import budget
from platforms.discord.config import CAPABILITIES, DiscordConfig
from platforms.discord.fetching import open_file
from platforms.discord.happenings import Happenings
from platforms.discord.interactions import MAX_COMMANDS, digest, registration
from platforms.discord.receiving import Account, Receiving
from platforms.discord.rest import Failed, Rest, unlimited
from platforms.discord.sending import Sending
from platforms.discord.wire import Application, GatewayBot, User

log = logging.getLogger(__name__)

COMMANDS_KEY = "commands"
ONE_CONNECTION = "Discord advises %d connections for so many servers; Hermes keeps one"


@asynccontextmanager
async def open_discord(config: DiscordConfig, host: Host) -> AsyncIterator[Platform]:
    """One bot, signed in.

    Lifetime: the HTTP connections; the gateway's belongs to `receive`.

    Raises:
        PlatformRefused: the token is not accepted, or there is no Discord at the base URL.
        PlatformUnavailable: it cannot be reached.
    """
    async with host.http(proxy=config.proxy) as client:
        rest = Rest(client, config.base_url.rstrip("/"), config.token, host.clock, config.timeout_s)
        try:
            me, application, gateway = await greet(rest)
            await budget.learn(host.memory, gateway.session_start_limit, host.clock())
            await _register(rest, host, application.id)
        except RateLimited as exc:
            raise unlimited(exc) from exc
        log.info("signed in to Discord as %s (id %s)", me.username, me.id)
        if gateway.shards > 1:
            log.warning(ONE_CONNECTION, gateway.shards)
        happenings = Happenings(
            rest, host.account, me.id,
            auto_thread=config.auto_thread,
            follow_threads=config.follow_threads and config.message_content,  # what names nobody has no words without it
        )  # fmt: skip
        account = Account(host=host, config=config, rest=rest, me=me.id, gateway=gateway.url, happenings=happenings)
        sending = Sending(rest, application.id, host.clock, mention=config.mention_users, threads=config.auto_thread)
        yield Discord(account, sending, client)


async def greet(rest: Rest) -> tuple[User, Application, GatewayBot]:
    """Who we are, whose program, and where the gateway is; three requests that change nothing."""
    try:
        me = await rest.read("/users/@me", User)
        application = await rest.read("/applications/@me", Application)
        return me, application, await rest.read("/gateway/bot", GatewayBot)
    except Failed as failed:
        if isinstance(failed.meaning, SendError):  # a no to a question that every bot may ask
            raise PlatformRefused(f"this is no Discord API, or not for this bot: {failed.meaning}") from None
        raise failed.meaning from None


async def _register(rest: Rest, host: Host, application: str) -> None:
    """Make the service's list of commands ours, if it is not already."""
    if len(host.commands) > MAX_COMMANDS:
        log.warning("Discord takes %d commands; the others work when they are typed", MAX_COMMANDS)
    body = registration(host.commands)
    seen = digest(application, body)
    if await host.memory.get(COMMANDS_KEY) == seen:
        return
    try:
        await rest.ask("PUT", f"/applications/{application}/commands", body=body)
    except (Failed, PlatformError) as exc:
        error = exc.meaning if isinstance(exc, Failed) else exc
        if isinstance(error, PlatformRefused):
            raise error from None
        # They work when they are typed: whatever it is, nothing else waits for it.
        log.warning(
            "the slash commands could not be registered, which is tried again by the next connection: %s", error
        )
        return
    await host.memory.put(COMMANDS_KEY, seen)


class Discord:
    """A `Platform`; see `open_discord()`."""

    def __init__(self, account: Account, sending: Sending, client: HttpClient) -> None:
        self._account = account
        self._sending = sending
        self._client = client

    @property
    def capabilities(self) -> Capabilities:
        """What Discord can show and do."""
        return CAPABILITIES

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Translate what happens, until cancelled."""
        try:
            await Receiving(self._account, inbox, cursors).run()
        finally:
            self._account.happenings.nursery = self._account.happenings.inbox = None

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show one part."""
        return await self._sending.send(to, content, key=key, reply=reply)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Make a message of ours show this."""
        return await self._sending.edit(receipt, content)

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show that we type, or react."""
        await self._sending.signal(to, activity)

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:
        """Open the bytes of a file."""
        config = self._account.config
        return open_file(self._client, config.base_url, attachment, max_bytes=max_bytes, timeout_s=config.timeout_s)
