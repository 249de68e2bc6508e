"""Accounts of a service that exists in memory only, and does to its connections what a test says."""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import trio

from hermes.connections import AccountPlan
from hermes.events import Activity, Address, AttachmentRef, Content, InboundEvent, Person, Receipt, ReplyRef
from hermes.platform import EMPTY, ByteStream, Capabilities, Host, Inbox, PlatformSpec

Step = BaseException | Callable[[], Awaitable[None]] | None  # raised, or run; None = nothing happens
ReceiveStep = BaseException | Callable[[Inbox], Awaitable[None]]

HI = Content(text="hi")


async def hang() -> None:
    """A step that ends by being cancelled alone."""
    await trio.sleep_forever()


async def hang_shielded() -> None:
    """A step that cannot even be cancelled, for a thousand seconds."""
    with trio.CancelScope(shield=True):
        await trio.sleep(1000)


def event(number: int, account: str = "a") -> InboundEvent:
    """A message from somebody."""
    return InboundEvent(
        id=str(number), address=Address(account, "chat"), chat_kind="dm", sender=Person("someone"), text=f"#{number}"
    )


@dataclass(frozen=True)
class FakeConfig:
    """The section of a fake account."""

    token: str = "good"  # noqa: S105  # of a service in memory


def fresh(error: BaseException) -> BaseException:
    """An error that is raised again, without what happened to it before."""
    error.__context__ = None
    return error.with_traceback(None)


async def _do(step: Step) -> None:
    await trio.lowlevel.checkpoint()
    if isinstance(step, BaseException):
        raise fresh(step)
    if step is not None:
        await step()


class FakeInbox:
    """Where the events of an account are committed: a list."""

    def __init__(self, service: FakeService, account: str, generation: int) -> None:
        self._service = service
        self._account = account
        self.generation = generation

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = EMPTY) -> frozenset[str]:
        """Commit, unless the next of the service's `commit_steps` says otherwise."""
        await _do(self._service.commit_steps.popleft() if self._service.commit_steps else None)
        self._service.committed.extend(each.id for each in events)
        self._service.cursors.setdefault(self._account, {}).update(cursors)
        return frozenset(each.key for each in events)

    def alive(self, path: str, *, next_within_s: float) -> None:
        """Nothing: the core has noted it."""

    def left(self, event_id: str) -> None:
        """Noted."""
        self._service.left.append(event_id)

    def quarantine(self, because: str, sample: object) -> None:
        """Noted."""
        self._service.quarantined.append((because, sample))


class FakePlatform:
    """One connection to a `FakeService`."""

    capabilities = Capabilities()

    def __init__(self, service: FakeService) -> None:
        self._service = service

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """What the next of `receive_steps` says; without one it waits for nothing."""
        service = self._service
        service.received_at.append(trio.current_time())
        service.inboxes.append(inbox)
        service.given_cursors.append(dict(cursors))
        service.receiving += 1
        service.most_receiving = max(service.most_receiving, service.receiving)
        try:
            step = service.receive_steps.popleft() if service.receive_steps else service.receive_always
            await trio.lowlevel.checkpoint()
            if isinstance(step, BaseException):
                raise fresh(step)
            if step is None:
                await trio.sleep_forever()
            else:
                await step(inbox)
        finally:
            service.receiving -= 1
        return None  # type: ignore[misc]  # some platforms break the contract

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:  # noqa: ARG002  # the contract's
        """What the next of `send_steps` says, then a receipt."""
        self._service.keys.append(key)
        await _do(self._service.send_steps.popleft() if self._service.send_steps else self._service.send_always)
        if not self._service.open_now:
            raise AssertionError("used after it was closed")
        self._service.sent.append(content.text)
        return Receipt(message_id=str(len(self._service.sent)), address=to)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """The same as `send`."""
        return await self.send(receipt.address, content, key="", reply=None)

    async def signal(self, to: Address, activity: Activity) -> None:
        """Nothing."""

    @asynccontextmanager
    async def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AsyncIterator[ByteStream]:
        """A file whose content is its reference."""

        async def content() -> AsyncIterator[bytes]:
            await trio.lowlevel.checkpoint()
            yield attachment.ref.encode()[:max_bytes]

        yield content()


