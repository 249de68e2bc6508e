"""What can be set of a Telegram account, and what the service can do."""

from __future__ import annotations

from dataclasses import dataclass

from hermes.platform import Capabilities, Secret, seconds, setting, url

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
    poll_timeout_s: float = setting(50.0, rule=seconds(600), about="how long Telegram may hold a request for updates")
    quiet_s: float = setting(
        900.0, rule=seconds(86_400), about="after so long without an update we ask whether any wait"
    )
