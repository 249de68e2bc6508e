"""Telegram by webhook: who may bring updates, what is answered when, and how a webhook that nothing reaches is found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hermes.errors import PlatformConflict, PlatformRefused, PlatformUnavailable
from hermes.platform import HttpAnswer, HttpClient, Platform, Secret
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.host import RecordingInbox, TestHost, open_test_host
from platforms.telegram import platform
from platforms.telegram.config import TelegramConfig
from platforms.telegram.webhook import secret_of

PATH = "/hooks/telegram/updates"
HEADER = "X-Telegram-Bot-Api-Secret-Token"


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)  # long enough for a loopback exchange


def config(fake: FakeTelegram, base_url: str | None, **more: Any) -> TelegramConfig:
    return TelegramConfig(token=Secret(TOKEN), base_url=fake.base_url, mode="webhook", webhook_url=base_url, **more)


@asynccontextmanager
async def connected(fake: FakeTelegram, **more: Any) -> AsyncIterator[tuple[Platform, TestHost]]:
    async with (
        open_test_host("telegram") as host,
        platform.open(config(fake, host.base_url, **more), host) as found,
    ):
        yield found, host


@asynccontextmanager
async def receiving(found: Platform, inbox: RecordingInbox, fake: FakeTelegram) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.receive, inbox, {})
        while not fake.webhook:
            await fake.changed()
        yield
        nursery.cancel_scope.cancel()


async def call(http: HttpClient, host: TestHost, secret: str, body: bytes, method: str = "POST") -> HttpAnswer:
    return await http.request(
        method, host.base_url + PATH, headers={HEADER: secret}, content=body or None, timeout_s=10
    )


async def test_updates_are_committed_before_they_are_taken() -> None:
    async with open_fake_telegram() as fake, connected(fake) as (found, host):
        fake.retry_s = fake.longest_retry_s = 0.01
        first = fake.write(7, "waited")
        inbox = RecordingInbox()
        inbox.hold = trio.Event()
        async with receiving(found, inbox, fake):
            assert fake.webhook == host.base_url + PATH
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert fake.confirmed == 0
            inbox.hold.set()
            fake.write(7, "second")
            while fake.updates:
                await fake.changed()
            assert [event.text for event in inbox.events] == ["waited", "second"]
            assert fake.confirmed == first + 1
            assert inbox.promises["webhook"] > 60
        assert fake.webhook  # what comes later waits for us
        assert fake.counts["getupdates"] == fake.counts["deletewebhook"] == 0


async def test_what_could_not_be_committed_comes_again() -> None:
    async with open_fake_telegram() as fake, connected(fake) as (found, _):
        fake.retry_s = fake.longest_retry_s = 0.01
        inbox = RecordingInbox()
        inbox.unavailable = True
        async with receiving(found, inbox, fake):
            fake.write(7, "hello")
            while "503" not in fake.hook.get("last_error_message", ""):
                await fake.changed()
            inbox.unavailable = False
            await inbox.until(lambda: inbox.events)
        assert inbox.repeats == 0


async def test_nobody_but_the_service_is_heard() -> None:
    update = b'{"update_id":1,"message":{"message_id":1,"date":1,"chat":{"id":7,"type":"private"},"from":{"id":7},"text":"x"}}'
    async with open_fake_telegram() as fake, connected(fake) as (found, host), host.http() as http:
        inbox = RecordingInbox()
        async with receiving(found, inbox, fake):
            secret = secret_of(config(fake, host.base_url))
            assert TOKEN not in secret
            for wrong in ("", "x", secret[:-1], secret + "x"):
                assert (await call(http, host, wrong, update)).status == 403
            assert (await call(http, host, secret, b"", "GET")).status == 405
            for garbage in (b"", b"[", b"[" * 100_000, b"5", b'{"update_id":1,"message":5}', b"\xff", b"{}"):
                assert (await call(http, host, secret, garbage)).status == 200
            assert not inbox.events
            assert (await call(http, host, secret, update)).status == 200
            assert (await call(http, host, secret, update)).status == 200
        assert (len(inbox.events), inbox.repeats) == (1, 1)
        assert (await call(http, host, secret, update)).status == 404  # nobody receives


async def test_a_pressed_button_is_confirmed_by_the_answer() -> None:
    async with open_fake_telegram() as fake, connected(fake) as (found, _):
        inbox = RecordingInbox()
        async with receiving(found, inbox, fake):
            fake.push({"callback_query": {
                "id": "c1", "from": {"id": 7, "is_bot": False, "first_name": "P"}, "data": "yes",
                "message": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}},
            }})  # fmt: skip
            while not fake.pressed:
                await fake.changed()
        assert (inbox.events[0].text, fake.pressed) == ("yes", ["c1"])


async def test_a_secret_of_ones_own_is_used() -> None:
    async with open_fake_telegram() as fake, connected(fake, webhook_secret=Secret("my-own")) as (found, _):
        inbox = RecordingInbox()
        async with receiving(found, inbox, fake):
            fake.write(7, "hello")
            await inbox.until(lambda: inbox.events)
        assert fake.hook["secret_token"] == "my-own"


@pytest.mark.parametrize(
    ("more", "words"), [({"webhook_secret": Secret("not this")}, "webhook_secret"), ({"url": None}, "webhook_url")]
)
async def test_what_cannot_work_is_refused_when_it_is_opened(more: dict[str, Any], words: str) -> None:
    async with open_fake_telegram() as fake, open_test_host("telegram") as host:
        url = more.pop("url", host.base_url)
        with pytest.raises(PlatformRefused, match=words):
            async with platform.open(config(fake, url, **more), host):
                pass


@pytest.mark.parametrize(
    ("words", "raises"),
    [
        ("Bad Request: bad webhook: An HTTPS URL must be provided for webhook", PlatformRefused),
        ("Bad Request: bad webhook: Webhook can be set up only on ports 80, 88, 443 or 8443", PlatformRefused),
        ("Bad Request: bad webhook: Failed to resolve host: Temporary failure in name resolution", PlatformUnavailable),
        ("Bad Request: bad webhook: No route to host", PlatformUnavailable),
        ("Bad Request: bad webhook: Network is unreachable", PlatformUnavailable),
        ("Bad Request: bad webhook: Host is down", PlatformUnavailable),
    ],
)
async def test_a_webhook_that_the_service_does_not_take_says_why(words: str, raises: type[Exception]) -> None:
    async with open_fake_telegram() as fake, connected(fake) as (found, _):
        fake.fail("setWebhook", Fault(code=400, description=words))
        with pytest.raises(raises, match="bad webhook"):
            await found.receive(RecordingInbox(), {})


async def test_a_webhook_that_nothing_reaches_is_no_connection(clock: trio.testing.MockClock) -> None:
    async with open_fake_telegram() as fake, open_test_host("telegram") as host:
        nowhere = config(fake, "http://127.0.0.1:1", quiet_s=2.0)
        async with platform.open(nowhere, host) as found:
            fake.write(7, "hello")
            with pytest.raises(PlatformUnavailable, match=r"1 updates wait .* Connection refused"):
                await found.receive(RecordingInbox(), {})
    assert trio.current_time() >= 2


async def test_the_service_may_pause_for_two_minutes_before_it_brings_an_update_again(
    clock: trio.testing.MockClock,
) -> None:
    """Its longest pause is twice as long as ours between two looks (tdlib/telegram-bot-api, WebhookActor.cpp)."""
    async with open_fake_telegram() as fake, connected(fake) as (found, _):
        fake.retry_s = fake.longest_retry_s = 119.0
        inbox = RecordingInbox()
        inbox.unavailable = True
        async with receiving(found, inbox, fake):
            await trio.sleep(50)  # so that a whole minute between two looks is within the pause
            fake.write(7, "hello")
            while "503" not in fake.hook.get("last_error_message", ""):
                await fake.changed()
            inbox.unavailable = False
            await inbox.until(lambda: inbox.events)
        assert fake.counts["setwebhook"] == 1
        assert trio.current_time() > 160


async def test_a_webhook_that_another_program_changed_is_a_conflict(clock: trio.testing.MockClock) -> None:
    async with open_fake_telegram() as fake, connected(fake, quiet_s=2.0) as (found, _), trio.open_nursery() as nursery:

        async def interfere() -> None:
            while not fake.webhook:
                await fake.changed()
            fake.webhook = "https://example.org"

        nursery.start_soon(interfere)
        with pytest.raises(PlatformConflict):
            await found.receive(RecordingInbox(), {})


async def test_a_quiet_webhook_goes_on(clock: trio.testing.MockClock) -> None:
    async with open_fake_telegram() as fake, connected(fake, quiet_s=2.0) as (found, _):
        inbox = RecordingInbox()
        async with receiving(found, inbox, fake):
            while fake.counts["getwebhookinfo"] < 3:
                await fake.changed()
            fake.write(7, "hello")
            await inbox.until(lambda: inbox.events)
        assert fake.counts["setwebhook"] == 1


@pytest.mark.wall_clock_s(120)
async def test_a_webhook_ended_at_each_step_leaves_nothing_and_loses_nothing(full: bool) -> None:
    async with open_fake_telegram() as fake:
        fake.retry_s = fake.longest_retry_s = 0.01
        inbox = RecordingInbox()

        async def scenario() -> None:
            fake.webhook = ""
            fake.write(7, "hello")
            seen = len(inbox.events)
            async with connected(fake) as (found, _), trio.open_nursery() as nursery:
                nursery.start_soon(found.receive, inbox, {})
                await inbox.until(lambda: len(inbox.events) > seen)
                nursery.cancel_scope.cancel()

        report = await cancel_at_every_step(
            scenario, ways=("cancel", "deadline", "sibling") if full else ("cancel",), spare_sockets=1, settle_s=2.0
        )
        assert report.runs > 30
        fake.webhook = ""
        async with connected(fake) as (found, _), receiving(found, inbox, fake):
            while fake.updates:
                await fake.changed()
        assert len({event.id for event in inbox.events}) == len(inbox.events) >= report.runs
