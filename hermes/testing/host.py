"""What a platform needs to run in a test: a Host with a real network and a memory, and an Inbox that remembers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType

import trio

from hermes.errors import StoreUnavailable
from hermes.events import InboundEvent
from hermes.net import make_http_factory, open_network
from hermes.net.streams import make_stream_factory
from hermes.net.websocket import make_websocket_factory
from hermes.platform import CommandSpec, Host, RouteHandler

NO_CURSORS: Mapping[str, bytes] = MappingProxyType({})
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
        assert 0 < len(key) <= MAX_NAME
        if value is None:
            self.values.pop(key, None)
            return
        assert len(value) <= MAX_VALUE
        assert len(self.values) < MAX_KEYS or key in self.values
        self.values[key] = value


class RecordingInbox:
    """An `Inbox` whose store is a list: events once each, cursors, what was promised, and who left.

    Args:
        kept: the events of an earlier one, as a restart would find them.
        cursors: likewise.

    Attributes:
        events: what was delivered, repeats absorbed, in order.
        deliveries: how many calls of `deliver` were committed.
        cursors: as committed last.
        promises: path -> the last `next_within_s`.
        unavailable: whether `deliver` raises StoreUnavailable now.
        hold: `deliver` waits for this before it commits, where it is set.
    """

    def __init__(self, kept: tuple[InboundEvent, ...] = (), cursors: Mapping[str, bytes] = NO_CURSORS) -> None:
        self.events = list(kept)
        self.deliveries = 0
        self.repeats = 0
        self.cursors = dict(cursors)
        self.promises: dict[str, float] = {}
        self.departed: list[str] = []
        self.unavailable = False
        self.hold: trio.Event | None = None
        self._keys = {event.key for event in kept}
        self._lot = trio.lowlevel.ParkingLot()

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = NO_CURSORS) -> None:
        """Commit, as the contract says."""
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        if self.unavailable:
            raise StoreUnavailable("busy")
        for event in events:
            if event.key in self._keys:
                self.repeats += 1
            else:
                self._keys.add(event.key)
                self.events.append(event)
        self.cursors.update(cursors)
        self.deliveries += 1
        self._lot.unpark_all()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def alive(self, path: str, *, next_within_s: float) -> None:
        """Remember the promise."""
        self.promises[path] = next_within_s
        self._lot.unpark_all()

    def left(self, event_id: str) -> None:
        """Remember who left."""
        self.departed.append(event_id)
        self._lot.unpark_all()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for something that this inbox is told."""
        while not fact():
            await self._lot.park()


class _NoRoutes:
    def mount(self, name: str, handler: RouteHandler, *, max_body_bytes: int = 1) -> AbstractAsyncContextManager[str]:
        raise AssertionError(f"this test host has no listener for {name}, {handler}, {max_body_bytes}")


@asynccontextmanager
async def open_test_host(
    account: str,
    *,
    commands: tuple[CommandSpec, ...] = (),
    memory: TestMemory | None = None,
    clock: Callable[[], float] = lambda: 1_700_000_000.0,
) -> AsyncIterator[Host]:
    """A Host whose network is real, for one account; without routes.

    Args:
        account: its id.
        commands: what people may type.
        memory: what an earlier run kept.
        clock: seconds since the epoch.

    Lifetime: clients made by it must be left before it is.
    """
    async with open_network(tls=ssl.create_default_context()) as network:
        yield Host(
            account=account, commands=commands, routes=_NoRoutes(), memory=memory or TestMemory(),
            http=make_http_factory(network), websocket=make_websocket_factory(network), tcp=make_stream_factory(network),
            tls=await network.tls(), clock=clock,
        )  # fmt: skip
