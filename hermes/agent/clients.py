"""Model clients: shared, leased for one call at a time, and bounded in number, in idle time and in sockets.

A client is the openai SDK's `AsyncOpenAI` over an HTTP client of ours. Its key is a value (base URL, key, proxy,
headers): two models behind one base URL share it. What changes the table is always a plain function that does not wait.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import trio

from hermes.agent.transcription import Form
from hermes.loading import loading
from hermes.net import (
    HTTP_ERRORS,
    HttpResponse,
    NetClient,
    Network,
    check_urls,
    close_quietly,
    connect_timeout,
    open_network,
)
from hermes.nurseries import open_background_nursery
from hermes.settings import Endpoint, ModelConfig, Secret

if TYPE_CHECKING:
    import ssl

    import httpx2
    from openai import AsyncOpenAI


class ClientsClosing(Exception):
    """The gateway is closing its model clients."""


class EndpointUnusable(ValueError):
    """The endpoint's settings cannot make a client; the text holds no secret."""


class CallFailed(Exception):
    """A request failed inside a library, whose own exception is the cause of this one."""


LEASE_GRACE_S = 5.0
CLOSE_S = 2.0
CLOSE_ALL_S = 5.0


class ClientKey(NamedTuple):
    """What makes two calls able to share a client."""

    base_url: str
    api_key: Secret | None
    proxy: str | None
    headers: tuple[tuple[str, str], ...]


