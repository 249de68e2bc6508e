"""`/hooks/ACCOUNT/NAME` and `/hooks/ROUTE`: what services call; the platform that mounted it answers."""

from __future__ import annotations

import math
from types import MappingProxyType
from urllib.parse import parse_qsl

from starlette.routing import Route

from hermes.hooks import Mounted
from hermes.http.api.answers import Answer
from hermes.http.api.request import Request
from hermes.http.api.routing import route
from hermes.http.services import Services
from hermes.platform import WebRequest

MAX_FIELDS = 100


def routes(services: Services) -> list[Route]:
    """The two forms of a path."""

    async def hook(request: Request) -> Answer:
        return await _answered(request, services.hooks.find(request.path_param("account"), request.path_param("name")))

    async def gateway_hook(request: Request) -> Answer:
        return await _answered(request, services.hooks.find("", request.path_param("route")))

    return [route("/hooks/{account}/{name}", hook, ["GET", "POST"]), route("/hooks/{route}", gateway_hook, ["POST"])]


async def _answered(request: Request, mounted: Mounted) -> Answer:
    body = await request.body(mounted.max_body_bytes)
    response = await mounted.run(_web_request(request, body))
    if response.retry_after_s is not None:
        request.extra[b"retry-after"] = str(math.ceil(response.retry_after_s)).encode("ascii")
    return Answer(response.status, response.body, ((b"content-type", response.media_type.encode("latin-1")),))


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
