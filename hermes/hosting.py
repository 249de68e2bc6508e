"""What a platform may touch, made for each of its connections: the network, its memory, nothing of ours."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import trio

from hermes.commands import COMMANDS
from hermes.errors import PlatformRefused, SendRejected
from hermes.generation import AccountPlan
from hermes.hooks import Hooks
from hermes.platform import AccountMemory, Address, Host, Outbox, RouteHandler, Routes
from hermes.settings import Config
from hermes.store import Store
from hermes.token_lock import take_token_lock, token_hash

if TYPE_CHECKING:
    from hermes.net import Network


class StoredMemory:
    """An `AccountMemory` in the store."""

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._account = account

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        return await self._store.accounts.recall(self._account, key)

    async def put(self, key: str, value: bytes | None) -> None:
        """Keep a value, committed on return; None forgets it."""
        await self._store.accounts.keep(self._account, key, value)


class PassingMemory:
    """An `AccountMemory` that ends with its object: for a look at a service from the command line."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        await trio.lowlevel.checkpoint()
        return self._values.get(key)

    async def put(self, key: str, value: bytes | None) -> None:
        """Keep a value; None forgets it."""
        await trio.lowlevel.checkpoint()
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value


class NoRoutes:
    """For a host without a listener."""

    def mount(
        self, name: str, _handler: RouteHandler, *, max_body_bytes: int = 1_048_576
    ) -> AbstractAsyncContextManager[str]:
        """Raises PlatformRefused."""
        raise PlatformRefused(f"there is no listener for the webhook {name} ({max_body_bytes} bytes)")

    serve = mount


class NoOutbox:
    """For a host without other accounts."""

    async def post(self, to: Address, markdown: str, *, key: str) -> None:
        """Raises SendRejected."""
        raise SendRejected(f"nothing is sent from here to {to} ({len(markdown)} characters, {key})")


def _host(
    account: str, network: Network, tls: ssl.SSLContext, memory: AccountMemory, routes: Routes, outbox: Outbox
) -> Host:
    net, websocket, streams = map(import_module, ("hermes.net", "hermes.net.websocket", "hermes.net.streams"))
    return Host(
        account=account, commands=COMMANDS, routes=routes, outbox=outbox, memory=memory, http=net.make_http_factory(network),
        websocket=websocket.make_websocket_factory(network), tcp=streams.make_stream_factory(network), tls=tls,
        clock=time.time,
    )  # fmt: skip


@asynccontextmanager
async def open_passing_host(account: str) -> AsyncIterator[Host]:
    """A host for a look at a service, without a store.

    Lifetime: exit = its network is closed.
    """
    net = import_module("hermes.net")
    async with net.open_network() as network:
        yield _host(account, network, await network.tls(), PassingMemory(), NoRoutes(), NoOutbox())


class Hosts:
    """Hosts over one network, which is opened when the first account needs it: most of its cost is loading the library.

    An account keeps the lock on its token from its first connection on, also while it has none, until `release`: in an outage
    nobody else may take its place.
    """

    def __init__(
        self, nursery: trio.Nursery, store: Store, hooks: Hooks, config: Config, outbox: Callable[[AccountPlan], Outbox]
    ) -> None:
        state = config.surroundings.state_dir
        self._locks = state / "hermes" if state is not None else None
        self._home = config.home
        self._hooks = hooks
        self._nursery = nursery
        self._store = store
        self._outbox = outbox
        self._network: Network | None = None
        self._opening = trio.Lock()
        self._tokens: dict[str, tuple[str, Callable[[], None]]] = {}  # account -> its token's hash, what lets go

    @asynccontextmanager
    async def open(self, plan: AccountPlan) -> AsyncIterator[Host]:
        """A host for one connection, while this gateway is the only one of this user that uses the account's token."""
        await self._own(plan)
        yield await self._host(plan)

    async def _own(self, plan: AccountPlan) -> None:
        if self._locks is None or not plan.spec.secrets:
            return
        token = token_hash(plan.spec.name, [getattr(plan.config, name) for name in plan.spec.secrets])
        if plan.account in self._tokens:
            if self._tokens[plan.account][0] == token:
                return
            self.release(plan.account)
        owner = f"the account {plan.account} of {self._home}"
        let_go = await take_token_lock(self._locks, token, owner)
        if let_go is not None:  # else the next connection tries again
            self._tokens[plan.account] = token, let_go

    def release(self, account: str) -> None:
        """Let go of an account's token: it is configured no more, or otherwise."""
        if (held := self._tokens.pop(account, None)) is not None:
            held[1]()

    def release_all(self) -> None:
        """The same of every account."""
        for account in list(self._tokens):
            self.release(account)

    async def _host(self, plan: AccountPlan) -> Host:
        network = await self._shared()
        memory, routes = StoredMemory(self._store, plan.account), self._hooks.of(plan.account)
        return _host(plan.account, network, await network.tls(), memory, routes, self._outbox(plan))

    async def _shared(self) -> Network:
        async with self._opening:
            if self._network is None:
                net = await trio.to_thread.run_sync(import_module, "hermes.net")
                for more in ("hermes.net.websocket", "hermes.net.streams"):
                    await trio.to_thread.run_sync(import_module, more)
                self._network = await self._nursery.start(_keep_open, net.open_network)
            return self._network


async def _keep_open(
    opened: Callable[[], AbstractAsyncContextManager[Network]],
    task_status: trio.TaskStatus[Network] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with opened() as network:
        task_status.started(network)
        await trio.sleep_forever()


@asynccontextmanager
async def open_hosts(
    store: Store, hooks: Hooks, config: Config, outbox: Callable[[AccountPlan], Outbox] = lambda _plan: NoOutbox()
) -> AsyncIterator[Hosts]:
    """A maker of hosts for connections, which must all be left before this is.

    Args:
        hooks: where webhooks are mounted.
        config: whose home this is, and where the locks of tokens are.
        outbox: an account's way to other accounts.

    Lifetime: exit = the network is closed, and no token is held.
    """
    async with trio.open_nursery() as nursery:
        hosts = Hosts(nursery, store, hooks, config, outbox)
        try:
            yield hosts
        finally:
            hosts.release_all()
        nursery.cancel_scope.cancel("left")
