"""A gateway that is killed again and again at a named point of the path of a message, with a message of each service under way."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from hermes.testing.fake_model import FakeModel, Hang, Slow
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until
from hermes.testing.messaging_process import look, open_rows

SCRIPT = Path(__file__).parents[1] / "process" / "killed_at.py"
DIES_S = 20.0
FROM_OUTSIDE = ("mid-model", "mid-tool", "mid-send")
ANSWER = "the answer"
SLOWLY = Slow(between_s=0.15, reply=Reply(text=("the", " an", "swe", "r")))


class KilledGateway:
    """One home, and how a person writes to it in each service.

    What a service does in the middle of a send, and what is to be looked at, says a subclass.
    """

    def __init__(self, tmp_path: Path, model: FakeModel, writes: Sequence[Callable[[str], object]]) -> None:
        self.home = tmp_path / "home"
        self.armed = tmp_path / "armed"
        self.model = model
        self.writes = writes
        self.written = 0  # to each
        self.kills = 0

    async def run(self, point: str, rounds: int) -> None:
        """Write a message to each, be killed there, and again, each time after the ones before were dealt with."""
        for _ in range(rounds):
            wrap = (sys.executable, str(SCRIPT), "nowhere" if point in FROM_OUTSIDE else point, str(self.armed))
            async with open_gateway_process(self.home, wrap=wrap) as gateway:
                await self.settled()
                await self.ready(gateway)
                kill = self._prepare(point)
                self.armed.write_text(str(len(self.writes)))
                # By turns what is kept and begun by two commits, and what is by one.
                words = f"question {self.written}" if self.written % 2 else f"/queue question {self.written}"
                for write in self.writes:
                    write(words)
                self.written += 1
                with trio.fail_after(DIES_S):
                    await kill(gateway)
                    assert await gateway.process.wait() == -signal.SIGKILL
                self.kills += 1
                self.armed.unlink()
            self.model.steps.clear()
            self.killed()

    async def settled(self) -> None:
        """Wait until everything that was written so far is over."""
        total = len(self.writes) * self.written

        async def over() -> bool:
            (taken,) = look(self.home, "SELECT count(*) FROM inbox")[0]
            return bool(taken == total and open_rows(self.home) == (0, 0))

        await until(over, f"all {total} messages are dealt with", within_s=20)

    async def ready(self, gateway: GatewayProcess) -> None:
        """Wait until the next message may be written."""

    def killed(self) -> None:
        """Look at what a kill left."""

    def mid_send(self) -> Callable[[], Awaitable[Any]]:
        """Let the next sends be without an answer; what to wait for before the kill."""
        raise AssertionError("nobody said how a send is held")

    def _prepare(self, point: str) -> Callable[[GatewayProcess], Awaitable[Any]]:
        model, each_of = self.model, range(len(self.writes))
        if point not in FROM_OUTSIDE:
            if point == "after a draft":
                model.script(*(SLOWLY for _ in each_of))
            return lambda gateway: gateway.process.wait()
        asked = len(model.requests)
        held = self.mid_send() if point == "mid-send" else None

        async def seen(gateway: GatewayProcess) -> None:
            if held is not None:
                await held()
            elif point == "mid-model":
                await until(lambda: len(model.requests) >= asked + len(each_of), "the model is asked")
            else:
                await until(self._ran, "the tools run")
            await gateway.kill()

        if point == "mid-model":
            model.script(*(Hang() for _ in each_of))
        elif point == "mid-tool":
            for each in each_of:
                words = json.dumps({"command": f"echo {self.written}-{each} >> effects; exec sleep 60"})
                call = f"call{self.written}-{each}"
                model.script(Reply(text="", calls=[("terminal", words)], call_ids=[call]))
        return seen

    def _ran(self) -> bool:
        return {f"{self.written - 1}-{each}" for each in range(len(self.writes))} <= set(self.effects())

    def effects(self) -> list[str]:
        """What the tools have done, each once if none ran twice."""
        path = self.home / "workspace" / "effects"
        return path.read_text().split() if path.exists() else []
