"""The fake Telegram, judged by the service's own client library: what that accepts, and how it understands what goes wrong."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import telegram
import telegram.error
import telegram.request
import telegram.warnings
import trio

from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.wire_server import WireAnswer, WireRequest, open_wire_server

Job = Callable[[telegram.Bot], Awaitable[Any]]


async def sdk(fake: FakeTelegram, job: Job, token: str = TOKEN) -> Any:
    """Run the library, which needs a loop of its own, in a thread."""

    async def main() -> Any:
        request = telegram.request.HTTPXRequest(read_timeout=5, connect_timeout=5)
        bot = telegram.Bot(
            token, base_url=f"{fake.base_url}/bot", base_file_url=f"{fake.base_url}/file/bot", request=request,
            get_updates_request=telegram.request.HTTPXRequest(read_timeout=5),
        )  # fmt: skip
        async with bot:
            return await job(bot)

    return await trio.to_thread.run_sync(lambda: asyncio.run(main()))


async def test_it_is_a_bot_with_commands_and_a_webhook_that_can_be_taken_away() -> None:
    async with open_fake_telegram() as fake:
        fake.webhook = "https://example.org/hook"

        async def job(bot: telegram.Bot) -> None:
            assert (await bot.get_me()).username == "hermes_test_bot"
            assert (await bot.get_webhook_info()).url == "https://example.org/hook"
            with pytest.raises(telegram.error.Conflict, match="while webhook is active"):
                await bot.get_updates()
            assert await bot.delete_webhook()
            assert await bot.set_my_commands([telegram.BotCommand("help", "what there is")])
            with pytest.raises(telegram.error.BadRequest):
                await bot.set_my_commands([telegram.BotCommand("Not One", "what")])

        await sdk(fake, job)
        assert fake.commands == [{"command": "help", "description": "what there is"}]


async def test_updates_come_until_they_are_confirmed() -> None:
    async with open_fake_telegram() as fake:
        fake.write(7, "hello")
        fake.write(7, "again", chat={"id": -100, "type": "supergroup", "title": "Room", "is_forum": True})
        fake.push({"callback_query": {
            "id": "c1", "from": {"id": 7, "is_bot": False, "first_name": "P"}, "chat_instance": "x", "data": "yes",
            "message": {"message_id": 1, "date": 1_700_000_000, "chat": {"id": 7, "type": "private"}},
        }})  # fmt: skip

        async def job(bot: telegram.Bot) -> None:
            first = await bot.get_updates(limit=2)
            assert [update.message and update.message.text for update in first] == ["hello", "again"]
            assert await bot.get_updates(limit=2) == first
            (last,) = await bot.get_updates(offset=first[-1].update_id + 1)
            assert last.callback_query is not None
            assert last.callback_query.data == "yes"
            assert await bot.answer_callback_query("c1")
            assert not await bot.get_updates(offset=last.update_id + 1, timeout=0)

        await sdk(fake, job)
        assert not fake.updates


async def test_a_second_poller_ends_the_first() -> None:
    async with open_fake_telegram() as fake:

        async def job(bot: telegram.Bot) -> None:
            first = asyncio.create_task(bot.get_updates(timeout=4))
            while not fake.polling:  # noqa: ASYNC110 - the state of the other loop has no event for this one
                await asyncio.sleep(0)
            assert await bot.get_updates(timeout=0) == ()  # whoever waits for nothing disturbs nobody
            assert not first.done()
            second = asyncio.create_task(bot.get_updates(timeout=4))
            with pytest.raises(telegram.error.Conflict, match="terminated by other getUpdates"):
                await first
            trio.from_thread.run_sync(fake.write, 7, "hello")
            assert len(await second) == 1

        await sdk(fake, job)
        assert fake.most_polling == 2


async def test_updates_come_again_in_any_order_and_an_offset_from_nowhere_is_none() -> None:
    async with open_fake_telegram() as fake:
        one, two = fake.write(7, "one"), fake.write(7, "two")

        async def job(bot: telegram.Bot) -> None:
            assert [each.update_id for each in await bot.get_updates(offset=two + 1000)] == [one, two]
            assert not await bot.get_updates(offset=two + 1, timeout=0)
            trio.from_thread.run_sync(fake.repeat, two, one)
            assert [each.update_id for each in await bot.get_updates()] == [two, one]
            trio.from_thread.run_sync(lambda: fake.push({"message": {"chat": 5}}, number=two + 1))
            with pytest.raises(KeyError):
                await bot.get_updates(offset=two + 1)

        await sdk(fake, job)


async def test_a_webhook_is_brought_what_the_library_reads_until_it_is_taken() -> None:
    brought: list[telegram.Update | None] = []
    taken = trio.Event()

    async def hook(request: WireRequest) -> WireAnswer:
        assert request.headers["x-telegram-bot-api-secret-token"] == "a-secret"
        brought.append(telegram.Update.de_json(json.loads(request.body), None))
        if len(brought) == 1:
            return WireAnswer(status=503)
        taken.set()
        return WireAnswer()

    async with open_fake_telegram() as fake, open_wire_server(hook) as port:
        fake.retry_s = 0.001
        fake.write(7, "hello")

        async def job(bot: telegram.Bot) -> None:
            with pytest.raises(telegram.error.BadRequest, match=r"(?i)https url"):
                await bot.set_webhook("http://example.org")
            with pytest.raises(telegram.error.BadRequest, match="unallowed characters"):
                await bot.set_webhook("https://example.org", secret_token="a secret")
            assert await bot.set_webhook(f"http://127.0.0.1:{port}/hook", secret_token="a-secret")
            trio.from_thread.run(taken.wait)
            info = await bot.get_webhook_info()
            assert "503" in str(info.last_error_message)

        await sdk(fake, job)
        assert [each and each.message and each.message.text for each in brought] == ["hello"] * 2
        while fake.updates:
            await fake.changed()


async def test_a_limit_holds_for_its_chat_until_it_is_over() -> None:
    async with open_fake_telegram() as fake:

        async def job(bot: telegram.Bot) -> None:
            trio.from_thread.run_sync(fake.limit, 7, 30.0)
            with pytest.raises(telegram.error.RetryAfter):
                await bot.send_message(7, "early")
            await bot.send_message(8, "another chat")
            trio.from_thread.run_sync(fake.limit, 7, 0.0)
            await bot.send_message(7, "late")
            trio.from_thread.run_sync(fake.limit, "*", 30.0)
            with pytest.raises(telegram.error.RetryAfter):
                await bot.send_message(8, "early")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", telegram.warnings.PTBDeprecationWarning)
            await sdk(fake, job)
        assert (fake.texts(7), fake.texts(8), fake.early) == (["late"], ["another chat"], 2)


async def test_a_bad_day_lasts_until_it_is_over() -> None:
    async with open_fake_telegram() as fake:

        async def job(bot: telegram.Bot) -> None:
            fake.standing["*"] = Fault(code=502, body=b"<html>Bad Gateway</html>")
            for _ in range(3):
                with pytest.raises(telegram.error.NetworkError, match="Bad Gateway"):
                    await bot.send_message(7, "x")
            fake.standing.clear()
            await bot.send_message(7, "y")

        await sdk(fake, job)
        assert fake.texts(7) == ["y"]


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("samples/telegram/*.json")), ids=lambda path: path.stem
)
def test_the_samples_are_updates_to_the_library(path: Path) -> None:
    sample = json.loads(path.read_text())
    update = telegram.Update.de_json(sample["update"], None)
    event = sample["event"]
    assert update.effective_chat is None or event is None or str(update.effective_chat.id) == event["address"]["chat"]
    if event is not None:
        message = update.effective_message
        assert message is not None
        assert event.get("kind") == "button" or event["id"].split(".")[:2] == ["4242", str(message.message_id)]
        assert "reply" not in event or event["reply"]["message_id"] == str(message.message_id)


async def test_what_is_sent_is_seen_and_can_be_changed() -> None:
    async with open_fake_telegram() as fake:
        keys = telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Yes", callback_data="y")]])

        async def job(bot: telegram.Bot) -> None:
            sent = await bot.send_message(7, "<b>bold</b> &amp; 😀 <i>more</i>", parse_mode="HTML", reply_markup=keys)
            assert sent.text == "bold & 😀 more"
            assert [(each.type, sent.parse_entity(each)) for each in sent.entities] == [
                ("bold", "bold"),
                ("italic", "more"),
            ]
            answer = await bot.send_message(
                7, "answer", reply_parameters=telegram.ReplyParameters(sent.message_id), message_thread_id=3
            )
            assert answer.reply_to_message == sent
            assert answer.message_thread_id == 3
            edited = await bot.edit_message_text("new", 7, sent.message_id)
            assert isinstance(edited, telegram.Message)
            assert edited.text == "new"
            with pytest.raises(telegram.error.BadRequest, match=r"[Mm]essage is not modified"):
                await bot.edit_message_text("new", 7, sent.message_id)
            with pytest.raises(telegram.error.BadRequest, match=r"[Mm]essage to edit not found"):
                await bot.edit_message_text("new", 7, 99_999)
            assert await bot.send_chat_action(7, "typing")
            assert await bot.set_message_reaction(7, sent.message_id, "👍")
            with pytest.raises(telegram.error.BadRequest):
                await bot.send_chat_action(7, "dancing")

        await sdk(fake, job)
        assert fake.texts(7) == ["new", "answer"]
        assert next(iter(fake.shown.values())).reactions[0]["emoji"] == "👍"


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<b>open", "can't parse entities: Can't find end tag corresponding to start tag \"b\""),
        ("<b>x</i>", "can't parse entities: Unmatched end tag"),
        ("<h1>x</h1>", 'can\'t parse entities: Unsupported start tag "h1"'),
        ("a < b", "can't parse entities: Unsupported start tag"),
        ("x</b>", "can't parse entities: Unexpected end tag"),
        (" ", "text must be non-empty"),
        ("x" * 4097, "message is too long"),
        ("😀" * 2049, "message is too long"),
    ],
)
async def test_text_that_the_service_would_not_take_is_refused_in_its_words(html: str, words: str) -> None:
    async with open_fake_telegram() as fake:

        async def job(bot: telegram.Bot) -> None:
            with pytest.raises(telegram.error.BadRequest) as caught:
                await bot.send_message(7, html, parse_mode="HTML")
            assert caught.value.message.lower().startswith(words.lower())

        await sdk(fake, job)
        assert not fake.shown


async def test_files_go_both_ways() -> None:
    async with open_fake_telegram() as fake:
        fake.files["theirs"] = ("documents/theirs", b"what they sent")

        async def job(bot: telegram.Bot) -> None:
            sent = await bot.send_document(7, b"what we send", caption="<b>it</b>", parse_mode="HTML", filename="a.txt")
            assert (sent.document and sent.document.file_name, sent.caption) == ("a.txt", "it")
            edited = await bot.edit_message_caption(7, sent.message_id, caption="new")
            assert isinstance(edited, telegram.Message)
            assert edited.caption == "new"
            photo = await bot.send_photo(7, b"\xff\xd8 a photo")
            assert photo.photo[0].file_size == 10
            for send in (bot.send_voice, bot.send_audio, bot.send_video, bot.send_animation):
                assert await send(7, b"moving")
            file = await bot.get_file("theirs")
            assert bytes(await file.download_as_bytearray()) == b"what they sent"
            with pytest.raises(telegram.error.BadRequest, match=r"[Ii]nvalid file_id"):
                await bot.get_file("nobody's")

        await sdk(fake, job)
        assert [shown.file and shown.file[1] for shown in fake.shown.values()][:1] == [b"what we send"]


@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")
async def test_errors_are_what_the_library_knows() -> None:
    async with open_fake_telegram() as fake:
        fake.gone["8"] = "Forbidden: bot was blocked by the user"
        fake.gone["-5"] = "moved -1005"
        fake.fail(
            "sendMessage",
            Fault(code=429, description="Too Many Requests: retry after 7", parameters={"retry_after": 7}),
        )

        async def job(bot: telegram.Bot) -> None:
            with pytest.raises(telegram.error.RetryAfter) as limited:
                await bot.send_message(7, "x")
            assert limited.value._retry_after.total_seconds() == 7
            with pytest.raises(telegram.error.Forbidden, match="blocked"):
                await bot.send_message(8, "x")
            with pytest.raises(telegram.error.ChatMigrated) as moved:
                await bot.send_message(-5, "x")
            assert moved.value.new_chat_id == -1005
            fake.fail("sendMessage", Fault(code=502, body=b"<html>Bad Gateway</html>"), Fault(cut_after=40, done=True))
            with pytest.raises(telegram.error.NetworkError, match="Bad Gateway"):
                await bot.send_message(7, "x")
            with pytest.raises(telegram.error.NetworkError):
                await bot.send_message(7, "seen all the same")

        await sdk(fake, job)
        assert fake.texts(7) == ["seen all the same"]


async def test_another_token_is_refused() -> None:
    async with open_fake_telegram() as fake:

        async def job(bot: telegram.Bot) -> None:
            raise AssertionError("the library asks who it is before anything else")

        with pytest.raises(telegram.error.InvalidToken):
            await sdk(fake, job, token="4242:another")
