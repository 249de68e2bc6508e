"""How a route is declared: a path, methods, and a handler that gets a `Request`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.routing import Route

from hermes.errors import RequestError
from hermes.http.api.answers import Answer
from hermes.http.api.request import Receive, Request, Scope, Send
from hermes.http.services import Services
from hermes.sessions import Sessions
from hermes.store import Store

Handler = Callable[[Request], Awaitable[Answer | None]]
REQUEST = "hermes.request"  # where the boundary puts the Request into the ASGI scope


class Endpoint:
    """An ASGI application around a handler.

    Args:
        handler: returns its answer, or None after it has sent one itself.
    """

    __slots__ = ("handler",)

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        request: Request = scope[REQUEST]
        answer = await self.handler(request)
        if answer is not None:
            await request.answer(answer)


def route(path: str, handler: Handler, methods: Sequence[str] = ("GET",)) -> Route:
    """A route; GET also answers HEAD."""
    return Route(path, Endpoint(handler), methods=list(methods))


def open_store_of(services: Services) -> Store:
    """The store. Raises RequestError 503 while it is not open."""
    if services.store is None:
        raise _not_open()
    return services.store


def open_sessions_of(services: Services) -> Sessions:
    """The live sessions. Raises RequestError 503 while they are not open."""
    if services.sessions is None:
        raise _not_open()
    return services.sessions


def _not_open() -> RequestError:
    return RequestError(
        503, "the gateway is starting or stopping", code="not_ready", kind="server_error", retry_after_s=1
    )
