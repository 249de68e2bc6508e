"""What a network says of an account: a connection of its own that joins nothing and writes to nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hermes.platform import CheckReport, Host
from platforms.irc.config import IrcConfig
from platforms.irc.connection import open_wire


async def check_irc(config: IrcConfig, host: Host) -> CheckReport:
    """Who we are, what the server offers, what is missing.

    Raises:
        PlatformRefused, PlatformUnavailable: there is no welcome.
    """
    async with open_wire(config, host) as (_, registered):
        offered, tokens = registered.capabilities, registered.server.tokens
        nick, account = registered.nick, registered.account
    missing = []
    if not config.tls:
        missing.append("the connection is not encrypted: set `tls: true` and a port for it, usually 6697")
    if config.identity == "account" and "account-tag" not in offered:
        missing.append(
            "the server does not say who is logged in, so nobody is known to us: no allowlist and no pairing lasts. "
            "Where masks can be trusted, set `identity: hostmask`"
        )
    return CheckReport(
        identity=f"{nick} ({f'account {account}' if account else 'not logged in'})",
        facts=(
            f"network {tokens.get('NETWORK', 'without a name')}, server {config.server}",
            f"offers {', '.join(sorted(offered)) or 'nothing beyond RFC 2812'}",
            *_notes(config, offered, nick),
        ),
        missing=tuple(missing),
    )


def _notes(config: IrcConfig, offered: Collection[str], nick: str) -> Iterator[str]:
    """What should be known, but cannot be mended or is as it should be."""
    if config.identity == "hostmask":
        yield "people are known by `*!user@host`, which whoever shares their machine has as well"
    if "draft/chathistory" not in offered:
        yield "the server keeps nothing: what is said while the gateway is away is lost"
    if not config.channels:
        yield "no channel is configured: only direct messages are heard"
    if nick != config.nick:
        yield f"the nick {config.nick} is in use; if not by this gateway, look at `regain`"
