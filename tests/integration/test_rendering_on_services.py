"""What is rendered, sent to servers with the rules of the services: they refuse none of it, and what they show is what was said.

The servers count and read for themselves; of the rendering they know nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, given, settings
from nasty_markdown import MARKDOWN
from what_is_said import Dialect, Reading, says, shown, words_of

from hermes.events import Address, Content
from hermes.platform import Platform, Secret
from hermes.rendering import render
from hermes.rendering.units import well_formed
from hermes.testing.fake_discord import DM, open_fake_discord
from hermes.testing.fake_telegram import TOKEN, open_fake_telegram
from hermes.testing.host import open_test_host
from platforms.discord import platform as discord_platform
from platforms.discord.config import DiscordConfig
from platforms.telegram import platform as telegram_platform
from platforms.telegram.config import TelegramConfig

# What Telegram takes out of any text: separators, orders of direction, three marks.
UNSHOWN = dict.fromkeys((*range(0x2028, 0x202F), 0x333, 0x33F, 0x30A))
pytestmark = pytest.mark.wall_clock_s(600)


@pytest.fixture(scope="module")
def messages(full: bool) -> Sequence[str]:
    """Markdown with everything in it: 5,000 messages in the whole run, 250 else."""
    found: list[str] = []

    @settings(max_examples=5000 if full else 250, phases=[Phase.generate])
    @given(MARKDOWN)
    def note(markdown: str) -> None:
        found.append(markdown)

    note()
    return found


async def send_all(
    platform: Platform, to: Address, messages: Sequence[str], shows: Callable[[str], str]
) -> list[tuple[str, list[str]]]:
    """Each message with the texts that the service keeps for its parts."""
    found = []
    for number, markdown in enumerate(messages):
        texts = []
        for index, part in enumerate(render(markdown, platform.capabilities)):
            content = Content(text=part, dialect=platform.capabilities.dialect)
            receipt = await platform.send(to, content, key=f"k{number}-{index}", reply=None)
            texts.append(shows(receipt.message_id))
        found.append((markdown, texts))
    return found


def unsaid(sent: Sequence[tuple[str, list[str]]], dialect: Dialect, room: int) -> list[str]:
    """Messages of which the service does not show all words, or others, or in another order."""
    found = []
    for markdown, texts in sent:
        words = Reading(well_formed(markdown), dialect, room).found if texts else []
        if dialect == "telegram_html":
            words = [tuple(words_of(each.translate(UNSHOWN)) for each in choice) for choice in words]
        if not says(texts, words):
            found.append(markdown)
    return found


async def test_telegram_refuses_no_message_and_shows_its_words(messages: Sequence[str]) -> None:
    async with (
        open_fake_telegram() as service,
        open_test_host("telegram") as host,
        telegram_platform.open(TelegramConfig(token=Secret(TOKEN), base_url=service.base_url), host) as platform,
    ):
        sent = await send_all(platform, Address("telegram", "7"), messages, lambda id_: service.shown[7, int(id_)].text)
        assert unsaid(sent, "telegram_html", platform.capabilities.max_text) == []


async def test_discord_refuses_no_message_and_shows_its_words(messages: Sequence[str]) -> None:
    async with (
        open_fake_discord() as service,
        open_test_host("discord", clock=service.clock) as host,
        discord_platform.open(DiscordConfig(token=Secret(service.token), base_url=service.base_url), host) as platform,
    ):

        def shows(id_: str) -> str:
            return shown(service.messages[DM][id_]["content"], "discord")

        sent = await send_all(platform, Address("discord", DM), messages, shows)
        assert unsaid(sent, "discord", platform.capabilities.max_text) == []
