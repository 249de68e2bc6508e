"""Routes over real sockets: who is let in, in which order that is judged, who is answered what, and what a repetition gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
import trio.testing

from hermes.errors import (
    AddressGone,
    PlatformConflict,
    PlatformRefused,
    PlatformUnavailable,
    SendRejected,
    StoreUnavailable,
    leaves,
)
from hermes.platform import Address, AttachmentRef, Content, InboundEvent, Platform, Receipt, Secret
from hermes.testing import LeakCensus
from hermes.testing.census import settle
from hermes.testing.fake_caller import Answered, call
from hermes.testing.host import RecordingInbox, TestHost, TestOutbox, open_test_host
from platforms.webhook import platform
from platforms.webhook.config import Route, WebhookConfig
from platforms.webhook.signing import sign

NOW = 1_700_000_000.0
CHAT = Address("telegram", "7")
ASK = Route(name="ask", signature="bearer", secret=Secret("the-token"), prompt="{text}", answer=True)
TELL = Route(name="tell", signature="github", secret=Secret("the-secret"), prompt="{text}", deliver=CHAT)
BOTH = replace(ASK, name="both", deliver=CHAT)
TIMED = replace(TELL, name="timed", signature="slack")


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)  # long enough for a loopback exchange


@dataclass
class Place:
    found: Platform
    host: TestHost
    inbox: RecordingInbox
    outbox: TestOutbox

    async def call(
        self, route: Route, body: bytes = b'{"text":"hello"}', *, name: str = "1", at: float = NOW, **more: str
    ) -> Answered:
        headers = {**sign(route, body, at=at, id=name), **{key.replace("_", "-"): value for key, value in more.items()}}
        return await self.raw(route.name, body, headers)

    async def raw(self, path: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> Answered:
        answer = await call(f"{self.host.base_url}/hooks/{path}", body, headers, method=method)
        assert answer is not None
        return answer

    async def event(self, count: int = 1) -> InboundEvent:
        await self.inbox.until(lambda: len(self.inbox.events) >= count)
        return self.inbox.events[count - 1]

    async def reply(self, event: InboundEvent, text: str, *, failed: bool = False, key: str = "k") -> Receipt:
        return await self.found.send(event.address, Content(text=text, failed=failed), key=key, reply=event.reply)


@asynccontextmanager
async def served(*routes: Route, inbox: RecordingInbox | None = None) -> AsyncIterator[Place]:
    inbox, outbox = inbox or RecordingInbox(), TestOutbox()
    config = WebhookConfig(routes=routes or (ASK, TELL, BOTH, TIMED))
    async with (
        open_test_host("hooks", outbox=outbox) as host,
        platform.open(config, host) as found,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(found.receive, inbox, {})
        await trio.testing.wait_all_tasks_blocked()
        yield Place(found, host, inbox, outbox)
        nursery.cancel_scope.cancel()


async def test_a_call_is_committed_before_it_is_accepted_and_a_repetition_is_known() -> None:
    async with served() as place:
        place.inbox.hold = trio.Event()
        answers: list[Answered] = []

        async def tell() -> None:
            answers.append(await place.call(TELL, name="d-1"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not answers
            place.inbox.hold.set()
        assert (answers[0].status, answers[0].fields) == (202, {"status": "accepted", "id": "d-1"})
        again = await place.call(TELL, name="d-1")
        assert (again.status, again.fields) == (200, {"status": "known"})
        assert [(event.id, event.text, event.attended) for event in place.inbox.events] == [("d-1", "hello", False)]


async def test_nobody_is_heard_without_the_secret_and_nothing_of_it_is_looked_at() -> None:
    async with served() as place:
        good = sign(TELL, b"{}", at=NOW, id="1")
        for headers in ({}, {**good, "x-hub-signature-256": "sha256=" + "0" * 64}, {"x-hub-signature-256": "ä"}):
            assert (await place.raw("tell", b"{}", headers)).status == 401
        assert (await place.raw("tell", b'{"a":1}', good)).status == 401
        assert (await place.raw("ask", b"[" * 100_000, {"authorization": "Bearer the-tokem"})).status == 401
        for path, method, status in (("tell", "GET", 405), ("nowhere", "POST", 404), ("hooks/tell", "POST", 404)):
            assert (await place.raw(path, b"{}", good, method)).status == status
        assert not place.inbox.events


async def test_the_size_comes_before_the_signature_and_the_signature_before_everything() -> None:
    small = replace(TIMED, name="small", max_body_bytes=20, rate_per_minute=1)
    async with served(small) as place:
        large = b'{"text":"0123456789"}'
        assert (await place.call(small, large)).status == 413
        assert (await place.raw("small", b"[", {"x-slack-signature": "v0=1"})).status == 401
        assert (await place.call(small, b"[", at=NOW - 301)).status == 401  # too old, and garbage
        assert (await place.call(small, b"[")).status == 400  # the one of this minute
        late = await place.call(small, b"[[")
        assert (late.status, late.headers["retry-after"]) == (429, "60")
        assert not place.inbox.events
    async with served(replace(TELL, rate_per_minute=1)) as place:
        assert (await place.call(TELL, b"[")).status == 400
        assert (await place.call(TELL, b"[", name="recorded")).status == 409  # a replay, before it is one too many
        assert (await place.call(TELL, b"[")).status == 429


async def test_an_old_call_and_a_recorded_one_are_refused() -> None:
    async with served() as place:
        for at in (NOW - 301, NOW + 301):
            assert (await place.call(TIMED, at=at)).fields == {"error": "the signed time is too far from now"}
        assert (await place.call(TIMED, at=NOW - 299)).status == 202
        assert (await place.call(TELL, name="first")).status == 202
        replayed = await place.call(TELL, name="second")
        assert (replayed.status, len(place.inbox.events)) == (409, 2)
        assert (await place.call(TELL, b'{"text":"other"}', name="second")).status == 202


async def test_what_cannot_be_kept_is_to_be_sent_again() -> None:
    async with served() as place:
        place.inbox.unavailable = True
        for route in (TELL, ASK):
            answer = await place.call(route)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        place.inbox.unavailable = False
        assert (await place.call(TELL)).status == 202
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.call, ASK)
            await place.reply(await place.event(2), "now")


async def test_a_caller_waits_for_its_reply() -> None:
    async with served() as place:
        answers: dict[str, Answered] = {}

        async def ask(name: str) -> None:
            answers[name] = await place.call(ASK, name=name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "one")
            first = await place.event()
            nursery.start_soon(ask, "two")
            second = await place.event(2)
            assert first.attended
            await place.reply(second, "for *two*")
            await place.reply(first, "for one")
        assert (answers["one"].status, answers["one"].fields) == (200, {"id": "one", "reply": "for one"})
        assert answers["two"].fields == {"id": "two", "reply": "for *two*"}
        again = await place.call(ASK, name="one")
        assert again.fields == {"id": "one", "reply": "for one"}
        assert (len(place.inbox.events), place.inbox.departed) == (2, [])
        with pytest.raises(SendRejected, match="nobody waits"):
            await place.reply(first, "and one thing more")


async def test_who_repeats_a_call_while_it_is_answered_hears_the_same() -> None:
    async with served() as place:
        answers: list[Answered] = []

        async def ask() -> None:
            answers.append(await place.call(ASK))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            event = await place.event()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await place.reply(event, "no", failed=True)
        assert [(each.status, each.fields["error"]) for each in answers] == [(500, "no")] * 2
        assert (place.inbox.deliveries, place.inbox.departed) == (1, [])


async def test_what_an_earlier_process_answered_is_not_answered_again() -> None:
    inbox = RecordingInbox()
    async with served(inbox=inbox) as place:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.call, ASK)
            await place.reply(await place.event(), "yes")
    async with served(inbox=inbox) as place:
        answer = await place.call(ASK)
        assert (answer.status, len(inbox.events)) == (409, 1)


async def test_a_caller_that_leaves_ends_what_it_asked_for() -> None:
    async with served() as place:
        body = b'{"text":"hello"}'
        head = "".join(f"{name}: {value}\r\n" for name, value in sign(ASK, body, at=NOW, id="1").items())
        port = int(place.host.base_url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            start = f"POST /hooks/ask HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n"
            await stream.send_all(start.encode() + body)
            event = await place.event()
        await place.inbox.until(lambda: place.inbox.departed)
        assert place.inbox.departed == [event.key]
        with pytest.raises(SendRejected, match="nobody waits"):
            await place.reply(event, "too late")


async def test_who_repeats_a_call_that_goes_on_without_them_hears_its_reply(clock: trio.testing.MockClock) -> None:
    async with served(replace(BOTH, answer_timeout_s=5)) as place:
        assert (await place.call(BOTH)).status == 504
        answers: list[Answered] = []

        async def again() -> None:
            answers.append(await place.call(BOTH))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await place.reply(place.inbox.events[0], "yes")
        await again()
        assert [(each.status, each.fields.get("reply")) for each in answers] == [(200, "yes")] * 2
        assert (place.inbox.deliveries, place.inbox.departed) == (1, [])


async def test_who_does_not_hear_in_time_is_told_so(clock: trio.testing.MockClock) -> None:
    async with served(replace(ASK, answer_timeout_s=5), replace(BOTH, answer_timeout_s=5)) as place:
        late = await place.call(ASK)
        assert (late.status, late.fields) == (504, {"error": "there was no reply in time"})
        assert place.inbox.departed == [place.inbox.events[0].key]
        assert (await place.call(BOTH)).status == 504
        assert len(place.inbox.departed) == 1  # it goes on: the reply is wanted elsewhere
        await place.reply(place.inbox.events[1], "later")
        assert place.outbox.posted == {"k": (CHAT, "later")}


async def test_a_reply_goes_where_the_route_says_and_to_the_caller() -> None:
    async with served() as place:
        await place.call(TELL)
        receipt = await place.reply(await place.event(), "**told**", key="k1")
        assert (receipt.message_id, receipt.address.chat) == ("k1", "tell")
        answers: list[Answered] = []

        async def ask() -> None:
            answers.append(await place.call(BOTH))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            event = await place.event(2)
            place.outbox.error = PlatformUnavailable("the store is away")
            with pytest.raises(PlatformUnavailable):
                await place.reply(event, "both", key="k2")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not answers
            place.outbox.error = None
            await place.reply(event, "both", key="k2")
        assert answers[0].fields["reply"] == "both"
        await place.reply(event, "both", key="k2")  # an attempt whose end was not written
        assert list(place.outbox.posted.values()) == [(CHAT, "**told**"), (CHAT, "both")]


async def test_filters_and_trials_cost_no_turn() -> None:
    slack = replace(TIMED, events=("app_mention",))
    async with served(replace(TELL, when=(("text", ("bye*",)),)), slack) as place:
        assert (await place.call(TELL)).fields == {"status": "ignored"}
        assert (await place.call(TELL, b'{"text":"bye bye"}', name="2")).status == 202
        challenge = await place.call(slack, b'{"type":"url_verification","challenge":"3eZbrw1aB"}')
        assert (challenge.status, challenge.body) == (200, b"3eZbrw1aB")
        assert (await place.call(slack, b'{"type":"event_callback","event":{"type":"reaction"}}')).status == 200
        assert len(place.inbox.events) == 1


async def test_so_many_in_a_minute(clock: trio.testing.MockClock) -> None:
    async with served(replace(TELL, rate_per_minute=6)) as place:
        statuses = [(await place.call(TELL, b'{"n":%d}' % n, name=str(n))).status for n in range(8)]
        assert statuses == [202] * 6 + [429] * 2
        await trio.sleep(10)
        assert (await place.call(TELL, b'{"n":9}', name="9")).status == 202


async def test_a_route_has_one_account() -> None:
    async with open_test_host("hooks") as host:
        other = replace(host, account="more", routes=_routes_of(host, "more"))
        config = WebhookConfig(routes=(TELL, ASK))
        async with platform.open(config, host) as first, platform.open(WebhookConfig(routes=(ASK,)), other) as second:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.receive, RecordingInbox(), {})
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(ExceptionGroup) as raised:
                    await second.receive(RecordingInbox(), {})
                (error,) = leaves(raised.value)
                assert isinstance(error, PlatformConflict)
                assert "the account hooks serves the route /hooks/ask already" in str(error)
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:  # it is free again
                nursery.start_soon(second.receive, RecordingInbox(), {})
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


def _routes_of(host: TestHost, account: str) -> Any:
    return type(host.routes)(host.routes._hooks, account)  # type: ignore[attr-defined]


async def test_what_cannot_be_delivered_is_refused() -> None:
    async with open_test_host("hooks") as host:
        with pytest.raises(PlatformRefused, match="delivers to its own account"):
            async with platform.open(WebhookConfig(routes=(replace(TELL, deliver=Address("hooks", "ask")),)), host):
                pass
    async with served() as place:
        with pytest.raises(AddressGone, match="no route gone"):
            await place.found.send(Address("hooks", "gone"), Content(text="x"), key="k", reply=None)
        with pytest.raises(SendRejected):
            await place.found.edit(Receipt(message_id="k", address=Address("hooks", "tell")), Content(text="x"))
        with pytest.raises(SendRejected):
            async with place.found.fetch(AttachmentRef(kind="document", ref="x"), max_bytes=1):
                pass


async def test_the_check_says_what_is_served() -> None:
    assert platform.check is not None
    async with open_test_host("hooks") as host:
        report = await platform.check(WebhookConfig(routes=(ASK, BOTH)), host)
    assert report.identity == "2 routes of hooks"
    assert report.facts[1] == "POST /hooks/both, signed by bearer; the reply goes to the caller and telegram:7"


async def test_a_flood_of_refusals_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as place:
        for _ in range(30):
            assert (await place.raw("tell", b"{}", {})).status == 401
    lines = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert len(lines) == 1
    assert "the-secret" not in lines[0]


async def test_five_hundred_failed_attempts_leave_nothing() -> None:
    """Each attempt opens, serves one route, and finds the other taken."""

    async def attempt(host: TestHost) -> None:
        async with platform.open(WebhookConfig(routes=(TELL, ASK)), host) as found:
            with pytest.raises(ExceptionGroup):
                await found.receive(RecordingInbox(), {})

    async with served(ASK) as place:
        other = replace(place.host, account="more", routes=_routes_of(place.host, "more"))
        for _ in range(50):
            await attempt(other)
        before = LeakCensus.take()
        for _ in range(450):
            await attempt(other)
        assert not await settle(lambda: LeakCensus.take().growth_since(before), 2.0)


async def test_a_store_that_goes_away_while_a_call_waits_is_no_answer() -> None:
    async with served() as place:
        failures: list[Exception] = []

        def away(moment: str) -> None:
            if moment == "asked" and not failures:
                failures.append(StoreUnavailable("io"))
                raise failures[0]

        place.inbox.at = away
        assert (await place.call(ASK)).status == 503
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.call, ASK)
            await place.reply(await place.event(), "yes")
