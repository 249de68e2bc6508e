"""One connection of an account, from its opening to the moment it is gone: a generation.

It ends in two steps. Receiving stops; leases may finish, then are cancelled and waited for; then its scope is left. All of
that, receiving included, happens in one task, so the next generation cannot begin before this one is gone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import trio

from hermes.accounts import AccountRecord
from hermes.backoff import Failure, History, Outcome, Park, classify, decide, words_of
from hermes.containment import contained
from hermes.leases import CUT_S, LeasedPlatform, Leases
from hermes.observe.logs import get_log
from hermes.observe.scopes import scope_lines, task_tree
from hermes.platform import Host, Platform, PlatformSpec
from hermes.receiving import Gate, RunEnd, RunInbox, run_receive
from hermes.settings import SupervisionConfig
from hermes.starts import Sockets, is_of

log = get_log(__name__)

CLOSE_S = 10.0  # for a platform's own clean-up, once nobody uses it any more
LAST_CLOSE_S = 1.0  # the same when the gateway's own time is over
OVERDUE_S = 2.0  # past its deadline, a clean-up that is still there has shielded itself
RECEIVE_TRIES = 3  # receiving is retried alone so often in a row, before the connection is renewed

Ending = Literal["changed", "removed", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPlan:
    """An account as it is configured.

    Args:
        account: its id, the key in the configuration.
        spec: of which service.
        config: its section, an instance of `spec.config`.
        required: readiness depends on it.
        enabled: False = listed, never connected.
    """

    account: str
    spec: PlatformSpec[Any]
    config: object
    required: bool = True
    enabled: bool = True

    @property
    def identity(self) -> tuple[object, ...]:
        """Who it is at its service: its platform and the values of its secrets."""
        return self.spec.name, *(getattr(self.config, name, None) for name in self.spec.secrets)

    def connects_like(self, other: AccountPlan) -> bool:
        """Whether a connection for the other plan is one for this."""
        return (self.spec, self.config, self.enabled) == (other.spec, other.config, other.enabled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every generation is given.

    Args:
        settings: the bounds in force.
        host: what a platform may touch, for the time of one connection.
        stop_by: when the gateway must be gone, absolute; infinite while nobody asked.
        store_ready: waits until the store can be written.
        gate: the open gate, None while nothing may be received.
        starts: the limit on connections being opened; one is held for a generation until it is open.
        rng: for jitter.
    """

    settings: Callable[[], SupervisionConfig]
    host: Callable[[AccountPlan], AbstractAsyncContextManager[Host]]
    stop_by: Callable[[], float]
    store_ready: Callable[[], Awaitable[None]]
    gate: Callable[[], Gate | None]
    starts: trio.Semaphore
    rng: random.Random


