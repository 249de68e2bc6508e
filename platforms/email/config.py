"""What can be set of an e-mail account, and what e-mail can do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hermes.platform import Capabilities, Secret, choice, seconds, setting, text, url, whole, word

ADDRESS = re.compile(r"[^@\sA-Z]+@[^@\sA-Z]+\Z")
PEOPLE = ("allowed_users", "admins", "allow_bots")
PROXIES = ("http", "https", "socks5", "socks5h")
SECURITY = ("tls", "starttls", "none")
CLOSE_S = 10.0  # for a connection that is left; no wait for a server is longer, or a close would cut it
ANY_FROM = "none"  # of `authserv_id`: what a From line says is believed

# A file of 18 MB has 25 MB as base64, which is what large providers take.
CAPABILITIES = Capabilities(
    dialect="plain", max_text=50_000, unit="codepoint", max_caption=50_000, files=18_000_000, finds=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailConfig:
    """`platforms.<account>:` of a mailbox."""

    address: str = setting(rule=word(254), about="the mailbox's own address; answers come from it")
    password: Secret = setting(about="of the mailbox, or an app password (without blanks)")
    user: str | None = setting(None, rule=text(254).or_null(), about="the login name, where it is not the address")
    name: str = setting("", rule=text(100, empty=True), about="the name beside the address of our mails")
    imap_host: str = setting(rule=word(253), about="such as imap.example.org")
    imap_port: int = setting(993, rule=whole(1, 65_535), about="993 for `tls`, 143 for `starttls`")
    imap_security: str = setting("tls", rule=choice(*SECURITY), about="`none` only on this machine")
    smtp_host: str = setting(rule=word(253), about="such as smtp.example.org")
    smtp_port: int = setting(465, rule=whole(1, 65_535), about="465 for `tls`, 587 for `starttls`")
    smtp_security: str = setting("tls", rule=choice(*SECURITY), about="`none` only on this machine")
    proxy: str | None = setting(
        None, rule=url(*PROXIES, login=True).or_null(), about="an http://, https://, socks5:// or socks5h:// URL"
    )
    authserv_id: str | None = setting(
        None, rule=word(253).or_null(),
        about="the name by which the mail server signs its Authentication-Results, such as mx.example.org; `hermes platform check`"
        " shows it; `none`: believe any From line, which anybody can write",
    )  # fmt: skip
    mailbox: str = setting("INBOX", rule=text(200), about="the folder that is read")
    mark_seen: bool = setting(default=True, about="mark mails as read once they are committed")
    sent_mailbox: str | None = setting(
        None, rule=text(200).or_null(), about="the folder of what was sent, where it has no mark"
    )
    sent_copy: str = setting(
        "auto", rule=choice("auto", "server", "append", "none"),
        about="who puts a copy of our mails there: the SMTP service, we, nobody; `auto` knows Gmail and Microsoft",
    )  # fmt: skip
    sent_copy_s: float = setting(
        20.0, rule=seconds(3600), about="after so long the SMTP service has made a copy of what it accepted"
    )
    idle: bool = setting(default=True, about="wait for mails by IDLE, where the server has it")
    idle_s: float = setting(
        240.0, rule=seconds(1700), about="how long one IDLE lasts; afterwards we look for ourselves"
    )
    poll_s: float = setting(30.0, rule=seconds(3600), about="without IDLE: from one look to the next")
    timeout_s: float = setting(10.0, rule=seconds(CLOSE_S), about="for each connect, read and write")
    max_message_bytes: int = setting(
        26_214_400, rule=whole(10_000, 104_857_600), about="of a larger mail only the headers are read"
    )


def login(config: EmailConfig) -> str:
    """The name to log in with."""
    return config.user or config.address


def domain_of(config: EmailConfig) -> str:
    """The domain of our address, in lower case."""
    return config.address.rpartition("@")[2].lower()


def copies(config: EmailConfig) -> str:
    """Who keeps what was sent: `server`, `append` or `none`."""
    if config.sent_copy != "auto":
        return config.sent_copy
    host = config.smtp_host.lower().rstrip(".")
    known = ("gmail.com", "googlemail.com", "office365.com", "outlook.com")
    return "server" if any(host == each or host.endswith(f".{each}") for each in known) else "append"


def mistakes(_config: EmailConfig, ids: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """What cannot work, as (key, words)."""
    for key in PEOPLE:
        if any(not ADDRESS.match(each) for each in ids[key]):
            yield key, "must hold whole addresses in lower case, such as anna@example.org"
