"""Webhooks: the paths that platforms have mounted on the one listener, and the handlers that run for them.

An account's own paths are `/hooks/ACCOUNT/NAME`; `/hooks/ROUTE` belongs to whoever serves it first.

The gateway's key does not open them and is not asked for: a handler knows its service by a secret of its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

from hermes.errors import PlatformConflict, RequestError
from hermes.platform import RouteHandler, WebRequest, WebResponse

FINISH_S = 5.0  # for handlers that run when their route is left
MAX_RUNNING = 100  # handlers of one route at once
RETRY_S = 5.0  # until somebody looks again whether a path of the gateway is free
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(eq=False)
class Mounted:
    """One route: its handler, and the runs of it."""

    handler: RouteHandler
    max_body_bytes: int
    owner: str = ""
    running: set[trio.CancelScope] = field(default_factory=set)
    ended: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def run(self, request: WebRequest) -> WebResponse:
        """Handle a request.

        Raises:
            RequestError: 503 the route is being left, or too many are handled.
        """
        if len(self.running) >= MAX_RUNNING:
            raise _not_now()
        answer: WebResponse | None = None
        with trio.CancelScope() as scope:
            self.running.add(scope)
            try:
                answer = await self.handler(request)
            finally:
                self.running.discard(scope)
                self.ended.unpark_all()
        if answer is None:
            raise _not_now()
        return answer

    async def finish(self) -> None:
        """Wait for what runs, within a bound, then cut it; shielded."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FINISH_S):
            while self.running:
                await self.ended.park()
        for each in self.running:
            each.cancel("its route is gone")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FINISH_S):
            while self.running:
                await self.ended.park()


class Hooks:
    """All routes that are mounted now, by account and name."""

    def __init__(self) -> None:
        self._mounted: dict[tuple[str, str], Mounted] = {}

    def find(self, account: str, name: str) -> Mounted:
        """The route; a path of the gateway has no account. Raises RequestError 404."""
        found = self._mounted.get((account, name))
        if found is None:
            raise RequestError(404, "there is no such route", code="not_found")
        return found

    def of(self, account: str) -> AccountRoutes:
        """The `Routes` of an account."""
        return AccountRoutes(self, account)

    @asynccontextmanager
    async def mount(self, account: str, name: str, mounted: Mounted) -> AsyncIterator[str]:
        """Serve a route while inside.

        Lifetime: exit = its handlers have ended.
        """
        if not _NAME.match(name) or (account and (account, name) in self._mounted):
            raise ValueError(f"{name!r} is no name for a route, or is mounted already")
        if (other := self._mounted.get((account, name))) is not None:
            words = (
                f"the account {other.owner} serves the route /hooks/{name} already; give one of the two another name"
            )
            raise PlatformConflict(words, retry_after_s=RETRY_S)
        self._mounted[account, name] = mounted
        try:
            yield f"/hooks/{account}/{name}" if account else f"/hooks/{name}"
        finally:
            del self._mounted[account, name]
            await mounted.finish()  # noqa: ASYNC102 - shielded and bounded inside


class AccountRoutes:
    """`Routes` of one account; see `hermes.platform`."""

    def __init__(self, hooks: Hooks, account: str) -> None:
        self._hooks = hooks
        self._account = account

    def mount(
        self, name: str, handler: RouteHandler, *, max_body_bytes: int = 1_048_576
    ) -> AbstractAsyncContextManager[str]:
        """Serve a path while inside; yields it."""
        return self._hooks.mount(self._account, name, Mounted(handler, max_body_bytes, self._account))

    def serve(
        self, route: str, handler: RouteHandler, *, max_body_bytes: int = 1_048_576
    ) -> AbstractAsyncContextManager[str]:
        """Serve a path of the gateway while inside; yields it."""
        return self._hooks.mount("", route, Mounted(handler, max_body_bytes, self._account))


def _not_now() -> RequestError:
    words = "this webhook is not served now"
    return RequestError(503, words, code="not_ready", kind="server_error", retry_after_s=1)
