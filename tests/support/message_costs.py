"""What a message of a service costs that keeps a connection: the same three measurements for each of them.

A service is two functions: `say(chat, text)`, somebody writes, and `shown(chat, count)`, which waits until the bot has written so
many messages there. Figures are recorded; what is asserted is ten times the goal.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

CPU_MS = 6.0  # a message, at most
BURST_CPU_S = 0.6  # fifty of them at once, at most
TIMES = 10.0  # what is measured may be so many times its goal before a test fails
DESCRIPTORS = 40  # more than at rest: connections to the model and to the service that are under way
THREADS = 8


@dataclass(frozen=True, slots=True)
class Costs:
    """A gateway under measurement and the service that it is connected to.

    Args:
        served: the process, of `bench.gateway`.
        record: the fixture.
        table: heading of the figures.
        say: somebody writes in a chat.
        shown: waits until the bot has written so many messages in a chat.
    """

    served: Any
    record: Callable[..., None]
    table: str
    say: Callable[[str, str], object]
    shown: Callable[[str, int], Awaitable[None]]

    async def warm(self, chat: str) -> None:
        """The first messages load what later ones use."""
        for number in range(1, 6):
            self.say(chat, "warm up")
            await self.shown(chat, number)
        await trio.sleep(1.0)  # the model library is loaded beside

    async def one_chat(self, chat: str, count: int) -> None:
        """One message after the other in the chat of `warm`."""
        before, times = self.served.cpu_s(), list[float]()
        for number in range(count):
            began = time.perf_counter()
            self.say(chat, f"question {number}")
            await self.shown(chat, 6 + number)
            times.append((time.perf_counter() - began) * 1000)
        cpu_ms = (self.served.cpu_s() - before) * 1000 / count
        p50 = statistics.median(times)
        self._keep("one chat, one after the other", cpu_ms=round(cpu_ms, 2), p50_ms=round(p50, 2))
        assert cpu_ms <= TIMES * CPU_MS

    async def burst(self, chats: Sequence[str], **more: Callable[[], float]) -> None:
        """Everybody writes at once; `more` are further figures, asked for at the end."""
        before, began = self.served.cpu_s(), time.perf_counter()
        for chat in chats:
            self.say(chat, "all at once")
        for chat in chats:
            await self.shown(chat, 1)
        wall_s, cpu_s = time.perf_counter() - began, self.served.cpu_s() - before
        self._keep(
            f"a burst of {len(chats)} chats, all answered", cpu_s=round(cpu_s, 3), wall_ms=round(wall_s * 1000),
            **{name: value() for name, value in more.items()},
        )  # fmt: skip
        assert cpu_s <= TIMES * BURST_CPU_S

    async def crowd(self, chats: Sequence[str], **more: Callable[[], float]) -> None:
        """Many people, each with one message, about ten of them under way at a time; descriptors and threads stay as they are."""
        held, threads = self.served.holds()
        before, most, began = self.served.cpu_s(), (held, threads), time.perf_counter()
        for number, chat in enumerate(chats):
            self.say(chat, "one of many")
            if number % 20 == 19:
                await self.shown(chats[number - 10], 1)
                now = self.served.holds()
                most = (max(most[0], now[0]), max(most[1], now[1]))
        for chat in chats:
            await self.shown(chat, 1)
        wall_s, cpu_s = time.perf_counter() - began, self.served.cpu_s() - before
        self._keep(
            f"{len(chats)} chats, one message each", cpu_ms=round(cpu_s * 1000 / len(chats), 2), wall_s=round(wall_s, 1),
            descriptors_before=held, descriptors_most=most[0], threads_before=threads, threads_most=most[1],
            rss_mb=round(self.served.rss_mb(), 1), **{name: value() for name, value in more.items()},
        )  # fmt: skip
        assert cpu_s * 1000 / len(chats) <= TIMES * CPU_MS
        assert most[0] <= held + DESCRIPTORS
        assert most[1] <= threads + THREADS

    def _keep(self, row: str, **figures: float) -> None:
        print(self.table, row, figures)
        self.record(self.table, row, **figures)
