"""Discord: a bot over the gateway (version 10) and the REST API.

`platform` is what Hermes finds; nothing else is imported until an account is opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hermes.platform import CheckReport, Host, Platform, PlatformSpec
from platforms.discord.config import CAPABILITIES, DiscordConfig, mistakes

__all__ = ["DiscordConfig", "platform"]


@asynccontextmanager
async def _open(config: DiscordConfig, host: Host) -> AsyncIterator[Platform]:
    from platforms.discord.connection import open_discord  # reading what a platform is imports nothing more

    async with open_discord(config, host) as opened:
        yield opened


async def _check(config: DiscordConfig, host: Host) -> CheckReport:
    from platforms.discord.checking import check_discord  # as above

    return await check_discord(config, host)


platform: PlatformSpec[DiscordConfig] = PlatformSpec(
    name="discord",
    config=DiscordConfig,
    capabilities=CAPABILITIES,
    secrets=("token",),
    help=(
        "A Discord bot. Make an application at https://discord.com/developers/applications, reset and copy the token on "
        "its Bot page, switch on the Message Content Intent there, and invite the bot to a server with the scopes bot "
        "and applications.commands."
    ),
    open=_open,
    check=_check,
    environment={"DISCORD_BOT_TOKEN": "token", "DISCORD_ALLOWED_USERS": "allowed_users"},
    mistakes=mistakes,
)