class Generation:
    """One connection. `run()` is its whole life; the other methods are plain and may be called from any task.

    Args:
        plan: for whom.
        record: where to note what is seen.
        parts: what it is given.
        entered: told once, when it is open or cannot be any more.

    Attributes:
        ending: why it was asked to end, None if it was not.
    """

    def __init__(self, plan: AccountPlan, record: AccountRecord, parts: Parts, entered: Callable[[], None]) -> None:
        self.ending: Ending | None = None
        self.up_s = 0.0
        self.leases = Leases(record)
        self._plan = plan
        self._record = record
        self._parts = parts
        self._settled = entered
        self._platform: Platform | None = None
        self._failure: Failure | None = None
        self._attempt = trio.CancelScope()
        self._overdue = trio.CancelScope()
        self._step: trio.CancelScope | None = None  # what its task does now, while it is open
        self._pausing = False
        self._entered_at: float | None = None
        self._passing: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None
        self._run: RunInbox | None = None  # of `receive`, while it runs
        self._sockets = Sockets(
            record,
            parts.starts,
            counts=self._starts_anew,
            waiting=self._kept_waiting,
            settles_s=lambda: parts.settings().healthy_after_s,
        )

    @property
    def leased(self) -> Platform | None:
        """The connection as a lease hands it out; None if there is none to be had."""
        if self._platform is None or not self.leases.open:
            return None
        return LeasedPlatform(self._platform, self._record, self._refuse)

    def end(self, why: Ending) -> None:
        """Ask it to end. One that is still being opened is cancelled; one that is open ends in two steps."""
        if self.ending is None:
            self.ending = why
        if self._entered_at is None:
            self._attempt.cancel(why)
        elif self.leases.open:
            self.leases.open = False
            self._record.stopping(trio.current_time(), why)
        self.interrupt()

    def interrupt(self) -> None:
        """Have it look at what has changed around it: the gate, or its end."""
        if self._step is not None:
            self._step.cancel("something changed")

    def hurry(self) -> bool:
        """Receive again now, if it waits for that; returns whether it did."""
        if self._pausing:
            self.interrupt()
        return self._pausing

    async def run(self) -> Failure | None:
        """Open, hold, leave.

        Returns:
            why it failed; None if it was asked to end.

        Cancellation: ends it in the same two steps.
        """
        self._task = trio.lowlevel.current_task()
        self._attempt.deadline = trio.current_time() + self._parts.settings().open_timeout_s
        self._overdue.deadline = self._attempt.deadline + OVERDUE_S
        try:
            async with trio.open_nursery() as beside:
                beside.start_soon(self._watch, name=f"watches the end of {self._plan.account}")
                error = await contained(self._live)
                beside.cancel_scope.cancel("it is gone")
            return self._judge(error)
        finally:
            self._settled()
            self._passing = self._task = None  # its traceback holds frames of the platform

    # In its own task.

    async def _live(self) -> None:
        with self._attempt:
            try:
                async with self._parts.host(self._plan) as host:
                    async with self._plan.spec.open(self._plan.config, self._sockets.of(host)) as platform:
                        self._enter(platform)
                        try:
                            self._failure = await self._hold()
                        finally:
                            bound_s = self._parts.settings().send_grace_s + CUT_S + OVERDUE_S  # more than it takes
                            with trio.CancelScope(shield=True, deadline=trio.current_time() + bound_s):
                                await self._leave()
            except BaseException as error:
                self._passing = error  # a clean-up that hangs and is cut would hide it
                raise

    def _enter(self, platform: Platform) -> None:
        self._attempt.deadline = self._overdue.deadline = math.inf
        self._entered_at = trio.current_time()
        self._platform = platform
        self.leases.open = self.ending is None
        self._record.up(self._entered_at)
        log.info("account.connected", account=self._plan.account, generation=self._record.generation)
        self._settled()

    async def _hold(self) -> Failure | None:
        """While it is open: receive whenever the gate allows it; alone again after a failure that leaves sending intact."""
        history = History()
        while self.ending is None and self._failure is None:
            gate = self._parts.gate()
            if gate is None:
                with trio.CancelScope() as self._step:
                    await trio.sleep_forever()
                continue
            end = await self._receive(gate)
            if end.failure is None:
                continue
            settings, now = self._parts.settings(), trio.current_time()
            healthy = end.progressed and end.up_s >= settings.healthy_after_s
            outcome = Outcome(failure=end.failure, up_s=end.up_s, progressed=end.progressed)
            history, then = decide(history, outcome, now=now, rng=self._parts.rng, settings=settings)
            if isinstance(then, Park) or not self._can_stay(end.failure, history):
                return end.failure
            log.info(
                "account.receives_again", account=self._plan.account, because=end.failure.reason, in_s=then.delay_s
            )
            if end.failure.kind != "unavailable" or history.failures > 1 or not healthy:
                self._record.receive_failed(end.failure, now)
            if end.failure.kind == "store":
                spread_s = self._parts.rng.uniform(0.0, settings.backoff_base_s)  # what fails at once must not spin
                await self._pause(spread_s, self._parts.store_ready)
            else:
                await self._pause(then.delay_s)
        return self._failure

    def _starts_anew(self) -> bool:
        """Whether the current task receives: what it opens is no part of the opening, and nothing that somebody sends."""
        return self._entered_at is not None and is_of(self._task)

    def _kept_waiting(self) -> AbstractContextManager[None]:
        """While a socket waits for its turn, receiving breaks no promise."""
        return nullcontext() if self._run is None else self._run.kept_waiting()

    def _begins(self, run: RunInbox) -> None:
        self._run = run

    def _can_stay(self, failure: Failure, history: History) -> bool:
        """Whether receiving alone is tried again, and the connection stays for those who send."""
        if failure.over:
            return False
        match failure.kind:
            case "conflict" | "limited" | "store":
                return True
            case "unavailable":
                alone = failure.path is None and not self._record.send_failing
                return alone and history.failures <= RECEIVE_TRIES
            case _:
                return False

    async def _receive(self, gate: Gate) -> RunEnd:
        assert self._platform is not None
        scope = self._step = trio.CancelScope()
        self._record.receives(trio.current_time() + self._parts.settings().healthy_after_s)
        try:
            return await run_receive(self._platform, gate, self._record, scope, begins=self._begins)
        finally:
            self._step = self._run = None
            self._record.receives(None)

    async def _pause(self, seconds: float, until: Callable[[], Awaitable[None]] | None = None) -> None:
        self._pausing = True
        try:
            with trio.CancelScope() as self._step:
                await trio.sleep(seconds)
                if until is not None:
                    await until()
        finally:
            self._step, self._pausing = None, False

    async def _leave(self) -> None:
        """The second step: leases finish or are cut; then the platform may clean up, within a bound."""
        now, settings = trio.current_time(), self._parts.settings()
        assert self._entered_at is not None
        self.up_s = now - self._entered_at
        self._record.stopping(now, self._failure.reason if self._failure else self.ending or "")
        kept = await self.leases.finish(min(now + settings.send_grace_s, self._parts.stop_by()))
        if kept:
            log.error("account.leases_kept", account=self._plan.account, leases=kept)
        self._platform = None
        now = trio.current_time()
        self._attempt.deadline = min(now + CLOSE_S, max(self._parts.stop_by(), now + LAST_CLOSE_S))
        self._overdue.deadline = self._attempt.deadline + OVERDUE_S

    # Around it.

    def _refuse(self, failure: Failure) -> None:
        """Somebody who sends was told that the account itself is refused, or that the connection is gone."""
        if self._failure is None:
            self._failure = failure
            self.leases.open = False
            self.interrupt()

    async def _watch(self) -> None:
        """Say what hangs. A clean-up that shields itself cannot be cut: it keeps its account, and nothing else, waiting."""
        with self._overdue:
            await trio.sleep_forever()
        assert self._task is not None
        self._record.overdue("its platform does not end; the log shows where it waits")
        log.error("account.overdue", account=self._plan.account, stack="\n".join(scope_lines(task_tree(self._task))))
        self._settled()

    def _judge(self, error: BaseException | None) -> Failure | None:
        """Why it failed, of all that was seen; a clean-up's own troubles are logged and hide nothing."""
        account, opened = self._plan.account, self._entered_at is not None
        raised = classify(error) if error is not None else None
        if opened and self._attempt.cancelled_caught:
            log.error("account.close_cut", account=account, after_s=CLOSE_S)
        if opened and (self._failure is not None or self.ending is not None):
            if error is not None:
                log.warning("account.close_failed", account=account, error=error)
            refused = raised if raised is not None and raised.kind == "refused" else None
            return refused if refused is not None and self.ending is None else self._failure
        if not opened and self._attempt.cancel_called:
            return self._opening_cut(error)
        if raised is not None:
            # of what a service can do, the reason that the supervisor logs is enough; of a bug, the place is needed
            say = log.warning if raised.kind == "bug" else log.debug
            say("account.failed", account=account, error=error)
            return raised
        return self._failure or Failure(kind="bug", reason="its platform ended the connection without an error")

    def _opening_cut(self, error: BaseException | None) -> Failure | None:
        """It was not open in time, or nobody wants it any more; what it was failing of by then counts first."""
        error = error or self._passing
        before = classify(error) if error is not None else None
        if error is not None:
            log.info("account.opening_cut", account=self._plan.account, error=error)
        if self.ending is not None:
            return None
        if before is not None and before.kind != "bug":
            return before
        words = f"it was not connected within {self._parts.settings().open_timeout_s:g} s"
        context = error.__context__ if isinstance(error, trio.Cancelled) else None
        after = f", after {words_of(context)}" if isinstance(context, Exception) else ""
        return Failure(kind="unavailable", reason=words + after)
