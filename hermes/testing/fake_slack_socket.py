"""Socket Mode of the fake Slack: single-use addresses, envelopes until they are acknowledged, and how sockets are renewed."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from hermes.testing.fake_http import Asked

if TYPE_CHECKING:
    from hermes.testing.fake_slack import FakeSlack

WAITING = 4096
MAX_SOCKETS = 10


@dataclass(slots=True, eq=False)
class Envelope:
    """What happened, until it is acknowledged. `about` is the message or the trigger that it is about."""

    id: str
    type: str
    payload: dict[str, Any]
    about: str
    again: bool = True
    attempts: int = 0
    sent_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Link:
    """One socket: what is to be sent goes through `outbox`; a tuple closes it."""

    socket: WebSocketConnection
    outbox: trio.MemorySendChannel[Any]
    leaving: bool = False  # it was told to go, and still gets envelopes until it does


class SocketSide:
    """The sockets, and what they saw: `acknowledged` (what the envelopes were about), `took` (seconds until then), `closes`."""

    def __init__(self, world: FakeSlack) -> None:
        self._world = world
        self._links: list[_Link] = []
        self._tickets: set[str] = set()
        self.waiting: dict[str, Envelope] = {}
        self.acknowledged: list[str] = []
        self.took: list[float] = []
        self.closes: list[int] = []
        self.most = 0  # sockets at once
        self.opened = 0
        self.sent = 0

    @property
    def connections(self) -> int:
        """Sockets that are open."""
        return len(self._links)

    def ticket(self) -> str:
        """The address of a socket, good for one."""
        ticket = self._world.id("T")
        self._tickets.add(ticket)
        return f"ws://127.0.0.1:{self._world.socket_port}/link/?ticket={ticket}&app_id=A0HERMES"

    # --- what a test does

    def dispatch(self, kind: str, payload: dict[str, Any], about: str, *, again: bool = True) -> None:
        """Something happens: one of the sockets gets it, or the next to come."""
        for _ in range(2 if self._world.duplicates else 1):
            envelope = Envelope(self._world.id("E"), kind, copy.deepcopy(payload), about, again)
            self.waiting[envelope.id] = envelope
            if self._links and self._world.forwards:
                self._send(self._links[self.sent % len(self._links)], envelope)
        self._world.touch()

    def again(self) -> None:
        """Bring everything again that was not acknowledged, over whichever socket is next."""
        for envelope in list(self.waiting.values()):
            if self._links and self._world.forwards:
                self._send(self._links[self.sent % len(self._links)], envelope)

    def tell(self, frame: Any) -> None:
        """Send this to every socket: a frame, or text as it is."""
        for link in self._links:
            link.outbox.send_nowait(frame)

    def renew(self, reason: str = "refresh_requested") -> None:
        """Ask every socket of now to make way for another."""
        for link in self._links:
            link.leaving = True
        self.tell({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-1"}})

    def close(self, code: int = 1000, *, leaving: bool = False) -> None:
        """Close every socket, or those that were asked to make way."""
        for link in self._links:
            if link.leaving or not leaving:
                link.outbox.send_nowait((code, ""))

    async def drop(self) -> None:
        """Cut every connection without a word."""
        for link in list(self._links):
            await trio.aclose_forcefully(link.socket._stream)

    def black_hole(self) -> None:
        """From now on nothing is read and nothing answered, on sockets that stay open."""
        for link in self._links:
            link.socket._stream = _Deaf(link.socket._stream)

    # --- serving

    async def connected(self, request: WebSocketRequest) -> None:
        """Serve one socket."""
        world = self._world
        parts = urlsplit(request.path)
        world.requests.append(Asked(method="GET", path=parts.path, query={}, headers={}, body=b""))
        ticket = parse_qs(parts.query).get("ticket", [""])[0]
        if world.socket_status or ticket not in self._tickets:
            await request.reject(world.socket_status or 404, body=b"no")
            return
        self._tickets.discard(ticket)
        socket = await request.accept()
        outbox, receiver = trio.open_memory_channel[Any](WAITING)
        link = _Link(socket, outbox)
        if not world.greets:
            await trio.sleep_forever()
        if len(self._links) >= MAX_SOCKETS:
            await socket.send_message(json.dumps({"type": "disconnect", "reason": "too_many_websockets"}))
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, link, receiver)
                link.outbox.send_nowait(self._hello())
                self._links.append(link)
                self.opened += 1
                self.most = max(self.most, len(self._links))
                self._bring_again(link)
                world.touch()
                try:
                    while True:
                        self._take(json.loads(await socket.get_message()))
                        world.touch()
                except ConnectionClosed as closed:
                    self.closes.append(closed.reason.code if closed.reason is not None else 1006)
                nursery.cancel_scope.cancel()
        finally:
            if link in self._links:
                self._links.remove(link)
            world.touch()

    def _hello(self) -> dict[str, Any]:
        return {
            "type": "hello", "num_connections": len(self._links) + 1, "connection_info": {"app_id": "A0HERMES"},
            "debug_info": {"host": "applink-1", "build_number": 1, "approximate_connection_time": 18060},
        }  # fmt: skip

    def _bring_again(self, link: _Link) -> None:
        if not self._world.forwards:
            return
        for envelope in list(self.waiting.values()):
            if envelope.attempts and (self._world.gives_up or not envelope.again):
                del self.waiting[envelope.id]
            else:
                self._send(link, envelope)

    def _send(self, link: _Link, envelope: Envelope) -> None:
        self.sent += 1
        if not envelope.attempts:
            envelope.sent_at = trio.current_time()
        frame: dict[str, Any] = {
            "envelope_id": envelope.id, "type": envelope.type, "payload": envelope.payload,
            "accepts_response_payload": envelope.type != "events_api",
        }  # fmt: skip
        if envelope.type == "events_api":
            frame |= {"retry_attempt": envelope.attempts, "retry_reason": "timeout" if envelope.attempts else ""}
        envelope.attempts += 1
        link.outbox.send_nowait(frame)

    async def _write(self, link: _Link, receiver: trio.MemoryReceiveChannel[Any]) -> None:
        async for frame in receiver:
            try:
                if isinstance(frame, tuple):
                    await link.socket.aclose(*frame)
                elif isinstance(frame, str | bytes):
                    await link.socket.send_message(frame)
                else:
                    await link.socket.send_message(json.dumps(frame))
            except ConnectionClosed:
                return

    def _take(self, frame: dict[str, Any]) -> None:
        envelope = self.waiting.pop(frame.get("envelope_id", ""), None)
        if envelope is not None:
            self.acknowledged.append(envelope.about)
            self.took.append(trio.current_time() - envelope.sent_at)


class _Deaf(trio.abc.Stream):
    """A stream that swallows everything and says nothing."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await self._inner.aclose()
