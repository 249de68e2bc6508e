"""`hermes platform check`: what Telegram says about the bot, without sending anything."""

from __future__ import annotations

from hermes.platform import CheckReport, Host
from platforms.telegram.api import TelegramApi
from platforms.telegram.config import TelegramConfig
from platforms.telegram.connection import who


async def check(config: TelegramConfig, host: Host) -> CheckReport:
    """Who we are, what we may do, what is missing."""
    async with host.http(proxy=config.proxy) as http:
        api = TelegramApi(http, config)
        me = await api.call("getMe", {})
        hook = await api.call("getWebhookInfo", {})
    known = who(me)
    facts, missing = [], []
    if me.get("can_join_groups") is not False:
        facts.append("may be added to groups")
    else:
        missing.append("cannot be added to groups: @BotFather, /setjoingroups, Enable")
    if me.get("can_read_all_group_messages") is True:
        facts.append("reads everything that is said in groups")
    else:
        facts.append(
            "privacy mode: in groups it hears commands, mentions and answers to itself; for more: @BotFather, /setprivacy"
        )
    if isinstance(hook, dict):
        waiting = hook.get("pending_update_count")
        facts.append(f"{waiting if isinstance(waiting, int) else 0} updates wait")
        if hook.get("url"):
            missing.append(
                "a webhook is set, which `hermes serve` removes at its start; another program may use this bot"
            )
    return CheckReport(identity=f"@{known.username} (id {known.id})", facts=tuple(facts), missing=tuple(missing))
