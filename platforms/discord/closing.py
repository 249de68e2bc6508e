"""What the end of a gateway connection means: every close code has a row. Pure.

Source: Discord's reference, "Gateway Close Event Codes".
"""

from __future__ import annotations

from dataclasses import dataclass

KEEPS_SESSION = 4000
"""We close with this: 1000 and 1001 would end the session at once."""

GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 0, 1 << 9, 1 << 12, 1 << 15
PRIVILEGED = {
    1 << 1: "Server Members Intent",
    1 << 8: "Presence Intent",
    MESSAGE_CONTENT: "Message Content Intent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a connection ended.

    Args:
        words: for people.
        keep: the session can be resumed; otherwise a new one is begun.
        refused: trying again is of no use; `words` say what is.
        pause: a new session is begun only after one to five seconds, as the service asks.
        asked: the service asked for it, nothing is wrong.
        silent: the path that was found to bring nothing.
    """

    words: str
    keep: bool = True
    refused: bool = False
    pause: bool = False
    asked: bool = False
    silent: str | None = None


_PAGE = "https://discord.com/developers/applications"
CODES: dict[int, Ending] = {
    4000: Ending(words="Discord had an unknown error"),
    4001: Ending(words="Discord did not know an operation that we sent"),
    4002: Ending(words="Discord could not decode what we sent"),
    4003: Ending(words="Discord says we sent something before identifying"),
    4004: Ending(
        words=f"Discord does not accept the token: copy it again, or reset it, on the Bot page at {_PAGE}",
        keep=False,
        refused=True,
    ),
    4005: Ending(words="Discord says we identified twice"),
    4007: Ending(words="Discord does not know the place that we wanted to resume from", keep=False),
    4008: Ending(words="Discord says we sent too much too fast"),
    4009: Ending(words="the session timed out", keep=False),
    4010: Ending(words="Discord refuses the shard (4010)", keep=False, refused=True),
    4011: Ending(
        words="this bot is in too many servers for one connection (4011); Hermes keeps one, so use a bot in fewer",
        keep=False,
        refused=True,
    ),
    4012: Ending(words="Discord no longer serves version 10 of its gateway (4012)", keep=False, refused=True),
    4013: Ending(words="Discord calls the intents invalid (4013)", keep=False, refused=True),
}


def meaning(code: int, reason: str, intents: int) -> Ending:
    """What a close by the service, or by the network, means.

    Args:
        code: as in RFC 6455, or Discord's.
        reason: what came with it.
        intents: what we asked for.
    """
    if code == 4014:
        names = [name for bit, name in PRIVILEGED.items() if intents & bit]
        which = " and ".join(names) or "an intent"
        return Ending(
            words=f"Discord does not grant this bot the {which}: switch it on under Bot, Privileged Gateway Intents, at "
            f"{_PAGE} (or set message_content: false)",
            keep=False,
            refused=True,
        )
    known = CODES.get(code)
    if known is not None:
        return known
    said = f": {reason[:200]}" if reason else ""
    return Ending(words=f"the gateway closed the connection ({code}{said})")
