"""Clauses 1 to 3: a connection that is entered works, one that is left is gone, and receiving ends by being cancelled alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from hermes.errors import (
    HermesError,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    leaves,
)
from hermes.events import Address
from hermes.platform import Platform
from hermes.testing.cancellation import cancel_at_every_step
from hermes.testing.census import LeakCensus
from hermes.testing.clauses.bench import Bench, Outcome
from hermes.testing.clauses.subject import Breach
from hermes.testing.inbox import RecordingInbox
from hermes.testing.service import NEEDED, Switch

OPEN_S = 30.0  # supervision.open_timeout_s
LONG_S = 300.0  # longer than any request may take
LOOK_S = 60.0  # after so long at the latest a platform that looks for itself has looked again
RAISED_BY_OPEN: dict[Switch, tuple[type[PlatformError], ...]] = {
    "refuse": (PlatformRefused,),
    "fail": (PlatformUnavailable,),
    "garbage": (PlatformError,),
    "lose": (PlatformError,),
    "limit": (PlatformUnavailable, RateLimited),
    "hang": (PlatformUnavailable,),
}


async def entered_or_nothing(bench: Bench) -> None:
    """Clause 1."""
    service = bench.service
    calls = bench.subject.calls
    if missing := [switch for switch in NEEDED if calls and switch not in service.switches]:
        raise Breach(f"the fake service must have the switches {', '.join(missing)}")
    before, asked = LeakCensus.take(), len(service.requests())
    found = await bench.outcome(partial(_enter, bench), may_take_s=OPEN_S)
    if found.kind != "returned":
        raise Breach(f"with good credentials and a good service, to open and to send {found}")
    if calls and found.value <= asked:
        raise Breach(
            "it was entered without asking the service anything: nobody knows whether the credentials are good"
        )
    if service.shown() != ["a first message"]:
        raise Breach(f"a message was sent and the service shows {list(service.shown())!r}")
    await bench.leaves_nothing(before, "a connection that was left")
    for switch, kinds in RAISED_BY_OPEN.items():
        if switch in service.switches:
            await _fails(bench, switch, kinds)
    found = await bench.outcome(partial(_enter, bench), may_take_s=OPEN_S)
    if found.kind != "returned":
        raise Breach(f"after the service has recovered, to open {found}")


async def _enter(bench: Bench) -> int:
    """Open and send; how many requests there had been when it was open."""
    async with bench.open() as platform:
        asked = len(bench.service.requests())
        to = Address(bench.subject.account, bench.service.chat)
        await platform.send(to, bench.content("a first message"), key="first", reply=None)
        return asked


async def _fails(bench: Bench, switch: Switch, kinds: tuple[type[PlatformError], ...]) -> None:
    before = LeakCensus.take()
    bench.service.set(switch)
    found = await bench.outcome(partial(_enter, bench), may_take_s=LONG_S if switch == "hang" else OPEN_S)
    bench.service.set(None)
    names = " or ".join(kind.__name__ for kind in kinds)
    errors = list(leaves(found.error)) if found.kind == "raised" and found.error is not None else []
    if not errors or not all(isinstance(error, kinds) for error in errors):
        raise Breach(f"with a service that does `{switch}`, to open {found}; it must raise {names}")
    if switch == "refuse" and len(str(errors[0])) < 10:
        raise Breach(f"PlatformRefused must say what a person can do, and says {str(errors[0])!r}")
    await bench.leaves_nothing(before, f"an attempt that failed by `{switch}`")


async def gone_on_every_path(bench: Bench) -> None:
    """Clause 2."""
    before = LeakCensus.take()
    await _left_with_an_error(bench)
    if "hang" in bench.service.switches:
        await _left_while_it_hangs(bench)
    await bench.leaves_nothing(before, "a connection that was left by an error")
    cursors = (await introduced(bench)).cursors

    async def scenario() -> None:
        inbox = RecordingInbox(cursors=cursors, account=bench.subject.account)
        bench.service.post("come")
        try:
            async with bench.open() as platform, trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, inbox, dict(cursors))
                await inbox.until(lambda: inbox.events)
                await _use(bench, platform)
                nursery.cancel_scope.cancel("seen enough")
        finally:
            cursors.update(inbox.cursors)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keep_time)
        await cancel_at_every_step(scenario, ways=("cancel", "deadline", "sibling"), limit=bench.subject.endings)
        nursery.cancel_scope.cancel()


async def _use(bench: Bench, platform: Platform) -> None:
    to = Address(bench.subject.account, bench.service.chat)
    receipt = await platform.send(to, bench.content("hello"), key="hello", reply=None)
    if platform.capabilities.edits:
        await platform.edit(receipt, bench.content("hello again"))
    if bench.subject.file is not None:
        ref, content = bench.subject.file
        async with platform.fetch(ref, max_bytes=len(content)) as pieces:
            async for _ in pieces:
                pass


class _Mark(Exception):
    """What the kit raises inside a connection."""


async def _left_with_an_error(bench: Bench) -> None:
    async def work() -> None:
        async with bench.open() as platform:
            await _use(bench, platform)
            raise _Mark("raised inside the connection")

    found = await bench.outcome(work, may_take_s=OPEN_S)
    if found.error is None or not all(isinstance(error, _Mark) for error in leaves(found.error)):
        raise Breach(f"an error was raised inside a connection, and leaving it {found}: it must come out as it was")


async def _left_while_it_hangs(bench: Bench) -> None:
    """The service says nothing any more when we leave: that costs a bounded time and no error."""

    async def work() -> None:
        async with bench.open() as platform:
            await _use(bench, platform)
            bench.service.set("hang")

    found = await bench.outcome(work, may_take_s=10.0)
    bench.service.set(None)
    if found.kind != "returned":
        raise Breach(
            f"with a service that hangs, to leave a connection {found}; it must end within 10 s, without an error"
        )


async def receive_goes_on(bench: Bench) -> None:
    """Clause 3."""
    found = await bench.outcome(partial(_receive, bench), may_take_s=120.0)
    if found.kind != "waits":
        raise Breach(f"while nothing happens, `receive` {found}; it must go on until it is cancelled")
    if found.swallowed:
        raise Breach("`receive` was cancelled and ended by itself: `trio.Cancelled` must pass through")
    await _called_again(bench)
    for switch in bench.service.switches:
        bench.service.set(switch)
        found = await _received_on_a_bad_day(bench, switch)
        bench.service.set(None)
        errors = list(leaves(found.error)) if found.error is not None else []
        if found.kind == "returned" or not all(isinstance(error, HermesError) for error in errors):
            raise Breach(
                f"with a service that does `{switch}`, `receive` {found}; it must go on or raise a PlatformError"
            )


async def _receive(bench: Bench) -> None:
    async with bench.open() as platform:
        await platform.receive(RecordingInbox(account=bench.subject.account), {})


async def _received_on_a_bad_day(bench: Bench, switch: Switch) -> Outcome:
    bench.service.set(None)
    async with bench.open() as platform:
        bench.service.set(switch)
        inbox = RecordingInbox(account=bench.subject.account)
        found = await bench.outcome(lambda: platform.receive(inbox, {}), may_take_s=LONG_S if switch == "hang" else 0.0)
        bench.service.set(None)
        return found


async def _called_again(bench: Bench) -> None:
    """It may be cancelled and called again in one connection, and goes on where it was."""
    inbox = await introduced(bench)
    async with bench.open() as platform:
        for number in range(1, 3):
            wanted = bench.service.post(f"call {number}")
            work = partial(_until_there, platform, inbox, wanted)
            found = await bench.outcome(work, may_take_s=LOOK_S)
            if found.kind != "returned":
                raise Breach(f"an event was posted, and call {number} of `receive` {found} without delivering it")


async def _until_there(platform: Platform, inbox: RecordingInbox, wanted: str) -> None:
    await until(platform, inbox, lambda: any(event.id == wanted for event in inbox.events))


async def introduced(bench: Bench) -> RecordingInbox:
    """Receive for the first time, and something happens meanwhile: from here on it is known how far was read.

    What happened before is the past, which a service may keep from a newcomer.
    """
    inbox = RecordingInbox(account=bench.subject.account)
    async with bench.open() as platform, trio.open_nursery() as nursery:
        nursery.start_soon(platform.receive, inbox, {})
        await bench.still()
        wanted = bench.service.post("a first word")
        await bench.still()
        if not inbox.events:
            await bench.pass_time(LOOK_S)
        nursery.cancel_scope.cancel("seen enough")
    if wanted not in {event.id for event in inbox.events}:
        strange = "another id, which the service never gave, came instead" if inbox.events else "nothing came"
        raise Breach(f"an event was posted while `receive` ran, and it went on without delivering it: {strange}")
    return inbox


async def until(platform: Platform, inbox: RecordingInbox, fact: Callable[[], object]) -> None:
    """Receive until something is true of the inbox."""
    receive: Callable[[], Awaitable[None]] = partial(platform.receive, inbox, dict(inbox.cursors))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await inbox.until(fact)
        nursery.cancel_scope.cancel("it is true")
