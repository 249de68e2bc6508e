"""Clauses 5 and 6: one send is one visible effect, what goes wrong has a name, and nobody tries again or waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio

from hermes.errors import (
    AddressGone,
    ConnectionEnded,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    Unreachable,
)
from hermes.events import Address, Receipt
from hermes.platform import Platform, ReadsBack
from hermes.testing.clauses.bench import Bench, Outcome
from hermes.testing.clauses.lifetimes import LONG_S
from hermes.testing.clauses.subject import Breach
from hermes.testing.inbox import RecordingInbox
from hermes.testing.service import Switch

AT_ONCE = 8
# What a send raises by the service's day, and whether the person may see the message then.
RAISED_BY_SEND: dict[Switch, tuple[tuple[type[PlatformError], ...], bool]] = {
    "refuse": ((PlatformRefused,), False),
    "fail": ((PlatformUnavailable, SendUncertain), False),
    "garbage": ((PlatformProtocolError, PlatformUnavailable, SendUncertain), False),
    "limit": ((RateLimited,), False),
    "reject": ((SendRejected, AddressGone), False),
    "hang": ((SendUncertain,), False),
    "lose": ((SendUncertain,), True),
}
ANSWERED: tuple[Switch, ...] = ("refuse", "fail", "garbage", "limit")  # every request is, at once
NO_WAITING: tuple[Switch, ...] = (*ANSWERED, "lose")


class Desk:
    """An open connection, and sends through it under keys of their own."""

    def __init__(self, bench: Bench, platform: Platform, stack: AsyncExitStack) -> None:
        self.bench = bench
        self.platform = platform
        self._stack = stack
        self.receipts: dict[str, Receipt] = {}
        self._to = Address(bench.subject.account, bench.service.chat)

    async def send(self, text: str, key: str | None = None) -> Receipt:
        """Send a text; by itself it is its own key."""
        key = key or "".join(letter for letter in text if letter.isalnum())[:25].lower()
        receipt = await self.platform.send(self._to, self.bench.content(text), key=key, reply=None)
        self.receipts[text] = receipt
        return receipt

    async def later(self, text: str) -> Outcome:
        """Send on a good day, over a new connection where this one says that it has ended."""
        found = await self.bench.outcome(partial(self.send, text))
        if isinstance(found.error, ConnectionEnded):
            await self._stack.aclose()
            self.platform = await self._stack.enter_async_context(self.bench.open())
            found = await self.bench.outcome(partial(self.send, text))
        return found

    def shown(self, text: str) -> int:
        """How often the person sees it."""
        return list(self.bench.service.shown()).count(text)


@asynccontextmanager
async def desk(bench: Bench) -> AsyncIterator[Desk]:
    """A connection to send through."""
    bench.service.set(None)
    async with AsyncExitStack() as stack:
        try:
            yield Desk(bench, await stack.enter_async_context(bench.open()), stack)
        finally:
            bench.service.set(None)


async def one_visible_effect(bench: Bench) -> None:
    """Clause 5."""
    async with desk(bench) as here:
        await _from_several_tasks(here)
        await _edits(here)
        for switch, (kinds, visible) in RAISED_BY_SEND.items():
            if switch in bench.service.switches:
                await _on_a_bad_day(here, switch, kinds, visible)
        if "hang" in bench.service.switches:
            await _cancelled(here)
        await _finds(here)
        await _fetches(here)


async def _from_several_tasks(here: Desk) -> None:
    texts = [f"at once {number}" for number in range(AT_ONCE)]

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for text in texts:
                nursery.start_soon(here.send, text)

    found = await here.bench.outcome(work)
    if found.kind != "returned":
        raise Breach(f"{AT_ONCE} tasks sent at once, and it {found}")
    if wrong := {text: here.shown(text) for text in texts if here.shown(text) != 1}:
        raise Breach(f"{AT_ONCE} tasks sent at once; so often are their messages shown: {wrong}")
    if len({here.receipts[text].message_id for text in texts}) != AT_ONCE:
        raise Breach("two messages have one receipt")
    if any(here.receipts[text].address.account != here.bench.subject.account for text in texts):
        raise Breach("a receipt's address names another account")


async def _edits(here: Desk) -> None:
    platform, content = here.platform, here.bench.content
    receipt = here.receipts["at once 0"]
    before = len(here.bench.service.shown())
    found = await here.bench.outcome(lambda: platform.edit(receipt, content("edited")))
    if not platform.capabilities.edits:
        if found.kind != "raised" or not isinstance(found.error, SendRejected):
            raise Breach(
                f"its capabilities say that nothing can be edited, and `edit` {found}; it must raise SendRejected"
            )
        return
    for attempt in ("edit", "the same edit again"):
        if found.kind != "returned" or not isinstance(found.value, Receipt):
            raise Breach(f"{attempt} {found}; it must return a Receipt")
        if here.shown("edited") != 1 or len(here.bench.service.shown()) != before:
            raise Breach(f"after {attempt} the person sees {list(here.bench.service.shown())!r}")
        found = await here.bench.outcome(lambda: platform.edit(receipt, content("edited")))


async def _on_a_bad_day(here: Desk, switch: Switch, kinds: tuple[type[PlatformError], ...], visible: bool) -> None:
    service, text = here.bench.service, f"on a day of {switch}"
    service.set(switch)
    found = await here.bench.outcome(partial(here.send, text), may_take_s=LONG_S if switch == "hang" else 0.0)
    edited = await _edit_on_a_bad_day(here, switch)
    service.set(None)
    names = " or ".join(kind.__name__ for kind in kinds)
    if found.kind == "waits" and switch == "hang":
        raise Breach(f"the service takes a message and never answers, and after {LONG_S:g} s `send` still {found}")
    if found.kind != "raised" or not isinstance(found.error, kinds):
        raise Breach(f"with a service that does `{switch}`, `send` {found}; it must raise {names}")
    if isinstance(found.error, Unreachable) and found.error.sent:
        raise Breach(
            f"with a service that does `{switch}`, `send` {found}: the request has left, so it is SendUncertain"
        )
    if isinstance(found.error, RateLimited) and not 0.0 < found.error.retry_after_s <= 86_400.0:
        raise Breach(f"RateLimited says to wait {found.error.retry_after_s} s")
    if here.shown(text) != int(visible):
        raise Breach(f"with a service that does `{switch}`, one send is shown {here.shown(text)} times")
    if edited is not None and edited.kind == "raised" and not isinstance(edited.error, PlatformError):
        raise Breach(f"with a service that does `{switch}`, `edit` {edited}; only PlatformErrors come out of it")
    if isinstance(found.error, RateLimited):
        here.bench.skip(found.error.retry_after_s + 1.0)
    found = await here.later(text + ", later")
    if found.kind != "returned" or here.shown(text + ", later") != 1:
        raise Breach(
            f"after a day of `{switch}`, `send` {found} and the message is shown {here.shown(text + ', later')} times"
        )


async def _edit_on_a_bad_day(here: Desk, switch: Switch) -> Outcome | None:
    if not here.platform.capabilities.edits:
        return None
    work = partial(here.platform.edit, here.receipts["at once 1"], here.bench.content(f"edited on a day of {switch}"))
    return await here.bench.outcome(work, may_take_s=LONG_S if switch == "hang" else 0.0)


async def _cancelled(here: Desk) -> None:
    """A send that is cancelled hurts nobody else."""
    here.bench.service.set("hang")
    found = await here.bench.outcome(partial(here.send, "cancelled"))
    here.bench.service.set(None)
    if found.swallowed:
        raise Breach("a send was cancelled and ended by itself: `trio.Cancelled` must pass through")
    found = await here.later("after a cancelled one")
    if found.kind != "returned" or here.shown("after a cancelled one") != 1:
        raise Breach(f"a send was cancelled, and the next one {found}")


async def _finds(here: Desk) -> None:
    """What was shown without an answer is found by its key, and nothing else is; looking shows nothing."""
    platform, bench = here.platform, here.bench
    if not platform.capabilities.finds:
        return
    if not isinstance(platform, ReadsBack):
        raise Breach("its capabilities say `finds`, and it has no method `find`")
    to, since = Address(bench.subject.account, bench.service.chat), bench.host.clock() - 3600.0
    bench.service.set("lose")
    await bench.outcome(partial(here.send, "lost", "lostkey"))
    bench.service.set(None)
    shown = list(bench.service.shown())
    found = await bench.outcome(lambda: platform.find(to, key="lostkey", since=since))
    uncertain = found.kind == "raised" and isinstance(found.error, SendUncertain)
    if not isinstance(found.value, Receipt) and not uncertain:
        raise Breach(
            f"a message is shown, its answer was lost, and `find` {found}: it must return a Receipt, or raise SendUncertain"
        )
    found = await bench.outcome(lambda: platform.find(to, key="neversent", since=since))
    if found.value is not None or (found.kind == "raised" and not isinstance(found.error, SendUncertain)):
        raise Breach(
            f"nothing was ever sent under a key, and `find` {found}: it must return None, or raise SendUncertain"
        )
    if list(bench.service.shown()) != shown:
        raise Breach("to find a message showed or changed one")


async def _fetches(here: Desk) -> None:
    if here.bench.subject.file is None:
        return
    ref, content = here.bench.subject.file

    async def read(most: int) -> bytes:
        async with here.platform.fetch(ref, max_bytes=most) as pieces:
            return b"".join([piece async for piece in pieces])

    found = await here.bench.outcome(partial(read, len(content)))
    if found.value != content:
        raise Breach(f"a file of {len(content)} bytes was fetched, and it {found}, with other bytes")
    found = await here.bench.outcome(partial(read, len(content) - 1))
    if found.kind != "raised" or not isinstance(found.error, SendRejected):
        raise Breach(f"a file that is one byte too large was fetched, and it {found}; it must raise SendRejected")


async def no_retries_and_no_waiting(bench: Bench) -> None:
    """Clause 6."""
    good = await _counted(bench, partial(_opened, bench), "on a good day, to open")
    for switch in NO_WAITING:
        if switch in bench.service.switches:
            await _once_only(bench, switch, "to open", partial(_opened, bench), good)
    async with desk(bench) as here:
        first = await here.send("to be edited")
        works: dict[str, Callable[[], Awaitable[Any]]] = {"`send`": partial(here.send, "a message")}
        if here.platform.capabilities.edits:
            works["`edit`"] = lambda: here.platform.edit(first, bench.content("another"))
        for what, work in works.items():
            good = await _counted(bench, work, f"on a good day, {what}")
            for switch in (*NO_WAITING, "reject"):
                if switch in bench.service.switches:
                    await _once_only(bench, switch, what, work, good)
                    await here.later(f"between days of {switch}")
        for switch in ANSWERED:
            if switch in bench.service.switches:
                await here.later(f"before a day of {switch}")
                inbox = RecordingInbox(account=bench.subject.account)
                receive = partial(here.platform.receive, inbox, {})
                await _once_only(bench, switch, "`receive`", receive, Counter(), endless=True)


async def _opened(bench: Bench) -> None:
    async with bench.open():
        pass


async def _counted(bench: Bench, work: Callable[[], Awaitable[Any]], what: str) -> Counter[str]:
    """The requests that it makes while no time passes."""
    before = len(bench.service.requests())
    found = await bench.outcome(work)
    if found.kind != "returned":
        raise Breach(f"{what} {found}; it may wait for answers, and for nothing else")
    return Counter(bench.service.requests()[before:])


async def _once_only(
    bench: Bench,
    switch: Switch,
    what: str,
    work: Callable[[], Awaitable[Any]],
    good: Counter[str],
    *,
    endless: bool = False,
) -> None:
    before = len(bench.service.requests())
    bench.service.set(switch)
    found = await bench.outcome(work)
    made = Counter(bench.service.requests()[before:])
    bench.service.set(None)
    if isinstance(found.error, RateLimited):
        bench.skip(found.error.retry_after_s + 1.0)
    if again := {request: count for request, count in made.items() if count > max(1, good[request])}:
        raise Breach(
            f"with a service that does `{switch}`, {what} made requests again: {again}; raise, and the core tries again"
        )
    if found.kind == "waits" and (made or not endless):
        raise Breach(f"with a service that does `{switch}`, {what} {found}; raise, and the core waits")
