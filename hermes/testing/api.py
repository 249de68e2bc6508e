"""The HTTP API over a real listener, for tests: a database, sessions, a scripted model, one client with the key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from hermes.agent.loop import Door
from hermes.http.api.app import build_app
from hermes.http.listener import open_server
from hermes.http.services import Services
from hermes.testing.spine import Spine, open_spine
from hermes.toolset import Tool

KEY = "test-key-of-the-gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiUnderTest:
    """What `open_api` opens.

    Args:
        spine: store and sessions.
        services: what the routes work with.
        url: where it listens.
        client: sends the key.
        errors: what the application let out; to be empty but for what a test provokes.
    """

    spine: Spine
    services: Services
    url: str
    client: httpx2.AsyncClient
    errors: list[BaseException] = field(default_factory=list)

    async def chat(self, text: str = "hi", *, headers: dict[str, str] | None = None, **body: Any) -> httpx2.Response:
        """Ask for one chat completion."""
        base = {"model": "hermes", "messages": [{"role": "user", "content": text}]}
        return await self.client.post("/v1/chat/completions", json={**base, **body}, headers=headers)


@asynccontextmanager
async def open_api(
    home: Path,
    door: Door | None = None,
    *,
    tools: tuple[Tool, ...] = (),
    unix_path: Path | None = None,
    boot_id: str | None = None,
    **sections: Any,
) -> AsyncIterator[ApiUnderTest]:
    """Serve the API on loopback, and on a UNIX socket where a path is given.

    Args:
        home: for the database.
        door: the model; an echo by default.
        tools: what is offered.
        unix_path: a socket besides.
        boot_id: as `open_spine` has it.
        sections: parts of the configuration.
    """
    errors: list[BaseException] = []
    async with open_spine(home, door, tools=tools, boot_id=boot_id, **sections) as spine:
        services = Services(
            config=lambda: spine.config, key=lambda: KEY, store=spine.store, sessions=spine.sessions,
            ready=lambda: (True, {"status": "ready", "detail": "all of it"}),
        )  # fmt: skip
        app = build_app(services)
        async with open_server(app, host="127.0.0.1", unix_path=unix_path, on_error=errors.append) as server:
            url = f"http://127.0.0.1:{server.addresses[0][1]}"
            headers = {"authorization": f"Bearer {KEY}"}
            async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as client:
                yield ApiUnderTest(spine=spine, services=services, url=url, client=client, errors=errors)
