"""Names: which are the same, which are channels, and which say who somebody is. Pure.

Sources: RFC 2812, section 2.2; modern.ircdocs.horse, "RPL_ISUPPORT Parameters"; IRCv3, "account-tag".
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from platforms.irc.config import ACCOUNT
from platforms.irc.lines import Line

Identity = Literal["account", "hostmask"]

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_STRICT = str.maketrans(string.ascii_uppercase + "[]\\", string.ascii_lowercase + "{}|")
_RFC1459 = str.maketrans(string.ascii_uppercase + "[]\\~", string.ascii_lowercase + "{}|^")
_VALUE_ESCAPE = re.compile(r"\\x([0-9A-Fa-f]{2})")
UNVERIFIED = "unverified:"
MAX_TOKENS = 200


@dataclass(slots=True)
class Server:
    """What a server says of itself, in `005` lines; at first what the RFC says."""

    tokens: dict[str, str] = field(default_factory=dict)

    def note(self, line: Line) -> None:
        """Take in a `005`."""
        for token in line.params[1:-1]:
            name, _, value = token.partition("=")
            if name.startswith("-"):
                self.tokens.pop(name[1:].upper(), None)
            elif len(self.tokens) < MAX_TOKENS:
                self.tokens[name.upper()] = _VALUE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), value)

    def fold(self, name: str) -> str:
        """A name as it is compared."""
        match self.tokens.get("CASEMAPPING", "rfc1459"):
            case "ascii":
                return name.translate(_LOWER)
            case "rfc1459-strict" | "strict-rfc1459":
                return name.translate(_STRICT)
            case "rfc1459":
                return name.translate(_RFC1459)
            case _:
                return name.lower()

    def is_channel(self, target: str) -> bool:
        """Whether a target is a channel, or those in one who have some right there."""
        return target.lstrip(self.tokens.get("STATUSMSG", "@+"))[:1] in tuple(self.tokens.get("CHANTYPES", "#&") or "#")


@dataclass(frozen=True, slots=True)
class Who:
    """Who wrote.

    Args:
        id: what access is judged by.
        verified: somebody answers for it: the network's services, or its server where the owner said that this is enough.
    """

    id: str
    verified: bool


def who(line: Line, mode: Identity, nonce: str, fold: Server, *, tagged: bool) -> Who:
    """Who a line is from.

    A nick belongs to whoever takes it. The services account that the server puts on a message is proven; without one an id is
    made that is never the same in another connection, so that nothing can be granted to it for longer than that.

    Args:
        line: with a source.
        mode: `hostmask` = the owner lets the mask without the nick stand for a person.
        nonce: of this connection.
        fold: how names are compared.
        tagged: the server puts accounts on messages.
    """
    nick, _, mask = line.source.partition("!")
    user, _, host = mask.partition("@")
    if mode == "hostmask":
        return Who(f"*!{user}@{host.lower()}", verified=True)
    account = line.tags.get("account", "") if tagged else ""
    if ACCOUNT.match(account) and account != "0" and account.isprintable():
        return Who(account, verified=True)
    return Who(f"{UNVERIFIED}{fold.fold(nick)}!{user}@{host.lower()}:{nonce}", verified=False)


def target_of(chat: str) -> str:
    """The channel or nick that a chat is written to."""
    return chat.partition("!")[0]


def read_capabilities(words: str) -> Mapping[str, str]:
    """What `CAP LS` offers: name -> value."""
    pairs = (each.partition("=") for each in words.split())
    return MappingProxyType({name: value for name, _, value in pairs})
