"""What a message of a messaging service costs: from its coming to the first request that answers it, and in CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from hermes.testing.fake_telegram import TOKEN, FakeTelegram, open_fake_telegram

TABLE = "Messages through Telegram, zero-delay model on loopback"
Record = Callable[..., None]


def account(telegram: FakeTelegram) -> str:
    return (
        f"platforms: {{telegram: {{token: '{TOKEN}', base_url: '{telegram.base_url}', allowed_users: ['*'],"
        " poll_timeout_s: 30}}\n"
    )


class Watch:
    """When each chat was first answered."""

    def __init__(self, telegram: FakeTelegram) -> None:
        self.telegram = telegram

    async def shown(self, count: int) -> None:
        """Wait until so many messages are seen."""
        while len(self.telegram.shown) < count:
            await self.telegram.something_shown()


async def warm(telegram: FakeTelegram, watch: Watch) -> None:
    """The first message loads what later ones use."""
    for number in range(1, 6):
        telegram.write(1, "warm up")
        await watch.shown(number)
    await trio.sleep(1.0)  # the model library is loaded beside


@pytest.mark.wall_clock_s(120)
async def test_one_chat_one_message_after_the_other(bench: Any, record: Record) -> None:
    count = 300 if bench.full else 30
    async with open_fake_telegram() as telegram:
        watch = Watch(telegram)
        served = bench.gateway(bench.upstream(), extra=account(telegram))
        await warm(telegram, watch)
        before, times = served.cpu_s(), list[float]()
        for number in range(count):
            began = time.perf_counter()
            telegram.write(1, f"question {number}")
            await watch.shown(6 + number)
            times.append((time.perf_counter() - began) * 1000)
        cpu_ms = (served.cpu_s() - before) * 1000 / count
        p50 = statistics.median(times)
        record(TABLE, "one chat, one after the other", cpu_ms=round(cpu_ms, 2), p50_ms=round(p50, 2))
        print(cpu_ms, p50)
        assert cpu_ms <= 10 * 6


@pytest.mark.wall_clock_s(120)
async def test_a_burst_of_fifty_chats(bench: Any, record: Record) -> None:
    async with open_fake_telegram() as telegram:
        watch = Watch(telegram)
        served = bench.gateway(bench.upstream(), extra=account(telegram))
        await warm(telegram, watch)
        before, began = served.cpu_s(), time.perf_counter()
        for chat in range(100, 150):
            telegram.write(chat, "all at once")
        await watch.shown(55)
        wall_s, cpu_s = time.perf_counter() - began, served.cpu_s() - before
        record(TABLE, "a burst of 50 chats, all answered", cpu_s=round(cpu_s, 3), wall_ms=round(wall_s * 1000))
        print(cpu_s, wall_s)
        assert cpu_s <= 10 * 0.6


@pytest.mark.wall_clock_s(180)
async def test_a_thousand_chats_in_a_minute(bench: Any, record: Record) -> None:
    chats = 1000 if bench.full else 100
    async with open_fake_telegram() as telegram:
        watch = Watch(telegram)
        served = bench.gateway(bench.upstream(), extra=account(telegram))
        await warm(telegram, watch)
        held, threads = served.holds()
        before, most = served.cpu_s(), 0
        for chat in range(chats):
            telegram.write(1000 + chat, "one of many")
            if chat % 20 == 19:
                await watch.shown(5 + chat - 10)
                most = max(most, served.holds()[0])
        await watch.shown(5 + chats)
        cpu_ms = (served.cpu_s() - before) * 1000 / chats
        now = served.holds()[1]
        record(
            TABLE, f"{chats} chats, one message each", cpu_ms=round(cpu_ms, 2), descriptors_before=held, descriptors_most=most,
            threads_before=threads, threads_after=now, rss_mb=round(served.rss_mb(), 1),
        )  # fmt: skip
        print(cpu_ms, held, most, threads, now)
        assert most <= held + 40
        assert now <= threads + 1