@dataclass(eq=False)
class FakeService:
    """A service in memory. Each kind of step is taken from its queue; when that is empty, the `…_always` one holds.

    Attributes:
        opened_at, received_at: when each attempt to connect and each run of `receive` began, on trio's clock.
        open_now, receiving: connections and runs of `receive` there are; `most_…` is the most there ever were.
        opening, most_opening: attempts under way.
        held: entered around each connection, for what a platform would hold: files, sockets, threads.
    """

    name: str = "fake"
    open_steps: deque[Step] = field(default_factory=deque)
    close_steps: deque[Step] = field(default_factory=deque)
    receive_steps: deque[ReceiveStep] = field(default_factory=deque)
    send_steps: deque[Step] = field(default_factory=deque)
    commit_steps: deque[Step] = field(default_factory=deque)
    open_always: Step = None
    close_always: Step = None
    receive_always: ReceiveStep | None = None
    send_always: Step = None
    held: Callable[[], AbstractAsyncContextManager[None]] | None = None
    opened_at: list[float] = field(default_factory=list)
    received_at: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    inboxes: list[Inbox] = field(default_factory=list)
    given_cursors: list[dict[str, bytes]] = field(default_factory=list)
    cursors: dict[str, dict[str, bytes]] = field(default_factory=dict)
    committed: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    quarantined: list[tuple[str, object]] = field(default_factory=list)
    opening: int = 0
    most_opening: int = 0
    open_now: int = 0
    most_open: int = 0
    receiving: int = 0
    most_receiving: int = 0

    def plan(self, account: str = "a", token: str = "good", **more: Any) -> AccountPlan:  # noqa: S107  # as above
        """An account of this service."""
        spec = PlatformSpec(
            name=self.name, config=FakeConfig, capabilities=Capabilities(), secrets=("token",), help="", open=self.open
        )
        return AccountPlan(account=account, spec=spec, config=FakeConfig(token), **more)

    @asynccontextmanager
    async def open(self, config: FakeConfig, host: Host) -> AsyncIterator[FakePlatform]:  # noqa: ARG002  # the contract's
        """A connection, as the steps say."""
        self.opened_at.append(trio.current_time())
        self.tokens.append(config.token)
        self.opening += 1
        self.most_opening = max(self.most_opening, self.opening)
        opening = True
        try:
            held = self.held or _nothing
            async with held():
                await _do(self.open_steps.popleft() if self.open_steps else self.open_always)
                self.opening -= 1
                opening = False
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                try:
                    yield FakePlatform(self)
                finally:
                    try:
                        step = self.close_steps.popleft() if self.close_steps else self.close_always
                        await _do(step)  # noqa: ASYNC102  # some clean-ups are as bad as this
                    finally:
                        self.open_now -= 1
        finally:
            self.opening -= opening

    def inbox_for(self, account: str, generation: int) -> Inbox:
        """For `Connections.receiving`."""
        return FakeInbox(self, account, generation)

    async def cursors_for(self, account: str) -> Mapping[str, bytes]:
        """For `Connections.receiving`."""
        await trio.lowlevel.checkpoint()
        return dict(self.cursors.get(account, {}))


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def fake_host(plan: AccountPlan) -> AsyncIterator[Host]:
    """A host that hands out no network: a fake platform asks for none."""
    none = cast("Any", None)
    yield Host(
        account=plan.account, commands=(), routes=none, outbox=none, memory=none, http=none, websocket=none, tcp=none,
        tls=cast("ssl.SSLContext", None), clock=time.time,
    )  # fmt: skip
