"""Clause 4: what was not committed is not acknowledged, and what was cut comes again under the same ids."""

from __future__ import annotations

import trio

from hermes.errors import HermesError, StoreUnavailable, leaves
from hermes.testing.cancellation import cancel_at_every_step
from hermes.testing.clauses.bench import Bench
from hermes.testing.clauses.lifetimes import LOOK_S, introduced, until
from hermes.testing.clauses.subject import Breach
from hermes.testing.inbox import Moment, RecordingInbox

AGAIN_S = 600.0  # after so long at the latest a service that pushes its events tries again


class Ledger:
    """What was posted, and the store that outlives every connection."""

    def __init__(self, bench: Bench, inbox: RecordingInbox) -> None:
        self.posted = [event.id for event in inbox.events]
        self.inbox = inbox
        self._bench = bench

    def post(self, text: str) -> str:
        """Somebody writes."""
        self.posted.append(self._bench.service.post(text))
        return self.posted[-1]

    def all_there(self) -> bool:
        """Everything that was posted is committed."""
        return set(self.posted) <= {event.id for event in self.inbox.events}

    def restart(self) -> RecordingInbox:
        """The same store, as the next process finds it."""
        last = self.inbox.batches[-1:]
        self.inbox = RecordingInbox(tuple(self.inbox.events), self.inbox.cursors, account=self._bench.subject.account)
        self.inbox.batches[:] = last
        return self.inbox

    def judge(self) -> None:
        """Raises Breach for what must not be, at whatever moment."""
        committed = {event.id for event in self.inbox.events}
        if strange := committed - set(self.posted):
            raise Breach(f"events came under ids that the service never gave: {_some(strange)}")
        if early := set(self._bench.service.acknowledged()) & set(self.posted) - committed:
            raise Breach(f"acknowledged before it was committed: {_some(early)}")
        if self.inbox.breaches:
            raise Breach(f"it delivered {'; '.join(self.inbox.breaches)}")


async def deliver_before_acknowledging(bench: Bench) -> None:
    """Clause 4."""
    ledger = Ledger(bench, await introduced(bench))
    await _while_the_commit_waits(bench, ledger)
    await _while_the_store_is_away(bench, ledger)
    await _two_batches(bench, ledger)
    for moment in ("asked", "committed"):
        await _cut_in_deliver(bench, ledger, moment)
    if "repeat" in bench.service.switches:
        bench.service.set("repeat")
        ledger.post("said twice")
        await caught_up(bench, ledger, "events came twice")
        bench.service.set(None)

    async def scenario() -> None:
        ledger.post("one")
        ledger.post("two")
        async with bench.open() as platform:
            await until(platform, ledger.inbox, ledger.all_there)
            ledger.post("three")
            await until(platform, ledger.inbox, ledger.all_there)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keep_time)
        await cancel_at_every_step(scenario, limit=bench.subject.endings, check=lambda: _check(bench, ledger))
        nursery.cancel_scope.cancel()


async def _check(bench: Bench, ledger: Ledger) -> None:
    ledger.judge()
    await caught_up(bench, ledger, "it was cancelled")


async def caught_up(bench: Bench, ledger: Ledger, after: str) -> None:
    """A new connection brings everything that is missing, and of what is there the last batch at most."""
    last = {key for batch in ledger.inbox.batches[-1:] for key in batch}
    inbox = ledger.restart()
    start = len(inbox.batches)
    ledger.post("and then")

    async def work() -> None:
        async with bench.open() as platform:
            await until(platform, inbox, ledger.all_there)

    known = {event.key for event in inbox.events}
    found = await bench.outcome(work, may_take_s=AGAIN_S)
    ledger.judge()
    if not ledger.all_there():
        missing = set(ledger.posted) - {event.id for event in inbox.events}
        raise Breach(f"{after}, and the next connection {found} without {_some(missing)}: lost")
    if found.kind == "raised":
        raise Breach(f"{after}, and the next connection {found}")
    if again := {key for batch in inbox.batches[start:] for key in batch} & known - last:
        raise Breach(f"{after}, and more came again than the last batch: {_some(again)}")


async def _while_the_commit_waits(bench: Bench, ledger: Ledger) -> None:
    ledger.inbox.hold = trio.Event()
    ledger.post("while it waits")
    async with bench.open() as platform:
        found = await bench.outcome(lambda: platform.receive(ledger.inbox, dict(ledger.inbox.cursors)))
    ledger.judge()
    if found.kind != "waits":
        raise Breach(f"while `deliver` waited for its commit, `receive` {found}")
    ledger.inbox.hold = None
    await caught_up(bench, ledger, "`deliver` was cancelled while it waited")


async def _while_the_store_is_away(bench: Bench, ledger: Ledger) -> None:
    ledger.inbox.unavailable = True
    ledger.post("while the store is away")
    async with bench.open() as platform:
        found = await bench.outcome(lambda: platform.receive(ledger.inbox, dict(ledger.inbox.cursors)))
    ledger.judge()
    errors = list(leaves(found.error)) if found.error is not None else []
    through = found.kind == "raised" and all(isinstance(error, StoreUnavailable) for error in errors)
    refused = found.kind == "waits" and not found.endless  # a webhook's handler lets it through to the listener: 503
    if not through and not refused:
        raise Breach(f"`deliver` raised StoreUnavailable, and `receive` {found}; it must let it through")
    ledger.inbox.unavailable = False
    await caught_up(bench, ledger, "the store was away")


async def _two_batches(bench: Bench, ledger: Ledger) -> None:
    """What came before the last batch does not come again."""

    async def one_by_one() -> None:
        for text in ("first", "second"):
            ledger.post(text)
            await ledger.inbox.until(ledger.all_there)

    async def work() -> None:
        async with bench.open() as platform, trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, ledger.inbox, dict(ledger.inbox.cursors))
            await one_by_one()
            nursery.cancel_scope.cancel("all there")

    found = await bench.outcome(work, may_take_s=2 * LOOK_S)
    if not ledger.all_there():
        raise Breach(f"two events came one after the other, and it {found} without delivering them")
    await caught_up(bench, ledger, "two batches were committed")


async def _cut_in_deliver(bench: Bench, ledger: Ledger, moment: Moment) -> None:
    scope = trio.CancelScope()

    def cut(now: Moment) -> None:
        if now == moment:
            scope.cancel("the kit")

    async def work() -> None:
        with scope:
            async with bench.open() as platform:
                await platform.receive(ledger.inbox, dict(ledger.inbox.cursors))

    ledger.inbox.at = cut
    ledger.post(f"cut when {moment}")
    found = await bench.outcome(work)
    ledger.judge()
    if found.kind == "raised" and not isinstance(found.error, HermesError):
        raise Breach(f"cancelled inside `deliver`, it {found}")
    await caught_up(bench, ledger, f"`deliver` was cancelled when it had {moment}")


def _some(ids: set[str]) -> str:
    shown = sorted(ids)[:5]
    return ", ".join(shown) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
