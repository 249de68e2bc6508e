"""How the fake Bot API brings updates to a webhook: one after the other, each until it is answered with a 2xx."""

from __future__ import annotations

import json
import re
from collections import deque
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio

from hermes.testing.fake_telegram_methods import TelegramError

ANSWER_S = 60.0


class Pushing(Protocol):
    """What of the fake server is needed here."""

    webhook: str
    hook: dict[str, Any]
    updates: deque[dict[str, Any]]
    retry_s: float
    longest_retry_s: float
    confirmed: int

    async def changed(self) -> None:
        """Wait until something is queued or set."""

    def notify(self) -> None:
        """Wake whoever waits for a change."""

    async def run(self, method: str, params: dict[str, Any]) -> Any:
        """Do what a method does."""


async def push_updates(telegram: Pushing) -> None:
    """Bring what waits to the webhook that is set, for ever."""
    failures = 0
    while True:
        if not telegram.webhook or not telegram.updates:
            await telegram.changed()
            continue
        update, url = telegram.updates[0], telegram.webhook
        why, answer = "the webhook did not answer", b""
        with trio.move_on_after(ANSWER_S):
            why, answer = await _bring(url, telegram.hook.get("secret_token", ""), update)
        if telegram.webhook != url:
            continue
        if why:
            telegram.hook |= {"last_error_date": 1_700_000_000, "last_error_message": why}
            telegram.notify()
            await trio.sleep(min(telegram.retry_s * 2.0 ** min(failures, 30), telegram.longest_retry_s))
            failures += 1
            continue
        failures = 0
        if telegram.updates and telegram.updates[0] is update:
            telegram.updates.popleft()
        telegram.confirmed = max(telegram.confirmed, update["update_id"])
        await _obey(telegram, answer)
        telegram.notify()


async def _obey(telegram: Pushing, answer: bytes) -> None:
    """Call the method that a webhook may answer with (https://core.telegram.org/bots/api#making-requests-when-getting-updates)."""
    with suppress(ValueError, TelegramError):
        wanted = json.loads(answer)
        if isinstance(wanted, dict) and "method" in wanted:
            await telegram.run(str(wanted.pop("method")).lower(), wanted)


async def _bring(url: str, secret: str, update: dict[str, Any]) -> tuple[str, bytes]:
    """One attempt: why it failed, or an empty text, and the body of the answer."""
    parts, body = urlsplit(url), json.dumps(update).encode()
    head = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", "Connection: close"]
    if secret:
        head.append(f"X-Telegram-Bot-Api-Secret-Token: {secret}")
    data = b""
    try:
        async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 80) as stream:
            await stream.send_all("\r\n".join((*head, "", "")).encode() + body)
            while not _whole(data) and (piece := await stream.receive_some(65_536)):
                data += piece
    except (OSError, trio.BrokenResourceError) as error:
        return f"Connection refused: {type(error).__name__}", b""
    start, _, rest = data.partition(b"\r\n\r\n")
    words = start.split(b" ", 2)
    if len(words) < 2 or not words[1].startswith(b"2"):
        return f"Wrong response from the webhook: {words[1].decode() if len(words) > 1 else 'none'}", b""
    return "", rest


def _whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])
