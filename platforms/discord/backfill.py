"""Messages that were written while no session was there to hold them, read by REST; their ids are those of the events."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from hermes.events import InboundEvent
from platforms.discord.cursors import Newest
from platforms.discord.happenings import Happenings
from platforms.discord.rest import Failed, Rest
from platforms.discord.wire import Message

log = logging.getLogger(__name__)

PAGE = 100


async def read_missed(
    rest: Rest,
    happenings: Happenings,
    newest: Newest,
    deliver: Callable[..., Awaitable[None]],
    *,
    pages: int,
) -> int:
    """Read each known channel on from its newest known message, the channel heard last first.

    Args:
        rest: the API.
        happenings: translates.
        newest: moved with each page that was delivered.
        deliver: commits events, oldest first, with `newest`.
        pages: at most so many requests.

    Returns:
        how many were made.

    Raises:
        RateLimited, PlatformUnavailable, PlatformRefused: what was read is committed; the rest is read next time.
    """
    used = 0
    for channel in newest.channels():
        while used < pages:
            used += 1
            path = f"/channels/{channel}/messages?after={newest.of(channel)}&limit={PAGE}"
            try:
                page = await rest.read(path, tuple[msgspec.Raw, ...])
            except Failed as failed:
                if failed.status not in (403, 404):
                    raise failed.meaning from None
                newest.forget(channel)  # we have been put out, or the channel is gone
                break
            read = [message for raw in page if (message := _message(raw, happenings)) is not None]
            found = sorted(read, key=lambda message: int(message.id))
            events: list[InboundEvent] = []
            for message in found:
                event = await happenings.message(message)
                if event is not None:
                    events.append(event)
                newest.note(channel, message.id)
            if found:
                await deliver(*events)
            if len(page) < PAGE or not found:
                break
        else:
            log.warning("more was missed than %d pages hold; what is older than they reach is not read", pages)
            break
    return used


def _message(raw: msgspec.Raw, happenings: Happenings) -> Message | None:
    """A message of a page; None for one that is not as documented, which nothing else waits for."""
    try:
        return msgspec.json.decode(raw, type=Message)
    except msgspec.DecodeError as exc:
        happenings.quarantine(f"a message that was missed is not as documented: {exc}", bytes(raw)[:1000])
        return None
