"""The settings of a Slack account, and what the service can do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hermes.platform import Capabilities, Secret, seconds, setting, url, whole

ID = re.compile(r"([A-Z0-9]{1,40}/)?[A-Z][A-Z0-9]{0,40}\Z")

# A section holds 3,000 characters, a message that is to be edited 4,000; the status of a thread is shown for two minutes
# (Slack's reference: "Section block", "chat.update", "assistant.threads.setStatus").
CAPABILITIES = Capabilities(
    dialect="slack",
    max_text=3000,
    unit="codepoint",
    max_caption=3000,
    edits=True,
    typing_every_s=60.0,
    reactions=True,
    buttons=True,
    files=1_000_000_000,
    drafts=True,
    native_commands=True,
    finds=True,
    command_prefix="!",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackConfig:
    """One Slack app, in one workspace or several."""

    bot_token: Secret = setting(
        about="the Bot User OAuth Token, xoxb-…; of an app in several workspaces one of each, with commas between"
    )
    app_token: Secret = setting(about="an App-Level Token with the scope connections:write, xapp-…")
    base_url: str = setting("https://slack.com/api", rule=url("https", "http"), about="where the Web API begins")
    proxy: str | None = setting(
        None,
        rule=url("http", "https", "socks5", "socks5h", login=True).or_null(),
        about="a proxy for everything, as a URL",
    )
    thread_replies: bool = setting(default=True, about="answer a mention in a channel in a thread of its own")
    follow_threads: bool = setting(
        default=True, about="in a thread where somebody has spoken to the app, answer without further mentions"
    )
    thread_status: bool = setting(default=True, about="show in a thread that an answer is being written")
    drafts: bool = setting(default=True, about="show a reply while it is written, by editing it")
    timeout_s: float = setting(30.0, rule=seconds(300), about="how long one request of the Web API may take")
    quiet_s: float = setting(
        900.0,
        rule=seconds(86_400),
        about="after so long without any event a new socket is opened before the old one goes",
    )
    ping_s: float = setting(20.0, rule=seconds(600), about="how often the socket is asked for a sign of life")
    backfill_pages: int = setting(
        400, rule=whole(0, 1000), about="pages of missed messages that are read at most after an outage; 0 = none"
    )


def mistakes(_config: SlackConfig, ids: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """What cannot work, as (key, words)."""
    for key, named in ids.items():
        if any(not ID.match(each) for each in named):
            yield key, "must hold ids such as U0123ABCD or C0123ABCD, and no names; `/hermes whoami` tells them"
