"""When a request may be made: what services limit, and how long a lane backs off. Plain functions over a clock, no await.

A limit pauses what it names and nothing else: a chat with all its threads, one kind of request of an account, or the account.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from hermes.backoff import full_jitter, sane_retry_after
from hermes.errors import RateLimited
from hermes.events import Address

Shows = Literal["send", "edit"]
Method = Literal[Shows, "signal"]

SHORTEST_S = 0.25  # a limit that is over at once would be asked again and again
METHODS: frozenset[Shows] = frozenset(("send", "edit"))
MOST_PAUSED = 1000  # chats of one account; with more of them the account itself is paused


class Limits:
    """What may not be requested yet, by account, kind of request, chat and lane.

    Args:
        clock: seconds, monotonic.
        backoff: the longest first pause of a lane and the longest at all, in seconds; asked each time.
        rng: spreads them.
    """

    def __init__(
        self, clock: Callable[[], float], backoff: Callable[[], tuple[float, float]], rng: random.Random
    ) -> None:
        self._clock = clock
        self._backoff = backoff
        self._rng = rng
        self._accounts: dict[str, float] = {}
        self._methods: dict[tuple[str, Method], float] = {}
        self._chats: dict[str, dict[str, float]] = {}
        self._lanes: dict[str, dict[Address, tuple[float, int]]] = {}  # until when, failures in a row

    def limit(self, address: Address, method: Method, error: RateLimited) -> float:
        """Take over what a service asks for. Returns until when."""
        until = self._clock() + max(SHORTEST_S, sane_retry_after(error.retry_after_s))
        match error.scope:
            case "account":
                self._accounts[address.account] = max(until, self._accounts.get(address.account, 0.0))
            case "method":
                key = (address.account, method)
                self._methods[key] = max(until, self._methods.get(key, 0.0))
            case _:
                chats = self._chats.setdefault(address.account, {})
                chats[address.chat] = max(until, chats.get(address.chat, 0.0))
                self._bound(address.account)
        return until

    def failed(self, address: Address, retry_after_s: float | None = None) -> float:
        """A lane's request failed for no reason that a limit names: back off, with full jitter. Returns until when."""
        lanes = self._lanes.setdefault(address.account, {})
        failures = lanes.get(address, (0.0, 0))[1] + 1
        first, longest = self._backoff()
        pause = full_jitter(failures, base_s=first, max_s=longest, rng=self._rng)
        until = self._clock() + max(pause, sane_retry_after(retry_after_s))
        lanes[address] = (until, failures)
        self._bound(address.account)
        return until

    def succeeded(self, address: Address) -> None:
        """Forget the failures of a lane."""
        lanes = self._lanes.get(address.account)
        if lanes and lanes.pop(address, None) is not None and not lanes:
            del self._lanes[address.account]

    def forget(self, account: str) -> None:
        """Forget all that holds for an account: it is another one at its service."""
        for kept in (self._accounts, self._chats, self._lanes):
            kept.pop(account, None)
        for key in [each for each in self._methods if each[0] == account]:
            del self._methods[key]

    def account_free_at(self, account: str) -> float:
        """When an account may be asked for anything; a time that is past means now."""
        return self._accounts.get(account, 0.0)

    def free_at(self, address: Address, method: Method | None = None) -> float:
        """When a request to an address may be made, as far as is known now; a time that is past means now.

        Args:
            method: the kind of request; None = what holds for all kinds.
        """
        account = address.account
        return max(
            self._accounts.get(account, 0.0),
            self._methods.get((account, method), 0.0) if method is not None else 0.0,
            self._chats.get(account, {}).get(address.chat, 0.0),
            self._lanes.get(account, {}).get(address, (0.0, 0))[0],
        )

    def is_free(self, address: Address, method: Method | None = None) -> bool:
        """Whether a request may be made now."""
        return self._is_unknown(address.account) or self.free_at(address, method) <= self._clock()

    def free_methods(self, address: Address) -> frozenset[Shows]:
        """The kinds of requests by which a part may be shown at an address now."""
        if self._is_unknown(address.account):
            return METHODS
        return frozenset(each for each in METHODS if self.is_free(address, each))

    def _is_unknown(self, account: str) -> bool:
        """Whether nothing has ever limited an account, as is nearly always so: then nothing needs to be compared."""
        return not (self._methods or account in self._accounts or account in self._chats or account in self._lanes)

    def _bound(self, account: str) -> None:
        """Forget what is over; pause the account itself where that is not enough."""
        now = self._clock()
        chats, lanes = self._chats.get(account, {}), self._lanes.get(account, {})
        if len(chats) > MOST_PAUSED:
            self._chats[account] = chats = {chat: until for chat, until in chats.items() if until > now}
        if len(lanes) > MOST_PAUSED:
            self._lanes[account] = lanes = {each: kept for each, kept in lanes.items() if kept[0] > now}
        if max(len(chats), len(lanes)) > MOST_PAUSED:
            latest = max((*chats.values(), *(until for until, _ in lanes.values())))
            self._accounts[account] = max(latest, self._accounts.get(account, 0.0))
            self._chats.pop(account, None)
            self._lanes.pop(account, None)
