"""Webhooks in tests: `Routes` of the contract, served for real on a port of the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl

import trio

from hermes.http.listener import open_server
from hermes.http.listener.exchange import Message, Receive, Scope, Send
from hermes.net import open_background
from hermes.platform import RouteHandler, WebRequest, WebResponse

FINISH_S = 5.0  # for handlers that run when their route is taken away
METHODS = ("GET", "POST")


@dataclass(eq=False)
class _Mounted:
    handler: RouteHandler
    max_body_bytes: int
    running: set[trio.CancelScope] = field(default_factory=set)
    ended: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)


class TestRoutes:
    """Routes of one account; made by `open_test_routes`.

    Attributes:
        base_url: where they are: what a service in a test calls is this and the path that `mount` yields.
        failures: what handlers raised, as text.
    """

    __test__ = False

    def __init__(self, account: str) -> None:
        self.base_url = ""
        self.failures: list[str] = []
        self._account = account
        self._mounted: dict[str, _Mounted] = {}

    @asynccontextmanager
    async def mount(self, name: str, handler: RouteHandler, *, max_body_bytes: int = 1_048_576) -> AsyncIterator[str]:
        """Serve a path while inside; see `hermes.platform.Routes`."""
        path = f"/hooks/{self._account}/{name}"
        if path in self._mounted:
            raise ValueError(f"{path} is mounted already")
        mounted = self._mounted[path] = _Mounted(handler, max_body_bytes)
        try:
            yield path
        finally:
            del self._mounted[path]
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FINISH_S) as patience:
                await _all_ended(mounted)
            if patience.cancelled_caught:
                for each in mounted.running:
                    each.cancel("the route is gone")
                with trio.CancelScope(shield=True, deadline=trio.current_time() + FINISH_S):
                    await _all_ended(mounted)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        response = await self._answer(scope, receive)
        headers = [(b"content-type", response.media_type.encode()), (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, scope: Scope, receive: Receive) -> WebResponse:
        mounted = self._mounted.get(scope["path"])
        if mounted is None:
            return WebResponse(status=404)
        if scope["method"] not in METHODS:
            return WebResponse(status=405)
        body = await _read(receive, mounted.max_body_bytes)
        if body is None:
            return WebResponse(status=413)
        request = WebRequest(
            method=scope["method"],
            query=MappingProxyType(dict(parse_qsl(scope["query_string"].decode("latin-1")))),
            headers=MappingProxyType({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}),
            body=body,
            peer=str((scope.get("client") or ("",))[0]),
        )  # fmt: skip
        return await self._handle(mounted, request)

    async def _handle(self, mounted: _Mounted, request: WebRequest) -> WebResponse:
        cut = trio.CancelScope()
        mounted.running.add(cut)
        response = WebResponse(status=503)
        try:
            with cut:
                response = await mounted.handler(request)
        except Exception as error:  # noqa: BLE001  # what a handler raises is the finding
            self.failures.append(repr(error)[:500])
            response = WebResponse(status=500)
        finally:
            mounted.running.discard(cut)
            mounted.ended.unpark_all()
        return response


async def _all_ended(mounted: _Mounted) -> None:
    while mounted.running:
        await mounted.ended.park()


async def _read(receive: Receive, most: int) -> bytes | None:
    """The whole body; None if it is larger than that."""
    body = bytearray()
    more = True
    while more:
        message: Message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            return None
        more = message.get("more_body", False)
    return bytes(body)


async def _serve(account: str, task_status: trio.TaskStatus[TestRoutes] = trio.TASK_STATUS_IGNORED) -> None:
    routes = TestRoutes(account)
    async with open_server(routes.serve, host="127.0.0.1") as server:
        host, port = server.addresses[0]
        routes.base_url = f"http://{host}:{port}"
        task_status.started(routes)
        await trio.sleep_forever()


@asynccontextmanager
async def open_test_routes(account: str) -> AsyncIterator[TestRoutes]:
    """Routes of an account, on a port of the loopback that the kernel chooses.

    Args:
        account: its id.
    """
    async with open_background() as nursery:
        yield await nursery.start(_serve, account)
