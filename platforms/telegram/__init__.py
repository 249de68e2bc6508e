"""Telegram, by the Bot API over HTTP: https://core.telegram.org/bots/api"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hermes.platform import CheckReport, Host, Platform, PlatformSpec
from platforms.telegram.config import CAPABILITIES, TelegramConfig, mistakes

__all__ = ["platform"]


@asynccontextmanager
async def _open(config: TelegramConfig, host: Host) -> AsyncIterator[Platform]:
    from platforms.telegram.connection import open_telegram  # reading what a platform is loads nothing more

    async with open_telegram(config, host) as found:
        yield found


async def _check(config: TelegramConfig, host: Host) -> CheckReport:
    from platforms.telegram.checking import check

    return await check(config, host)


platform = PlatformSpec(
    name="telegram",
    config=TelegramConfig,
    capabilities=CAPABILITIES,
    secrets=("token",),
    help="Telegram bots. Write to @BotFather, say /newbot, and it gives you the token.",
    open=_open,
    check=_check,
    environment={
        "TELEGRAM_BOT_TOKEN": "token",
        "TELEGRAM_ALLOWED_USERS": "allowed_users",
        "TELEGRAM_BASE_URL": "base_url",
    },
    mistakes=mistakes,
)
