"""The real process is killed at each named point of the path of a message from IRC: nothing is lost, nothing shown twice unmarked."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from killed_gateway import ANSWER, KilledGateway

from hermes.testing.fake_irc import FakeIrc, open_fake_irc
from hermes.testing.fake_model import FakeModel, Gate, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until, write_config
from hermes.testing.messaging_process import MARK, final_states, sections

POINTS = (
    "after the fetch", "after the persist", "mid-model", "mid-tool", "after the reply's commit", "mid-send", "after the send",
)  # fmt: skip
ROUNDS, FULL_ROUNDS = 1, 30
ONCE = ([ANSWER], [MARK, ANSWER], [ANSWER, MARK, ANSWER])  # the mark is a line of its own


class OnIrc(KilledGateway):
    """A server that tells what was said meanwhile, and one friend."""

    def __init__(self, tmp_path: Path, irc: FakeIrc, model: FakeModel) -> None:
        super().__init__(tmp_path, model, (irc.say,))
        self.irc = irc
        self._looked_at = 0

    async def settled(self) -> None:
        """Each message is dealt with, and its answer is there: once, or marked."""
        await super().settled()
        shown = self.irc.shown["friend"]
        if self.written:
            assert shown[self._looked_at :] in ONCE, (self.written, shown[self._looked_at :])
        self._looked_at = len(shown)

    async def ready(self, gateway: GatewayProcess) -> None:
        async def looks() -> bool:
            found = (await gateway.status())["accounts"].get("irc", {})
            return bool(found.get("state") == "connected" and "server" in found.get("progress_s", {}))

        await until(looks, "a connected account")
        if not self.written:  # what was said before anything was read is nobody's
            self.irc.say("/queue the first")
            self.written = 1
            await until(lambda: self.irc.shown["friend"], "the first answer")
            await self.settled()

    def killed(self) -> None:
        self.irc.day = None

    def mid_send(self) -> Callable[[], Awaitable[Any]]:
        """The server has the line, and does nothing with it; or shows it, and its answer is lost."""
        gate = trio.Event()
        self.model.script(Gate(event=gate, reply=Reply(text=ANSWER)))
        asked, sends = len(self.model.requests), self._sends()

        async def held() -> None:
            await until(lambda: len(self.model.requests) > asked, "the question at the model")
            self.irc.day = "lose" if self.kills % 2 else "hang"
            gate.set()
            await until(lambda: self._sends() > sends, "the line at the server")

        return held

    def _sends(self) -> int:
        return self.irc.asked.count("PRIVMSG friend")


async def kill(tmp_path: Path, points: tuple[str, ...], rounds: int) -> int:
    """How often it was killed."""
    async with open_fake_irc(clock=time.time) as irc, open_fake_model(default=Reply(text=ANSWER)) as model:
        killed = OnIrc(tmp_path, irc, model)
        account = {
            "server": "127.0.0.1", "port": irc.port, "tls": False, "nick": "hermes", "channels": ["#den"], "flood_burst": 10_000,
            "flood_interval_s": 0.001, "allowed_users": ["friend"], "dm_policy": "allowlist", "admins": ["friend"],
            "admin_tools": True,
        }  # fmt: skip
        write_config(killed.home, sections(model, platforms={"irc": account}))
        for point in points:
            await killed.run(point, rounds)
        async with open_gateway_process(killed.home) as gateway:
            await killed.settled()
            assert await gateway.terminate() == 0
        assert not model.refused
    assert killed.kills == rounds * len(points)
    assert final_states(killed.home) == ({"answered": killed.written}, {"sent": killed.written})
    effects = killed.effects()
    assert len(effects) == len(set(effects)) == rounds * points.count("mid-tool")  # no tool ran twice
    return killed.kills


@pytest.mark.wall_clock_s(900)
async def test_killed_at_each_named_point_irc_loses_nothing_and_repeats_nothing_unmarked(
    tmp_path: Path, seed: int, full: bool, record: Callable[..., None]
) -> None:
    if not full:  # one point before the reply is kept and one after, others in each run
        chance = random.Random(seed)
        await kill(tmp_path, (chance.choice(POINTS[:4]), chance.choice(POINTS[4:])), ROUNDS)
        return
    kills: list[int] = []

    async def at(number: int, point: str) -> None:
        kills.append(await kill(tmp_path / str(number), (point,), FULL_ROUNDS))

    async with trio.open_nursery() as nursery:
        for number, point in enumerate(POINTS):
            nursery.start_soon(at, number, point)
    record("Kills of the real process", f"IRC: {', '.join(POINTS)}", kills=sum(kills), messages=sum(kills))
