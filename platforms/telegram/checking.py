"""`hermes platform check`: what Telegram says about the bot, without sending anything."""

from __future__ import annotations

from typing import Any

from hermes.platform import CheckReport, Host
from platforms.telegram.api import TelegramApi
from platforms.telegram.config import NO_URL, TelegramConfig
from platforms.telegram.connection import who


async def check(config: TelegramConfig, host: Host) -> CheckReport:
    """Who we are, what we may do, what is missing."""
    async with host.http(proxy=config.proxy) as http:
        api = TelegramApi(http, config)
        me = await api.call("getMe", {})
        known = who(me)
        hook = await api.call("getWebhookInfo", {})
    facts, missing = [], []
    if me.get("can_join_groups") is False:
        missing.append("cannot be added to groups: @BotFather, /setjoingroups, Enable")
    else:
        facts.append("may be added to groups")
    if me.get("can_read_all_group_messages") is True:
        facts.append("reads everything that is said in groups")
    else:
        facts.append(
            "privacy mode: in groups it hears commands, mentions and answers to itself; for more: @BotFather, /setprivacy"
        )
    if me.get("has_topics_enabled") is True:
        facts.append("direct messages with it have topics")
    if isinstance(hook, dict):
        _about_hook(hook, config, facts, missing)
    return CheckReport(identity=f"@{known.username} (id {known.id})", facts=tuple(facts), missing=tuple(missing))


def _about_hook(hook: dict[str, Any], config: TelegramConfig, facts: list[str], missing: list[str]) -> None:
    waiting = hook.get("pending_update_count")
    facts.append(f"{waiting if isinstance(waiting, int) else 0} updates wait")
    url, wanted = str(hook.get("url") or ""), (config.webhook_url or "").rstrip("/")
    if config.mode == "webhook":
        if not wanted:
            missing.append(NO_URL)
        elif not url:
            facts.append("no webhook is set yet; `hermes serve` sets it at its start")
        elif not url.startswith(f"{wanted}/"):
            missing.append("a webhook is set that is not ours; another program may use this bot")
        if hook.get("last_error_message"):
            missing.append(f"Telegram could not bring an update: {str(hook['last_error_message'])[:200]}")
    elif url:
        missing.append("a webhook is set, which `hermes serve` removes at its start; another program may use this bot")
