"""Telegram by long polls when numbers fall, bots change, updates repeat, and silence is to be believed or not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hermes.errors import PlatformConflict, PlatformProtocolError, PlatformUnavailable, Unreachable
from hermes.platform import CommandSpec, Platform, Secret
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.telegram import platform
from platforms.telegram.config import TelegramConfig

COMMANDS = (CommandSpec(name="help", help="what there is"),)
EMPTY = Fault(code=200, body=b'{"ok":true,"result":[]}')


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)  # long enough for a loopback exchange


@asynccontextmanager
async def connected(fake: FakeTelegram, **more: Any) -> AsyncIterator[Platform]:
    memory = more.pop("memory", None)
    config = TelegramConfig(token=Secret(TOKEN), base_url=fake.base_url, **more)
    async with (
        open_test_host("telegram", commands=COMMANDS, memory=memory) as host,
        platform.open(config, host) as found,
    ):
        yield found


@asynccontextmanager
async def receiving(found: Platform, inbox: RecordingInbox) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.receive, inbox, dict(inbox.cursors))
        yield
        nursery.cancel_scope.cancel()


async def confirmed(fake: FakeTelegram) -> None:
    while fake.updates:
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_numbers_that_begin_anew_below_the_offset_are_received_and_confirmed() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        inbox = RecordingInbox(cursors={"offset": b"4242 900000"})
        fake.write(7, "after a quiet week")
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
            await confirmed(fake)
            fake.write(7, "and on")
            await inbox.until(lambda: len(inbox.events) == 2)
        assert inbox.cursors["offset"] == b"4242 1002"
        assert inbox.repeats == 0


@pytest.mark.parametrize("cursor", [b"9999 1002", b"garbage", b"", b"1002", b"4242 x"])
async def test_where_another_bot_was_says_nothing_about_this_one(cursor: bytes) -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        inbox = RecordingInbox(cursors={"offset": cursor})
        fake.write(7, "mine")
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert fake.calls[2].method == "setMyCommands"
        assert "offset" not in fake.calls[3].params


async def test_what_is_written_to_another_bot_is_no_repeat_of_what_was_written_to_the_one_before() -> None:
    """Each bot counts the messages of its direct chats by itself, from one."""
    async with open_fake_telegram() as fake:
        inbox = RecordingInbox()
        fake.write(7, "to the first", message_id=5)
        async with connected(fake) as found, receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        fake.updates.clear()
        other = {"ok": True, "result": {"id": 5, "is_bot": True, "first_name": "Other", "username": "other_bot"}}
        fake.fail("getMe", Fault(code=200, body=json.dumps(other).encode()))
        fake.write(7, "to the second", message_id=5)
        async with connected(fake) as found, receiving(found, inbox):
            await inbox.until(lambda: inbox.deliveries == 2)
        assert [event.text for event in inbox.events] == ["to the first", "to the second"]


async def test_another_bot_is_shown_the_commands_too() -> None:
    memory = TestMemory()
    async with open_fake_telegram() as fake:
        async with connected(fake, memory=memory):
            pass
        other = {"ok": True, "result": {"id": 5, "is_bot": True, "first_name": "Other", "username": "other_bot"}}
        fake.fail("getMe", Fault(code=200, body=json.dumps(other).encode()))
        async with connected(fake, memory=memory):
            pass
        assert fake.counts["setmycommands"] == 2


async def test_updates_that_come_again_are_committed_once() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            numbers = [fake.write(7, str(text)) for text in range(3)]
            await inbox.until(lambda: len(inbox.events) == 3)
            await confirmed(fake)
            fake.repeat(*reversed(numbers))
            await inbox.until(lambda: inbox.repeats >= 3)
            await confirmed(fake)
            fake.write(7, "new")
            await inbox.until(lambda: len(inbox.events) == 4)
        assert [event.text for event in inbox.events] == ["0", "1", "2", "new"]


async def test_what_is_malformed_is_passed_over_with_its_number_and_told() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        for bad in ({"message": {"chat": 5}}, {"message": {"message_id": "x" * 10_000}}, {"callback_query": {}}):
            fake.push(bad)
        fake.write(7, "good")
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
            await confirmed(fake)
        assert [event.text for event in inbox.events] == ["good"]
        assert 2 <= len(inbox.quarantined) <= 3
        assert all(because and isinstance(sample, dict) for because, sample in inbox.quarantined)


async def test_a_batch_is_read_whatever_the_size_of_its_updates() -> None:
    """Else it would be asked for again and again, until the service forgets it after a day."""
    async with open_fake_telegram() as fake, connected(fake) as found:
        for number in range(40):
            fake.write(7, str(number), entities=["x" * 500_000])
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert [event.text for event in inbox.events] == [str(number) for number in range(40)]


async def test_updates_without_numbers_cannot_be_confirmed_and_are_no_protocol() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.fail("getUpdates", Fault(code=200, body=b'{"ok":true,"result":[{"message":{}}, 5]}'))
        with pytest.raises(PlatformProtocolError, match="without numbers"):
            await found.receive(RecordingInbox(), {})


async def test_an_update_that_came_just_as_one_asked_is_no_reason_to_doubt() -> None:
    async with open_fake_telegram() as fake, connected(fake, quiet_s=1e-9, poll_timeout_s=1.0) as found:
        fake.write(7, "just now")
        fake.fail("getUpdates", EMPTY)
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert fake.counts["getwebhookinfo"] <= 2


async def test_polls_that_bring_nothing_while_updates_wait_are_no_connection() -> None:
    async with open_fake_telegram() as fake, connected(fake, quiet_s=0.001) as found:
        fake.standing["getUpdates"] = EMPTY
        fake.write(7, "stuck")
        inbox = RecordingInbox()
        with pytest.raises(PlatformUnavailable, match="1 updates wait") as raised:
            await found.receive(inbox, {})
        assert raised.value.silent == "updates"
        assert "updates" not in inbox.promises


@pytest.mark.parametrize("result", [b"[]", b'[{"update_id":5,"message":7}]'])
async def test_a_server_that_brings_nothing_new_at_once_is_not_asked_without_a_pause(
    clock: trio.testing.MockClock, result: bytes
) -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.standing["getUpdates"] = Fault(code=200, body=b'{"ok":true,"result":' + result + b"}")
        async with receiving(found, RecordingInbox()):
            await trio.sleep(10)
        assert 5 <= fake.counts["getupdates"] <= 12


async def test_the_first_quiet_poll_is_proven() -> None:
    async with open_fake_telegram() as fake, connected(fake, poll_timeout_s=1.0) as found:
        fake.fail("getUpdates", EMPTY)
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            await inbox.until(lambda: "updates" in inbox.promises)
        assert inbox.promises["updates"] > 900


async def test_a_poll_that_is_never_answered_ends_in_time(clock: trio.testing.MockClock) -> None:
    async with open_fake_telegram() as fake, connected(fake, poll_timeout_s=1.0) as found:
        fake.standing["getUpdates"] = Fault(hang=True)
        inbox = RecordingInbox()
        with pytest.raises(Unreachable):
            await found.receive(inbox, {})
        assert trio.current_time() >= 16
        assert not inbox.promises


async def test_a_poll_of_somebody_else_ends_ours_and_is_named() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found, connected(fake) as other:
        async with trio.open_nursery() as nursery:

            async def later() -> None:
                while not fake.polling:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.start_soon(other.receive, RecordingInbox(), {})

            nursery.start_soon(later)
            with pytest.raises(PlatformConflict, match="somebody else"):
                await found.receive(RecordingInbox(), {})
            nursery.cancel_scope.cancel()


async def test_a_webhook_that_another_program_has_set_is_a_conflict_once() -> None:
    """It stays set when that program has ended: the next run of the same connection takes it away."""
    async with open_fake_telegram() as fake, connected(fake) as found:
        inbox = RecordingInbox()

        async def later() -> None:
            while not fake.polling:
                await trio.testing.wait_all_tasks_blocked(0.01)
            fake.webhook = "https://other.example.org/"
            fake.notify()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            with pytest.raises(PlatformConflict, match=r"somebody else.*setWebhook"):
                await found.receive(inbox, {})
        assert fake.webhook
        fake.write(7, "waits")
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
        assert fake.webhook == ""


async def test_a_button_that_cannot_be_answered_stops_nothing() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.standing["answerCallbackQuery"] = Fault(code=502, body=b"<html>")
        for number in range(20):
            fake.push({"callback_query": {
                "id": f"c{number}", "from": {"id": 7, "is_bot": False, "first_name": "P"}, "data": "yes",
                "message": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}},
            }})  # fmt: skip
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == 20)
            fake.write(7, "on")
            await inbox.until(lambda: len(inbox.events) == 21)
        assert fake.counts["answercallbackquery"] == 20


@pytest.mark.parametrize("method", ["getMe", "getWebhookInfo", "deleteWebhook"])
async def test_a_limit_at_the_start_is_a_connection_that_cannot_be_had_yet(method: str) -> None:
    async with open_fake_telegram() as fake:
        fake.webhook = "https://example.org"
        fake.fail(method, Fault(code=429, description="Too Many Requests", parameters={"retry_after": 33}))
        with pytest.raises(PlatformUnavailable) as caught:
            async with connected(fake):
                pass
        assert caught.value.retry_after_s == 33.0


@pytest.mark.parametrize(
    "fault",
    [Fault(code=429), Fault(code=502, body=b"x"), Fault(cut_after=3), Fault(code=400), Fault(code=200, body=b"x")],
)
async def test_a_menu_that_is_not_shown_stops_nothing_and_is_shown_next_time(fault: Fault) -> None:
    memory = TestMemory()
    async with open_fake_telegram() as fake:
        fake.fail("setMyCommands", fault)
        for _ in range(2):
            async with connected(fake, memory=memory):
                pass
        assert fake.counts["setmycommands"] == 2
        assert fake.commands


async def test_drafts_can_be_switched_off() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found, connected(fake, drafts=False) as plain:
        assert (found.capabilities.drafts, plain.capabilities.drafts) == (True, False)
