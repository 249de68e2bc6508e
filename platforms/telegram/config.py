"""What can be set of a Telegram account, and what the service can do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hermes.platform import Capabilities, Secret, choice, seconds, secret, setting, url

ID = re.compile(r"-?[1-9][0-9]{0,18}\Z")
SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
NO_URL = "`mode: webhook` needs `webhook_url`: where Telegram reaches this gateway, by https"
OTHER_SIGNS = "`webhook_secret` may have A-Z, a-z, 0-9, _ and - only"
PROXIES = ("http", "https", "socks5", "socks5h")

CAPABILITIES = Capabilities(
    dialect="telegram_html", max_text=4096, unit="utf16", max_caption=1024, edits=True, typing_every_s=4.0, reactions=True,
    buttons=True, files=50_000_000, drafts=True, native_commands=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramConfig:
    """`platforms.<account>:` of a Telegram bot."""

    token: Secret = setting(about="what @BotFather gave you, such as 123456:ABC…")
    base_url: str = setting(
        "https://api.telegram.org", rule=url("http", "https"), about="another one for a Bot API server of your own"
    )
    proxy: str | None = setting(
        None, rule=url(*PROXIES, login=True).or_null(), about="an http://, https://, socks5:// or socks5h:// URL"
    )
    mode: str = setting(
        "poll", rule=choice("poll", "webhook"), about="we ask Telegram for updates, or it sends them to `webhook_url`"
    )
    webhook_url: str | None = setting(
        None, rule=url("https", "http").or_null(),
        about="where Telegram reaches this gateway, such as https://bot.example.org; the path is added",
    )  # fmt: skip
    webhook_secret: Secret | None = setting(
        None, rule=secret(256).or_null(),
        about="what a sender of updates must know, of A-Za-z0-9_-; without one it is derived from `token`",
    )  # fmt: skip
    drafts: bool = setting(default=True, about="show a reply while it is written, by editing it")
    poll_timeout_s: float = setting(50.0, rule=seconds(50), about="how long Telegram may hold a request for updates")
    quiet_s: float = setting(
        900.0, rule=seconds(36_000), about="after so long without an update we ask whether any wait"
    )


def mistakes(config: TelegramConfig, ids: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """What cannot work, as (key, words)."""
    if config.mode == "webhook" and config.webhook_url is None:
        yield "webhook_url", f"is missing: {NO_URL}"
    if config.webhook_secret is not None and not SECRET.match(config.webhook_secret.reveal()):
        yield "webhook_secret", f"cannot be used: {OTHER_SIGNS}"
    for key, named in ids.items():
        if any(not ID.match(each) for each in named):
            yield key, "must hold ids, which are numbers, and no @names, which change hands; /whoami tells them"
