"""The settings of an IRC account, and what the service can do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hermes.decode import host_name
from hermes.platform import Capabilities, Secret, choice, seconds, secret, setting, text, texts, url, whole, word

ACCOUNT = re.compile(r"[^\s!@:*?,]{1,100}\Z")
MASK = re.compile(r"\*![^\s!@]*@[^\sA-Z!@]+\Z")
CHANNEL = re.compile(r"[#&+!][^\s,\x07]+(\s+[^\s,]+)?\Z")  # RFC 2812, section 1.3; and its key
PEOPLE = ("allowed_users", "admins", "allow_bots")
CHATS = ("allowed_chats", "ignored_chats", "free_response_chats")

# A line has 512 bytes with its end (RFC 2812, section 2.3), and the server puts our own name before it when it passes it on;
# so much is always left for words, and what a longer name takes is made up for where lines are made.
MAX_TEXT = 350
CAPABILITIES = Capabilities(dialect="irc", max_text=MAX_TEXT, unit="byte", max_caption=0, command_prefix="!")


@dataclass(frozen=True, slots=True, kw_only=True)
class IrcConfig:
    """One nick on one network."""

    server: str = setting(rule=host_name(), about="a server of the network, such as irc.libera.chat")
    port: int = setting(6697, rule=whole(1, 65_535), about="where it listens; 6697 is the usual one for TLS")
    tls: bool = setting(default=True, about="TLS from the first byte; without it passwords can be read on the way")
    proxy: str | None = setting(
        None,
        rule=url("http", "https", "socks5", "socks5h", login=True).or_null(),
        about="a proxy for the connection, as a URL",
    )
    nick: str = setting(rule=word(30), about="what the bot is called")
    username: str = setting("hermes", rule=word(10), about="the user part of its mask")
    realname: str = setting("Hermes", rule=text(50), about="what /whois shows of it")
    password: Secret | None = setting(None, rule=secret(300).or_null(), about="of the server itself, where it has one")
    sasl_account: str | None = setting(
        None, rule=word(64).or_null(), about="the services account that it logs in to; by default its nick"
    )
    sasl_password: Secret | None = setting(
        None,
        rule=secret(300).or_null(),
        about="of the services account: with it the bot logs in by SASL before all else",
    )
    channels: tuple[str, ...] = setting(
        (), rule=texts(text(120), 100), about="where it is: `#channel`, or `#channel key`"
    )
    accept_invites: bool = setting(default=False, about="join any channel that somebody invites the bot to")
    identity: str = setting(
        "account",
        rule=choice("account", "hostmask"),
        about="what a person is known by: the services account, or `*!user@host`, for networks without accounts",
    )
    mention_words: tuple[str, ...] = setting(
        (), rule=texts(word(40), 20), about="words that address the bot in a channel as its nick does"
    )
    command_prefix: str = setting(
        "!", rule=text(3, empty=True), about="what people type for the / that their own client keeps; empty = nothing"
    )
    address_people: bool = setting(default=True, about="in a channel an answer begins with the name of whom it is for")
    formatting: bool = setting(default=True, about="bold, italics and monospace; False = bare words")
    regain: str = setting(
        "off",
        rule=choice("off", "ghost", "regain", "recover"),
        about="what NickServ is asked to do where somebody else has the bot's nick",
    )
    flood_burst: int = setting(5, rule=whole(2, 10_000), about="lines that may be sent at once")
    flood_interval_s: float = setting(2.0, rule=seconds(60), about="after that, one line each so many seconds")
    timeout_s: float = setting(30.0, rule=seconds(300), about="how long the server may take to answer")
    ping_s: float = setting(60.0, rule=seconds(3600), about="how often the server is asked whether it is there")
    rejoin_s: float = setting(
        30.0, rule=seconds(86_400), about="how long after a kick or a closed door a channel is tried again, at first"
    )
    renick_s: float = setting(60.0, rule=seconds(86_400), about="how often a taken nick is tried again")
    backfill: int = setting(
        1000, rule=whole(0, 10_000), about="messages that are read at most after an outage, where the server keeps some"
    )


def mistakes(config: IrcConfig, ids: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """What cannot work, as (key, words)."""
    if any(not CHANNEL.match(each) for each in config.channels):
        yield (
            "channels",
            "must hold names that begin with # (in quotes: it begins a comment), each alone or with its key",
        )
    by_mask = config.identity == "hostmask"
    for key in PEOPLE:
        if any(not (MASK if by_mask else ACCOUNT).match(each) for each in ids[key]):
            known = "masks such as *!user@host.example" if by_mask else "services accounts, as /whois shows them"
            yield key, f"must hold {known}, and no nicks, which anybody can take"
    for key in CHATS:
        if any(each[0] in "#&+!" and each != each.lower() for each in ids[key]):
            yield key, "must hold channels in lower case, as they are compared"
