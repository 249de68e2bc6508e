"""The Telegram platform against a server that behaves like the service: in, out, and everything that goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hermes.errors import (
    AddressGone,
    PlatformConflict,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    StoreUnavailable,
    Unreachable,
)
from hermes.events import Activity, Address, AttachmentRef, Button, Content, OutboundFile, Receipt, ReplyRef
from hermes.platform import CommandSpec, Host, Platform, Secret
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.telegram import platform
from platforms.telegram.config import TelegramConfig

ANNA = Address("telegram", "7")
HTML = "telegram_html"
COMMANDS = (CommandSpec(name="help", help="what there is"),)


def config(fake: FakeTelegram, **more: Any) -> TelegramConfig:
    return TelegramConfig(token=Secret(more.pop("token", TOKEN)), base_url=fake.base_url, **more)


@asynccontextmanager
async def connected(fake: FakeTelegram, **more: Any) -> AsyncIterator[Platform]:
    memory = more.pop("memory", None)
    async with (
        open_test_host("telegram", commands=COMMANDS, memory=memory) as host,
        platform.open(config(fake, **more), host) as found,
    ):
        yield found


@asynccontextmanager
async def receiving(found: Platform, inbox: RecordingInbox) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.receive, inbox, dict(inbox.cursors))
        yield
        nursery.cancel_scope.cancel()


async def test_a_connection_is_authenticated_clears_the_way_and_shows_the_commands_once() -> None:
    memory = TestMemory()
    async with open_fake_telegram() as fake:
        fake.webhook = "https://example.org/"
        fake.write(7, "waited")
        for _ in range(2):
            async with connected(fake, memory=memory):
                pass
        assert fake.webhook == ""
        assert len(fake.updates) == 1
        assert fake.commands == [{"command": "help", "description": "what there is"}]
        assert fake.counts["setmycommands"] == 1


async def test_a_bad_token_is_refused_in_words_for_a_person_without_the_token() -> None:
    async with open_fake_telegram() as fake:
        with pytest.raises(PlatformRefused, match="BotFather") as caught:
            async with connected(fake, token="1:wrong"):
                pass
        assert "wrong" not in str(caught.value)


async def test_events_are_committed_before_they_are_confirmed_and_a_restart_goes_on_there() -> None:
    async with open_fake_telegram() as fake, connected(fake, poll_timeout_s=30.0) as found:
        first = fake.write(7, "one")
        inbox = RecordingInbox()
        inbox.hold = trio.Event()
        async with receiving(found, inbox):
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert fake.confirmed == 0
            inbox.hold.set()
            await inbox.until(lambda: inbox.events)
            assert inbox.cursors == {"offset": f"4242 {first + 1}".encode()}
            fake.write(7, "two")
            await inbox.until(lambda: len(inbox.events) == 2)
            assert fake.confirmed == first
        later = RecordingInbox(tuple(inbox.events), inbox.cursors)
        fake.write(7, "three")
        async with receiving(found, later):
            await later.until(lambda: len(later.events) == 3)
        assert [event.text for event in later.events] == ["one", "two", "three"]
        assert later.repeats == 0
        assert fake.most_polling == 1
        assert inbox.promises["poll"] > 30


async def test_what_could_not_be_committed_is_not_confirmed() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.write(7, "one")
        inbox = RecordingInbox()
        inbox.unavailable = True
        with pytest.raises(StoreUnavailable):
            await found.receive(inbox, {})
        assert fake.confirmed == 0
        inbox.unavailable = False
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)


async def test_a_pressed_button_is_confirmed_after_its_commit() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.push({"callback_query": {
            "id": "c1", "from": {"id": 7, "is_bot": False, "first_name": "P"}, "data": "yes",
            "message": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}},
        }})  # fmt: skip
        inbox = RecordingInbox()
        async with receiving(found, inbox):
            await inbox.until(lambda: inbox.events)
            while not fake.counts["answercallbackquery"]:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert inbox.events[0].text == "yes"


@pytest.mark.parametrize(
    ("fault", "raises"),
    [
        (Fault(code=409, description="Conflict: terminated by other getUpdates request"), PlatformConflict),
        (Fault(code=401, description="Unauthorized"), PlatformRefused),
        (Fault(code=429, description="Too Many Requests", parameters={"retry_after": 3}), RateLimited),
        (Fault(code=502, body=b"<html>Bad Gateway</html>"), PlatformUnavailable),
        (Fault(code=200, body=b"<html>the hotel's network</html>"), PlatformProtocolError),
        (Fault(code=200, body=b"[" * 100_000), PlatformProtocolError),
        (Fault(cut_after=20), PlatformUnavailable),
    ],
)
async def test_a_poll_that_fails_says_how(fault: Fault, raises: type[PlatformError]) -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.fail("getUpdates", fault)
        with pytest.raises(raises) as caught:
            await found.receive(RecordingInbox(), {})
        assert TOKEN not in str(caught.value)
        if isinstance(caught.value, RateLimited):
            assert (caught.value.retry_after_s, caught.value.scope) == (3.0, "account")


async def test_what_is_sent_is_shown_with_its_markup_its_buttons_and_what_it_answers() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        content = Content(text="<b>a</b> &amp; b", dialect=HTML, buttons=((Button("Yes", "y"),),), silent=True)
        receipt = await found.send(Address("telegram", "-100", "9"), content, key="k", reply=ReplyRef(message_id="3"))
        shown = fake.shown[-100, int(receipt.message_id)]
        assert shown.text == "a & b"
        assert shown.message["message_thread_id"] == 9
        assert shown.message["reply_markup"]["inline_keyboard"] == [[{"text": "Yes", "callback_data": "y"}]]
        sent = fake.calls[-1].params
        assert sent["reply_parameters"] == {"message_id": 3, "allow_sending_without_reply": True}
        assert sent["disable_notification"] is True
        again = await found.edit(receipt, Content(text="new", dialect=HTML))
        assert await found.edit(again, Content(text="new", dialect=HTML)) == receipt
        assert (shown.text, shown.edits) == ("new", 1)
        plain = await found.send(ANNA, Content(text="1 < 2 & <b>"), key="k", reply=None)
        assert fake.shown[7, int(plain.message_id)].text == "1 < 2 & <b>"


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/png", "photo"), ("image/gif", "animation"), ("audio/ogg", "voice"), ("audio/mpeg", "audio"), ("video/mp4", "video"),
     ("application/pdf", "document")],
)  # fmt: skip
async def test_files_are_sent_as_what_they_are(tmp_path: Path, media_type: str, kind: str) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"0123456789" * 10_000)
    file = OutboundFile(path=path, name="a thing", media_type=media_type, size_bytes=100_000)
    async with open_fake_telegram() as fake, connected(fake) as found:
        receipt = await found.send(ANNA, Content(text="<i>look</i>", dialect=HTML, file=file), key="k", reply=None)
        shown = fake.shown[7, int(receipt.message_id)]
        assert kind in shown.message
        assert shown.file == ("a thing", path.read_bytes())
        assert shown.text == "look"
        await found.edit(receipt, Content(text="better", dialect=HTML))
        assert shown.message["caption"] == "better"


@pytest.mark.parametrize(
    ("fault", "raises", "facts"),
    [
        (Fault(code=429, parameters={"retry_after": 7}), RateLimited, {"retry_after_s": 7.0, "scope": "address"}),
        (Fault(code=429, parameters={"retry_after": "soon"}), RateLimited, {"retry_after_s": 5.0}),
        (Fault(code=403, description="Forbidden: bot was blocked by the user"), AddressGone, {"moved_to": None}),
        (Fault(code=400, description="Bad Request: chat not found"), AddressGone, {}),
        (Fault(code=400, description="Bad Request: group chat was upgraded", parameters={"migrate_to_chat_id": -9}),
         AddressGone, {"moved_to": "-9"}),
        (Fault(code=400, description="Bad Request: can't parse entities"), SendRejected, {}),
        (Fault(code=400, description="Bad Request: not enough rights to send text messages to the chat"), SendRejected, {}),
        (Fault(code=500, description="Internal Server Error"), PlatformUnavailable, {}),
        (Fault(code=401, description="Unauthorized"), PlatformRefused, {}),
        (Fault(code=404, description="Not Found: method not found"), SendRejected, {}),
        (Fault(code=503, body=b"<html>"), PlatformUnavailable, {}),
        (Fault(code=504, body=b"<html>", done=True), SendUncertain, {}),
        (Fault(code=413, body=b"<html>"), SendRejected, {}),
        (Fault(cut_after=10, done=True), SendUncertain, {}),
        (Fault(code=200, body=b"not JSON", done=True), SendUncertain, {}),
    ],
)  # fmt: skip
async def test_a_send_that_fails_says_how(fault: Fault, raises: type[PlatformError], facts: Mapping[str, Any]) -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.fail("sendMessage", fault)
        before = sum(fake.counts.values())
        with pytest.raises(raises) as caught:
            await found.send(ANNA, Content(text="x"), key="k", reply=None)
        assert {name: getattr(caught.value, name) for name in facts} == facts
        assert TOKEN not in str(caught.value)
        assert sum(fake.counts.values()) == before + 1  # no retry


async def test_a_send_to_nobody_who_listens_was_not_sent() -> None:
    async with open_test_host("telegram") as host:
        async with open_fake_telegram() as fake:
            opened = platform.open(config(fake), host)
            found = await opened.__aenter__()
        try:
            with pytest.raises(Unreachable) as caught:
                await found.send(ANNA, Content(text="x"), key="k", reply=None)
            assert not caught.value.sent
        finally:
            await opened.__aexit__(None, None, None)  # noqa: ASYNC102  # leaves what `__aenter__` opened


async def test_what_goes_to_a_channels_direct_messages_names_its_thread() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        await found.send(Address("telegram", "-100", "dm77"), Content(text="x"), key="k", reply=None)
        assert fake.calls[-1].params["direct_messages_topic_id"] == 77
        assert "message_thread_id" not in fake.calls[-1].params


@pytest.mark.parametrize(
    ("media_type", "why"), [("image/png", "PHOTO_INVALID_DIMENSIONS"), ("audio/ogg", "VOICE_MESSAGES_FORBIDDEN")]
)
async def test_a_file_that_is_not_taken_as_what_it_is_goes_as_a_document(
    tmp_path: Path, media_type: str, why: str
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"12345")
    file = OutboundFile(path=path, name="a thing", media_type=media_type, size_bytes=5)
    async with open_fake_telegram() as fake, connected(fake) as found:
        fault = Fault(code=400, description=f"Bad Request: {why}")
        fake.fail("sendPhoto", fault)
        fake.fail("sendVoice", fault)
        receipt = await found.send(ANNA, Content(text="look", file=file), key="k", reply=None)
        assert "document" in fake.shown[7, int(receipt.message_id)].message
        assert len(fake.shown) == 1
        fake.fail("sendDocument", fault)
        fake.fail("sendPhoto", fault)
        fake.fail("sendVoice", fault)
        with pytest.raises(SendRejected):
            await found.send(ANNA, Content(text="look", file=file), key="k", reply=None)


async def test_a_file_has_a_name_whatever_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"12345")
    async with open_fake_telegram() as fake, connected(fake) as found:
        for name, seen in (("", "document"), ("a\udcff\r\nb", "a?%0D%0Ab"), ('"x".pdf', "%22x%22.pdf")):
            file = OutboundFile(path=path, name=name, media_type="a/b", size_bytes=5)
            receipt = await found.send(ANNA, Content(file=file), key="k", reply=None)
            assert fake.shown[7, int(receipt.message_id)].file == (seen, b"12345")


async def test_a_file_that_is_gone_from_our_disk_was_not_sent(tmp_path: Path) -> None:
    file = OutboundFile(path=tmp_path / "none", name="f", media_type="a/b", size_bytes=3)
    async with open_fake_telegram() as fake, connected(fake) as found:
        with pytest.raises(SendRejected):
            await found.send(ANNA, Content(file=file), key="k", reply=None)
        assert not fake.shown


async def test_signs_are_shown() -> None:
    async with open_fake_telegram() as fake, connected(fake) as found:
        receipt = await found.send(ANNA, Content(text="x"), key="k", reply=None)
        await found.signal(ANNA, Activity(kind="typing"))
        await found.signal(ANNA, Activity(kind="reaction", emoji="👍", reply=ReplyRef(message_id=receipt.message_id)))
        assert fake.counts["sendchataction"] == 1
        assert fake.shown[7, int(receipt.message_id)].reactions == [{"type": "emoji", "emoji": "👍"}]


async def test_a_file_is_fetched_up_to_a_bound() -> None:
    file = AttachmentRef(kind="document", ref="f")
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.files["f"] = ("documents/f", b"x" * 300_000)
        async with found.fetch(file, max_bytes=300_000) as pieces:
            assert b"".join([piece async for piece in pieces]) == b"x" * 300_000
        with pytest.raises(SendRejected, match="300000"):
            async with found.fetch(file, max_bytes=299_999):
                pass
        with pytest.raises(SendRejected):
            async with found.fetch(AttachmentRef(kind="document", ref="gone"), max_bytes=10):
                pass
        fake.fail("getFile", Fault(code=200, body=b'{"ok":true,"result":{"file_path":"documents/f"}}'))
        with pytest.raises(SendRejected, match="larger"):
            async with found.fetch(file, max_bytes=1000) as pieces:
                assert [piece async for piece in pieces] == []
        fake.fail("getFile", Fault(code=200, body=b'{"ok":true,"result":{"file_path":"/var/lib/f"}}'))
        with pytest.raises(SendRejected, match="--local"):
            async with found.fetch(file, max_bytes=1000):
                pass
        fake.fail("getFile", Fault(code=200, body=b'{"ok":true,"result":{"file_path":"no\\nsuch?file#\\u0000"}}'))
        with pytest.raises(SendRejected, match="404"):
            async with found.fetch(file, max_bytes=300_000):
                pass
        fake.fail("file", Fault(code=502, body=b"<html>"))
        with pytest.raises(PlatformUnavailable):
            async with found.fetch(file, max_bytes=300_000):
                pass
        fake.fail("getFile", Fault(code=200, body=b'{"ok":true,"result":{"file_path":"../../etc/passwd"}}'))
        with pytest.raises(SendRejected, match=r"not there\Z"):  # and is not asked for
            async with found.fetch(file, max_bytes=10):
                pass


async def test_a_file_that_the_service_cannot_get_now_is_asked_for_again() -> None:
    """It says so of every error of its own behind, limits included; of an id that is none it says `invalid file_id`."""
    why = "Bad Request: wrong file_id or the file is temporarily unavailable"
    async with open_fake_telegram() as fake, connected(fake) as found:
        fake.fail("getFile", Fault(code=400, description=why))
        with pytest.raises(PlatformUnavailable, match="temporarily"):
            async with found.fetch(AttachmentRef(kind="document", ref="f"), max_bytes=10):
                pass


async def test_a_check_sends_nothing_and_tells_what_is_missing() -> None:
    assert platform.check is not None
    async with open_fake_telegram() as fake, open_test_host("telegram") as host:
        fake.webhook = "https://example.org"
        report = await platform.check(config(fake), host)
        assert report.identity == "@hermes_test_bot (id 4242)"
        assert any("privacy mode" in fact for fact in report.facts)
        assert any("webhook" in lack for lack in report.missing)
        assert fake.webhook
        assert set(fake.counts) == {"getme", "getwebhookinfo"}


async def test_a_check_of_a_webhook_says_what_is_in_its_way() -> None:
    assert platform.check is not None
    async with open_fake_telegram() as fake, open_test_host("telegram") as host:
        hooked = config(fake, mode="webhook", webhook_url="https://bot.example.org/")
        assert any("no webhook is set yet" in fact for fact in (await platform.check(hooked, host)).facts)
        fake.webhook = "https://bot.example.org/hooks/telegram/updates"
        assert (await platform.check(hooked, host)).missing == ()
        fake.hook = {"last_error_message": "Connection timed out"}
        assert "timed out" in (await platform.check(hooked, host)).missing[0]
        fake.webhook = "https://bot.example.org.evil.example/"
        assert any("not ours" in lack for lack in (await platform.check(hooked, host)).missing)
        bare = config(fake, mode="webhook")
        assert any("webhook_url" in lack for lack in (await platform.check(bare, host)).missing)
        with pytest.raises(PlatformRefused):
            await platform.check(config(fake, token="1:wrong"), host)


@pytest.mark.wall_clock_s(120)
async def test_everything_ended_at_each_step_leaves_nothing_and_loses_nothing(full: bool, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 100_000)
    file = OutboundFile(path=path, name="a thing", media_type="a/b", size_bytes=100_000)
    async with open_fake_telegram() as fake:
        fake.files["f"] = ("documents/f", b"file")
        inbox = RecordingInbox()

        async def use(host: Host, found: Platform) -> None:
            receipt: Receipt = await found.send(ANNA, Content(text="x"), key="k", reply=None)
            await found.edit(receipt, Content(text=f"y {fake.next_message()}"))
            await found.signal(ANNA, Activity(kind="typing"))
            await found.send(ANNA, Content(file=file), key="k", reply=None)
            async with found.fetch(AttachmentRef(kind="document", ref="f"), max_bytes=10) as pieces:
                assert [piece async for piece in pieces] == [b"file"]

        async def scenario() -> None:
            fake.write(7, "hello")
            seen = len(inbox.events)
            async with (
                open_test_host("telegram", commands=COMMANDS) as host,
                platform.open(config(fake), host) as found,
            ):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(found.receive, inbox, dict(inbox.cursors))
                    await inbox.until(lambda: len(inbox.events) > seen)
                    await use(host, found)
                    nursery.cancel_scope.cancel()

        report = await cancel_at_every_step(
            scenario, ways=("cancel", "deadline", "sibling") if full else ("cancel",), spare_sockets=0, settle_s=2.0
        )
        assert report.runs > 40
        async with connected(fake) as found, receiving(found, inbox):
            await inbox.until(lambda: len(inbox.events) == report.runs + 1 or not fake.updates)
        assert inbox.repeats <= report.runs
        assert len({event.id for event in inbox.events}) == len(inbox.events)
        assert fake.most_polling <= 2  # the server hears of a poll's end a little later