def client_key(endpoint: Endpoint) -> ClientKey:
    """The key of the client that serves this endpoint; the model's name and the protocol are not part of it."""
    return ClientKey(endpoint.base_url, endpoint.api_key, endpoint.proxy, endpoint.headers)


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Clients open (closing ones included), leased, calls that hold a lease, calls that wait, sockets held."""

    open: int
    leased: int
    leases: int
    waiting: int
    sockets: int


class ModelClient:
    """One open client. Only `ModelClients` makes and closes them."""

    def __init__(self, key: ClientKey, http: NetClient, sdk: AsyncOpenAI, openai: Any) -> None:
        self.key = key
        self.http = http
        self.sdk = sdk
        self.leases = 0
        self.scopes: set[trio.CancelScope] = set()
        self.idle_since = 0.0
        self.retired = False
        self.closing = False
        self._base_url = str(sdk.base_url).rstrip("/")  # the SDK would join it anew for each request
        self._stream_class: type[Any] = openai.AsyncStream[object]
        self._errors: tuple[type[Exception], ...] = (openai.OpenAIError, *HTTP_ERRORS)
        # What the SDK takes back only when it is said for each request: its count of retries, and, without a key, the key.
        left_out = ["X-Stainless-Retry-Count"] if key.api_key else ["X-Stainless-Retry-Count", "Authorization"]
        self._options: dict[str, Any] = {"headers": dict.fromkeys(left_out, openai.Omit())}
        self._first: dict[str, httpx2.Request] = {}  # by path, of which there are two

    @asynccontextmanager
    async def post(self, path: str, body: bytes | Form) -> AsyncIterator[httpx2.Response]:
        """Send one request and hand out its answer, unread; leaving closes the response.

        Args:
            path: below the base URL, such as `/chat/completions`.
            body: the JSON to send, or a form.

        Raises:
            CallFailed: an error status (the body of the answer has been read, bounded), or no answer; in the body of
                the block: reading the answer failed.

        Cancellation: closes this request's connection and no other.
        """
        try:
            response = await self._sent(path, body)
            try:
                yield response
            finally:
                if not response.is_closed:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                        await close_quietly("a model's response", response.aclose)
        except self._errors as exc:
            raise CallFailed(f"{type(exc).__name__}: {exc}") from exc

    async def _sent(self, path: str, body: bytes | Form) -> httpx2.Response:
        """The answer to a request, whose status is one of success."""
        if isinstance(body, Form):
            return await self._sent_by_sdk(
                path, "multipart/form-data", body=dict(body.fields), files=[("file", body.file)]
            )
        first = self._first.get(path)
        if first is None:
            response = await self._sent_by_sdk(path, None, content=body)
            self._first[path] = self.http.again(response.request, b"")
            return response
        # What the SDK says in a request's head it says once for each path: to ask it again took as long as the request.
        response = await self.http.send(self.http.again(first, body), stream=True)
        if response.is_success:
            return response
        await response.aread()
        raise self.sdk._make_status_error_from_response(response)

    async def _sent_by_sdk(self, path: str, content_type: str | None, **sent: Any) -> httpx2.Response:
        options = self._options
        if content_type is not None:
            options = {**options, "headers": {**options["headers"], "Content-Type": content_type}}
        # Asked for as a response, the SDK hands it out unread and spares its own stream object (0.24 ms).
        response: httpx2.Response = await self.sdk.post(
            self._base_url + path,
            **sent,
            cast_to=HttpResponse,
            options=cast("Any", options),
            stream=cast("Any", True),  # noqa: FBT003 - the cast is for the overloads
            stream_cls=self._stream_class,
        )
        return response


def _load_sdk() -> Any:
    with loading():
        return importlib.import_module("openai")


class _Waiter:
    """A call that waits for room."""

    def __init__(self, key: ClientKey) -> None:
        self.key = key
        self.client: ModelClient | None = None
        self.woken = trio.Event()


class ModelClients:
    """The table of open clients. Use `open_model_clients()`."""

    def __init__(self, settings: ModelConfig, network: Network, nursery: trio.Nursery) -> None:
        self._settings = settings
        self._network = network
        self._nursery = nursery
        self._open: OrderedDict[ClientKey, ModelClient] = OrderedDict()  # may be leased; least recently used first
        self._all: set[ModelClient] = set()  # every client that is not closed yet
        self._waiters: deque[_Waiter] = deque()
        self._closed = False
        self._loading = trio.Lock()
        self._openai: Any = None
        self._tls: ssl.SSLContext | None = None
        self._someone_idle = trio.Event()
        self._all_returned = trio.Event()

    def configure(self, settings: ModelConfig) -> None:
        """Take over new bounds after a reload; open clients stay until they are idle."""
        self._settings = settings
        self._make_room()

    async def warm(self) -> None:
        """Import the SDK and read the certificates, in worker threads, so that the first call need not wait for them.

        Cancellation: takes effect when the import in the thread has ended (about 0.3 s): nothing is left running.
        """
        if self._openai is not None and self._tls is not None:
            return
        async with self._loading:
            if self._openai is None:
                self._openai = await trio.to_thread.run_sync(_load_sdk)
            self._tls = await self._network.tls()

    @asynccontextmanager
    async def lease(self, endpoint: Endpoint) -> AsyncIterator[ModelClient]:
        """The use of a client for one call, from the request to the last byte of the answer.

        Any number of calls share a client. A call to another endpoint waits, in order of arrival, while `max_clients`
        are open and all of them are leased.

        Raises:
            EndpointUnusable: the endpoint's settings cannot make a client.
            ClientsClosing: the gateway is closing; also in the body, when that happens during the call.

        Cancellation: of a call that waits: it leaves the queue. Of one that holds a lease: the lease is returned.
        """
        client = await self._take(endpoint)
        scope = trio.CancelScope()
        client.scopes.add(scope)
        try:
            with scope:
                yield client
        finally:
            client.scopes.discard(scope)
            self._give_back(client)
        if scope.cancelled_caught:
            raise ClientsClosing("the gateway is closing")

    def retire(self, client: ModelClient) -> None:
        """Give this client no new lease, and close it when its last one returns; for use after a connection error."""
        if client.retired:
            return
        client.retired = True
        if self._open.get(client.key) is client:
            del self._open[client.key]
        if not client.leases:
            self._start_closing(client)

    def statistics(self) -> ClientStatistics:
        """What is open now."""
        return ClientStatistics(
            open=len(self._all),
            leased=sum(client.leases > 0 for client in self._all),
            leases=sum(client.leases for client in self._all),
            waiting=len(self._waiters),
            sockets=self._network.statistics().sockets,
        )

    async def _take(self, endpoint: Endpoint) -> ModelClient:
        await self.warm()
        key = client_key(endpoint)
        try:
            check_urls(key.base_url, key.proxy)
        except ValueError as exc:
            raise EndpointUnusable(f"the endpoint cannot be used: {exc}") from None
        client = self._grant(key)
        if client is not None:
            return client
        waiter = _Waiter(key)
        self._waiters.append(waiter)
        self._make_room()
        try:
            await waiter.woken.wait()
        except BaseException:
            if waiter.client is not None:
                self._give_back(waiter.client)
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
                self._make_room()
            raise
        if waiter.client is None:
            raise ClientsClosing("the gateway is closing")
        return waiter.client

    # What follows changes the table and never waits.

    def _grant(self, key: ClientKey) -> ModelClient | None:
        """A lease on the client for `key`, opened if there is room and nobody was here before; None: wait."""
        if self._closed:
            raise ClientsClosing("the gateway is closing")
        client = self._open.get(key)
        if client is None:
            if self._waiters or len(self._all) >= self._settings.max_clients:
                return None
            client = self._make(key)
        self._open.move_to_end(key)
        client.leases += 1
        return client

    def _make(self, key: ClientKey) -> ModelClient:
        assert self._tls is not None
        openai = self._openai
        http = self._network.make_client(self._tls, proxy=key.proxy)
        # Our bytes are read raw, so the provider is asked for them uncompressed.
        headers: dict[str, Any] = {"Accept-Encoding": "identity", **dict(key.headers)}
        sdk: AsyncOpenAI = openai.AsyncOpenAI(
            api_key=key.api_key.reveal() if key.api_key else "none",
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            base_url=key.base_url,
            timeout=connect_timeout(self._settings.connect_timeout_s),
            max_retries=0,
            default_headers=headers,
            http_client=http,
        )
        # The SDK fills these from the environment when they are absent; settings come from the configuration alone.
        sdk.organization = sdk.project = None
        # What machine this is, which it would add to each request, is nobody's business.
        machine = dict.fromkeys([*sdk.platform_headers(), "X-Stainless-Async"], openai.Omit())
        sdk._custom_headers = {**machine, **headers}
        client = ModelClient(key, http, sdk, openai)
        self._open[key] = client
        self._all.add(client)
        return client

    def _give_back(self, client: ModelClient) -> None:
        client.leases -= 1
        if client.leases:
            return
        client.idle_since = trio.current_time()
        if client.retired:
            self._start_closing(client)
        self._someone_idle.set()
        self._make_room()
        if self._closed and not any(other.leases for other in self._all):
            self._all_returned.set()

    def _make_room(self) -> None:
        """Serve those who wait, first come first served; where there is no room, begin to close idle clients."""
        still: deque[_Waiter] = deque()
        needed: set[ClientKey] = set()
        for waiter in self._waiters:
            client = self._open.get(waiter.key)
            if client is None and not needed and len(self._all) < self._settings.max_clients:
                client = self._make(waiter.key)
            if client is None:
                needed.add(waiter.key)
                still.append(waiter)
                continue
            self._open.move_to_end(waiter.key)
            client.leases += 1
            waiter.client = client
            waiter.woken.set()
        self._waiters = still
        room = self._settings.max_clients - sum(not client.closing for client in self._all)
        for client in tuple(self._open.values()):
            if room >= len(needed):
                break
            if not client.leases:
                self._start_closing(client)
                room += 1

    def _start_closing(self, client: ModelClient) -> None:
        if client.closing or self._closed:
            return  # at the end of the scope, the scope's exit closes them all
        client.closing = True
        if self._open.get(client.key) is client:
            del self._open[client.key]
        self._nursery.start_soon(self._close, client)

    async def _close(self, client: ModelClient) -> None:
        await close_quietly("a model client", client.http.aclose)
        self._all.discard(client)
        if not self._closed:
            self._make_room()

    async def _close_idle(self) -> None:
        """Close each client that nobody has leased for `client_idle_s`."""
        while True:
            idle = [client for client in self._open.values() if not client.leases]
            if not idle:
                self._someone_idle = trio.Event()
                await self._someone_idle.wait()
                continue
            now = trio.current_time()
            due = min(client.idle_since for client in idle) + self._settings.client_idle_s
            if due > now:
                await trio.sleep_until(due)
                continue
            for client in idle:
                if client.idle_since + self._settings.client_idle_s <= now:
                    self._start_closing(client)

    async def _finish(self) -> None:
        """Cancel every lease in its holder's task, wait for them, close every client; under the caller's shield."""
        self._closed = True
        for waiter in self._waiters:
            waiter.woken.set()
        self._waiters.clear()
        for client in self._all:
            for scope in client.scopes:
                scope.cancel()
        if any(client.leases for client in self._all):
            with trio.move_on_after(LEASE_GRACE_S):
                await self._all_returned.wait()
        for client in tuple(self._all):
            await self._close(client)


@asynccontextmanager
async def open_model_clients(settings: ModelConfig, *, network: Network | None = None) -> AsyncIterator[ModelClients]:
    """The gateway's model clients.

    Args:
        settings: how many clients, and how long an unused one stays open. Never changed, and holds no transport.
        network: where HTTP clients come from; None opens one for this scope alone.

    Lifetime: leaving cancels every lease in its holder's task, waits for them (at most `LEASE_GRACE_S`), then closes
    every client. Nothing is opened and nothing imported until the first lease or `warm()`.
    """
    if network is None:
        async with open_network() as own, open_model_clients(settings, network=own) as clients:
            yield clients
        return
    async with open_background_nursery() as nursery:
        clients = ModelClients(settings, network, nursery)
        nursery.start_soon(clients._close_idle)
        try:
            yield clients
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEASE_GRACE_S + CLOSE_ALL_S):
                await clients._finish()
