"""The one door to HTTP: a shared TLS context, clients made over it, and the task that closes what peers left behind."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import trio

from hermes.net.client import NetClient
from hermes.net.transport import CLOSE_S, NetTransport
from hermes.nurseries import open_background_nursery

log = logging.getLogger(__name__)

REAP_S = 1.0
# The limits the openai SDK gives its own client; a client that should have others says so.
LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=5.0)


def connect_timeout(seconds: float) -> httpx2.Timeout:
    """A bound on TCP and TLS alone; every other deadline is the caller's cancel scope."""
    return httpx2.Timeout(None, connect=seconds)


async def close_quietly(what: str, close: Callable[[], Awaitable[None]], within_s: float = CLOSE_S) -> None:
    """Close something during clean-up: shielded, with a deadline, and what it throws is logged, never raised."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + within_s) as scope:
        try:
            await close()
        except (OSError, RuntimeError, httpx2.HTTPError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.warning("closing %s failed: %s", what, exc)
    if scope.cancelled_caught:
        log.warning("closing %s took longer than %g s and was cut", what, within_s)


@dataclass(frozen=True, slots=True)
class NetworkStatistics:
    """HTTP clients that are open, the sockets they hold, and idle sockets closed so far as of no more use."""

    clients: int
    sockets: int
    reaped: int


class Network:
    """Makes HTTP clients that share one TLS context. Use `open_network()`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._making = trio.Lock()
        self._transports: set[NetTransport] = set()
        self._some = trio.Event()
        self._reaped = 0

    async def tls(self) -> ssl.SSLContext:
        """The TLS context of this gateway: made once, in a thread (reading the certificates takes about 20 ms)."""
        if self._tls is None:
            async with self._making:
                if self._tls is None:
                    self._tls = await trio.to_thread.run_sync(_make_tls)
        return self._tls

    def make_client(
        self,
        tls: ssl.SSLContext,
        *,
        proxy: str | None = None,
        limits: httpx2.Limits = LIMITS,
        timeout: httpx2.Timeout | None = None,
        headers: dict[str, str] | None = None,
    ) -> NetClient:
        """A client whose `aclose()` the caller owes; for owners that keep a set of them. Others use `http_client()`.

        Args:
            tls: what `tls()` returned.
            proxy: `http://`, `https://`, `socks5://` or `socks5h://` URL. The environment's proxies are not looked at.
            limits: connections at most, kept idle at most, and for how long.
            timeout: httpx2's; None leaves every deadline to the caller's cancel scopes.
            headers: sent with each request.

        Raises:
            ValueError: the proxy URL cannot be used.
        """
        transport = NetTransport(tls, proxy=proxy, limits=limits, closed=self._transports.discard)
        self._transports.add(transport)
        self._some.set()
        return NetClient(transport, timeout=timeout, headers=headers)

    @asynccontextmanager
    async def http_client(
        self,
        *,
        proxy: str | None = None,
        limits: httpx2.Limits = LIMITS,
        timeout: httpx2.Timeout | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[NetClient]:
        """A client for the body; all its sockets are closed when the body is left. Arguments as for `make_client()`."""
        client = self.make_client(await self.tls(), proxy=proxy, limits=limits, timeout=timeout, headers=headers)
        try:
            yield client
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await close_quietly("an HTTP client", client.aclose)

    def statistics(self) -> NetworkStatistics:
        """What is open now."""
        return NetworkStatistics(
            clients=len(self._transports),
            sockets=sum(transport.connections for transport in self._transports),
            reaped=self._reaped,
        )

    async def _reap(self, every_s: float) -> None:
        while True:
            if not self._transports:
                self._some = trio.Event()
                await self._some.wait()
            await trio.sleep(every_s)
            for transport in tuple(self._transports):
                self._reaped += await transport.reap()


def _make_tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


@asynccontextmanager
async def open_network(*, reap_s: float = REAP_S, tls: ssl.SSLContext | None = None) -> AsyncIterator[Network]:
    """The gateway's HTTP: one TLS context, and a task that closes idle connections whose peer has gone.

    Args:
        reap_s: how often idle connections are looked at while any client is open.
        tls: instead of a context that trusts what the system trusts.

    Lifetime: clients made here are closed by their owners, inside this scope.
    """
    network = Network(tls)
    async with open_background_nursery() as nursery:
        nursery.start_soon(network._reap, reap_s)
        yield network
