"""Webhooks in tests: the gateway's own routes for them, served by its own listener on a port of the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from hermes.hooks import Hooks
from hermes.http.listener import open_server
from hermes.http.services import Services
from hermes.nurseries import open_background_nursery
from hermes.settings import Config


async def _serve(hooks: Hooks, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    from hermes.http.api.app import build_app  # a test of something else does not pay for the router

    config = Config(home=Path("/nowhere"), workspace=Path("/nowhere"))
    async with open_server(build_app(Services(config=lambda: config, hooks=hooks)), host="127.0.0.1") as server:
        host, port = server.addresses[0]
        task_status.started(f"http://{host}:{port}")
        await trio.sleep_forever()


@asynccontextmanager
async def open_test_routes() -> AsyncIterator[tuple[Hooks, str]]:
    """The routes of all accounts, and the URL below which they are served.

    Lifetime: exit = who is being answered is cut off.
    """
    hooks = Hooks()
    async with open_background_nursery() as nursery:
        yield hooks, await nursery.start(_serve, hooks)
