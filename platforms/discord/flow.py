"""The proof that events flow: heartbeats may be answered by a gateway that forwards nothing.

After a long silence REST is asked for the newest message of the channel heard last; if there is one that never came as an
event, the session is deaf.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from hermes.errors import PlatformError
from platforms.discord.closing import Ending
from platforms.discord.gateway import Connection
from platforms.discord.rest import Failed, Rest
from platforms.discord.wire import Channel

if TYPE_CHECKING:
    from platforms.discord.receiving import Receiving

log = logging.getLogger(__name__)

GRACE_S = 10.0  # an event may be on its way


async def watch_flow(rest: Rest, quiet_s: float, receiving: Receiving, connection: Connection) -> None:
    """Look after each silence of `quiet_s`; ends the connection if it is deaf.

    What is there when the session begins to live is no proof: it may be deleted, or never be read.
    """
    grace_s = min(GRACE_S, quiet_s)
    looked = 0.0
    before: dict[str, int] = {}
    for heard_last in receiving.newest.channels()[:1]:
        await _look(rest, heard_last, before)
    while True:
        since = max(receiving.heard, looked)
        await trio.sleep_until(since + quiet_s)
        if receiving.heard <= since:
            looked = trio.current_time()
            channel = receiving.last or next(iter(before or receiving.newest.channels()), None)
            if channel is not None and await _missing(rest, receiving, channel, before):
                heard = receiving.heard
                await trio.sleep(grace_s)
                if receiving.heard == heard:
                    words = "messages are written that Discord does not tell us about"
                    connection.end(Ending(words=words, keep=False, silent="event"))
                    return
        receiving.flows(2 * quiet_s + 60)


async def _missing(rest: Rest, receiving: Receiving, channel: str, before: dict[str, int]) -> bool:
    """Whether a message is there that we have not heard of and that is no older than the session's life."""
    if channel == receiving.last:
        return await _look(rest, channel, {}) > receiving.known(channel)
    if channel not in before:
        await _look(rest, channel, before)
        return False
    return await _look(rest, channel, {}) > max(before[channel], receiving.known(channel))


async def _look(rest: Rest, channel: str, seen: dict[str, int]) -> int:
    """The newest message of a channel, kept in `seen` too; 0 if that cannot be found out."""
    try:
        latest = int((await rest.read(f"/channels/{channel}", Channel)).last_message_id or 0)
    except (Failed, PlatformError) as exc:
        log.info("whether events flow could not be checked: %s", exc)
        return 0
    seen[channel] = latest
    return latest
