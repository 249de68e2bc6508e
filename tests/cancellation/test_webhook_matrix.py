"""Calls ended at each of their steps, by the gateway and by the caller: nothing stays, nothing that was accepted is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

import pytest
import trio
import trio.testing

from hermes.errors import RequestError, SendRejected
from hermes.hooks import Hooks
from hermes.platform import Address, Content, Platform, Secret, WebRequest, WebResponse
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_caller import call
from hermes.testing.host import RecordingInbox, TestOutbox, open_test_host
from platforms.webhook import platform
from platforms.webhook.config import Route, WebhookConfig
from platforms.webhook.signing import sign

NOW = 1_700_000_000.0
WAYS = ("cancel", "deadline", "sibling")
CHAT = Address("telegram", "7")
ASK = Route(
    name="ask", signature="bearer", secret=Secret("the-token"), prompt="{text}", answer=True, rate_per_minute=100_000
)
BOTH = Route(
    name="both", signature="bearer", secret=Secret("the-token"), answer=True, deliver=CHAT, rate_per_minute=100_000
)
CONFIG = WebhookConfig(routes=(ASK, BOTH))


def more_than(inbox: RecordingInbox, count: int) -> bool:
    return len(inbox.events) > count


async def answering(found: Platform, inbox: RecordingInbox) -> None:
    """Answer what comes from here on."""
    for seen in count(len(inbox.events)):
        await inbox.until(partial(more_than, inbox, seen))
        event = inbox.events[seen]
        try:
            await found.send(
                event.address, Content(text="yes"), key=f"k{event.id}{event.address.chat}", reply=event.reply
            )
        except SendRejected:  # who asked has left
            assert event.address.chat == "ask"


@pytest.mark.wall_clock_s(120)
async def test_a_caller_that_ends_at_each_step(record: Callable[..., None]) -> None:
    outbox = TestOutbox()
    async with open_test_host("hooks", outbox=outbox) as host:
        inbox, numbers = RecordingInbox(), count(1)

        async def scenario() -> None:
            number = next(numbers)
            async with platform.open(CONFIG, host) as found, trio.open_nursery() as nursery:
                nursery.start_soon(found.receive, inbox, {})
                nursery.start_soon(answering, found, inbox)
                await trio.testing.wait_all_tasks_blocked()
                for route in CONFIG.routes:
                    body = b'{"text":"%d"}' % number
                    headers = sign(route, body, at=NOW, id=str(number))
                    answer = await call(f"{host.base_url}/hooks/{route.name}", body, headers)
                    assert answer is not None
                    assert answer.status == 200
                nursery.cancel_scope.cancel()

        report = await cancel_at_every_step(scenario, ways=WAYS, settle_s=2.0, spare_sockets=2)
        record(
            "Cancellation matrix", "webhooks: a caller that ends at each step", steps=report.steps, endings=report.runs
        )
        assert report.runs > 60
        await scenario()
        assert len(inbox.events) == len({event.key for event in inbox.events})
        assert {to for to, _ in outbox.posted.values()} == {CHAT}


@pytest.mark.wall_clock_s(120)
async def test_a_handler_that_is_ended_at_each_step_lets_nobody_be_answered_for_nothing(
    record: Callable[..., None],
) -> None:
    """Its steps: to know the caller, to commit, to wait, to answer. Who is left alone in the store is named as left."""
    outbox = TestOutbox()
    async with open_test_host("hooks", outbox=outbox) as host:
        hooks: Hooks = host.routes._hooks  # type: ignore[attr-defined]
        inbox, numbers = RecordingInbox(), count(1)
        answers: dict[str, WebResponse] = {}

        async def one(route: Route, number: int) -> None:
            body = b'{"text":"%d"}' % number
            headers = {"content-type": "application/json", **sign(route, body, at=NOW, id=str(number))}
            request = WebRequest(method="POST", query={}, headers=headers, body=body, peer="")
            try:
                found = await hooks.find("", route.name).run(request)
            except RequestError:
                return
            answers[f"{route.name} {number}"] = found

        async def scenario() -> None:
            number = next(numbers)
            async with platform.open(CONFIG, host) as found, trio.open_nursery() as nursery:
                nursery.start_soon(found.receive, inbox, {})
                await trio.testing.wait_all_tasks_blocked()
                async with trio.open_nursery() as callers:
                    for route in (ASK, ASK, BOTH):
                        callers.start_soon(one, route, number)
                    nursery.start_soon(answering, found, inbox)
                nursery.cancel_scope.cancel()

        async def check() -> None:
            answered = {name for name, answer in answers.items() if answer.status == 200}
            committed = {f"{event.address.chat} {event.id}" for event in inbox.events}
            assert answered <= committed
            alone = {f"ask {event.id}" for event in inbox.events if event.attended and event.key not in inbox.departed}
            assert alone <= answered

        report = await cancel_at_every_step(scenario, check=check, ways=WAYS)
        record(
            "Cancellation matrix",
            "webhooks: a handler that is ended at each step lets nobody be answered for nothing",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 40
        await scenario()
        assert len(inbox.events) == len({event.key for event in inbox.events})
