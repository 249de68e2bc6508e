"""Receiving by webhook: Telegram sends each update to us, again and again, until we have answered 200 after its commit.

Who knows the secret is Telegram (https://core.telegram.org/bots/api#setwebhook). It sends the updates of a chat one after the
other. The webhook stays set when we leave: what happens meanwhile waits there for a day, and comes when we are back.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec
import trio

from hermes.decode import without_halves
from hermes.errors import (
    LeaseEnded,
    PlatformConflict,
    PlatformRefused,
    PlatformUnavailable,
    SendRejected,
    StoreUnavailable,
)
from hermes.platform import Host, Inbox, WebRequest, WebResponse
from platforms.telegram.api import CALL_S, CONFLICT_S, TelegramApi
from platforms.telegram.config import NO_URL, OTHER_SIGNS, SECRET, TelegramConfig
from platforms.telegram.reading import read
from platforms.telegram.translate import UPDATES
from platforms.telegram.words import Me

HEADER = "x-telegram-bot-api-secret-token"
CHECK_S = 60.0
QUIET_LOOKS = 2  # the service pauses for up to two minutes before it brings an update again
AT_ONCE = 10  # connections that Telegram may open to us
MAX_UPDATE = 1_048_576
# Of a webhook that Telegram would not have today, in words of its own and of its operating system.
_PASSES = ("resolve", "timed out", "timeout", "connection", "no route", "unreachable", "host is down")


@dataclass(eq=False, slots=True)
class _Hook:
    """What is behind the route while it is mounted."""

    inbox: Inbox
    secret: bytes
    account: str
    me: Me
    alive_s: float
    taken: int = 0

    async def handle(self, request: WebRequest) -> WebResponse:
        """Commit what an update tells of, then say that it was received."""
        if not hmac.compare_digest(request.headers.get(HEADER, "").encode(), self.secret):
            return WebResponse(status=403, body=b"this is not for you")
        if request.method != "POST":
            return WebResponse(status=405)
        try:
            update: Any = msgspec.json.decode(without_halves(request.body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.inbox.quarantine("it is no JSON", request.body)
            return WebResponse()  # it would come again as it is
        events, _, bad = read([update], account=self.account, me=self.me)
        for because, sample in bad:
            self.inbox.quarantine(because, sample)
        self.taken += 1
        self.alive()
        if not events:
            return WebResponse()
        try:
            await self.inbox.deliver(*events)
        except (StoreUnavailable, LeaseEnded):
            return WebResponse(status=503)
        if events[0].kind != "button":
            return WebResponse()
        answer = {"method": "answerCallbackQuery", "callback_query_id": events[0].id}
        return WebResponse(body=msgspec.json.encode(answer), media_type="application/json")

    def alive(self) -> None:
        """Updates reach us; a minute without a sign is asked about."""
        self.inbox.alive("webhook", next_within_s=self.alive_s)


async def receive(api: TelegramApi, inbox: Inbox, *, config: TelegramConfig, host: Host, me: Me) -> NoReturn:
    """Take updates on the gateway's listener, for ever, and ask now and then whether they reach us.

    Raises:
        PlatformRefused: the webhook cannot be as it is configured.
        PlatformError: as `hermes.errors` says.
    """
    base, secret = reachable(config), secret_of(config)
    check_s = min(CHECK_S, config.quiet_s)
    hook = _Hook(inbox, secret.encode(), host.account, me, check_s + 2 * CALL_S)
    async with host.routes.mount("updates", hook.handle, max_body_bytes=MAX_UPDATE) as path:
        url = base + path
        await _set(api, url, secret)
        quiet = 0  # looks in a row between which nothing came
        while True:
            before = hook.taken
            await trio.sleep(check_s)
            info = await api.call("getWebhookInfo", {})
            quiet = quiet + 1 if hook.taken == before else 0
            _judge(info, url, quiet=quiet >= QUIET_LOOKS)
            hook.alive()


def reachable(config: TelegramConfig) -> str:
    """Where Telegram reaches the gateway. Raises PlatformRefused if that is not configured."""
    if config.webhook_url is None:
        raise PlatformRefused(NO_URL)
    return config.webhook_url.rstrip("/")


def secret_of(config: TelegramConfig) -> str:
    """What Telegram shows with each update: configured, or made of the token, which nobody else has."""
    if config.webhook_secret is None:
        return hmac.new(config.token.reveal().encode(), b"hermes: telegram webhook", hashlib.sha256).hexdigest()
    secret = config.webhook_secret.reveal()
    if not SECRET.match(secret):
        raise PlatformRefused(OTHER_SIGNS)
    return secret


async def _set(api: TelegramApi, url: str, secret: str) -> None:
    params = {"url": url, "secret_token": secret, "allowed_updates": UPDATES, "max_connections": AT_ONCE}
    try:
        await api.call("setWebhook", params)
    except SendRejected as error:
        if any(words in str(error).lower() for words in _PASSES):
            raise PlatformUnavailable(f"Telegram does not take the webhook now: {error}") from None
        raise PlatformRefused(f"Telegram does not take {url} as a webhook: {error}") from None


def _judge(info: Any, url: str, *, quiet: bool) -> None:
    """What `getWebhookInfo` says of the last minutes.

    Raises:
        PlatformConflict: the updates go elsewhere.
        PlatformUnavailable: updates wait and none came.
    """
    info = info if isinstance(info, dict) else {}
    if info.get("url") != url:
        raise PlatformConflict("another program has changed this bot's webhook", retry_after_s=CONFLICT_S)
    waiting = info.get("pending_update_count")
    if quiet and isinstance(waiting, int) and waiting > 0:
        why = str(info.get("last_error_message") or "none came in the last minutes")[:200]
        raise PlatformUnavailable(
            f"{waiting} updates wait at Telegram, which cannot bring them to {url}: {why}", silent="webhook"
        )
