"""Receiving by long polls: one at a time, and an update is confirmed only by the poll after its commit.

Asking with an offset confirms everything below it (https://core.telegram.org/bots/api#getupdates); Telegram keeps what is not
confirmed for a day.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NoReturn

import trio

from hermes.errors import PlatformProtocolError, PlatformUnavailable, RateLimited, SendError
from hermes.events import InboundEvent
from hermes.platform import Inbox
from platforms.telegram.api import CALL_S, TelegramApi
from platforms.telegram.config import TelegramConfig
from platforms.telegram.translate import UPDATES, Me, NoEvent, translate

log = logging.getLogger(__name__)

OFFSET = "offset"
ANSWER_S = 15.0  # beyond the time for which the server may hold a poll
BATCH = 100


async def poll(
    api: TelegramApi, inbox: Inbox, cursors: Mapping[str, bytes], *, config: TelegramConfig, account: str, me: Me
) -> NoReturn:
    """Ask for updates and deliver them, for ever.

    Raises:
        PlatformError: what a poll ran into.
    """
    offset = _offset(cursors)
    heard = trio.current_time()
    hold_s = round(config.poll_timeout_s)
    while True:
        asked = {"timeout": hold_s, "limit": BATCH, "allowed_updates": UPDATES}
        if offset is not None:
            asked["offset"] = offset
        updates = await _ask(api, asked, hold_s + ANSWER_S)
        inbox.alive("poll", next_within_s=hold_s + 2 * ANSWER_S)
        if updates:
            events, offset = read(updates, offset, account=account, me=me)
            await inbox.deliver(*events, cursors={OFFSET: str(offset).encode()})
            await _confirm_buttons(api, events)
            heard = trio.current_time()
        elif trio.current_time() - heard >= config.quiet_s:
            await _prove_flow(api)
            heard = trio.current_time()


async def _ask(api: TelegramApi, asked: Mapping[str, Any], within_s: float) -> list[Any]:
    try:
        found = await api.call("getUpdates", asked, timeout_s=within_s)
    except RateLimited as error:
        raise RateLimited(str(error), retry_after_s=error.retry_after_s, scope="account") from None
    if not isinstance(found, list):
        raise PlatformProtocolError("getUpdates brought no list", sample=repr(found)[:200])
    return found


def read(updates: list[Any], offset: int | None, *, account: str, me: Me) -> tuple[list[InboundEvent], int]:
    """The events of a batch, and the offset that confirms it. What is malformed is passed over, with a line in the log."""
    events, last = [], (offset or 0) - 1
    for update in updates:
        number = update.get("update_id") if isinstance(update, dict) else None
        if isinstance(number, bool) or not isinstance(number, int):
            log.warning("an update without a number was passed over: %.200r", update)
            continue
        last = max(last, number)
        try:
            event = translate(update, account=account, me=me)
        except NoEvent as error:
            log.warning("update %d was passed over: %s: %.200r", number, error, update)
            continue
        if event is not None:
            events.append(event)
    return events, last + 1


def _offset(cursors: Mapping[str, bytes]) -> int | None:
    try:
        return int(cursors[OFFSET])
    except (KeyError, ValueError):
        return None


async def _confirm_buttons(api: TelegramApi, events: list[InboundEvent]) -> None:
    """Let the buttons that were pressed stop spinning; nothing is lost if that fails."""
    for event in events:
        if event.kind == "button":
            try:
                await api.call("answerCallbackQuery", {"callback_query_id": event.id}, timeout_s=CALL_S)
            except SendError as error:
                log.info("a pressed button goes on spinning: %s", error)


async def _prove_flow(api: TelegramApi) -> None:
    """Nothing came for long: make sure that nothing waits."""
    found = await api.call("getWebhookInfo", {})
    waiting = found.get("pending_update_count") if isinstance(found, dict) else None
    if isinstance(waiting, int) and waiting > 0:
        raise PlatformUnavailable(f"{waiting} updates wait at Telegram, and the polls bring none")
