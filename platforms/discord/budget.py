"""The identify budget: Discord resets the token of a bot that begins too many sessions in a day, so each one is counted first.

The count is a row, so that no number of restarts exceeds it. Source: Discord's reference, "Session Start Limit Object".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from hermes.errors import PlatformUnavailable
from hermes.platform import AccountMemory
from platforms.discord.wire import SessionStartLimit

KEY = "identify"
KEPT_BACK = 5  # for whoever repairs the bot by hand
DAY_S = 86_400.0


class _Row(msgspec.Struct, frozen=True):
    left: int
    until: float
    total: int


_decode = msgspec.json.Decoder(_Row).decode


async def learn(memory: AccountMemory, limit: SessionStartLimit, now: float) -> None:
    """Keep what the service says is left of the budget."""
    reset_s = limit.reset_after / 1000 if math.isfinite(limit.reset_after) else DAY_S
    row = _Row(max(0, limit.remaining), now + min(max(reset_s, 0.0), DAY_S), max(0, limit.total))
    await memory.put(KEY, msgspec.json.encode(row))


async def spend(memory: AccountMemory, clock: Callable[[], float]) -> None:
    """Count one identify, committed on return, so that one which is sent is never forgotten.

    Raises:
        PlatformUnavailable: none is left, with the time until there are more.
    """
    try:
        row = _decode(await memory.get(KEY) or b"null")
    except msgspec.DecodeError:
        return  # nothing is known: `open` has asked the service, so this is the first session of a new memory
    now = clock()
    if now >= row.until:
        row = _Row(row.total, now + DAY_S, row.total)  # the day is over, and the service has given new ones
    if row.left <= KEPT_BACK:
        wait = row.until - now
        raise PlatformUnavailable(
            f"the bot has begun nearly as many sessions as Discord allows in a day; the next is begun in {wait:.0f} s, "
            "because Discord would reset the token",
            retry_after_s=wait,
        )
    await memory.put(KEY, msgspec.json.encode(_Row(row.left - 1, row.until, row.total)))
