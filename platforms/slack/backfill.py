"""What was written while no socket was there: Slack brings events again for a few minutes only; the rest is read from histories.

The ids of messages are those of their events, so what comes both ways is kept once. A limit is waited for, beside the sockets.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from hermes.errors import AddressGone, RateLimited, SendRejected
from hermes.events import InboundEvent
from platforms.slack.api import Failed, SlackApi
from platforms.slack.cursors import Read
from platforms.slack.finding import messages_in, next_page
from platforms.slack.happenings import Happenings
from platforms.slack.wire import Message, converted
from platforms.slack.workspaces import Workspace, Workspaces

log = logging.getLogger(__name__)

PAGE = 200
Deliver = Callable[..., Awaitable[None]]


class Backfill:
    """Reads on from where each place was read to, once, the place heard last first.

    Args:
        api: the Web API.
        spaces: where the app is.
        happenings: translates.
        pages: at most so many requests.
        read: how far each place was read.
    """

    def __init__(self, api: SlackApi, spaces: Workspaces, happenings: Happenings, pages: int, read: Read) -> None:
        self._api = api
        self._spaces = spaces
        self._happenings = happenings
        self._pages = pages
        self._read = read
        self._left = [*read.channels.places(), *read.threads.places()]
        self._moved = trio.lowlevel.ParkingLot()  # unparked whenever fewer are left

    def is_unread(self, place: str) -> bool:
        """Whether it is still to be read what was missed in a place."""
        return place in self._left

    async def until_read(self, *places: str) -> None:
        """Wait until nothing is left to be read of these: they are read next.

        Cancellation: they are read next all the same.
        """
        for place in places:
            while place in self._left:
                if place in self._left[2:]:
                    self._left.remove(place)
                    self._left.insert(1, place)  # the first is being read
                await self._moved.park()

    async def run(self, deliver: Deliver) -> None:
        """Read every known place.

        Args:
            deliver: called once for each place, with its name and the events of what was missed there, oldest first; commits
                them.

        Raises:
            PlatformError: a history cannot be had now. Limits are waited for instead.
        """
        used = 0
        while self._left and used < self._pages:
            used += await self._place(self._left[0], deliver, self._pages - used)
            del self._left[0]
            self._moved.unpark_all()
        if self._left and self._pages:
            log.warning("what was missed in %d places is not read", len(self._left))
        passed_over, self._left = self._left, []
        self._moved.unpark_all()
        for place in passed_over:
            await deliver(place)

    async def _place(self, place: str, deliver: Deliver, pages: int) -> int:
        """One channel or thread, at most so many pages; how many it took."""
        table = self._read.table(place)
        if place not in table:  # newer ones have taken its room: nobody knows any more from where on it is to be read
            await deliver(place)
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
                body = await self._page(method, params, space)
            except Failed as failed:
                if not isinstance(failed.meaning, AddressGone | SendRejected):
                    raise failed.meaning from None
                log.info("%s cannot be read: %s", place, failed.meaning)
                table.forget(place)
                break
            found += messages_in(body)
            cursor = next_page(body)
            if cursor is None:
                break
            params["cursor"] = cursor
        else:
            log.warning("more was missed in %s than is read", place)
        await deliver(place, *await self._events(found, channel, space, thread, after=float(params["oldest"])))
        return used

    async def _page(self, method: str, params: dict[str, Any], space: Workspace) -> dict[str, Any]:
        """One page, when the limit of the method lets it be had."""
        while True:
            try:
                return await self._api.call(method, params, space.token)
            except RateLimited as limited:
                log.info("what was missed is read on later: %s", limited)
                await trio.sleep(limited.retry_after_s)

    async def _events(
        self, found: list[dict[str, Any]], channel: str, space: Workspace, thread: str, *, after: float
    ) -> list[InboundEvent]:
        """The events of messages, oldest first."""
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
        return [events[stamp] for stamp in sorted(events)]
