"""The first socket of a connection that has none is a start like any other: few of them are opened at the same time.

`PlatformSpec.open` is entered while a start is held. What `receive` opens later, for the first time or again after it was lost,
waits for a start of its own; a socket that is opened beside one that stands, to replace it, does not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from hermes.accounts import AccountRecord
from hermes.platform import EMPTY, Host, WebSocket

T = TypeVar("T")


class Sockets:
    """The sockets of one connection, as its platform opens them.

    Args:
        record: of the account.
        starts: the limit.
        counts: whether a start is needed for what the current task opens.
        waiting: entered while a start is waited for.
        settles_s: how long receiving goes on before earlier troubles with it are over.
    """

    def __init__(
        self,
        record: AccountRecord,
        starts: trio.Semaphore,
        *,
        counts: Callable[[], bool],
        waiting: Callable[[], AbstractContextManager[None]],
        settles_s: Callable[[], float],
    ) -> None:
        self._record = record
        self._starts = starts
        self._counts = counts
        self._waiting = waiting
        self._settles_s = settles_s
        self._standing = 0

    def of(self, uncounted: Host) -> Host:
        """The same host, whose sockets are counted."""

        def websocket(
            url: str,
            *,
            headers: Mapping[str, str] = EMPTY,
            proxy: str | None = None,
            max_message_bytes: int = 16_777_216,
            open_timeout_s: float = 20.0,
        ) -> AbstractAsyncContextManager[WebSocket]:
            return self._opened(
                uncounted.websocket(
                    url,
                    headers=headers,
                    proxy=proxy,
                    max_message_bytes=max_message_bytes,
                    open_timeout_s=open_timeout_s,
                )
            )

        def tcp(
            host: str, port: int, *, tls: bool, proxy: str | None = None, open_timeout_s: float = 20.0
        ) -> AbstractAsyncContextManager[trio.abc.Stream]:
            return self._opened(uncounted.tcp(host, port, tls=tls, proxy=proxy, open_timeout_s=open_timeout_s))

        return replace(uncounted, websocket=websocket, tcp=tcp)

    @asynccontextmanager
    async def _opened(self, socket: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """A socket, opened in its turn. Cancellation: while it waits for its turn, nothing was opened."""
        held = self._counts() and not self._standing
        if held:
            await self._turn()
        try:
            async with socket as opened:
                if held:
                    self._starts.release()
                    held = False
                self._standing += 1
                try:
                    yield opened
                finally:
                    self._standing -= 1
        finally:
            if held:
                self._starts.release()

    async def _turn(self) -> None:
        """Wait for a start; a person who looks meanwhile reads what is waited for."""
        try:
            self._starts.acquire_nowait()
        except trio.WouldBlock:
            self._record.waits_its_turn(trio.current_time())
            with self._waiting():
                await self._starts.acquire()
            self._record.receives(trio.current_time() + self._settles_s())


def is_of(task: trio.lowlevel.Task | None) -> bool:
    """Whether the current task is this one, or one that it or a task of its has begun."""
    found: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while found is not None and found is not task:
        nursery = found.parent_nursery
        found = nursery.parent_task if nursery is not None else None
    return found is not None
