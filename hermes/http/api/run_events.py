"""The events of a run, from the beginning or from a number: what is stored, then what happens now.

Every event has the number that its feed gave it, as the `id:` of its frame; `Last-Event-ID` or `?after=` goes on from one.
A turn keeps its events in memory as a whole, and each of its steps stores what was told so far; so what is read from the
rows and then from the feed is complete, and the numbers only grow. After a restart they go on well above all that may
have been seen, and `run.resumed` says that the unfinished step before it is told anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import trio

from hermes.errors import RequestError, StoreUnavailable
from hermes.feed import Feed
from hermes.http.api.answers import Answer
from hermes.http.api.request import Request
from hermes.http.api.stream import KEEPALIVE, STREAM_HEADERS, sse_event
from hermes.http.api.turn_events import named_event
from hermes.intake import FINAL_ROW_STATES, Ended, Pieces, TurnEvent, decode_event
from hermes.sessions import Sessions
from hermes.store import Store
from hermes.store.rows import RunRow
from hermes.store.turns import RESUME_GAP

PAGE = 1000
MAX_NUMBER = 2**53 - 1
NOT_OVER = b": the gateway stops; the run goes on when it is back, ask again with Last-Event-ID\n\n"
Show = Callable[[RunRow], dict[str, Any]]


def last_seen(request: Request) -> int:
    """The number after which a client wants to go on; 0 = from the beginning. Raises RequestError 400."""
    header = request.header(b"last-event-id")
    if header is None or request.query("after") is not None:
        return request.query_integer("after", 0, MAX_NUMBER, 0)
    if not re.fullmatch(rb"[0-9]{1,16}", header) or int(header) > MAX_NUMBER:
        raise RequestError(400, "Last-Event-ID is not a number of this stream", code="invalid_header")
    return int(header)


async def follow(
    request: Request, store: Store, sessions: Sessions, run: RunRow, after: int, *, keepalive_s: float, show: Show
) -> None:
    """Answer a request with the events of a run until it is over, or the gateway stops.

    Cancellation: between two writes; the run goes on.
    """
    if request.method == "HEAD":
        await request.answer(Answer(200, headers=STREAM_HEADERS))
        return
    with sessions.following(run.event_id, run.session_key) as feed:
        told = _Told(request, run, after)
        run = await store.turns.run(run.event_id) or run  # after entering: what is not over now will end the feed
        await request.start(200, STREAM_HEADERS)
        await told.begin()
        while stored := await store.turns.run_events(run.event_id, told.last, PAGE):
            await told.tell([(number, _unpacked(number, body, told.last)) for number, body in stored])
        if run.state not in FINAL_ROW_STATES:
            await _live(told, feed, keepalive_s)
            run = await _read(store, run)
        seen = after > 0 and told.last == after and await _has_seen_end(store, run.event_id, after)
        await told.end(run, show, seen=seen)


def _unpacked(number: int, body: bytes, after: int) -> TurnEvent:
    event = decode_event(body)
    return event.after(number, after) if isinstance(event, Pieces) else event


async def _has_seen_end(store: Store, run_id: str, after: int) -> bool:
    """Whether a number is that of the run's end, which comes right after the last event that is stored."""
    stored = await store.turns.run_events(run_id, after - 2, 1)
    return (stored[0][0] if stored else 0) == after - 1


async def _live(told: _Told, feed: Feed, keepalive_s: float) -> None:
    """Pass on what the feed tells until it ends."""
    while True:
        batch: list[tuple[int, TurnEvent]] = []
        with trio.move_on_after(keepalive_s):
            batch = await feed.wait_after(told.last)
        if not batch:
            await told.silent()
            continue
        await told.tell([each for each in batch if not isinstance(each[1], Ended)])
        if isinstance(batch[-1][1], Ended):
            return


async def _read(store: Store, run: RunRow) -> RunRow:
    """The row as it is now; as it was, when the store does not answer."""
    try:
        return await store.turns.run(run.event_id) or run
    except StoreUnavailable:
        return run


class _Told:
    """What a follower has been told.

    Attributes:
        last: the number of the last event.
    """

    def __init__(self, request: Request, run: RunRow, after: int) -> None:
        self.last = after
        self._request = request
        self._run = run

    async def begin(self) -> None:
        """The first frame, so that the response's head goes out."""
        first = {"run_id": self._run.event_id, "session_id": self._run.session_id}
        await self._request.write(KEEPALIVE if self.last else sse_event("run.started", first))

    async def silent(self) -> None:
        """Nothing happens."""
        await self._request.write(KEEPALIVE)

    async def tell(self, events: list[tuple[int, TurnEvent]]) -> None:
        """Pass on some events."""
        frames: list[bytes] = []
        for number, event in events:
            if number - self.last > RESUME_GAP // 2 and self.last:
                frames.append(sse_event("run.resumed", {"run_id": self._run.event_id}))
            frames.append(named_event(event, number))
            self.last = number
        if any(frames):
            await self._request.write(b"".join(frames))

    async def end(self, run: RunRow, show: Show, *, seen: bool) -> None:
        """The last frame: how the run ended, unless the client has seen that; or that it has not."""
        if run.state not in FINAL_ROW_STATES:
            frame = NOT_OVER
        elif seen:
            frame = b""
        else:
            shown = show(run)
            frame = sse_event(f"run.{shown['status']}", shown, self.last + 1)
        await self._request.write(frame, more=False)
