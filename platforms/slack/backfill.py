"""What was written while no socket was there: Slack brings events again for a few minutes only; the rest is read from histories.

The ids of messages are those of their events, so what comes both ways is kept once. All of it happens beside the sockets: a limit,
and a history that cannot be had now, is waited for; one that can never be read is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import msgspec
import trio

from hermes.errors import (
    AddressGone,
    PlatformProtocolError,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
)
from hermes.events import InboundEvent
from platforms.slack.api import Failed, SlackApi
from platforms.slack.cursors import Read
from platforms.slack.finding import messages_in, next_page
from platforms.slack.happenings import Happenings
from platforms.slack.wire import Message, converted
from platforms.slack.workspaces import Workspace, Workspaces

log = logging.getLogger(__name__)

PAGE = 200
MAX_PAGES = 50  # of one place
ROOM_S = 1.0  # after a limit, for others who ask for histories
AGAIN_S, MAX_AGAIN_S = 0.5, 30.0  # after a history could not be had
Deliver = Callable[..., Awaitable[None]]


class Backfill:
    """Reads on from where each place was read to, the place heard last first.

    Args:
        api: the Web API.
        spaces: where the app is.
        happenings: translates.
        pages: at most so many requests after each `begin`.
        read: how far each place was read.
    """

    def __init__(self, api: SlackApi, spaces: Workspaces, happenings: Happenings, pages: int, read: Read) -> None:
        self._api = api
        self._spaces = spaces
        self._happenings = happenings
        self._pages = self._budget = pages
        self._read = read
        self._left: dict[str, str] = {}  # place -> the stamp that it is read up to
        self._begun = trio.Event()
        self._moved = trio.lowlevel.ParkingLot()  # unparked whenever fewer are left

    def begin(self) -> None:
        """All that is known is to be read on from where it was read to."""
        self._budget = self._pages
        for place in self._read.places():
            self._left.setdefault(place, self._read.table(place).of(place))
        self._begun.set()

    def add(self, place: str, stamp: str) -> None:
        """It is to be read, too, from a stamp on."""
        self._left[place] = min(self._left.get(place, stamp), stamp, key=float)

    def is_unread(self, place: str) -> bool:
        """Whether it is still to be read what was missed in a place."""
        return place in self._left

    def prefer(self, *places: str) -> None:
        """They are read next, in this order."""
        if first := {place: self._left[place] for place in places if place in self._left}:
            self._left = first | self._left

    async def until_read(self, *places: str) -> None:
        """Wait until nothing is left to be read of these."""
        while any(map(self.is_unread, places)):
            await self._moved.park()

    async def run(self, deliver: Deliver) -> NoReturn:
        """Read every place that is to be read, and whatever becomes so.

        Args:
            deliver: called once for each place, with its name and the events of what was missed there, oldest first; commits
                them. When it returns the place is read.

        Raises:
            PlatformRefused: a token is not accepted any more.
        """
        while True:
            while self._left:
                place = next(iter(self._left))
                await deliver(place, *await self._missed(place, self._left[place]))
                del self._left[place]
                self._moved.unpark_all()
            self._begun = trio.Event()
            await self._begun.wait()

    async def _missed(self, place: str, since: str) -> list[InboundEvent]:
        """What was written in a channel or thread after a stamp; empty if that cannot be read."""
        if self._budget <= 0:
            if self._pages:
                log.warning("what was missed in %s is not read: it was too much in all", place)
            return []
        chat, _, thread = place.partition(":")
        try:
            space, channel = self._spaces.locate(chat)
            found = await self._messages(place, channel, space, thread, since)
        except SendRejected as error:  # its token was taken out, or a scope is missing: that may be mended
            log.warning("what was missed in %s is not read: %s", place, error)
            return []
        except AddressGone as error:
            log.info("%s cannot be read any more: %s", place, error)
            self._read.table(place).forget(place)
            return []
        events: dict[float, InboundEvent] = {}
        for message in found:
            event = await self._happenings.message(message, channel, space)
            if event is not None:
                events[float(message.ts or 0)] = event
        return [events[stamp] for stamp in sorted(events)]

    async def _messages(self, place: str, channel: str, space: Workspace, thread: str, since: str) -> list[Message]:
        """The messages of its pages, the newest ones if there are too many pages. Raises AddressGone, SendRejected."""
        params: dict[str, Any] = {"channel": channel, "oldest": since, **({"ts": thread} if thread else {})}
        method = "conversations.replies" if thread else "conversations.history"
        found: list[Message] = []
        limit, pages = PAGE, 0
        while pages < MAX_PAGES and self._budget > 0:
            pages, self._budget = pages + 1, self._budget - 1
            try:
                body = await self._page(method, {**params, "limit": str(limit)}, space)
            except PlatformProtocolError as error:  # perhaps a page is too large
                if limit == 1:
                    self._happenings.unreadable(f"what was missed in {place} cannot be read: {error}", error.sample)
                    return found
                limit //= 2
                continue
            found += self._converted(messages_in(body), thread, since)
            cursor = next_page(body)
            if cursor is None:
                return found
            params["cursor"] = cursor
        log.warning("more was missed in %s than is read", place)
        return found

    async def _page(self, method: str, params: dict[str, Any], space: Workspace) -> dict[str, Any]:
        """One page, when it can be had. Raises AddressGone, SendRejected, PlatformProtocolError, PlatformRefused."""
        again_s = AGAIN_S
        while True:
            try:
                return await self._ask(method, params, space)
            except RateLimited as limited:
                log.info("what was missed is read on later: %s", limited)
                await trio.sleep(limited.retry_after_s + ROOM_S)
            except PlatformUnavailable as error:
                log.info("what was missed is read on later: %s", error)
                await trio.sleep(again_s)
                again_s = min(2 * again_s, MAX_AGAIN_S)

    async def _ask(self, method: str, params: dict[str, Any], space: Workspace) -> dict[str, Any]:
        try:
            return await self._api.call(method, params, space.token)
        except Failed as failed:
            if failed.error == "thread_not_found":
                raise AddressGone("the thread is gone") from None
            raise failed.meaning from None

    def _converted(self, found: list[dict[str, Any]], thread: str, since: str) -> list[Message]:
        """Those that are newer and no replies of threads, which are in the threads' own histories."""
        messages: list[Message] = []
        for each in found:
            try:
                message: Message = converted(each, Message)
            except msgspec.ValidationError as exc:
                self._happenings.unreadable(f"a message of a history is not as documented: {exc}", each)
                continue
            stamp = message.ts
            if stamp is None or float(stamp) <= float(since):
                continue
            if thread or message.thread_ts in (None, stamp):
                messages.append(message)
        return messages
