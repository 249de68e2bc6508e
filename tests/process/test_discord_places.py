"""The real process and the places that only Discord has: slash commands, threads of its own making, posts in forums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hermes.testing.fake_discord import CHANNEL, DM, FORUM, THREAD, FakeDiscord, open_fake_discord
from hermes.testing.fake_model import open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, until, write_config
from hermes.testing.messaging_process import DiscordService, final_states, look, sections


async def filled(fake: FakeDiscord, name: str, arguments: str | None, channel: str) -> str:
    """Use a slash command; what its deferred answer is filled with."""
    held = fake.interactions[fake.command(name, arguments, channel)["token"]]

    def answer() -> str:
        message: dict[str, Any] = held["message"] or {}
        return str(message.get("content") or "")

    await until(answer, f"the answer to /{name}")
    assert held["answer"]["type"] == 5  # deferred first
    return answer()


@pytest.mark.wall_clock_s(60)
async def test_commands_threads_and_posts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_discord() as fake, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(model, DiscordService(fake)))
        async with open_gateway_process(home) as gateway:
            await until(lambda: fake.gateway.live, "a session")
            assert "idle" in await filled(fake, "status", None, CHANNEL)
            assert await filled(fake, "queue", "a question", CHANNEL) == "hello"
            assert await filled(fake, "stop", None, DM)
            asked = fake.say("<@1000> explain tides", CHANNEL)["id"]
            await until(lambda: fake.shown(asked) == ["hello"], "an answer in a thread of its own")
            fake.say("<@1000> and here?", THREAD)
            await until(lambda: fake.shown(THREAD) == ["hello"], "an answer in the post")
            assert await gateway.terminate() == 0
        assert fake.gateway.closes == [4000]  # which keeps the session
        fake.say("and then?", asked)
        async with open_gateway_process(home) as gateway:
            await until(lambda: fake.shown(asked) == ["hello"] * 2, "an answer in the thread without a mention")
            fake.say("and there?", THREAD)
            await until(lambda: fake.shown(THREAD) == ["hello"] * 2, "an answer in the post without a mention")
            assert await gateway.terminate() == 0
        assert (len(fake.gateway.identifies), len(fake.gateway.resumes)) == (1, 1)
        keys = {key for (key,) in look(home, "SELECT session_key FROM inbox WHERE state = 'answered'")}
        assert keys == {
            f"discord:group:{CHANNEL}:user 900", f"discord:group:{CHANNEL}:{asked}", f"discord:group:{FORUM}:{THREAD}"
        }  # fmt: skip
        assert final_states(home)[1].keys() == {"sent"}
