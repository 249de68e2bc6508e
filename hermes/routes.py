"""What a platform sees of requests that come in: a part of the contract, `hermes.platform`, which names it all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """What came in on a route: the body is whole and bounded; `headers` have lower-case names."""

    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebResponse:
    """The answer to it; `retry_after_s` becomes its Retry-After."""

    status: int = 200
    body: bytes = b""
    media_type: str = "text/plain; charset=utf-8"
    retry_after_s: float | None = None


RouteHandler = Callable[[WebRequest], Awaitable[WebResponse]]


class Routes(Protocol):
    """Where webhooks come in: on the gateway's one listener."""

    def mount(
        self, name: str, handler: RouteHandler, *, max_body_bytes: int = 1_048_576
    ) -> AbstractAsyncContextManager[str]:
        """Serve POST and GET `/hooks/<account>/<name>` while inside; yields that path.

        The handler must know its caller by a secret before it believes anything. Exit waits for handlers that run.
        """

    def serve(
        self, route: str, handler: RouteHandler, *, max_body_bytes: int = 1_048_576
    ) -> AbstractAsyncContextManager[str]:
        """Serve POST `/hooks/<route>` while inside, a path of the whole gateway; as `mount` otherwise.

        Raises, on entering:
            PlatformConflict: another account serves it.
        """
