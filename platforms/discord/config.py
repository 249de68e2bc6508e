"""The settings of a Discord account, and what the service can do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hermes.platform import Capabilities, Secret, seconds, setting, url, whole

ID = re.compile(r"[0-9]{1,20}\Z")

# A message has 2,000 characters (code points) and a bot's file 10 MiB (Discord's reference, "Create Message" and
# "Uploading Files"); typing is shown for ten seconds.
CAPABILITIES = Capabilities(
    dialect="discord",
    max_text=2000,
    unit="codepoint",
    max_caption=2000,
    edits=True,
    typing_every_s=8.0,
    reactions=True,
    buttons=True,
    files=10_485_760,
    drafts=True,
    deduplicates=True,
    native_commands=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordConfig:
    """One Discord bot."""

    token: Secret = setting(about="the bot's token, from its page at https://discord.com/developers/applications")
    base_url: str = setting("https://discord.com/api/v10", rule=url("https", "http"), about="where the REST API begins")
    proxy: str | None = setting(
        None,
        rule=url("http", "https", "socks5", "socks5h", login=True).or_null(),
        about="a proxy for everything, as a URL",
    )
    message_content: bool = setting(
        default=True, about="read what is not addressed to the bot too; needs the Message Content intent (privileged)"
    )
    auto_thread: bool = setting(default=True, about="answer a mention in a server's channel in a thread of its own")
    follow_threads: bool = setting(
        default=True, about="in a thread where somebody has spoken to the bot, answer without further mentions"
    )
    mention_users: bool = setting(default=False, about="let a reply that names somebody notify that person")
    compress: bool = setting(default=True, about="receive events compressed")
    timeout_s: float = setting(30.0, rule=seconds(300), about="how long one REST request may take")
    quiet_s: float = setting(
        900.0, rule=seconds(36_000), about="after so long without any event the flow is checked by REST"
    )
    backfill_pages: int = setting(
        250, rule=whole(0, 1000), about="pages of 100 messages that are read at most after an outage; 0 = none"
    )


def mistakes(_config: DiscordConfig, ids: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """What cannot work, as (key, words)."""
    for key, named in ids.items():
        if any(not ID.match(each) for each in named):
            yield key, "must hold ids, which are numbers, and no names, which change hands; /whoami tells them"
