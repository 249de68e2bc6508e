"""A real process that is killed at a named point of the path of a message, again and again, each time with one under way.

At the points of `tests/process/killed_at.py` it kills itself; at those of `FROM_OUTSIDE` somebody works for it, and it is killed.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from hermes.testing.fake_model import FakeModel, Hang
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until
from hermes.testing.messaging_process import MARK, look, open_rows

SCRIPT = Path(__file__).parents[1] / "process" / "killed_at.py"
FULL_ROUNDS = 30
DIES_S = 20.0
UNTIL_THE_REPLY = ("after the fetch", "after the persist", "as the turn begins", "mid-model", "mid-tool")
WITH_IT = ("after the reply's commit", "before the send", "mid-send", "after the send")
FROM_OUTSIDE = frozenset({"mid-model", "mid-tool", "mid-send"})


class KilledRounds(ABC):
    """One home that is killed with a message of one service under way; each message has an answer of its own."""

    service_points: Sequence[str] = ()  # of its own, after the reply's commit

    def __init__(self, home: Path, model: FakeModel) -> None:
        self.home = home
        self.model = model
        self.written = 0
        self._armed = home.with_name("armed")

    @abstractmethod
    def write(self, number: int) -> None:
        """A message of that number comes; one that nobody took comes again."""

    @abstractmethod
    def texts(self) -> list[str]:
        """What is shown."""

    @abstractmethod
    def stall(self) -> Callable[[], object]:
        """Do not answer the next send. Returns whether it has come."""

    async def begun(self, gateway: GatewayProcess) -> None:  # noqa: B027  # most services find the process by themselves
        """A process has begun."""

    def ended(self) -> None:  # noqa: B027
        """It was killed."""

    async def run(self, *, full: bool, seed: int) -> None:
        """Be killed at each, each time after what was written before is over, and look at everything in the end.

        Args:
            full: 30 times at every point; else once before and once after the reply's commit, where the seed says.
        """
        later, rounds = (*WITH_IT, *self.service_points), FULL_ROUNDS if full else 1
        chance = random.Random(seed)
        points = (*UNTIL_THE_REPLY, *later) if full else (chance.choice(UNTIL_THE_REPLY), chance.choice(later))
        for point in points:
            for _ in range(rounds):
                await self._round(point)
        async with open_gateway_process(self.home) as gateway:
            await self.begun(gateway)
            await self._settled()
            assert await gateway.terminate() == 0
        assert self.written == rounds * len(points)
        said = self.texts()
        plain = [text for text in said if not text.startswith(MARK)]
        assert {text.removeprefix(MARK).strip() for text in said} == {f"answer {n}" for n in range(self.written)}
        assert len(plain) == len(set(plain))  # nothing is shown twice without saying so
        assert not self.model.refused
        if "mid-tool" in points:
            effects = self._effects()
            assert len(effects) == len(set(effects)) == rounds  # no tool ran twice

    async def _round(self, point: str) -> None:
        script = "nowhere" if point in FROM_OUTSIDE else point
        async with open_gateway_process(
            self.home, wrap=(sys.executable, str(SCRIPT), script, str(self._armed))
        ) as gateway:
            await self.begun(gateway)
            await self._settled()
            answer, kill = Reply(text=f"answer {self.written}"), self._prepare(point)
            self.model.script(answer)
            self._armed.write_text("1")
            self.write(self.written)
            self.written += 1
            with trio.fail_after(DIES_S):
                await kill(gateway)
                assert await gateway.process.wait() == -signal.SIGKILL
            self._armed.unlink()
            self.ended()
        self.model.steps.clear()
        if point in UNTIL_THE_REPLY:
            self.model.script(answer)

    async def _settled(self) -> None:
        def over() -> bool:
            return look(self.home, "SELECT count(*) FROM inbox") == [(self.written,)] and open_rows(self.home) == (0, 0)

        await until(over, f"all {self.written} messages are dealt with", within_s=20)

    def _prepare(self, point: str) -> Callable[[GatewayProcess], Awaitable[object]]:
        model, asked, number = self.model, len(self.model.requests), self.written
        if point not in FROM_OUTSIDE:
            return lambda gateway: gateway.process.wait()
        if point == "mid-model":
            model.script(Hang())
            there: Callable[[], object] = lambda: len(model.requests) > asked  # noqa: E731
        elif point == "mid-tool":
            words = json.dumps({"command": f"echo {number} >> effects; exec sleep 60"})
            model.script(Reply(text="", calls=[("terminal", words)], call_ids=[f"call{number}"]))
            there = lambda: str(number) in self._effects()  # noqa: E731
        else:
            there = self.stall()

        async def kill(gateway: GatewayProcess) -> None:
            await until(there, point)
            await gateway.kill()

        return kill

    def _effects(self) -> list[str]:
        path = self.home / "workspace" / "effects"
        return path.read_text().split() if path.exists() else []
