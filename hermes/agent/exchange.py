"""One request to one endpoint: the bytes out, the stream in, decoded as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from hermes.agent import wire_chat, wire_responses
from hermes.agent.calls import ModelRequest, OnDelta
from hermes.agent.classify import Failure
from hermes.agent.clients import CallFailed, ClientsClosing, EndpointUnusable, ModelClient, ModelClients
from hermes.agent.sse import SseOverflow, SseSplitter
from hermes.agent.wire import (
    Decoder,
    NotProtocol,
    ReplyBuilder,
    ReplyTooLarge,
    RequestTooLarge,
    StreamCut,
    Unsupported,
    UpstreamError,
    origin_of,
)
from hermes.settings import Endpoint

if TYPE_CHECKING:
    import httpx2

# A stream that has ended in words may still be open; how long its end is waited for, so that the connection can be
# reused.
TAIL_S = 5.0
DRAIN_S = 0.5
# A `response.completed` event repeats the request's instructions and tools beside the whole reply.
EVENT_MARGIN_BYTES = 4_194_304

MAX_REQUEST_BYTES = 134_217_728
# Many events may be received at once; a long answer that is there already must not starve the others.
EVENTS_BETWEEN_CHECKPOINTS = 16

FAILURES = (
    CallFailed,
    ClientsClosing,
    EndpointUnusable,
    NotProtocol,
    ReplyTooLarge,
    RequestTooLarge,
    SseOverflow,
    StreamCut,
    Unsupported,
    UpstreamError,
)


class Exchange:
    """One request and its answer.

    Args:
        endpoint: whom to ask.
        request: what to ask.
        emit: called with each delta.
        max_bytes: bound on the reply's content.
        new_id: makes ids for calls that come without.
    """

    def __init__(
        self, endpoint: Endpoint, request: ModelRequest, emit: OnDelta, max_bytes: int, new_id: Callable[[], str]
    ) -> None:
        self.endpoint = endpoint
        self.request = request
        self.client: ModelClient | None = None
        self._max_bytes = max_bytes
        self._begun = False
        builder = ReplyBuilder(emit, max_bytes, self._taken_ids, new_id)
        origin = origin_of(endpoint.api, endpoint.base_url, endpoint.model)
        self.decoder: Decoder
        if endpoint.api == "responses":
            self.decoder = wire_responses.ResponsesDecoder(builder, origin)
        else:
            self.decoder = wire_chat.ChatDecoder(builder, origin)

    @property
    def complete(self) -> bool:
        """Nothing of the reply is missing."""
        return self.decoder.complete

    def silent(self) -> Failure:
        """What it means that the deadline passed."""
        if self.client is None:
            return Failure("no_client", "no model client became free in time")
        if self._begun:
            return Failure("stalled", "the stream stopped in the middle")
        return Failure("no_first_byte", "no answer came in time")

    def _taken_ids(self) -> set[str]:
        return {call.id for entry in self.request.history for call in entry.message.tool_calls}

    async def run(self, clients: ModelClients, silence: trio.CancelScope, stall_s: float) -> None:
        """Send the request and read the answer to its end; `silence` is the scope whose deadline moves with each byte.

        Raises one of `FAILURES`.
        """
        wire: Any = wire_responses if self.endpoint.api == "responses" else wire_chat
        body = wire.encode_request(self.request, self.endpoint)
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestTooLarge(f"the request has {len(body)} bytes")
        async with clients.lease(self.endpoint) as client:
            self.client = client
            async with client.post(wire.PATH, body) as response:
                await self._read(response, silence, stall_s)

    async def _read(self, response: httpx2.Response, silence: trio.CancelScope, stall_s: float) -> None:
        splitter = SseSplitter(2 * self._max_bytes + EVENT_MARGIN_BYTES)
        whole: list[bytes] = []  # an answer in one JSON document, from servers that do not stream
        size = 0
        decoder = self.decoder
        received = 0
        # The transport's own stream: decompressed, where a server compresses although it was asked not to.
        stream: Any = response.stream
        async for chunk in stream:
            silence.deadline = trio.current_time() + (min(TAIL_S, stall_s) if decoder.complete else stall_s)
            if not self._begun or whole:
                if not self._begun and not chunk.strip():
                    continue
                if whole or _is_document(chunk):
                    self._begun = True
                    whole.append(chunk)
                    size += len(chunk)
                    if size > 2 * self._max_bytes + EVENT_MARGIN_BYTES:
                        raise ReplyTooLarge(f"the answer is larger than {size} bytes")
                    continue
                self._begun = True
            if decoder.done:
                continue  # the connection's last bytes
            for event in splitter.feed(chunk):
                received += 1
                if received % EVENTS_BETWEEN_CHECKPOINTS == 0:
                    await trio.lowlevel.checkpoint()
                decoder.feed(event)
                if decoder.done:
                    silence.deadline = trio.current_time() + DRAIN_S
                    break
        if whole:
            decoder.whole(b"".join(whole))
        elif not decoder.done:
            for event in splitter.finish():
                decoder.feed(event)


def _is_document(chunk: bytes) -> bool:
    """Whether an answer is one JSON document; an event stream begins otherwise. Raises NotProtocol for a web page."""
    first = chunk.lstrip()[:1]
    if first == b"<":
        raise NotProtocol("the answer is a web page", chunk)
    return first in (b"{", b"[")
