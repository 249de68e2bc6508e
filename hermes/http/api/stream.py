"""Server-sent events: a turn's feed as a response that begins only when there is something to show.

Format: WHATWG HTML, 9.2 "Server-sent events". A line that begins with a colon is a comment; clients skip it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from hermes.feed import Feed
from hermes.http.api.answers import Answer, encode_json
from hermes.http.api.request import Request
from hermes.intake import Ended, TurnEnd, TurnEvent

Batch = list[tuple[int, TurnEvent]]
KEEPALIVE = b": keepalive\n\n"
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx: pass each piece on as it comes
)


def sse_data(value: Any) -> bytes:
    """An event without a name."""
    return b"data: %b\n\n" % encode_json(value)


def sse_event(name: str, value: Any, number: int | None = None) -> bytes:
    """An event with a name, and with an id from which a client may go on."""
    head = b"event: %b\n" % name.encode("ascii")
    if number is not None:
        head = b"id: %d\n%b" % (number, head)
    return b"%bdata: %b\n\n" % (head, encode_json(value))


async def stream_feed(
    request: Request,
    feed: Feed,
    render: Callable[[Batch], bytes],
    *,
    keepalive_s: float,
    opening: Callable[[], bytes] = bytes,
    refuse: Callable[[TurnEnd], Answer | None] = lambda _: None,
    after: int = 0,
) -> None:
    """Answer a request with what a feed tells, until its end.

    Nothing is sent before `render` makes bytes of something or `keepalive_s` have passed, so that a turn that ends
    badly before that is answered with its own status. What is ready at once goes out in one write.

    Args:
        request: to be answered; nothing has been sent.
        feed: held by the caller for as long as this runs.
        render: the frames of some events, with the frames that end the stream for `Ended`; may be empty.
        keepalive_s: seconds of silence after which a comment is sent.
        opening: frames before all others, asked for when the response begins.
        refuse: what is answered instead of a stream when the turn ended before anything was sent.
        after: the number of the last event the client has seen.

    Cancellation: between two writes; a client that leaves ends the wait through the listener.
    """
    teller = _Teller(request, render, opening, refuse, after)
    batch: Batch = []
    while True:
        with trio.CancelScope() as silence:  # one for all events, since its entry costs more than the rest of a chunk
            while True:
                silence.deadline = trio.current_time() + keepalive_s
                batch = await feed.wait_after(teller.after)
                silence.deadline = math.inf
                if silence.cancel_called:
                    break  # both at once: a write must not be interrupted
                if await teller.tell(batch):
                    return
                batch = []
        if await teller.tell(batch):
            return


class _Teller:
    """Sends what there is to tell to one client."""

    __slots__ = ("_opening", "_refuse", "_render", "_request", "_started", "after")

    def __init__(
        self,
        request: Request,
        render: Callable[[Batch], bytes],
        opening: Callable[[], bytes],
        refuse: Callable[[TurnEnd], Answer | None],
        after: int,
    ) -> None:
        self._request = request
        self._render = render
        self._opening = opening
        self._refuse = refuse
        self._started = False
        self.after = after

    async def tell(self, batch: Batch) -> bool:
        """Send some events, or a sign of life if there are none; True after the last one."""
        frames = KEEPALIVE
        ended = False
        if batch:
            self.after, last = batch[-1]
            if isinstance(last, Ended):
                ended = True
                answer = None if self._started else self._refuse(last.end)
                if answer is not None:
                    await self._request.answer(answer)
                    return True
            frames = self._render(batch)
            if not frames and not ended:
                return False
        if not self._started:
            self._started = True
            await self._request.start(200, STREAM_HEADERS)
            frames = self._opening() + frames
        await self._request.write(frames, more=not ended)
        return ended
