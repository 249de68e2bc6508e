"""`PlatformSpec.open`: an app that is authenticated in each of its workspaces and can send; receiving comes and goes inside it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn

import trio

from hermes.errors import PlatformProtocolError, PlatformRefused, PlatformUnavailable, RateLimited, SendError
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    Content,
    Host,
    Inbox,
    Platform,
    Receipt,
    ReplyRef,
    Secret,
)
from platforms.slack.api import SlackApi, Token
from platforms.slack.config import CAPABILITIES, SlackConfig
from platforms.slack.files import Files
from platforms.slack.finding import find
from platforms.slack.happenings import Happenings
from platforms.slack.people import People
from platforms.slack.receiving import Account, Receiving, socket_address
from platforms.slack.sending import Sending
from platforms.slack.translate import View
from platforms.slack.uploads import Uploads
from platforms.slack.workspaces import Workspace, Workspaces, is_id

log = logging.getLogger(__name__)

CONNECTIONS = 16
MAX_WORKSPACES = 20
HOME = "home"  # in the memory: the workspace whose ids are used as they are


@asynccontextmanager
async def open_slack(config: SlackConfig, host: Host) -> AsyncIterator[Platform]:
    """One app, signed in.

    Lifetime: the HTTP connections; the sockets belong to `receive`.

    Raises:
        PlatformRefused: a token is not accepted, or there is no Slack at the base URL.
        PlatformUnavailable: it cannot be reached.
    """
    async with host.http(proxy=config.proxy, max_connections=CONNECTIONS) as http:
        api = SlackApi(http, config.base_url.rstrip("/"), host.clock, config.timeout_s)
        app_token = Token(config.app_token, "app_token")
        try:
            spaces = await sign_in(api, config, host)
            address = await socket_address(api, config, app_token)
        except SendError as error:  # nothing was sent: it is the connection that cannot be had
            if isinstance(error, RateLimited):
                raise PlatformUnavailable(str(error), retry_after_s=error.retry_after_s) from None
            raise PlatformRefused(f"this is no Slack API, or not for this app: {error}") from None
        for each in spaces:
            log.info("signed in to Slack's workspace %s (%s) as %s", each.name, each.id, each.user)
        view = View(
            account=host.account,
            commands=frozenset(each.name for each in host.commands),
            thread_replies=config.thread_replies,
        )
        happenings = Happenings(spaces, People(api), view, host.clock)
        uploads = Uploads(host.memory)
        account = Account(
            host=host, config=config, api=api, spaces=spaces, app_token=app_token, happenings=happenings,
            ticket=(address, trio.current_time()),
        )  # fmt: skip
        yield Slack(account, Files(api, spaces, uploads), uploads)


async def sign_in(api: SlackApi, config: SlackConfig, host: Host) -> Workspaces:
    """The workspaces of the tokens.

    Raises:
        PlatformRefused: one is not accepted, or is of another kind.
        PlatformError: as `hermes.errors` says.
    """
    tokens = tokens_of(config)
    found: list[Workspace] = []
    for each in tokens:
        body = await api.ask("auth.test", {}, each)
        space = workspace(body, each)
        if any(other.id == space.id for other in found):
            raise PlatformRefused(f"two tokens of `bot_token` are of the workspace {space.name} ({space.id})")
        found.append(space)
    known = (await host.memory.get(HOME) or b"").decode("utf-8", "replace")
    home = known if any(each.id == known for each in found) else found[0].id
    if home != known:
        await host.memory.put(HOME, home.encode())
    return Workspaces([replace(each, home=each.id == home) for each in found])


def tokens_of(config: SlackConfig) -> list[Token]:
    """The tokens of the bot. Raises PlatformRefused for what cannot be one."""
    parts = [part.strip() for part in config.bot_token.reveal().split(",") if part.strip()]
    if any(part.startswith("xapp-") for part in parts) or config.app_token.reveal().startswith("xoxb-"):
        raise PlatformRefused(
            "`bot_token` and `app_token` are mixed up: the bot's begins with xoxb-, the app's with xapp-"
        )
    if not 1 <= len(parts) <= MAX_WORKSPACES:
        raise PlatformRefused(f"`bot_token` has 1 to {MAX_WORKSPACES} tokens with commas between")
    return [Token(Secret(part), "bot_token") for part in parts]


def workspace(body: Mapping[str, Any], token: Token) -> Workspace:
    """Who we are, by `auth.test`. Raises PlatformProtocolError, PlatformRefused."""
    team, user, bot = body.get("team_id"), body.get("user_id"), body.get("bot_id")
    if not isinstance(team, str) or not isinstance(user, str) or not is_id(team) or not is_id(user):
        raise PlatformProtocolError("auth.test does not say who we are", sample=repr(dict(body))[:200])
    if not isinstance(bot, str):
        raise PlatformRefused("`bot_token` is a person's token; the Bot User OAuth Token begins with xoxb-")
    return Workspace(id=team, name=str(body.get("team") or team)[:100], token=token, user=user, bot=bot)


class Slack:
    """A `Platform` and a `ReadsBack`; see `open_slack()`."""

    def __init__(self, account: Account, files: Files, uploads: Uploads) -> None:
        self._account = account
        self._files = files
        self._uploads = uploads
        self._sending = Sending(account.api, account.spaces, files, status=account.config.thread_status)

    @property
    def capabilities(self) -> Capabilities:
        """All that the service can do, and is to do here."""
        return replace(CAPABILITIES, drafts=self._account.config.drafts)

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Translate what happens, until cancelled."""
        await Receiving(self._account, inbox, cursors).run()

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show one part."""
        return await self._sending.send(to, content, key=key, reply=reply)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Make a message of ours show this."""
        return await self._sending.edit(receipt, content)

    async def find(self, to: Address, *, key: str, since: float) -> Receipt | None:
        """Look for what was sent with a key."""
        account = self._account
        return await find(account.api, account.spaces, self._files, self._uploads, to, key=key, since=since)

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show that we write, or react."""
        await self._sending.signal(to, activity)

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:
        """Open the bytes of a file."""
        return self._files.open(attachment, max_bytes)
