"""The way from an account to chats of others: a platform without chats of its own has its replies shown there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hermes.current import Current
from hermes.errors import PlatformUnavailable, SendRejected, StoreUnavailable
from hermes.events import Address, StoredContent
from hermes.generation import AccountPlan
from hermes.store import Store


class Shows(Protocol):
    """What of the accounts is needed here."""

    def parts(self, address: Address, markdown: str) -> Sequence[StoredContent]:
        """A text as it will be sent there."""
        ...

    def wake(self, address: Address) -> None:
        """Something was committed for this address."""
        ...


class AccountOutbox:
    """`Outbox` of one account; see `hermes.platform`. What it commits is delivered as any reply is."""

    def __init__(self, plan: AccountPlan, store: Store, shows: Shows, current: Current) -> None:
        self._plan = plan
        self._store = store
        self._shows = shows
        self._current = current

    async def post(self, to: Address, markdown: str, *, key: str) -> None:
        """Commit it as parts for another account, once a key.

        Raises:
            SendRejected: the account is not configured, or would hand it on in a circle.
            PlatformUnavailable: the store is away.
        """
        account = self._current.config.platforms.get(to.account)
        if account is None:
            raise SendRejected(f"{to.account}, where this was to be delivered, is not configured")
        if account.spec.name == self._plan.spec.name:
            raise SendRejected(
                f"{to.account} is no account with chats: it would have to deliver this somewhere else again"
            )
        try:
            added = await self._store.outbox.add(
                to, self._shows.parts(to, markdown), reply=None, source="forwarded", once=f"{self._plan.account} {key}"
            )
        except StoreUnavailable as error:
            raise PlatformUnavailable(str(error)) from error
        if added.keys:
            self._shows.wake(added.address)
