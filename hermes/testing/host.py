"""What a platform needs to run in a test: a Host with a real network, routes and a memory; the Inbox is beside it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from hermes.net import make_http_factory, open_network
from hermes.net.network import REAP_S
from hermes.net.streams import make_stream_factory
from hermes.net.websocket import make_websocket_factory
from hermes.platform import Address, CommandSpec, Host
from hermes.testing.inbox import RecordingInbox
from hermes.testing.routes import open_test_routes

__all__ = ["RecordingInbox", "TestHost", "TestMemory", "TestOutbox", "open_test_host"]

MAX_KEYS, MAX_NAME, MAX_VALUE = 256, 100, 4096


class TestMemory:
    """An `AccountMemory` that ends with its object, with the bounds of the real one."""

    __test__ = False

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        await trio.lowlevel.checkpoint()
        return self.values.get(key)

    async def put(self, key: str, value: bytes | None) -> None:
        """Keep a value; None forgets it."""
        await trio.lowlevel.checkpoint()
        assert 0 < len(key) <= MAX_NAME, f"a key of an account's memory has 1 to {MAX_NAME} characters"
        if value is None:
            self.values.pop(key, None)
            return
        assert len(value) <= MAX_VALUE, f"an account remembers values of at most {MAX_VALUE} bytes"
        assert len(self.values) < MAX_KEYS or key in self.values, f"an account remembers at most {MAX_KEYS} values"
        self.values[key] = value


class TestOutbox:
    """An `Outbox` that keeps what it is given: `posted` has each key's address and words, in order.

    Attributes:
        error: raised instead, where it is set.
    """

    __test__ = False

    def __init__(self) -> None:
        self.posted: dict[str, tuple[Address, str]] = {}
        self.error: Exception | None = None

    async def post(self, to: Address, markdown: str, *, key: str) -> None:
        """Keep it, once."""
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.posted.setdefault(key, (to, markdown))


@dataclass(frozen=True, slots=True, kw_only=True)
class TestHost(Host):
    """A Host, and where its webhooks are served.

    Args:
        base_url: such as `http://127.0.0.1:40001`; a path that `routes.mount` yields is below it.
    """

    __test__ = False

    base_url: str


@asynccontextmanager
async def open_test_host(
    account: str,
    *,
    commands: tuple[CommandSpec, ...] = (),
    memory: TestMemory | None = None,
    outbox: TestOutbox | None = None,
    clock: Callable[[], float] = lambda: 1_700_000_000.0,
    tls: ssl.SSLContext | None = None,
    reap_s: float = REAP_S,
) -> AsyncIterator[TestHost]:
    """A Host for one account whose network is real: HTTP, WebSockets, TCP, and webhooks on a port of the loopback.

    Args:
        account: its id.
        commands: what people may type.
        memory: what an earlier run kept.
        outbox: where what goes to other accounts is kept.
        clock: seconds since the epoch.
        tls: which certificates are believed; by default those of the system.
        reap_s: how often idle connections are looked at; seldom, where virtual minutes are to pass quickly.

    Lifetime: what was opened through it must be left before it is.
    """
    tls = ssl.create_default_context() if tls is None else tls
    async with open_network(tls=tls, reap_s=reap_s) as network, open_test_routes() as (hooks, base_url):
        yield TestHost(
            account=account, commands=commands, routes=hooks.of(account), outbox=outbox or TestOutbox(),
            memory=memory or TestMemory(), http=make_http_factory(network), websocket=make_websocket_factory(network),
            tcp=make_stream_factory(network), tls=tls, clock=clock, base_url=base_url,
        )  # fmt: skip
