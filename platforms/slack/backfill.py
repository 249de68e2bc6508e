"""What was written while no socket was there: Slack brings events again for a few minutes only; the rest is read from histories.

The ids of messages are those of their events, so what comes both ways is kept once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from hermes.errors import AddressGone, SendRejected
from hermes.events import InboundEvent
from platforms.slack.api import Failed, SlackApi
from platforms.slack.cursors import Newest, Read
from platforms.slack.finding import messages_in, next_page
from platforms.slack.happenings import Happenings
from platforms.slack.wire import Message, converted
from platforms.slack.workspaces import Workspaces

log = logging.getLogger(__name__)

PAGE = 200
Deliver = Callable[..., Awaitable[None]]


class Backfill:
    """Reads on from where each place was read to. What a limit has left over is read by the next run.

    Args:
        api: the Web API.
        spaces: where the app is.
        happenings: translates.
        pages: at most so many requests a run.
    """

    def __init__(self, api: SlackApi, spaces: Workspaces, happenings: Happenings, pages: int) -> None:
        self._api = api
        self._spaces = spaces
        self._happenings = happenings
        self._pages = pages
        self._left: list[str] = []
        self._moved = trio.lowlevel.ParkingLot()  # unparked whenever fewer are left

    def begin(self, read: Read) -> None:
        """From now on `until_read` waits for what `run` will read.

        Args:
            read: how far each place was read.
        """
        self._left = self._left or [*read.channels.places(), *read.threads.places()]

    async def until_read(self, *places: str) -> None:
        """Wait until nothing is left to be read of these: they are read next."""
        for place in places:
            while place in self._left:
                if place in self._left[2:]:
                    self._left.remove(place)
                    self._left.insert(1, place)  # the first is being read
                await self._moved.park()

    async def run(self, read: Read, deliver: Deliver) -> None:
        """Read every known place, the one heard last first, after `begin`.

        Args:
            read: how far they were read.
            deliver: commits events, oldest first.

        Raises:
            RateLimited: what was read is committed; the next run goes on.
        """
        used = 0
        while self._left:
            if used >= self._pages:
                if self._pages:
                    log.warning("what was missed in %d places is not read", len(self._left))
                self._left = []
            else:
                used += await self._place(self._left[0], read, deliver, self._pages - used)
                del self._left[0]
            self._moved.unpark_all()

    async def _place(self, place: str, read: Read, deliver: Deliver, pages: int) -> int:
        """One channel or thread, at most so many pages; how many it took."""
        table: Newest = read.threads if ":" in place else read.channels
        if place not in table:  # newer ones have taken its room: nobody knows any more from where on it is to be read
            return 0
        chat, _, thread = place.partition(":")
        space, channel = self._spaces.locate(chat)
        params: dict[str, Any] = {"channel": channel, "oldest": table.of(place), "limit": str(PAGE)}
        if thread:
            params["ts"] = thread
        found: list[dict[str, Any]] = []
        used = 0
        while used < pages:
            used += 1
            method = "conversations.replies" if thread else "conversations.history"
            try:
                body = await self._api.call(method, params, space.token)
            except Failed as failed:
                if not isinstance(failed.meaning, AddressGone | SendRejected):
                    raise failed.meaning from None
                log.info("%s cannot be read: %s", place, failed.meaning)
                table.forget(place)
                await deliver()
                break
            found += messages_in(body)
            cursor = next_page(body)
            if cursor is None:
                break
            params["cursor"] = cursor
        else:
            log.warning("more was missed in %s than is read", place)
        await self._deliver(found, channel, chat, thread, deliver, after=float(params["oldest"]))
        return max(used, 1)

    async def _deliver(
        self, found: list[dict[str, Any]], channel: str, chat: str, thread: str, deliver: Deliver, *, after: float
    ) -> None:
        space, _ = self._spaces.locate(chat)
        events: dict[float, InboundEvent] = {}
        for each in found:
            try:
                message: Message = converted(each, Message)
            except msgspec.ValidationError as exc:
                self._happenings.unreadable(f"a message of a history is not as documented: {exc}", each)
                continue
            if (
                message.ts is None
                or float(message.ts) <= after
                or (not thread and message.thread_ts not in (None, message.ts))
            ):
                continue  # replies of threads are in the threads' own histories
            event = await self._happenings.message(message, channel, space)
            if event is not None:
                events[float(message.ts)] = event
        if events:
            await deliver(*(events[stamp] for stamp in sorted(events)))
