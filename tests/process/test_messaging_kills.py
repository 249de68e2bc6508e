"""The real process is killed at each named point of the path of a message: nothing is lost, nothing shown twice unmarked.

Each kill is one of Telegram and Discord at once: a message of each has come to that point, and neither goes on from there.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_discord import Fault as DiscordFault
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_http import Answered
from hermes.testing.fake_model import FakeModel, Hang, Slow, open_fake_model
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    MARK,
    DiscordService,
    TelegramService,
    final_states,
    look,
    open_rows,
    sections,
)
from platforms.discord.cursors import SESSION, read_session

SCRIPT = Path(__file__).with_name("killed_at.py")
ROUNDS, FULL_ROUNDS = 3, 30
DIES_S = 20.0
BY_ITSELF = (
    "after the fetch", "after the persist", "as the turn begins", "after the reply's commit", "before the send",
    "after the send", "after a draft",
)  # fmt: skip
FROM_OUTSIDE = ("mid-model", "mid-tool", "mid-send")
ANSWER = "the answer"
SLOWLY = Slow(between_s=0.15, reply=Reply(text=("the", " an", "swe", "r")))


class Killed:
    """One home that is killed again and again, with a message of each service under way."""

    def __init__(self, tmp_path: Path, telegram: TelegramService, discord: DiscordService, model: FakeModel) -> None:
        self.home = tmp_path / "home"
        self.armed = tmp_path / "armed"
        self.telegram = telegram
        self.discord = discord
        self.model = model
        self.written = 0  # to each
        self.kills = 0

    async def run(self, point: str, rounds: int) -> None:
        """Write a message to each, be killed there, and again, each time after the ones before were dealt with."""
        for _ in range(rounds):
            wrap = (sys.executable, str(SCRIPT), point if point in BY_ITSELF else "nowhere", str(self.armed))
            async with open_gateway_process(self.home, wrap=wrap) as gateway:
                await self.settled()
                kill = self._prepare(point)
                self.armed.write_text("2")
                for service in (self.telegram, self.discord):
                    service.write(f"/queue question {self.written}")
                self.written += 1
                with trio.fail_after(DIES_S):
                    await kill(gateway)
                    assert await gateway.process.wait() == -signal.SIGKILL
                self.kills += 1
                self.armed.unlink()
            self.model.steps.clear()
            self.check_cursors()

    async def settled(self) -> None:
        """Wait until everything that was written so far is over."""

        async def over() -> bool:
            (taken,) = look(self.home, "SELECT count(*) FROM inbox")[0]
            return bool(taken == 2 * self.written and open_rows(self.home) == (0, 0))

        await until(over, f"all {2 * self.written} messages are dealt with", within_s=20)

    def _prepare(self, point: str) -> Callable[[GatewayProcess], Awaitable[Any]]:
        model = self.model
        if point in BY_ITSELF:
            if point == "after a draft":
                model.script(SLOWLY, SLOWLY)
            return lambda gateway: gateway.process.wait()
        asked, shown = len(model.requests), (len(self.telegram.texts()), len(self.discord.texts()))

        def both_shown() -> bool:
            return len(self.telegram.texts()) > shown[0] and len(self.discord.texts()) > shown[1]

        async def seen(gateway: GatewayProcess) -> None:
            if point == "mid-model":
                await until(lambda: len(model.requests) > asked + 1, "the model is asked")
            elif point == "mid-tool":
                await until(self._effects, "the tools run")
            else:
                await until(both_shown, "they are shown, and the answers do not come")
            await gateway.kill()

        if point == "mid-model":
            model.script(Hang(), Hang())
        elif point == "mid-tool":
            for each in range(2):
                words = json.dumps({"command": f"echo {self.written}-{each} >> effects; exec sleep 60"})
                call = f"call{self.written}-{each}"
                model.script(Reply(text="", calls=[("terminal", words)], call_ids=[call]))
        else:
            hang = Answered(hang=True)
            self.discord.fake.fail(
                DiscordFault(answer=hang, method="POST", path=r"/channels/\d+/messages$", serve=True)
            )
            self.telegram.fake.fail("sendMessage", Fault(hang=True, done=True))
        return seen

    def _effects(self) -> bool:
        path = self.home / "workspace" / "effects"
        return path.exists() and {f"{self.written - 1}-{each}" for each in range(2)} <= set(path.read_text().split())

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
async def test_it_kills_itself_between_two_instructions(tmp_path: Path, points: tuple[str, ...], full: bool) -> None:
    await kill(tmp_path, points, FULL_ROUNDS if full else ROUNDS)


@pytest.mark.wall_clock_s(900)
async def test_it_is_killed_while_somebody_else_works_for_it(tmp_path: Path, full: bool) -> None:
    rounds = FULL_ROUNDS if full else ROUNDS
    killed = await kill(tmp_path, FROM_OUTSIDE, rounds)
    effects = (killed.home / "workspace" / "effects").read_text().split()
    assert len(effects) == len(set(effects)) == 2 * rounds  # no tool ran twice
