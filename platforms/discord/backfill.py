"""Messages that were written while no session was there to hold them, read by REST; their ids are those of the events.

All of it happens beside the gateway: a limit, and a history that cannot be had now, is waited for while others are read; one
that can never be read is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import trio

from hermes.errors import PlatformProtocolError, PlatformRefused, PlatformUnavailable, RateLimited
from hermes.events import InboundEvent
from platforms.discord.cursors import Newest
from platforms.discord.happenings import Happenings
from platforms.discord.rest import Failed, Rest
from platforms.discord.wire import Message

log = logging.getLogger(__name__)

PAGE = 100
AGAIN_S, MAX_AGAIN_S = 1.0, 60.0  # after a history could not be had
THREAD_CREATED = 18  # the type of what the service says in a channel where somebody has begun a thread

Read = tuple[str, int | None]  # a channel, and the message it is read to; None = it is gone
Commit = Callable[[list[InboundEvent], list[Read]], Awaitable[None]]


class Backfill:
    """Reads known channels on from where each was read to, the channel heard last first.

    Args:
        rest: the API.
        happenings: translates.
        pages: at most so many after each `begin`.
    """

    def __init__(self, rest: Rest, happenings: Happenings, pages: int) -> None:
        self._rest = rest
        self._happenings = happenings
        self._pages = self._budget = pages
        self._left: dict[str, int] = {}  # channel -> the message that it is read to
        self._later: dict[str, float] = {}  # when one that could not be had is asked for again, by trio's clock
        self._again_s: dict[str, float] = {}
        self._sizes: dict[str, int] = {}  # of pages, where they have to be smaller
        self._moved = trio.lowlevel.ParkingLot()  # unparked whenever a channel is read, or has to wait

    def begin(self, newest: Newest) -> None:
        """All that is known is to be read on from where it was read to."""
        self._budget = self._pages
        for channel in newest.channels():
            self._left.setdefault(channel, newest.of(channel))

    def __contains__(self, channel: object) -> bool:
        """Whether it is still to be read what was missed in a channel."""
        return channel in self._left

    def __iter__(self) -> Iterator[str]:
        return iter(self._left)

    async def until_read(self, channel: str) -> None:
        """Read this channel next, and wait for that as long as nothing is in the way."""
        while channel in self._left and not self._waits(channel):
            self._left = {channel: self._left[channel]} | self._left
            await self._moved.park()

    async def run(self, commit: Commit) -> None:
        """Read every channel that is to be read.

        Args:
            commit: commits the events of a page, oldest first, with where channels are read to by then.

        Raises:
            PlatformRefused: the token is not accepted any more.
        """
        while self._left:
            if self._budget <= 0:
                if self._pages:
                    log.warning("more was missed than %d pages hold; the rest is not read", self._pages)
                for each in tuple(self._left):
                    self._finish(each)
                break
            channel = next((each for each in self._left if not self._waits(each)), None)
            if channel is None:
                await trio.sleep_until(min(self._later[each] for each in self._left))
                continue
            await self._attempt(channel, commit)
            self._moved.unpark_all()
        self._moved.unpark_all()

    def _waits(self, channel: str) -> bool:
        return self._later.get(channel, 0.0) > trio.current_time()

    async def _attempt(self, channel: str, commit: Commit) -> None:
        """Read a page of a channel, or find out why that cannot be."""
        try:
            more = await self._page(channel, commit)
        except RateLimited as limited:
            self._put_off(limited.retry_after_s, *(self._left if limited.scope == "account" else (channel,)))
            log.info("what was missed is read on later: %s", limited)
        except PlatformUnavailable as error:
            self._put_off(self._again_s.get(channel, AGAIN_S), channel)
            self._again_s[channel] = min(2 * self._again_s.get(channel, AGAIN_S), MAX_AGAIN_S)
            log.info("what was missed in %s is read later: %s", channel, error)
        except PlatformProtocolError as error:  # perhaps the page is too large
            size = self._sizes.get(channel, PAGE)
            self._sizes[channel] = size // 2
            if size == 1:
                self._happenings.quarantine(f"what was missed in {channel} cannot be read: {error}", error.sample)
                self._finish(channel)
        else:
            self._budget -= 1
            self._again_s.pop(channel, None)
            if not more:
                self._finish(channel)

    def _put_off(self, wait_s: float, *channels: str) -> None:
        for channel in channels:
            self._later[channel] = trio.current_time() + wait_s

    def _finish(self, channel: str) -> None:
        for table in (self._left, self._later, self._again_s, self._sizes):
            table.pop(channel, None)

    async def _page(self, channel: str, commit: Commit) -> bool:
        """Read one page; whether there may be more. Raises PlatformError."""
        size = self._sizes.get(channel, PAGE)
        path = f"/channels/{channel}/messages?after={self._left[channel]}&limit={size}"
        try:
            page = await self._rest.read(path, tuple[msgspec.Raw, ...])
        except Failed as failed:
            if isinstance(failed.meaning, PlatformUnavailable | PlatformRefused):
                raise failed.meaning from None
            # We have been put out, the channel is gone, or the service takes no such question.
            log.info("what was missed in %s is not read: %s", channel, failed.meaning)
            if failed.status in (403, 404):
                await commit([], [(channel, None)])
            return False
        found = sorted(
            (message for raw in page if (message := self._message(raw)) is not None), key=lambda each: int(each.id)
        )
        if not found:
            return False
        events = [event for each in found if (event := await self._happenings.message(each)) is not None]
        last = int(found[-1].id)
        began = [(thread, int(thread)) for each in found if (thread := _thread(each)) and thread not in self._left]
        await commit(events, [*began, (channel, last)])
        self._left |= {channel: last, **dict(began)}
        return len(page) >= size

    def _message(self, raw: msgspec.Raw) -> Message | None:
        """A message of a page; None for one that is not as documented, which nothing else waits for."""
        try:
            return msgspec.json.decode(raw, type=Message)
        except msgspec.DecodeError as exc:
            because = f"a message that was missed is not as documented: {exc}"
            self._happenings.quarantine(because, bytes(raw)[:1000])
            return None


def _thread(message: Message) -> str | None:
    """The thread that began with a message; what is in it is in no other history."""
    if message.thread is not None:
        return message.thread.id
    if message.type == THREAD_CREATED and message.message_reference is not None:
        return message.message_reference.channel_id
    return None
