"""Receiving by long polls: one at a time, and an update is confirmed only by the poll after its commit.

Asking with an offset confirms everything below it (https://core.telegram.org/bots/api#getupdates); Telegram keeps what is not
confirmed for a day. Numbers may begin anew, lower, after a week without any: so the offset follows the last batch, and a server
that is asked for what it cannot know yet answers from what it has.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import trio

from hermes.errors import PlatformProtocolError, PlatformUnavailable, RateLimited, SendError
from hermes.events import InboundEvent
from hermes.platform import Inbox
from platforms.telegram.api import TelegramApi
from platforms.telegram.config import TelegramConfig
from platforms.telegram.reading import read
from platforms.telegram.translate import UPDATES
from platforms.telegram.words import Me

log = logging.getLogger(__name__)

OFFSET = "offset"
ANSWER_S = 15.0  # beyond the time for which the server may hold a poll
CONFIRM_S = 5.0
BATCH = 100
MAX_BATCH = 67_108_864  # bytes; the service's queue takes no update of more than 512 KiB (tdlib/td, TQueue.cpp)
PAUSE_S = (
    1.0  # after an answer with nothing new that came at once: there are servers that hold no poll, or confirm nothing
)


async def poll(
    api: TelegramApi, inbox: Inbox, cursors: Mapping[str, bytes], *, config: TelegramConfig, account: str, me: Me
) -> NoReturn:
    """Ask for updates and deliver them, for ever.

    Raises:
        PlatformError: what a poll ran into.
    """
    offset = _offset(cursors, me)
    hold_s = max(1, round(config.poll_timeout_s))
    heard, doubted = (
        -math.inf,
        False,
    )  # the first quiet poll is asked about too: the connection before may have been deaf
    flows_s = 2 * (config.quiet_s + hold_s) + 6 * ANSWER_S
    while True:
        asked, repeated = trio.current_time(), False
        updates = await _ask(api, offset, 0 if doubted else hold_s)
        inbox.alive("poll", next_within_s=hold_s + 4 * ANSWER_S)
        if updates:
            events, last, bad = read(updates, account=account, me=me)
            for because, update in bad:
                inbox.quarantine(because, update)
            if last is None:
                raise PlatformProtocolError("getUpdates brought updates without numbers", sample=repr(updates[0])[:200])
            repeated = offset is not None and last < offset
            offset = last + 1
            await inbox.deliver(*events, cursors={OFFSET: f"{me.id} {offset}".encode()})
            await _confirm_buttons(api, events)
            heard, doubted = trio.current_time(), False
            inbox.alive("updates", next_within_s=flows_s)
        elif doubted or trio.current_time() - heard >= config.quiet_s:
            waiting = await _waiting(api)
            if waiting and doubted:
                raise PlatformUnavailable(
                    f"{waiting} updates wait at Telegram, and the polls bring none", silent="updates"
                )
            if not waiting:
                inbox.alive("updates", next_within_s=flows_s)
            heard, doubted = trio.current_time(), bool(waiting)  # one may have come just now: another poll tells
        if (repeated or not updates) and not doubted:
            await trio.sleep_until(asked + PAUSE_S)


async def _ask(api: TelegramApi, offset: int | None, hold_s: int) -> list[Any]:
    asked: dict[str, Any] = {"timeout": hold_s, "limit": BATCH, "allowed_updates": UPDATES}
    if offset is not None:
        asked["offset"] = offset
    try:
        found = await api.call("getUpdates", asked, timeout_s=hold_s + ANSWER_S, max_bytes=MAX_BATCH)
    except RateLimited as error:
        raise RateLimited(str(error), retry_after_s=error.retry_after_s, scope="account") from None
    if not isinstance(found, list):
        raise PlatformProtocolError("getUpdates brought no list", sample=repr(found)[:200])
    return found


def _offset(cursors: Mapping[str, bytes], me: Me) -> int | None:
    """Where this bot goes on; the numbers of another bot, whose token was configured before, say nothing."""
    try:
        bot, offset = map(int, cursors[OFFSET].split())
    except (KeyError, ValueError):
        return None
    return offset if bot == me.id else None


async def _confirm_buttons(api: TelegramApi, events: list[InboundEvent]) -> None:
    """Let the buttons that were pressed stop spinning; nothing is lost if that fails."""

    async def confirm(query: str) -> None:
        try:
            await api.call("answerCallbackQuery", {"callback_query_id": query}, timeout_s=CONFIRM_S)
        except (SendError, PlatformUnavailable, PlatformProtocolError) as error:
            log.info("a pressed button goes on spinning: %s", error)

    pressed = [event.id for event in events if event.kind == "button"]
    if pressed:
        async with trio.open_nursery() as nursery:
            for query in pressed:
                nursery.start_soon(confirm, query)


async def _waiting(api: TelegramApi) -> int:
    found = await api.call("getWebhookInfo", {})
    waiting = found.get("pending_update_count") if isinstance(found, dict) else None
    return waiting if isinstance(waiting, int) else 0
