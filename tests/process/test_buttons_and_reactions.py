"""The real process: lists whose buttons are pressed, and reactions that come and go, on Telegram, Discord and Slack at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_discord import DM as DISCORD_DM
from hermes.testing.fake_discord import FakeDiscord, open_fake_discord
from hermes.testing.fake_model import FakeModel, Gate, open_fake_model
from hermes.testing.fake_slack import DM as SLACK_DM
from hermes.testing.fake_slack import FakeSlack, open_fake_slack
from hermes.testing.fake_telegram import FakeTelegram, Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, until, write_config
from hermes.testing.messaging_process import QUICK, DiscordService, TelegramService, until_state

EYES = ["👀"]


def sections(
    model: FakeModel, telegram: FakeTelegram, discord: FakeDiscord, slack: FakeSlack, **delivery: Any
) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {
            "telegram": TelegramService(telegram).section(drafts=False),
            "discord": DiscordService(discord).section(),
            "slack": {
                "bot_token": slack.bot_token, "app_token": slack.app_token, "base_url": slack.base_url,
                "allowed_users": ["*"], "timeout_s": 10,
            },
        },
        "supervision": QUICK,
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5, **delivery},
    }  # fmt: skip


@pytest.mark.wall_clock_s(60)
async def test_reactions_go_with_their_messages_and_pressed_buttons_resume_on_each_service(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with (
        open_fake_telegram() as telegram, open_fake_discord() as discord, open_fake_slack() as slack,
        open_fake_model(default=Reply(text="yes")) as model,
    ):  # fmt: skip
        write_config(home, sections(model, telegram, discord, slack, receipts="reaction"))
        async with open_gateway_process(home) as gateway:
            for name in ("telegram", "discord", "slack"):
                await until_state(gateway, name, "connected")
            await react(model, telegram, discord, slack)
            telegram.write(9, "/stop")
            await until(lambda: EYES not in telegram.reactions.values(), "no reaction any more")
            await press(telegram, discord, slack)
            assert await gateway.terminate() == 0
        assert "ERROR" not in gateway.log


async def react(model: FakeModel, telegram: FakeTelegram, discord: FakeDiscord, slack: FakeSlack) -> None:
    """Messages that wait for a slow model; the last, of 9, waits on."""

    def on_discord() -> list[str]:
        return [each["emoji"]["name"] for each in asked["reactions"]]

    def on_slack() -> list[str]:
        return [each["name"] for each in written.get("reactions", ())]

    gate = trio.Event()
    for _ in range(4):
        model.script(Gate(event=gate, reply=Reply(text="the answer")))
    telegram.fail("setMessageReaction", Fault(code=400, description="Bad Request: REACTION_INVALID"))
    telegram.write(8, "in a chat where none is welcome")
    await until(lambda: telegram.counts["setmessagereaction"] == 1, "a reaction that is refused")
    telegram.write(7, "a question")
    asked = discord.say("a question", DISCORD_DM)
    written = slack.say("a question")
    await until(lambda: list(telegram.reactions.values()) == [EYES], "a reaction on Telegram")
    await until(lambda: on_discord() == EYES, "a reaction on Discord")
    await until(lambda: on_slack() == ["eyes"], "a reaction on Slack")
    assert telegram.texts(7) == []
    gate.set()
    await until(lambda: list(telegram.reactions.values()) == [[]], "none on Telegram any more")
    await until(lambda: (on_discord(), on_slack()) == ([], []), "none on the others")
    await until(lambda: telegram.texts(8) == telegram.texts(7) == ["the answer"], "answers")
    assert telegram.counts["setmessagereaction"] == 3
    model.script(Gate(event=trio.Event(), reply=Reply(text="never")))
    telegram.write(9, "another")
    await until(lambda: EYES in telegram.reactions.values(), "a reaction")


async def press(telegram: FakeTelegram, discord: FakeDiscord, slack: FakeSlack) -> None:
    """A list of conversations, and one of them goes on by a button, on each service."""

    def counts() -> tuple[int, int, int]:
        return len(telegram.texts(7)), len(discord.shown(DISCORD_DM)), len(slack.shown(SLACK_DM))

    for number, text in enumerate(("/title Rome", "/new", "again", "/sessions"), 2):
        telegram.write(7, text)
        discord.say(text, DISCORD_DM)
        slack.say(text.replace("/", "!"))
        await until(lambda number=number: counts() == (number,) * 3, f"{number} answers everywhere")  # type: ignore[misc]
    listed = [each.message for (chat, _), each in telegram.shown.items() if chat == 7][-1]
    shown = list(discord.messages[DISCORD_DM].values())[-1]
    query = telegram.press(7, listed, "2. Rome")
    used = discord.press(shown, shown["components"][0]["components"][1]["custom_id"])
    slack.press(SLACK_DM, slack.ours(SLACK_DM)[-1], 1)
    await until(lambda: counts() == (6,) * 3, "an answer to each press")
    for last in (telegram.texts(7)[-1], discord.shown(DISCORD_DM)[-1], slack.shown(SLACK_DM)[-1]):
        assert last.startswith("Going on with Rome")
    await until(lambda: telegram.pressed == [query], "a confirmed query")
    await until(lambda: discord.interactions[used["token"]]["answer"] == {"type": 6}, "a deferred interaction")
    await until(lambda: not slack.sockets.waiting, "acknowledged envelopes")
    assert not slack.responses  # it was answered in the chat itself
