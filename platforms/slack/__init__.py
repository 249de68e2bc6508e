"""Slack: an app over Socket Mode and the Web API.

`platform` is what Hermes finds; nothing else is imported until an account is opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hermes.platform import CheckReport, CommandSpec, Host, Platform, PlatformSpec
from platforms.slack.config import CAPABILITIES, SlackConfig, mistakes

__all__ = ["SlackConfig", "platform"]


@asynccontextmanager
async def _open(config: SlackConfig, host: Host) -> AsyncIterator[Platform]:
    from platforms.slack.connection import open_slack  # reading what a platform is imports nothing more

    async with open_slack(config, host) as opened:
        yield opened


async def _check(config: SlackConfig, host: Host) -> CheckReport:
    from platforms.slack.checking import check_slack  # as above

    return await check_slack(config, host)


def _manifest(name: str, commands: tuple[CommandSpec, ...]) -> Mapping[str, Any]:
    from platforms.slack.manifest import manifest  # as above

    return manifest(name, commands)


platform: PlatformSpec[SlackConfig] = PlatformSpec(
    name="slack",
    config=SlackConfig,
    capabilities=CAPABILITIES,
    secrets=("bot_token", "app_token"),
    help=(
        "A Slack app. Print its manifest with `hermes slack manifest`, make an app from it at https://api.slack.com/apps "
        "(Create New App, From a manifest), install it, and copy two tokens: the Bot User OAuth Token (xoxb-…) of OAuth & "
        "Permissions, and an App-Level Token (xapp-…) with the scope connections:write of Basic Information."
    ),
    open=_open,
    check=_check,
    environment={
        "SLACK_BOT_TOKEN": "bot_token",
        "SLACK_APP_TOKEN": "app_token",
        "SLACK_ALLOWED_USERS": "allowed_users",
    },
    manifest=_manifest,
    mistakes=mistakes,
)
