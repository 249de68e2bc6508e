"""What Discord says about an account, asked without sending anything."""

from __future__ import annotations

from hermes.errors import RateLimited
from hermes.platform import CheckReport, Host
from platforms.discord.config import DiscordConfig
from platforms.discord.connection import ONE_CONNECTION, greet
from platforms.discord.rest import Failed, Rest, unlimited
from platforms.discord.wire import Name, Snowflake, Wire

# Flags of an application and permissions; source: Discord's reference, "Application Flags" and "Permissions".
CONTENT_GRANTED, CONTENT_LIMITED = 1 << 18, 1 << 19
ADMINISTRATOR = 1 << 3
NEEDED = {
    1 << 10: "View Channels",
    1 << 11: "Send Messages",
    1 << 38: "Send Messages in Threads",
    1 << 16: "Read Message History",
    1 << 15: "Attach Files",
    1 << 6: "Add Reactions",
}
CREATE_PUBLIC_THREADS = 1 << 35
MAX_SERVERS = 200


class _Server(Wire, frozen=True):
    id: Snowflake
    name: Name = ""
    permissions: str = "0"


async def check_discord(config: DiscordConfig, host: Host) -> CheckReport:
    """Who we are, what we may do, what is missing.

    Raises:
        PlatformRefused, PlatformUnavailable: nobody could say.
    """
    async with host.http(proxy=config.proxy) as client:
        rest = Rest(client, config.base_url.rstrip("/"), config.token, host.clock, config.timeout_s)
        try:
            me, application, gateway = await greet(rest)
            servers = await rest.read(f"/users/@me/guilds?limit={MAX_SERVERS}", tuple[_Server, ...])
        except RateLimited as exc:
            raise unlimited(exc) from exc
        except Failed as failed:
            raise failed.meaning from None
    missing = []
    if config.message_content and not application.flags & (CONTENT_GRANTED | CONTENT_LIMITED):
        missing.append(
            "the Message Content Intent is off: switch it on under Bot, Privileged Gateway Intents, at "
            f"https://discord.com/developers/applications/{application.id}/bot"
        )
    if not servers:
        missing.append(
            "the bot is in no server: invite it with https://discord.com/oauth2/authorize"
            f"?client_id={application.id}&scope=bot+applications.commands"
        )
    if gateway.shards > 1:
        missing.append(ONE_CONNECTION % gateway.shards)
    missing += [line for server in servers if (line := _lacking(server, threads=config.auto_thread))]
    count = application.approximate_guild_count
    limit = gateway.session_start_limit
    return CheckReport(
        identity=f"@{me.username} (id {me.id})",
        facts=(
            f"application {application.name} (id {application.id})",
            f"in {count if count is not None else len(servers)} servers",
            f"{limit.remaining} of {limit.total} sessions left today",
        ),
        missing=tuple(missing),
    )


def _lacking(server: _Server, *, threads: bool) -> str | None:
    """What the bot may not do in a server as a whole; channels may differ."""
    held = int(server.permissions) if server.permissions.isdigit() else 0
    if held & ADMINISTRATOR:
        return None
    needed = NEEDED | ({CREATE_PUBLIC_THREADS: "Create Public Threads"} if threads else {})
    names = [name for bit, name in needed.items() if not held & bit]
    return f"in {server.name} (id {server.id}) the bot lacks {', '.join(names)}" if names else None
