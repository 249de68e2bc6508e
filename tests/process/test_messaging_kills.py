"""The real process is killed at each named point of the path of a message: nothing is lost, nothing shown twice unmarked.

Each kill is one of Telegram and Discord at once: a message of each has come to that point, and neither goes on from there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from killed_gateway import ANSWER, FROM_OUTSIDE, KilledGateway

from hermes.testing.fake_discord import Fault as DiscordFault
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_http import Answered
from hermes.testing.fake_model import FakeModel, open_fake_model
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    MARK,
    DiscordService,
    TelegramService,
    final_states,
    look,
    sections,
)
from platforms.discord.cursors import SESSION, read_session

ROUNDS, FULL_ROUNDS = 3, 30
BY_ITSELF = (
    "after the fetch", "after the persist", "as the turn begins", "after the reply's commit", "before the send",
    "after the send", "after a draft",
)  # fmt: skip
# A turn that was begun by the commit that kept its message has that commit's time.
BEGUN_AT_ONCE = "SELECT 1 FROM turns JOIN inbox USING (event_id) WHERE started_at = accepted_at"
BEGUN_AFTERWARDS = "SELECT 1 FROM turns JOIN inbox USING (event_id) WHERE started_at > accepted_at"


class Killed(KilledGateway):
    """Telegram and Discord."""

    def __init__(self, tmp_path: Path, telegram: TelegramService, discord: DiscordService, model: FakeModel) -> None:
        super().__init__(tmp_path, model, (telegram.write, discord.write))
        self.telegram = telegram
        self.discord = discord

    def killed(self) -> None:
        self.check_cursors()

    def mid_send(self) -> Callable[[], Awaitable[Any]]:
        """They are shown, and the answers do not come."""
        shown = len(self.telegram.texts()), len(self.discord.texts())
        hang = Answered(hang=True)
        self.discord.fake.fail(DiscordFault(answer=hang, method="POST", path=r"/channels/\d+/messages$", serve=True))
        self.telegram.fake.fail("sendMessage", Fault(hang=True, done=True))

        def both_shown() -> bool:
            return len(self.telegram.texts()) > shown[0] and len(self.discord.texts()) > shown[1]

        return lambda: until(both_shown, "they are shown, and the answers do not come")

    def check_cursors(self) -> None:
        """How far each account has read is never ahead of what is kept."""
        kept = dict(look(self.home, "SELECT account, count(*) FROM inbox GROUP BY account"))
        values = {
            (each, name): value for each, name, value in look(self.home, "SELECT account, name, value FROM cursors")
        }
        first = 1000
        offset = int(values.get(("telegram", "offset"), b"0 1000").split()[-1])
        assert kept.get("telegram", 0) >= offset - first
        assert self.telegram.fake.confirmed < offset
        if (session := read_session(values.get(("discord", SESSION)))) is not None:
            frames = self.discord.fake.gateway.sessions[session.id].kept
            later = [each for each in frames if each["s"] > session.sequence and each["t"] == "MESSAGE_CREATE"]
            assert kept.get("discord", 0) >= self.written - len(later)

    async def check(self) -> None:
        """Let a last process recover, and look at everything."""
        async with open_gateway_process(self.home) as gateway:
            await self.settled()
            assert await gateway.terminate() == 0
        inbox, outbox = final_states(self.home)
        assert inbox == {"answered": 2 * self.written}
        assert outbox == {"sent": 2 * self.written}
        assert look(self.home, BEGUN_AT_ONCE)
        assert look(self.home, BEGUN_AFTERWARDS)
        said = self.telegram.texts()
        plain = [text for text in said if not text.startswith(MARK)]
        assert len(plain) <= self.written <= len(said)
        assert {text.removeprefix(MARK).strip() for text in said} <= {ANSWER}
        assert self.discord.texts() == [ANSWER] * self.written  # its nonce drops repeats
        assert not self.model.refused


async def kill(tmp_path: Path, points: tuple[str, ...], rounds: int) -> Killed:
    async with (
        open_fake_telegram() as telegram, open_fake_discord() as discord, open_fake_model(default=Reply(text=ANSWER)) as model,
    ):  # fmt: skip
        killed = Killed(tmp_path, TelegramService(telegram), DiscordService(discord), model)
        configured = sections(model, killed.telegram, killed.discord)
        configured["delivery"]["edit_interval_s"] = 0.1
        write_config(killed.home, configured)
        async with open_gateway_process(
            killed.home
        ) as gateway:  # what was written before the first session is nobody's
            await until(lambda: look(killed.home, "SELECT 1 FROM cursors WHERE account = 'discord'"), "a session")
            assert await gateway.terminate() == 0
        for point in points:
            await killed.run(point, rounds)
        await killed.check()
    assert killed.kills == rounds * len(points)
    return killed


@pytest.mark.wall_clock_s(900)
@pytest.mark.parametrize("points", [BY_ITSELF[:4], BY_ITSELF[4:]], ids=["until the reply is kept", "until it is shown"])
async def test_it_kills_itself_between_two_instructions(
    tmp_path: Path, points: tuple[str, ...], full: bool, record: Callable[..., None]
) -> None:
    killed = await kill(tmp_path, points, FULL_ROUNDS if full else ROUNDS)
    record(
        "Kills of the real process",
        f"Telegram and Discord: {', '.join(points)}",
        kills=killed.kills,
        messages=2 * killed.written,
    )


@pytest.mark.wall_clock_s(900)
async def test_it_is_killed_while_somebody_else_works_for_it(
    tmp_path: Path, full: bool, record: Callable[..., None]
) -> None:
    rounds = FULL_ROUNDS if full else ROUNDS
    killed = await kill(tmp_path, FROM_OUTSIDE, rounds)
    record(
        "Kills of the real process",
        f"Telegram and Discord: {', '.join(FROM_OUTSIDE)}",
        kills=killed.kills,
        messages=2 * killed.written,
    )
    effects = killed.effects()
    assert len(effects) == len(set(effects)) == 2 * rounds  # no tool ran twice
