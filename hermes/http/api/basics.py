"""What machines ask a gateway about itself, and the control routes of its own socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from hermes.errors import RequestError
from hermes.http.api.answers import Answer, json_answer
from hermes.http.api.auth import on_loopback
from hermes.http.api.request import Request, decode_object
from hermes.http.api.routing import route
from hermes.http.services import Services

ALIVE = json_answer({"status": "ok"})
METRICS_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


def routes(services: Services) -> list[Route]:
    """`/health`, `/ready`, `/metrics`, `/api/lifetimes`, `/control/…`; the most asked first."""

    async def health(_: Request) -> Answer:
        return ALIVE

    async def ready(request: Request) -> Answer:
        works, report = services.ready()
        entitled = bool(request.principal) or on_loopback(request)
        return json_answer(report if entitled else _summary(works, report), 200 if works else 503)

    async def metrics(_: Request) -> Answer:
        await services.look()
        text = services.metrics() + _counts(services.counts)
        return Answer(200, text.encode(), (METRICS_TYPE,))

    async def lifetimes(_: Request) -> Answer:
        return json_answer(services.lifetimes())

    async def status(_: Request) -> Answer:
        await services.look()
        return json_answer(services.status())

    async def control(request: Request) -> Answer:
        name = request.path_param("name")
        command = services.control.get(name)
        if command is None:
            raise RequestError(404, f"there is no command {name!r}", code="not_found")
        body = await request.body()
        return json_answer(await command(decode_object(body).data if body else {}))

    return [
        route("/health", health),
        route("/ready", ready),
        route("/metrics", metrics),
        route("/api/lifetimes", lifetimes),
        route("/control/status", status),
        route("/control/{name}", control, ["POST"]),
    ]


def _summary(works: bool, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report for those who may not see details: one word."""
    return {"status": report.get("status", "ready" if works else "unready")}


def _counts(counts: Mapping[str, int]) -> str:
    """The API's own totals as Prometheus text."""
    lines = [
        "# HELP hermes_api_unknown_fields_total Fields of requests that no route knows.",
        "# TYPE hermes_api_unknown_fields_total counter",
        f"hermes_api_unknown_fields_total {counts.get('unknown_fields', 0)}",
    ]
    return "\n".join(lines) + "\n"
