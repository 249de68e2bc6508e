"""Listening sockets and connections: what lives between the entry of `open_server` and its exit."""

from __future__ import annotations

import errno
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import trio

from hermes.http.listener.connection import Connection
from hermes.http.listener.exchange import Application
from hermes.http.listener.limits import Limits
from hermes.http.listener.refusal import Refused, refusal_bytes
from hermes.http.listener.response import DateLine
from hermes.http.listener.sockets import bind
from hermes.http.listener.transport import BROKEN, Address, Transport, transport_for

# accept() fails so while there is no descriptor or memory for another connection.
NO_CAPACITY = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
CAPACITY_PAUSE_S = 0.1
TURNED_AWAY = Refused(503, "The server has as many connections as it can serve.", retry_after_s=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a server has done and what it holds.

    Args:
        open: connections now.
        idle: of these, those that wait for their next request.
        accepted: connections taken up.
        turned_away: connections beyond `max_connections`, answered 503 or closed.
        evicted: idle connections closed to make room for others.
        accept_pauses: pauses because the process had no descriptor or memory for another connection.
        requests: requests handed to the application.
        answered: complete responses of the application by status.
        refused: answers of the listener itself by status.
        abandoned: requests whose client left before the response was complete.
        torn: responses ended in the middle because the application failed.
        cut: requests ended by the end of the server.
    """

    open: int
    idle: int
    accepted: int
    turned_away: int
    evicted: int
    accept_pauses: int
    requests: int
    answered: Mapping[int, int]
    refused: Mapping[int, int]
    abandoned: int
    torn: int
    cut: int


@dataclass(slots=True)
class Count:
    """The counters behind `Statistics`; the tables are bounded by the statuses there are."""

    accepted: int = 0
    turned_away: int = 0
    evicted: int = 0
    accept_pauses: int = 0
    requests: int = 0
    abandoned: int = 0
    torn: int = 0
    cut: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)

    def answered(self, status: int) -> None:
        """Count a complete response of the application."""
        self.by_status[status] += 1

    def refused_with(self, status: int) -> None:
        """Count an answer of the listener itself."""
        self.refused[status] += 1


class Server:
    """A running server; made by `open_server`.

    Attributes:
        addresses: where it listens: (host, port) for TCP, (path, None) for a UNIX socket.
        draining: no further connection is accepted, every response ends its connection.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        on_error: Callable[[BaseException], None],
        addresses: tuple[Address, ...],
    ) -> None:
        self.app = app
        self.limits = limits
        self.on_error = on_error
        self.addresses = addresses
        self.draining = False
        self.date_line = DateLine()
        self.count = Count()
        self.idle: dict[Connection, None] = {}  # in the order in which they became idle
        self._open = 0
        self._turning_away = 0
        self._drain_by = math.inf
        self._drain_scope: trio.CancelScope | None = None

    @property
    def drain_by(self) -> float:
        """When requests still in flight are cancelled, in trio's time; `inf`: `Limits.drain_s` after the exit began.

        Set it before or during the exit; the earlier of the two counts.
        """
        return self._drain_by

    @drain_by.setter
    def drain_by(self, deadline: float) -> None:
        self._drain_by = deadline
        if self._drain_scope is not None:
            self._drain_scope.deadline = min(self._drain_scope.deadline, deadline)

    def statistics(self) -> Statistics:
        """A snapshot of the counters."""
        count = self.count
        return Statistics(
            open=self._open,
            idle=len(self.idle),
            accepted=count.accepted,
            turned_away=count.turned_away,
            evicted=count.evicted,
            accept_pauses=count.accept_pauses,
            requests=count.requests,
            answered=MappingProxyType(dict(count.by_status)),
            refused=MappingProxyType(dict(count.refused)),
            abandoned=count.abandoned,
            torn=count.torn,
            cut=count.cut,
        )

    async def _accept(
        self, listener: trio.abc.Listener[trio.abc.Stream], scope: trio.CancelScope, nursery: trio.Nursery
    ) -> None:
        with scope:
            while True:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    return
                except OSError as error:
                    if error.errno not in NO_CAPACITY:
                        raise
                    self.count.accept_pauses += 1
                    self._evict_idle()
                    await trio.sleep(CAPACITY_PAUSE_S)
                else:
                    self._admit(transport_for(stream), nursery)

    def _admit(self, transport: Transport, nursery: trio.Nursery) -> None:
        if self._open < self.limits.max_connections or self._evict_idle():
            self.count.accepted += 1
            self._open += 1
            nursery.start_soon(self._run, transport)
        else:
            self.count.turned_away += 1
            self._turning_away += 1
            nursery.start_soon(self._turn_away, transport)

    def _evict_idle(self) -> bool:
        for connection in self.idle:
            if not connection.closing:
                connection.close_when_idle()
                self.count.evicted += 1
                return True
        return False

    async def _run(self, transport: Transport) -> None:
        try:
            await Connection(self, transport).run()
        finally:
            self._open -= 1

    async def _turn_away(self, transport: Transport) -> None:
        """Answer 503 to a connection that is one too many, without reading what it asks for."""
        try:
            if self._turning_away <= self.limits.max_turned_away and not self.draining:
                with trio.move_on_after(self.limits.linger_s):
                    await self._say_full(transport)
        finally:
            self._turning_away -= 1
            await transport.aclose()

    async def _say_full(self, transport: Transport) -> None:
        self.count.refused_with(TURNED_AWAY.status)
        answer = memoryview(refusal_bytes(TURNED_AWAY, self.date_line()))
        try:
            while answer:
                answer = answer[await transport.send_some(answer) :]
            await transport.send_eof()
            while await transport.receive_some(4096):
                pass  # a close with input unread would reset the connection, and the answer with it
        except BROKEN:
            pass

    def _drain(self, scope: trio.CancelScope) -> None:
        """Close what is idle and set the deadline of the rest."""
        self.draining = True
        self._drain_scope = scope
        scope.deadline = min(self._drain_by, trio.current_time() + self.limits.drain_s)
        for connection in self.idle:
            connection.close_when_idle()


