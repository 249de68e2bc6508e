"""What a server's answers mean. Pure.

Sources: RFC 2812, section 5.2; modern.ircdocs.horse, "Numerics"; IRCv3, "Standard Replies".
"""

from __future__ import annotations

import re

from hermes.errors import (
    AddressGone,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
)
from platforms.irc.lines import Line

WAIT_S = 30.0  # where the server does not say how long
MAX_WAIT_S = 3600.0
_NUMBER = re.compile(r"\b(\d{1,5})\s*(?:s\b|sec)")
_BANNED = re.compile(r"\b(?:[KGZDQ]-?[Ll]ine[d]?|AKILL(?:ed)?|autokill(?:ed)?|banned|not welcome)\b", re.IGNORECASE)
_TOO_FAST = re.compile(r"throttl|too fast|too many (?:connect|unknown)|try again|reconnect|flood|limit", re.IGNORECASE)
_CODES_BLOCKED = re.compile(r"colou?r|format", re.IGNORECASE)

# By the target that is their second parameter. Others that name a target are of no concern to who writes to it.
ABOUT_TARGETS = frozenset(
    ("401", "402", "403", "404", "405", "407", "408", "437", "439", "442", "477", "482", "486", "489", "531", "716")
)
ABOUT_COMMANDS = frozenset(("263", "402", "411", "412", "413", "414", "421", "461", "481"))  # by the command there
SAYS_NO = frozenset(("FAIL",)) | ABOUT_TARGETS | ABOUT_COMMANDS


def meaning(line: Line, target: str) -> PlatformError | None:
    """What an answer to a message says; None if it says nothing against it.

    Args:
        target: to whom the message was.
    """
    said = f"{target}: {line.words}"[:300]
    match line.command:
        case "401" | "403" | "442":
            return AddressGone(said)
        case "465":
            return PlatformRefused(
                f"we are banned: {line.words}. Ask the network's staff; then `hermes platform retry`"
            )
        case "263":
            return RateLimited(said, retry_after_s=wait_of(line.words), scope="account")
        case "439":
            return RateLimited(said, retry_after_s=wait_of(line.words), scope="address")
        case "437":
            return PlatformUnavailable(said)
        case "FAIL":
            code = line.param(1)
            if code in ("RATE_LIMITED", "TOO_FAST"):
                return RateLimited(said, retry_after_s=wait_of(line.words), scope="account")
            unavailable = code == "TEMPORARILY_UNAVAILABLE"
            return PlatformUnavailable(said) if unavailable else SendRejected(f"{code}: {said}")
        case command if command in SAYS_NO:
            return SendRejected(said)
    return None


def blocks_codes(error: PlatformError) -> bool:
    """Whether a message was turned away for its formatting alone."""
    return isinstance(error, SendRejected) and _CODES_BLOCKED.search(str(error)) is not None


def wait_of(words: str) -> float:
    """How long a text asks to wait."""
    found = _NUMBER.search(words)
    return min(max(float(found[1]), 1.0), MAX_WAIT_S) if found else WAIT_S


def of_closing(words: str, server: str) -> PlatformError:
    """Why a server closed the link, by the words of its `ERROR`.

    Args:
        words: they.
        server: its name, for people.
    """
    said = f"{server} closed the connection: {words}"[:300]
    if _BANNED.search(words):
        return PlatformRefused(f"{said}. Ask the network's staff; then `hermes platform retry`")
    retry = wait_of(words) if _TOO_FAST.search(words) else None
    return PlatformUnavailable(said, retry_after_s=retry)
