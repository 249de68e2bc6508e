"""The table of accounts: what each is doing, since when and why, computed from what was observed. Plain state, no await.

"Connected" is no flag that somebody sets: it is what is left when nothing observed speaks against it. Times are of one
monotonic clock that the caller reads; a snapshot holds ages, so that it can be shown beside any clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hermes.backoff import Failure, Park, Retry

State = Literal[
    "connecting",
    "connected",
    "degraded",
    "deaf",
    "conflict",
    "retrying",
    "parked(refused)",
    "parked(bug)",
    "stopping",
    "disabled",
]
Phase = Literal["connecting", "up", "conflict", "retrying", "parked(refused)", "parked(bug)", "stopping", "disabled"]

MAX_PATHS = 8
MAX_PATH_NAME = 40
LONGEST_SILENCE_S = 86_400.0

_WORDS: dict[State, str] = {
    "connecting": "connecting",
    "connected": "connected",
    "degraded": "connected, but",
    "deaf": "connected, but nothing is heard",
    "conflict": "somebody else receives with the same token",
    "retrying": "not connected, trying again",
    "parked(refused)": "refused by the service",
    "parked(bug)": "stopped after repeated errors of its platform",
    "stopping": "being closed",
    "disabled": "disabled in the configuration",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStatus:
    """What is to be known of an account now, as plain values.

    Args:
        account, platform, required: which, of which service, and whether readiness depends on it.
        state: one word; `words` is the same for people, with the reason.
        works: it can be written through and heard as far as anybody can see.
        since_s: seconds in this state.
        reason: what is wrong, empty if nothing is.
        restarts: connections that failed, since the start.
        generation: the number of the connection that is there or was there last.
        next_attempt_s: seconds until the next attempt; None if none is due.
        progress_s: path -> seconds since its last sign of life; `deliver` and `send` are the core's own.
        deaf: paths that broke the promise of their next sign and have not been heard since.
        send_failing_s: seconds since sends fail; None if they do not.
        receive_failing_s: the same for receiving.
        leases: uses of the connection now.
        stale: calls of connections that were over, dropped.
    """

    account: str
    platform: str
    required: bool
    state: State
    words: str
    works: bool
    since_s: float
    reason: str
    restarts: int
    generation: int
    next_attempt_s: float | None
    progress_s: Mapping[str, float]
    deaf: tuple[str, ...]
    send_failing_s: float | None
    receive_failing_s: float | None
    leases: int
    stale: int


@dataclass(slots=True)
class _Trouble:
    """Something that fails while the connection stands."""

    since: float
    last: float
    reason: str


class AccountRecord:
    """What was observed of one account. Its supervisor, its inbox and its leases write here; the table reads.

    Attributes:
        progressed: something came of this generation.
    """

    def __init__(self, account: str, platform: str, *, required: bool, now: float) -> None:
        self.account = account
        self.platform = platform
        self.required = required
        self.generation = 0
        self.restarts = 0
        self.stale = 0
        self.leases = 0
        self.progressed = False
        self._phase: Phase = "connecting"
        self._since = now
        self._reason = ""
        self._next_at: float | None = None
        self._progress: dict[str, float] = {}
        self._deaf: dict[str, float] = {}
        self._conflict: _Trouble | None = None
        self._send: _Trouble | None = None
        self._receive: _Trouble | None = None
        self._overdue = ""
        self._settles_at: float | None = None
        self._promises: Promises | None = None

    # What its supervisor saw.

    def attempt(self) -> None:
        """An attempt begins. What was wrong stays to be read until it is known to be over."""
        self.generation += 1
        self.progressed = False
        self._next_at = None

    def up(self, now: float) -> None:
        """The connection was entered: authenticated and usable."""
        self._enter("up", now, "")

    def waits(self, failure: Failure, then: Retry | Park, now: float) -> None:
        """An attempt or a connection has failed, and this is what comes next."""
        self.restarts += 1
        if isinstance(then, Park):
            self._enter("parked(refused)" if then.kind == "refused" else "parked(bug)", now, failure.reason)
            self._next_at = None if then.probe_after_s is None else now + then.probe_after_s
        else:
            self._enter("conflict" if failure.kind == "conflict" else "retrying", now, failure.reason)
            self._next_at = now + then.delay_s
        if failure.path is not None:
            self._deaf.setdefault(failure.path, now)

    def waits_for_store(self, reason: str, now: float) -> None:
        """It could not be opened because of the store."""
        self._enter("connecting", now, reason)

    def stopping(self, now: float, reason: str) -> None:
        """The connection is being left."""
        self._enter("stopping", now, reason)

    def overdue(self, reason: str) -> None:
        """It should have been left by now and is not."""
        self._overdue = reason

    def begin_anew(self, now: float, *, enabled: bool = True) -> None:
        """Whatever was wrong is to be forgotten: the configuration changed, or a person asked."""
        self._deaf.clear()
        self._conflict = self._send = self._receive = None
        self._next_at = None
        self._enter("connecting" if enabled else "disabled", now, "")

    # What its paths showed.

    def heard(self, path: str, now: float) -> None:
        """A sign of life of a path of receiving: a delivery, an answered poll, a heartbeat."""
        self.progressed = True
        if path in self._progress or len(self._progress) < MAX_PATHS + 2:
            self._progress[path] = now
        self._deaf.pop(path, None)
        self._receive = self._conflict = None

    def brought(self) -> None:
        """An event came, whatever path it took: nothing is deaf."""
        self._deaf.clear()

    def receives(self, settles_at: float | None) -> None:
        """Receiving goes on, and from this time on earlier troubles with it are over; None: it has ended."""
        self._settles_at = settles_at

    def listens(self, promises: Promises | None) -> None:
        """A run of `receive` begins, whose broken promises show even while it does not end; None: it has ended."""
        self._promises = promises

    def receive_failed(self, failure: Failure, now: float) -> None:
        """Receiving failed, and is tried again while the connection stands."""
        trouble = _Trouble(now, now, failure.reason)
        if failure.kind == "conflict":
            trouble.since = self._conflict.since if self._conflict else now
            self._conflict = trouble
        else:
            trouble.since = self._receive.since if self._receive else now
            self._receive = trouble

    def waits_its_turn(self, now: float) -> None:
        """Receiving needs a socket, and others are being opened; what it failed of before stays to be read."""
        self._settles_at = None
        self._receive = self._receive or _Trouble(now, now, "it waits until other accounts are connected")

    def sent(self, now: float) -> None:
        """The service answered a send or an edit, be it with a definite no."""
        self.progressed = True
        self._progress["send"] = now
        self._send = None

    def send_failed(self, reason: str, now: float) -> None:
        """A send or edit found no service that answers."""
        self._send = _Trouble(self._send.since if self._send else now, now, reason)

    @property
    def send_failing(self) -> bool:
        """The last send found no service that answers."""
        return self._send is not None

    # What follows from it.

    def status(self, now: float) -> AccountStatus:
        """The account as it is to be shown."""
        if self._settles_at is not None and now >= self._settles_at:
            self._receive = self._conflict = None
        if self._promises is not None and (silent := self._promises.broken(now)) is not None:
            self._deaf.setdefault(silent, self._promises.due)
        state, since, reason = self._judged()
        due = None if self._next_at is None else max(0.0, self._next_at - now)
        words = _WORDS[state] + (f"{' ' if state == 'degraded' else ': '}{reason}" if reason else "")
        if state == "parked(refused)":
            words += f"; tried again when its section changes, or by `hermes platform retry {self.account}`"
        return AccountStatus(
            account=self.account,
            platform=self.platform,
            required=self.required,
            state=state,
            words=words if due is None else f"{words}; next attempt in {due:.0f} s",
            works=state == "connected",
            since_s=now - since,
            reason=reason,
            restarts=self.restarts,
            generation=self.generation,
            next_attempt_s=due,
            progress_s={path: now - at for path, at in self._progress.items()},
            deaf=tuple(self._deaf),
            send_failing_s=now - self._send.since if self._send else None,
            receive_failing_s=now - self._receive.since if self._receive else None,
            leases=self.leases,
            stale=self.stale,
        )

    def _judged(self) -> tuple[State, float, str]:
        if self._overdue:
            return "stopping", self._since, self._overdue
        if self._phase != "up":
            return self._phase, self._since, self._reason
        if self._deaf:
            return "deaf", min(self._deaf.values()), f"no sign of {', '.join(self._deaf)}"
        if self._conflict:
            return "conflict", self._conflict.since, self._conflict.reason
        if self._receive:
            return "degraded", self._receive.since, f"receiving fails: {self._receive.reason}"
        if self._send:
            return "degraded", self._send.since, f"sending fails: {self._send.reason}"
        return "connected", self._since, ""

    def _enter(self, phase: Phase, now: float, reason: str) -> None:
        if phase != self._phase:
            self._since = now
        self._phase, self._reason, self._overdue = phase, reason, ""


class Promises:
    """The next signs of life that a run of `receive` has promised, and when the earliest of them is broken.

    Time in which the core itself keeps the platform waiting (a delivery that is being committed) counts for no path.
    """

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, float]] = {}  # path -> when it was promised, when it is due
        self._held = 0
        self._held_since = 0.0

    def keep(self, path: str, next_within_s: float, now: float) -> None:
        """A sign of this path came, and the next will within so many seconds.

        Raises:
            ValueError: too many paths, a name or a time out of bounds.
        """
        if not 1 <= len(path) <= MAX_PATH_NAME:
            raise ValueError(f"a path's name has 1 to {MAX_PATH_NAME} characters")
        if path not in self._due and len(self._due) >= MAX_PATHS:
            raise ValueError(f"at most {MAX_PATHS} paths of an account can be watched")
        if not 0.0 < next_within_s <= LONGEST_SILENCE_S:
            raise ValueError("a path promises its next sign within 0 to 86400 seconds")
        self._due[path] = now, now + next_within_s

    def hold(self, now: float) -> None:
        """The core keeps the platform waiting from now on."""
        if not self._held:
            self._held_since = now
        self._held += 1

    def release(self, now: float) -> None:
        """And no longer."""
        self._held -= 1
        if not self._held:
            since = self._held_since
            self._due = {path: (now, due + now - max(kept, since)) for path, (kept, due) in self._due.items()}

    @property
    def due(self) -> float:
        """When the first promise is broken; infinite if there is none, or time is held."""
        return math.inf if self._held else min((due for _, due in self._due.values()), default=math.inf)

    def broken(self, now: float) -> str | None:
        """The path whose promise is broken, the earliest; None if all are kept."""
        if now < self.due:
            return None
        return min(self._due, key=lambda path: self._due[path][1], default=None)


class AccountTable:
    """All accounts that are configured, in their order."""

    def __init__(self) -> None:
        self._records: dict[str, AccountRecord] = {}

    def add(self, record: AccountRecord) -> None:
        """An account from now on."""
        self._records[record.account] = record

    def remove(self, record: AccountRecord) -> None:
        """No account any more, if it is still this one."""
        if self._records.get(record.account) is record:
            del self._records[record.account]

    def get(self, account: str) -> AccountRecord | None:
        """The record of an account."""
        return self._records.get(account)

    def snapshot(self, now: float) -> tuple[AccountStatus, ...]:
        """All of them, for `/ready`, `/status` and metrics."""
        return tuple(record.status(now) for record in self._records.values())

    def counts(self, now: float) -> Mapping[str, int]:
        """State -> accounts in it, for metrics."""
        return Counter(each.state for each in self.snapshot(now))


def all_required_work(accounts: Iterable[AccountStatus]) -> bool:
    """Whether every account works that readiness depends on; a refused or disabled one is reported and excused."""
    return all(each.works for each in accounts if each.required and each.state not in ("parked(refused)", "disabled"))