def _ignore(error: BaseException) -> None:
    """The default of `on_error`."""


@asynccontextmanager
async def open_server(
    app: Application,
    *,
    host: str | None = None,
    port: int = 0,
    unix_path: Path | None = None,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] = (),
    limits: Limits | None = None,
    on_error: Callable[[BaseException], None] = _ignore,
) -> AsyncIterator[Server]:
    """Serve an ASGI application over HTTP/1.1 on TCP, on a UNIX socket, or on both.

    Args:
        app: an ASGI 3 application; it is called for `http` scopes only, never for `lifespan` or `websocket`.
        host: a name or an address, all of whose addresses are bound; None: no TCP.
        port: 0 to 65535; 0 lets the kernel choose, and `Server.addresses` tells. With a host of several addresses all
            get the port of the first.
        unix_path: where to bind a UNIX socket, with mode 0600; nothing may be there yet (who is sure that nobody
            listens on it removes an old one first), and the path must fit the system (100 bytes do). None: none.
        listeners: further listeners, opened and closed by the caller.
        limits: the bounds; the defaults of `Limits` if None.
        on_error: called with each error of the application and each response it left unfinished; must not raise.

    Yields:
        the server, with every socket listening.

    Raises:
        OSError: a socket could not be bound; nothing is left of the others.

    Lifetime: at the exit accepting stops first and the sockets are closed, idle connections are closed at once,
        requests in flight may finish until `Server.drain_by` or for `Limits.drain_s`, whichever is earlier; then they
        are cancelled and awaited, and a client that has no byte of its answer yet reads 503.
    Cancellation: from outside, also during the exit, everything is cancelled at once and awaited. An error in the block
        does the same; it comes out in an exception group.
    """
    limits = limits or Limits()
    bound = await bind(host, port, unix_path, backlog=limits.backlog)
    with bound:
        server = Server(app, limits, on_error, bound.addresses)
        accepting: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            for listener in (*bound.listeners, *listeners):
                scope = trio.CancelScope()
                accepting.append(scope)
                nursery.start_soon(server._accept, listener, scope, nursery)
            yield server
            for scope in accepting:
                scope.cancel(reason="the server is being left")
            bound.close()
            server._drain(nursery.cancel_scope)
