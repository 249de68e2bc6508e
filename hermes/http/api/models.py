"""`/v1/models`: the names a client may ask for. Source: OpenAI's API reference, "Models"."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route

from hermes.agents import MODEL_NAME, model_names
from hermes.errors import RequestError
from hermes.http.api.answers import Answer, json_answer
from hermes.http.api.request import Request
from hermes.http.api.routing import route
from hermes.http.services import Services
from hermes.settings import Config, Endpoint

SINCE = 1_735_689_600  # 2025-01-01: the protocol wants a time, and a configured name has none


def model_not_found(name: str) -> RequestError:
    """The error for a name that is not configured."""
    return RequestError(404, f"the model {name[:200]!r} is not configured", code="model_not_found", param="model")


def asked_model(name: str, config: Config) -> str | None:
    """The name as a turn takes it: None for `hermes`, the configured model or the session's own. Raises RequestError 404."""
    if name not in model_names(config):
        raise model_not_found(name)
    return None if name == MODEL_NAME else name


def routes(services: Services) -> list[Route]:
    """`GET /v1/models` and `GET /v1/models/{id}`."""

    async def listing(_: Request) -> Answer:
        config = services.config()
        models = [_model(name, endpoint, config) for name, endpoint in model_names(config).items()]
        return json_answer({"object": "list", "data": models})

    async def one(request: Request) -> Answer:
        config = services.config()
        name = request.path_param("id")
        known = model_names(config)
        if name not in known:
            raise model_not_found(name)
        return json_answer(_model(name, known[name], config))

    return [route("/v1/models", listing), route("/v1/models/{id:path}", one)]


def _model(name: str, endpoint: Endpoint | None, config: Config) -> dict[str, Any]:
    owner = "hermes" if name == MODEL_NAME else (endpoint or config.model.primary).provider
    return {"id": name, "object": "model", "created": SINCE, "owned_by": owner}
