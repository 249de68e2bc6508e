"""One request and its response: the two functions an ASGI application is called with, and how the exchange ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import trio

from hermes.http.listener.body import Body, ChunkedBody, FixedBody
from hermes.http.listener.parser import Head
from hermes.http.listener.refusal import Refused
from hermes.http.listener.response import Response, State

if TYPE_CHECKING:
    from hermes.http.listener.connection import Connection

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientLeft(OSError):
    """The client is gone: what was to be sent has nobody to read it (ASGI 2.4: `send` raises an OSError)."""


def is_departure(error: BaseException) -> bool:
    """Whether an application's error is only its way to say that the client left."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_departure(leaf) for leaf in error.exceptions)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClientLeft):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class Exchange:
    """What happens between one request's head and the last byte of its response.

    Args:
        connection: where it happens.
        head: the request.

    Attributes:
        scope: what the application runs in; cancelled when the client leaves before the response is complete, and when
            the rest of the request is refused.
        refusal: why the rest of the request was refused, if it was.
        delivered: the whole response has been handed to the kernel.
    """

    __slots__ = (
        "_connection",
        "_expects_continue",
        "_handed_over",
        "_head",
        "_waited_s",
        "body",
        "delivered",
        "refusal",
        "response",
        "scope",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head
        self._expects_continue = head.expects_continue
        self._handed_over = False
        self._waited_s = 0.0
        length = head.content_length
        self.body: Body = ChunkedBody(connection.limits.max_body_bytes) if length is None else FixedBody(length)
        self.response = Response(
            head_only=head.method == "HEAD", version=head.version, date_line=connection.server.date_line()
        )
        self.scope = trio.CancelScope()
        self.refusal: Refused | None = None
        self.delivered = False

    def asgi_scope(self) -> Scope:
        """The connection scope of ASGI's HTTP specification, version 2.4."""
        head = self._head
        transport = self._connection.transport
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": transport.peer,
            "server": transport.local,
        }

    async def receive(self) -> Message:
        """ASGI's `receive`: the body in pieces as they arrive, then, when there is one, `http.disconnect`."""
        connection = self._connection
        while not self._handed_over and not self._over:
            try:
                piece = self.body.take(connection.buffer)
            except Refused as refusal:
                await self._refuse(refusal)
                continue
            if piece or self.body.complete:
                connection.make_room()
                self._handed_over = self.body.complete
                return {"type": "http.request", "body": piece, "more_body": not self.body.complete}
            if self._expects_continue:
                self._expects_continue = False
                if self.untouched:
                    await connection.write(CONTINUE)
            await self._more_body()
        while not self._over:
            await connection.news()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send`: returns when the kernel has what was given.

        Raises:
            ClientLeft: the client is gone, or took nothing for `send_timeout_s`.
            ResponseError: the message does not fit into a response.
        """
        kind = message["type"]
        if kind == "http.response.start":
            self.response.start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body":
            data = self.response.body(
                message.get("body", b""),
                more=message.get("more_body", False),
                keep_alive=self.untouched and self._could_go_on(),
            )
            if data or self._connection.gone:
                await self._connection.write(data)
            if self.response.state is State.COMPLETE:
                self.delivered = True
                self._connection.announce()  # whoever waits in `receive` for the disconnect
        else:
            raise ValueError(f"an HTTP application cannot send {kind!r}")

    @property
    def untouched(self) -> bool:
        """Whether nothing of the response has been written, so that another can take its place."""
        return self.response.state in (State.NEW, State.STARTED)

    @property
    def _over(self) -> bool:
        return self._connection.gone or self.refusal is not None or self.response.state is State.COMPLETE

    def _could_go_on(self) -> bool:
        """Whether the next request can follow on this connection, as far as one can know when the response begins."""
        if not self._head.keep_alive or self._connection.server.draining:
            return False
        body = self.body
        if body.complete:
            return True
        # What the application leaves unread must be read away first: only if it is on its way for certain, and short.
        if self._expects_continue or isinstance(body, ChunkedBody):
            return False
        return body.remaining <= self._connection.limits.max_discarded_bytes

    async def _more_body(self) -> None:
        """Wait for input, no longer than the upload's pace allows; only waiting counts, not a slow application."""
        limits = self._connection.limits
        patience = limits.body_timeout_s + min(0.0, self.body.received / limits.body_bytes_per_s - self._waited_s)
        before = trio.current_time()
        with trio.CancelScope(deadline=before + max(0.0, patience)) as wait:
            await self._connection.news()
        self._waited_s += trio.current_time() - before
        if wait.cancelled_caught:
            await self._refuse(Refused(408, "The request's body came too slowly."))

    async def _refuse(self, refusal: Refused) -> None:
        """End the exchange from within: the application is cancelled, then the client told, if it still can be."""
        self.refusal = refusal
        self.scope.cancel(reason=str(refusal))
        await trio.lowlevel.checkpoint()
