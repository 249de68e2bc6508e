"""`/hooks/ACCOUNT/NAME`: what services call; the platform that mounted it answers."""

from __future__ import annotations

from types import MappingProxyType
from urllib.parse import parse_qsl

from starlette.routing import Route

from hermes.http.api.answers import Answer
from hermes.http.api.request import Request
from hermes.http.api.routing import route
from hermes.http.services import Services
from hermes.platform import WebRequest

MAX_FIELDS = 100


def routes(services: Services) -> list[Route]:
    """The one route."""

    async def hook(request: Request) -> Answer:
        mounted = services.hooks.find(request.path_param("account"), request.path_param("name"))
        body = await request.body(mounted.max_body_bytes)
        response = await mounted.run(_web_request(request, body))
        return Answer(response.status, response.body, ((b"content-type", response.media_type.encode("latin-1")),))

    return [route("/hooks/{account}/{name}", hook, ["GET", "POST"])]


def _web_request(request: Request, body: bytes) -> WebRequest:
    client = request.scope.get("client")
    pairs = parse_qsl(
        request.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS
    )
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    return WebRequest(
        method=request.method, query=MappingProxyType(dict(pairs)), headers=MappingProxyType(headers), body=body,
        peer=str(client[0]) if client else "",
    )  # fmt: skip
