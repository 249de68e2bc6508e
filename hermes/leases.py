"""The use of a connection by others than the task that opened it: counted, bounded in time, over before it is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NoReturn

import trio

from hermes.accounts import AccountRecord
from hermes.backoff import Failure, classify, words_of
from hermes.errors import (
    LeaseEnded,
    PlatformConflict,
    SendError,
    SendUncertain,
)
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    Content,
    Inbox,
    Platform,
    ReadsBack,
    Receipt,
    ReplyRef,
)

CUT_S = 5.0  # for holders to end after their leases were cancelled

_ANSWERED = (SendError, PlatformConflict)  # a definite answer, whatever it says


class Leases:
    """The leases on one connection.

    Attributes:
        open: whether there may be more.
        scopes: of those that are out.
        returned: unparked when one comes back.
    """

    def __init__(self, record: AccountRecord) -> None:
        self.open = False
        self._record = record
        self.scopes: set[trio.CancelScope] = set()
        self.returned = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self.scopes)

    def hold(self, platform: Platform) -> Lease:
        """One use of the connection, in the task of whoever uses it."""
        return Lease(self, platform, self._record)

    async def finish(self, finish_by: float) -> int:
        """Give no more leases, let those that are out finish, then cancel the rest and wait for them.

        Args:
            finish_by: until when they may finish, absolute.

        Returns:
            how many were not given back at all within `CUT_S` of being cancelled.

        Cancellation: none; shielded, with deadlines.
        """
        self.open = False
        with trio.CancelScope(shield=True, deadline=finish_by):
            await self._all_returned()
        for scope in self.scopes:
            scope.cancel("the connection is being left")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CUT_S):
            await self._all_returned()
        return len(self.scopes)

    async def _all_returned(self) -> None:
        while self.scopes:
            await self.returned.park()


class Lease:
    """One use of a connection; see `Leases.hold`. A class of its own, for each part that is sent enters two of them.

    Raises:
        LeaseEnded: on leaving: the connection was to be left and this use took too long; its body was cancelled. On
            entering: it is to be left by now.
    """

    __slots__ = ("_leases", "_platform", "_record", "_scope")

    def __init__(self, leases: Leases, platform: Platform, record: AccountRecord) -> None:
        self._leases = leases
        self._platform = platform
        self._record = record
        self._scope = trio.CancelScope()

    async def __aenter__(self) -> Platform:
        if not self._leases.open:
            raise LeaseEnded(self._record.account)
        self._scope.__enter__()
        self._leases.scopes.add(self._scope)
        self._record.leases += 1
        return self._platform

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            caught = self._scope.__exit__(kind, error, trace)
        finally:
            self._leases.scopes.discard(self._scope)
            self._record.leases -= 1
            self._leases.returned.unpark_all()
        if self._scope.cancelled_caught:
            raise LeaseEnded(self._record.account)
        return caught


class LeasedPlatform:
    """A platform as a lease hands it out: for sending. What its calls show is noted in the account's record.

    Args:
        platform: the connection.
        record: of its account.
        refused: told when the service refuses the account itself, or the connection is gone.
    """

    def __init__(self, platform: Platform, record: AccountRecord, refused: Callable[[Failure], None]) -> None:
        self._platform = platform
        self._record = record
        self._refused = refused

    @property
    def capabilities(self) -> Capabilities:
        """What this connection can do."""
        return self._platform.capabilities

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:  # noqa: ARG002  # the contract's
        """Raises RuntimeError: who receives is the connection's own task and nobody else."""
        raise RuntimeError("a lease is for sending; the supervisor of the account receives")

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """As the contract says."""
        with _Noted(self._record, self._refused):
            return await self._platform.send(to, content, key=key, reply=reply)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """As the contract says."""
        with _Noted(self._record, self._refused):
            return await self._platform.edit(receipt, content)

    async def find(self, to: Address, *, key: str, since: float) -> Receipt | None:
        """As the contract says, of a platform that reads back; what is read says nothing of sending."""
        assert isinstance(self._platform, ReadsBack), "its capabilities say `finds`, and it has no such method"
        return await self._platform.find(to, key=key, since=since)

    async def signal(self, to: Address, activity: Activity) -> None:
        """As the contract says; a sign that was or was not shown says nothing of sending."""
        await self._platform.signal(to, activity)

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:
        """As the contract says."""
        return self._platform.fetch(attachment, max_bytes=max_bytes)


class _Noted:
    """Notes what became of a send or an edit."""

    def __init__(self, record: AccountRecord, refused: Callable[[Failure], None]) -> None:
        self._record = record
        self._refused = refused

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        now = trio.current_time()
        if error is None or (isinstance(error, _ANSWERED) and not isinstance(error, SendUncertain)):
            self._record.sent(now)
        elif isinstance(error, Exception):
            self._record.send_failed(words_of(error), now)
            if (failure := classify(error)).kind == "refused" or failure.over:
                self._refused(failure)
