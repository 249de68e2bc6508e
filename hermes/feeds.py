"""The feeds of all events that are waiting, in a turn, or followed; and who has left one."""

from __future__ import annotations

from hermes.errors import RequestError
from hermes.feed import Feed
from hermes.intake import CallEvent, Ended, Failure, Intake, TextEvent, TurnEnd
from hermes.store.rows import Accepted, Claim, Settled


class Feeds:
    """Event id -> feed. A feed is here while somebody follows it or its turn runs.

    Attributes:
        left: attended events that were committed and that nobody waits for any more, until their row says so.
        awaited: attended events of platforms that have not ended, and their mailboxes.
    """

    def __init__(self) -> None:
        self.left: set[str] = set()
        self.awaited: dict[str, str] = {}
        self._feeds: dict[str, Feed] = {}

    def get(self, event_id: str) -> Feed | None:
        """The feed of an event."""
        return self._feeds.get(event_id)

    def make(self, intake: Intake) -> Feed:
        """A feed for an event that is about to be committed: the session's task must find it."""
        feed = self._feeds[intake.event_id] = Feed(intake.event_id, intake.session_key, intake.mode)
        return feed

    def drop(self, feed: Feed) -> None:
        """Its event was not committed, or another one stands for it."""
        if self._feeds.get(feed.event_id) is feed:
            del self._feeds[feed.event_id]

    def join(self, own: Feed, accepted: Accepted) -> Feed:
        """The feed of the row that an idempotency key stands for, in place of an own one.

        Raises:
            RequestError: 409, the row ended in this very moment.
        """
        self.drop(own)
        if accepted.end is not None:
            return replay(accepted.end, own.session_key)
        feed = self._feeds.get(accepted.event_id)
        if feed is None:
            words = "the request of this Idempotency-Key is ending; ask again"
            raise RequestError(409, words, code="idempotency_in_flight", retry_after_s=1)
        return feed

    def follow(self, event_id: str, key: str) -> Feed:
        """The feed of a detached event, made if no turn has begun to tell it."""
        feed = self._feeds.get(event_id)
        if feed is None:
            feed = self._feeds[event_id] = Feed(event_id, key, "detached")
        feed.readers += 1
        return feed

    def leave(self, feed: Feed) -> bool:
        """A reader goes. Returns True if it was the last one of an attended event that has not ended."""
        feed.readers -= 1
        if feed.readers:
            return False
        if feed.end is not None or feed.mode == "attended" or not feed.begun:
            self.drop(feed)
        return feed.end is None and feed.mode == "attended"

    def begin(self, claim: Claim) -> Feed:
        """The feed of a turn that begins: that of its last row."""
        row = claim.rows[-1]
        self.left.difference_update(each.event_id for each in claim.rows)  # from here on its feed tells who reads
        feed = self._feeds.get(row.event_id)
        if feed is None:
            feed = self._feeds[row.event_id] = Feed(row.event_id, row.session_key, row.mode)
        feed.begin(claim.first_event)
        return feed

    def over(self, feed: Feed) -> None:
        """A turn is over: its feed stays for those who still read it."""
        self.awaited.pop(feed.event_id, None)
        if not feed.readers:
            self.drop(feed)

    def tell(self, settled: Settled) -> None:
        """A row ended without a turn."""
        self.left.discard(settled.event_id)
        self.awaited.pop(settled.event_id, None)
        feed = self._feeds.get(settled.event_id)
        if feed is not None:
            feed.push(Ended(settled.end))
            self.over(feed)

    def end_not_begun(self) -> None:
        """The gateway stops: whoever waits for a turn that has not begun is told so."""
        for feed in list(self._feeds.values()):
            if not feed.begun and feed.end is None:
                feed.push(Ended(_not_begun(feed)))


def _not_begun(feed: Feed) -> TurnEnd:
    words = "the gateway is stopping"
    failure = Failure(status=503, code="gateway_draining", message=words, kind="server_error", retry_after_s=5)
    return TurnEnd(event_id=feed.event_id, session_id=feed.session_key, state="interrupted", failure=failure)


def replay(end: TurnEnd, key: str) -> Feed:
    """A feed that tells again how a turn ended."""
    feed = Feed(end.event_id, key, "detached")
    if end.message is not None:
        if end.message.text:
            feed.push(TextEvent(end.message.text))
        for index, call in enumerate(end.message.tool_calls):
            feed.push(CallEvent(index, call.id, call.name, call.arguments))
    feed.push(Ended(end))
    return feed
