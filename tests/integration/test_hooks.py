"""Webhooks: served on the one listener without the gateway's key, bounded, and gone when their block is left."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing

from hermes.hooks import Hooks
from hermes.http.api.app import build_app
from hermes.http.listener import open_server
from hermes.http.services import Services
from hermes.platform import WebRequest, WebResponse
from hermes.settings import Config


def services(tmp_path: Path) -> Services:
    config = Config(home=tmp_path, workspace=tmp_path)
    return Services(config=lambda: config, key=lambda: "k" * 32)


async def test_what_comes_in_reaches_its_handler_whole(tmp_path: Path) -> None:
    seen: list[WebRequest] = []

    async def handler(request: WebRequest) -> WebResponse:
        seen.append(request)
        return WebResponse(status=202, body=b"thanks", media_type="text/x-thing")

    parts = services(tmp_path)
    async with (
        open_server(build_app(parts), host="127.0.0.1") as server,
        httpx2.AsyncClient(trust_env=False) as client,
        parts.hooks.of("tg").mount("in", handler, max_body_bytes=10) as path,
    ):
        base = f"http://127.0.0.1:{server.addresses[0][1]}"
        assert path == "/hooks/tg/in"
        answer = await client.post(f"{base}{path}?a=1&b=", content=b"0123456789", headers={"X-Secret": "s"})
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (202, b"thanks", "text/x-thing")
        assert (seen[0].method, dict(seen[0].query), seen[0].body) == ("POST", {"a": "1", "b": ""}, b"0123456789")
        assert (seen[0].headers["x-secret"], seen[0].peer) == ("s", "127.0.0.1")
        assert (await client.post(base + path, content=b"0123456789x")).status_code == 413
        assert (await client.put(base + path)).status_code == 405
        assert (await client.get(f"{base}/hooks/tg/out")).status_code == 404
        assert (await client.get(f"{base}/hooks/other/in")).status_code == 404
        assert (await client.get(f"{base}/v1/models")).status_code == 401
        assert len(seen) == 1


async def test_a_handler_that_fails_is_500_and_nothing_of_its_error_is_told(tmp_path: Path) -> None:
    async def handler(_: WebRequest) -> WebResponse:
        raise KeyError("a secret of the platform")

    parts = services(tmp_path)
    async with (
        open_server(build_app(parts), host="127.0.0.1") as server,
        httpx2.AsyncClient(trust_env=False) as client,
        parts.hooks.of("tg").mount("in", handler) as path,
    ):
        answer = await client.post(f"http://127.0.0.1:{server.addresses[0][1]}{path}")
        assert answer.status_code == 500
        assert "secret" not in answer.text


async def test_leaving_a_route_waits_for_its_handlers_and_then_cuts_them(clock: trio.testing.MockClock) -> None:
    hooks, begun, ended = Hooks(), trio.Event(), list[str]()

    async def handler(request: WebRequest) -> WebResponse:
        begun.set()
        try:
            await trio.sleep(float(request.body))
            ended.append("done")
        except trio.Cancelled:
            ended.append("cut")
            raise
        return WebResponse()

    async def call(seconds: bytes) -> None:
        from hermes.errors import RequestError

        request = WebRequest(method="POST", query={}, headers={}, body=seconds, peer="")
        try:
            await hooks.find("tg", "in").run(request)
        except RequestError as error:
            ended.append(str(error.status))

    async with trio.open_nursery() as nursery:
        async with hooks.of("tg").mount("in", handler):
            nursery.start_soon(call, b"2")
            nursery.start_soon(call, b"200")
            await begun.wait()
            await trio.testing.wait_all_tasks_blocked()
        assert ended == ["done", "cut", "503"]
        assert trio.current_time() < 11


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_name_is_mounted_once_and_well_formed() -> None:
    async def handler(_: WebRequest) -> WebResponse:
        return WebResponse()

    hooks = Hooks()
    async with hooks.of("tg").mount("in", handler):
        for name in ("in", "a/b", "", "x" * 65):
            with pytest.raises(ValueError, match="no name"):
                await hooks.of("tg").mount(name, handler).__aenter__()
    async with hooks.of("tg").mount("in", handler):
        assert hooks.find("tg", "in").handler is handler
