"""The ASGI application: one boundary around all routes, which lets requests in and turns every error into its answer."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.routing import Router

from hermes.errors import RequestError, StoreUnavailable, leaves
from hermes.http.api import basics, chat, hooks, models, responses, runs, sessions
from hermes.http.api.answers import STORE_RETRY_S, Answer, error_answer, request_error_answer
from hermes.http.api.auth import admit
from hermes.http.api.request import Receive, Request, Scope, Send
from hermes.http.api.routing import REQUEST
from hermes.http.listener import Application
from hermes.http.listener.exchange import is_departure
from hermes.http.services import Services
from hermes.observe.logs import get_log

log = get_log(__name__)


class Api:
    """The boundary of an HTTP request; see `build_app`."""

    def __init__(self, services: Services, router: Router) -> None:
        self._services = services
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send, self._services)
        scope[REQUEST] = request
        scope["app"] = self  # Starlette raises its 404 and 405 instead of answering them in plain text
        try:
            answer = admit(request)
            if answer is None:
                await self._router(scope, receive, send)
        except Exception as error:
            if request.started or is_departure(error):
                raise  # the listener tears the response, so that nobody takes a part of it for the whole
            answer = _answer_to(error, request)
        if answer is not None:
            await request.answer(answer)


def _answer_to(error: Exception, request: Request) -> Answer:
    """What a client is told of an error."""
    for each in leaves(error):
        match each:
            case RequestError():
                return request_error_answer(each)
            case StoreUnavailable():
                return error_answer(
                    503, str(each), kind="server_error", code="store_unavailable", retry_after_s=STORE_RETRY_S
                )
            case HTTPException(status_code=404):
                return error_answer(404, "there is no such route", code="not_found")
            case HTTPException(status_code=405):
                allow = ", ".join(sorted((each.headers or {}).get("Allow", "").split(", ")))
                request.extra[b"allow"] = allow.encode("ascii")
                return error_answer(405, f"this route takes {allow}", code="method_not_allowed")
    log.error("http.bug", error=error, method=request.method, path=request.path[:200], principal=request.principal)
    return error_answer(
        500,
        f"internal error ({type(error).__name__}); the log has the details",
        kind="server_error",
        code="internal_error",
    )


def build_app(services: Services) -> Application:
    """The HTTP API as an ASGI application.

    Args:
        services: the gateway's parts; routes whose part is None answer 503 until it is there.
    """
    parts = (basics, chat, models, responses, runs, sessions, hooks)
    routes = [each for part in parts for each in part.routes(services)]
    return Api(services, Router(routes, redirect_slashes=False))
