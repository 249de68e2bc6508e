"""The boundary: keys, the socket, browsers, health, control routes, errors nobody foresaw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.errors import RequestError, StoreUnavailable
from hermes.http.services import Json
from hermes.settings import HttpConfig
from hermes.testing.api import KEY, ApiUnderTest, open_api
from hermes.testing.http1 import RawClient


def raw_get(path: str, *headers: bytes) -> bytes:
    lines = (b"GET %b HTTP/1.1" % path.encode(), b"Host: x", *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n"


@asynccontextmanager
async def raw(api: ApiUnderTest) -> AsyncIterator[RawClient]:
    async with await trio.open_tcp_stream("127.0.0.1", int(api.url.rsplit(":", 1)[1])) as stream:
        yield RawClient(stream)


@asynccontextmanager
async def on_the_socket(tmp_path: Path, **services: Any) -> AsyncIterator[tuple[ApiUnderTest, httpx2.AsyncClient]]:
    path = tmp_path / "h.sock"
    async with open_api(tmp_path, unix_path=path) as api:
        for name, value in services.items():
            setattr(api.services, name, value)
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        async with httpx2.AsyncClient(transport=transport, base_url="http://hermes") as client:
            yield api, client


@pytest.mark.parametrize(
    "sent",
    [
        None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic " + KEY.encode(), KEY.encode(), b"Bearer \xe9\xff",
        b"Bearer " + KEY.encode() + b"x", b"Bearer " + KEY[:-1].encode(),
    ],
)  # fmt: skip
async def test_without_the_key_nothing_is_told(tmp_path: Path, sent: bytes | None) -> None:
    async with open_api(tmp_path) as api, raw(api) as client:
        for path in ("/v1/models", "/metrics", "/api/lifetimes", "/nowhere", "/v1/chat/completions"):
            answer = await client.ask(raw_get(path, *([] if sent is None else [b"Authorization: " + sent])))
            assert answer.status == 401
            assert b"invalid_api_key" in answer.body
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.ask(raw_get("/health"))).status == 200


async def test_two_keys_are_none(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api, raw(api) as client:
        twice = [b"Authorization: Bearer " + KEY.encode(), b"Authorization: Bearer x"]
        assert (await client.ask(raw_get("/v1/models", *twice))).status == 400
        assert (await client.ask(raw_get("/v1/models", b"authorization: bEaReR " + KEY.encode()))).status == 200


async def test_without_a_configured_key_nobody_holds_it(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api, raw(api) as client:
        api.services.key = lambda: ""
        for sent in (b"Bearer ", b"Bearer", b"Bearer x"):
            assert (await client.ask(raw_get("/v1/models", b"Authorization: " + sent))).status == 401


async def test_the_socket_needs_no_key_and_is_local(tmp_path: Path) -> None:
    async with on_the_socket(tmp_path) as (api, client):
        assert (await client.get("/v1/models")).status_code == 200
        body = {"model": "hermes", "messages": [{"role": "user", "content": "hi"}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        await api.chat()
        principals = await api.spine.rows("SELECT principal FROM inbox ORDER BY id")
        assert principals[0] == ("local",)
        assert principals[1][0].startswith("key:")
        assert KEY not in principals[1][0]


async def test_control_routes_are_the_sockets_alone(tmp_path: Path) -> None:
    got: list[Json] = []

    async def stop(body: Json) -> Json:
        got.append(body)
        return {"stopping": True}

    async with on_the_socket(tmp_path, control={"stop": stop}, status=lambda: {"pid": 1}) as (api, client):
        assert (await client.get("/control/status")).json() == {"pid": 1}
        assert (await client.post("/control/stop")).json() == {"stopping": True}
        assert (await client.post("/control/stop", json={"within_s": 3})).json() == {"stopping": True}
        assert got == [{}, {"within_s": 3}]
        assert (await client.post("/control/nonsense")).status_code == 404
        assert (await client.post("/control/stop", content=b"[")).status_code == 400
        for path in ("/control/status", "/control/stop", "/control"):
            assert (await api.client.get(path)).status_code == 404
            assert (await api.client.post(path)).status_code == 404
        assert len(got) == 2


async def test_ready_tells_details_to_those_who_may_see_them(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api, raw(api) as client:
        assert b"detail" in (await client.ask(raw_get("/ready"))).body
        assert b"detail" not in (await client.ask(raw_get("/ready", b"X-Forwarded-For: 192.0.2.1"))).body
        assert "detail" in (await api.client.get("/ready", headers={"x-forwarded-for": "192.0.2.1"})).json()
        api.services.ready = lambda: (False, {"status": "draining"})
        answer = await client.ask(raw_get("/ready"))
        assert (answer.status, answer.body) == (503, b'{"status":"draining"}')


async def test_metrics_and_lifetimes_come_from_the_gateway(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        api.services.metrics = lambda: "hermes_up 1\n"
        api.services.lifetimes = lambda: {"name": "root"}
        await api.chat(wibble=1)
        text = (await api.client.get("/metrics")).text
        assert text.startswith("hermes_up 1\n")
        assert text.endswith("hermes_api_unknown_fields_total 1\n")
        assert (await api.client.get("/api/lifetimes")).json() == {"name": "root"}
        head = await api.client.head("/health")
        assert (head.status_code, head.content) == (200, b"")


async def test_unknown_routes_and_methods_are_openai_shaped(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        for method, path, status, code in (
            ("GET", "/v1/nothing", 404, "not_found"),
            ("GET", "/v1/models/", 404, "model_not_found"),
            ("GET", "/health/", 404, "not_found"),
            ("DELETE", "/v1/models", 405, "method_not_allowed"),
            ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
            ("PURGE", "/health", 405, "method_not_allowed"),
        ):
            answer = await api.client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await api.client.get("/v1/chat/completions")).headers["allow"] == "POST"


async def test_pages_may_do_nothing_unless_configured(tmp_path: Path) -> None:
    page = {"Origin": "https://evil.example"}
    async with open_api(tmp_path) as api:
        refused = await api.chat(headers=page)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
        read = await api.client.get("/v1/models", headers=page)
        assert read.status_code == 200
        asked = await api.client.options("/v1/models", headers={**page, "Access-Control-Request-Method": "GET"})
        for answer in (refused, read, asked):
            assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(("origins", "allowed"), [(("https://app.example",), "https://app.example"), (("*",), "*")])
async def test_configured_pages_are_let_in(tmp_path: Path, origins: tuple[str, ...], allowed: str) -> None:
    page = {"Origin": "https://app.example"}
    async with open_api(tmp_path, http=HttpConfig(cors_origins=origins)) as api:
        asking = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        async with httpx2.AsyncClient(base_url=api.url, trust_env=False) as browser:
            preflight = await browser.options("/v1/chat/completions", headers=asking)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, allowed)
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        answer = await api.chat(headers=page)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, allowed)
        assert "x-hermes-session-id" in answer.headers["access-control-expose-headers"]
        stream = await api.chat(headers=page, stream=True)
        assert stream.headers["access-control-allow-origin"] == allowed
        if allowed != "*":
            assert (await api.chat(headers={"Origin": "https://app.example.evil"})).status_code == 403


async def test_errors_are_answered_by_what_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [
        StoreUnavailable("full"), RequestError(418, "no coffee", code="teapot", retry_after_s=0.2),
        ExceptionGroup("g", [RequestError(409, "inside")]), KeyError("a bug"),
    ]  # fmt: skip

    def ready() -> tuple[bool, Json]:
        raise errors.pop(0)

    async with open_api(tmp_path) as api:
        api.services.ready = ready
        full, teapot, inside, bug = [await api.client.get("/ready") for _ in range(4)]
        assert (full.status_code, full.json()["error"]["code"]) == (503, "store_unavailable")
        assert "retry-after" in full.headers
        assert (teapot.status_code, teapot.headers["retry-after"]) == (418, "1")
        assert inside.status_code == 409
        assert (bug.status_code, bug.json()["error"]["code"]) == (500, "internal_error")
        assert "a bug" not in bug.text
    assert [record.msg for record in caplog.records if record.name == "hermes.http.api.app"] == ["http.bug"]


async def test_a_store_that_is_full_answers_503_and_takes_nothing(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        await api.spine.store.database.write(lambda con: con.execute("PRAGMA max_page_count = 1").fetchone())
        answer = await api.chat("x" * 100_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert (await api.client.get("/health")).status_code == 200
        await api.spine.store.database.write(lambda con: con.execute("PRAGMA max_page_count = 1000000").fetchone())
        assert (await api.chat()).status_code == 200
        assert await api.spine.rows("SELECT count(*) FROM inbox") == [(1,)]
