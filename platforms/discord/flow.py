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
    """Look after each silence of `quiet_s`; ends the connection if it is deaf."""
    grace_s = min(GRACE_S, quiet_s)
    looked = 0.0
    while True:
        since = max(receiving.heard, looked)
        await trio.sleep_until(since + quiet_s)
        if receiving.heard <= since:
            looked = trio.current_time()
            for channel in receiving.newest.channels()[:1]:
                if await _missing(rest, receiving, channel, grace_s):
                    words = "messages are written that Discord does not tell us about"
                    connection.end(Ending(words=words, keep=False, silent="event"))
                    return
        receiving.flows(2 * quiet_s + 60)


async def _missing(rest: Rest, receiving: Receiving, channel: str, grace_s: float) -> bool:
    """Whether a message is there that we have not heard of, also a little later."""
    heard = receiving.heard
    try:
        latest = (await rest.read(f"/channels/{channel}", Channel)).last_message_id
    except (Failed, PlatformError) as exc:
        log.info("whether events flow could not be checked: %s", exc)
        return False
    if latest is None or int(latest) <= receiving.newest.of(channel):
        return False
    await trio.sleep(grace_s)
    return receiving.heard == heard
