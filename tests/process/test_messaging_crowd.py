"""The real process with few descriptors and many people at once on both services."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_model import open_fake_model
from hermes.testing.fake_telegram import open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    DiscordService,
    TelegramService,
    account,
    answered,
    final_states,
    open_rows,
    sections,
    until_state,
)

CHATS = 100  # on each service
LIMIT = ["/bin/sh", "-c", 'ulimit -n 128; exec "$@"', "sh"]


@pytest.mark.wall_clock_s(120)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are read from /proc")
async def test_two_hundred_chats_at_once_with_128_descriptors(tmp_path: Path, full: bool) -> None:
    home, bursts = tmp_path / "home", 10 if full else 1
    async with (
        open_fake_telegram() as fake, open_fake_discord() as other, open_fake_model(default=Reply(text="hello")) as model,
    ):  # fmt: skip
        telegram, discord = TelegramService(fake), DiscordService(other)
        write_config(home, sections(model, telegram, discord))
        async with open_gateway_process(home, wrap=LIMIT) as gateway:
            assert "descriptors=128" in gateway.said
            await until(lambda: other.gateway.live, "a session")
            await until_state(gateway, "telegram", "connected")
            telegram.write("warm up")
            discord.write("warm up")
            await answered(telegram, 1)
            await answered(discord, 1)
            before = len(gateway.descriptors())
            most = 0
            for burst in range(1, bursts + 1):
                for chat in range(1, CHATS + 1):
                    telegram.write(f"question {burst}", chat)
                    discord.write(f"question {burst}", chat)

                def all_answered(expected: int = burst) -> bool:
                    nonlocal most
                    most = max(most, len(gateway.descriptors()))
                    return all(
                        len(service.texts(chat)) >= expected
                        for service in (telegram, discord)
                        for chat in range(1, CHATS + 1)
                    )

                await until(all_answered, f"burst {burst} is answered", within_s=40)
            assert before <= most < 128
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            texts = Counter(len(service.texts(chat)) for service in (telegram, discord) for chat in range(1, CHATS + 1))
            assert texts == {bursts: 2 * CHATS}
            for name in ("telegram", "discord"):
                assert (await account(gateway, name))["restarts"] == 0
            await until(lambda: len(gateway.descriptors()) <= before + 40, "the crowd has left")
            assert await gateway.terminate() == 0
        assert "Too many open files" not in gateway.log
        asked = 2 * CHATS * bursts + 2
        assert final_states(home) == ({"answered": asked}, {"sent": asked})
