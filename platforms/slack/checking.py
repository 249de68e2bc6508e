"""What Slack says about an account, asked without sending anything."""

from __future__ import annotations

from hermes.errors import PlatformUnavailable, RateLimited, SendError
from hermes.platform import CheckReport, Host
from platforms.slack.api import SlackApi, Token
from platforms.slack.config import SlackConfig
from platforms.slack.connection import sign_in
from platforms.slack.faults import APPS
from platforms.slack.manifest import SCOPES
from platforms.slack.receiving import socket_address
from platforms.slack.workspaces import Workspace


async def check_slack(config: SlackConfig, host: Host) -> CheckReport:
    """Who we are, what we may do, what is missing.

    Raises:
        PlatformRefused, PlatformUnavailable: nobody could say.
    """
    async with host.http(proxy=config.proxy) as http:
        api = SlackApi(http, config.base_url.rstrip("/"), host.clock, config.timeout_s)
        try:
            spaces = await sign_in(api, config, host)
            await socket_address(api, config, Token(config.app_token, "app_token"))
            missing = [line for each in spaces for line in await _lacking(api, each)]
        except SendError as error:
            wait_s = error.retry_after_s if isinstance(error, RateLimited) else None
            raise PlatformUnavailable(str(error), retry_after_s=wait_s) from None
    home = spaces.home
    others = tuple(
        f"also in {each.name} ({each.id}) as {each.user}; ids of it begin with {each.id}/"
        for each in spaces
        if not each.home
    )
    return CheckReport(
        identity=f"{home.user} in {home.name} ({home.id})",
        facts=("Socket Mode is on", *others),
        missing=tuple(missing),
    )


async def _lacking(api: SlackApi, space: Workspace) -> list[str]:
    """The scopes that the app lacks in a workspace."""
    granted = await api.scopes(space.token)
    lacks = [f"{scope} ({why})" for scope, why in SCOPES.items() if granted and scope not in granted]
    if not lacks:
        return []
    where = f"in {space.name} the app lacks the scopes {', '.join(lacks)}"
    return [f"{where}: add them under OAuth & Permissions at {APPS} and install the app again"]
