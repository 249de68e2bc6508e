"""The real process is killed at each named point of the path of a message: nothing is lost, nothing shown twice unmarked."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
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
    """One home that is killed again and again."""

    def __init__(self, tmp_path: Path, service: TelegramService | DiscordService, model: FakeModel) -> None:
        self.home = tmp_path / "home"
        self.armed = tmp_path / "armed"
        self.service = service
        self.model = model
        self.written = 0
        self.kills = 0

    async def run(self, point: str, rounds: int) -> None:
        """Write a message, be killed there, and again, each time after the one before was dealt with."""
        for _ in range(rounds):
            wrap = (sys.executable, str(SCRIPT), point if point in BY_ITSELF else "nowhere", str(self.armed))
            async with open_gateway_process(self.home, wrap=wrap) as gateway:
                await self.settled()
                kill = self._prepare(point)
                self.armed.touch()
                self.service.write(f"/queue question {self.written}")
                self.written += 1
                with trio.fail_after(DIES_S):
                    await kill(gateway)
                    assert await gateway.process.wait() == -signal.SIGKILL
                self.kills += 1
                self.armed.unlink()
            self.model.steps.clear()
            self.check_cursor()

    async def settled(self) -> None:
        """Wait until everything that was written so far is over."""

        async def over() -> bool:
            (taken,) = look(self.home, "SELECT count(*) FROM inbox")[0]
            return bool(taken == self.written and open_rows(self.home) == (0, 0))

        await until(over, f"all {self.written} messages are dealt with", within_s=20)

    def _prepare(self, point: str) -> Callable[[GatewayProcess], Awaitable[Any]]:
        model, service = self.model, self.service
        if point in BY_ITSELF:
            if point == "after a draft":
                model.script(SLOWLY)
            return lambda gateway: gateway.process.wait()
        asked, shown = len(model.requests), len(service.texts())

        async def seen(gateway: GatewayProcess) -> None:
            if point == "mid-model":
                await until(lambda: len(model.requests) > asked, "the model is asked")
            elif point == "mid-tool":
                await until(self._effects, "the tool runs")
            else:
                await until(lambda: len(service.texts()) > shown, "it is shown, and the answer does not come")
            await gateway.kill()

        if point == "mid-model":
            model.script(Hang())
        elif point == "mid-tool":
            words = json.dumps({"command": f"echo {self.written} >> effects; exec sleep 60"})
            model.script(Reply(text="", calls=[("terminal", words)], call_ids=[f"call{self.written}"]))
        elif isinstance(service, DiscordService):
            hang = Answered(hang=True)
            service.fake.fail(DiscordFault(answer=hang, method="POST", path=r"/channels/\d+/messages$", serve=True))
        else:
            service.fake.fail("sendMessage", Fault(hang=True, done=True))
        return seen

    def _effects(self) -> bool:
        path = self.home / "workspace" / "effects"
        return path.exists() and path.read_text().endswith(f"{self.written - 1}\n")

    def check_cursor(self) -> None:
        """How far the account has read is never ahead of what is kept."""
        values = dict(look(self.home, "SELECT name, value FROM cursors"))
        (kept,) = look(self.home, "SELECT count(*) FROM inbox")[0]
        if isinstance(self.service, TelegramService):
            offset = int(values["offset"].split()[-1]) if "offset" in values else 1000
            assert kept >= offset - 1000
            assert self.service.fake.confirmed < offset
        elif (session := read_session(values.get(SESSION))) is not None:
            frames = self.service.fake.gateway.sessions[session.id].kept
            later = [each for each in frames if each["s"] > session.sequence and each["t"] == "MESSAGE_CREATE"]
            assert kept >= self.written - len(later)

    async def check(self) -> None:
        """Let a last process recover, and look at everything."""
        async with open_gateway_process(self.home) as gateway:
            await self.settled()
            assert await gateway.terminate() == 0
        inbox, outbox = final_states(self.home)
        assert inbox == {"answered": self.written}
        assert outbox == {"sent": self.written}
        said = self.service.texts()
        plain = [text for text in said if not text.startswith(MARK)]
        assert len(plain) <= self.written <= len(said)
        assert {text.removeprefix(MARK).strip() for text in said} <= {ANSWER}
        if isinstance(self.service, DiscordService):
            assert said == [ANSWER] * self.written  # its nonce drops repeats
        assert not self.model.refused


async def kill(tmp_path: Path, name: str, points: tuple[str, ...], rounds: int) -> Killed:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(open_fake_model(default=Reply(text=ANSWER)))
        service: TelegramService | DiscordService
        if name == "telegram":
            service = TelegramService(await stack.enter_async_context(open_fake_telegram()))
        else:
            service = DiscordService(await stack.enter_async_context(open_fake_discord()))
        killed = Killed(tmp_path, service, model)
        configured = sections(model, service)
        configured["delivery"]["edit_interval_s"] = 0.1
        write_config(killed.home, configured)
        async with open_gateway_process(
            killed.home
        ) as gateway:  # what was written before the first session is nobody's
            if name == "discord":
                await until(lambda: look(killed.home, "SELECT 1 FROM cursors"), "a session that can be resumed")
            assert await gateway.terminate() == 0
        for point in points:
            await killed.run(point, rounds)
        await killed.check()
    return killed


@pytest.mark.wall_clock_s(900)
@pytest.mark.parametrize("name", ["discord", "telegram"])
async def test_it_kills_itself_between_two_instructions(tmp_path: Path, name: str, full: bool) -> None:
    rounds = FULL_ROUNDS if full else ROUNDS
    killed = await kill(tmp_path, name, BY_ITSELF, rounds)
    assert killed.kills == rounds * len(BY_ITSELF)


@pytest.mark.wall_clock_s(900)
@pytest.mark.parametrize("name", ["discord", "telegram"])
async def test_it_is_killed_while_somebody_else_works_for_it(tmp_path: Path, name: str, full: bool) -> None:
    rounds = FULL_ROUNDS if full else ROUNDS
    killed = await kill(tmp_path, name, FROM_OUTSIDE, rounds)
    effects = (killed.home / "workspace" / "effects").read_text().split()
    assert len(effects) == len(set(effects)) == rounds  # no tool ran twice
