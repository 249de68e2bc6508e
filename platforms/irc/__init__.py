"""IRC: one connection to one network, plain (RFC 1459, RFC 2812) and with what IRCv3 adds where the server offers it.

`platform` is what Hermes finds; nothing else is imported until an account is opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hermes.platform import CheckReport, Host, Platform, PlatformSpec
from platforms.irc.config import CAPABILITIES, IrcConfig, mistakes

__all__ = ["IrcConfig", "platform"]


@asynccontextmanager
async def _open(config: IrcConfig, host: Host) -> AsyncIterator[Platform]:
    from platforms.irc.connection import open_irc  # reading what a platform is imports nothing more

    async with open_irc(config, host) as opened:
        yield opened


async def _check(config: IrcConfig, host: Host) -> CheckReport:
    from platforms.irc.checking import check_irc  # as above

    return await check_irc(config, host)


platform: PlatformSpec[IrcConfig] = PlatformSpec(
    name="irc",
    config=IrcConfig,
    capabilities=CAPABILITIES,
    secrets=(),  # one nick may be used on many networks, and one password for many nicks
    help=(
        "A nick on an IRC network. Choose a server, a nick and the channels to be in. Where the network has services, "
        "register the nick with NickServ and give its password as `sasl_password`."
    ),
    open=_open,
    check=_check,
    environment={
        "IRC_SERVER": "server",
        "IRC_NICK": "nick",
        "IRC_SASL_PASSWORD": "sasl_password",
        "IRC_ALLOWED_USERS": "allowed_users",
    },
    mistakes=mistakes,
)
