"""What a message on Slack costs: from its coming to the first request that answers it, and in CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from hermes.testing.fake_slack import DM, FakeSlack, open_fake_slack

TABLE = "Messages through Slack, zero-delay model on loopback"
Record = Callable[..., None]


def account(slack: FakeSlack) -> str:
    return (
        f"platforms: {{slack: {{bot_token: '{slack.bot_token}', app_token: '{slack.app_token}', base_url: '{slack.base_url}',"
        " allowed_users: ['*']}}\n"
    )


async def shown(slack: FakeSlack, count: int, channel: str = DM) -> None:
    """Wait until so many messages are seen."""
    await slack.until(lambda: len(slack.ours(channel)) >= count)


async def warm(slack: FakeSlack) -> None:
    """The first message loads what later ones use."""
    for number in range(1, 6):
        slack.say("warm up")
        await shown(slack, number)
    await trio.sleep(1.0)  # the model library is loaded beside


@pytest.mark.wall_clock_s(120)
async def test_one_chat_one_message_after_the_other(bench: Any, record: Record) -> None:
    count = 300 if bench.full else 30
    async with open_fake_slack() as slack:
        served = bench.gateway(bench.upstream(), extra=account(slack))
        await warm(slack)
        before, times = served.cpu_s(), list[float]()
        for number in range(count):
            began = time.perf_counter()
            slack.say(f"question {number}")
            await shown(slack, 6 + number)
            times.append((time.perf_counter() - began) * 1000)
        cpu_ms = (served.cpu_s() - before) * 1000 / count
        p50 = statistics.median(times)
        record(TABLE, "one chat, one after the other", cpu_ms=round(cpu_ms, 2), p50_ms=round(p50, 2))
        print(cpu_ms, p50)
        assert cpu_ms <= 10 * 6


@pytest.mark.wall_clock_s(120)
async def test_a_burst_of_fifty_chats(bench: Any, record: Record) -> None:
    async with open_fake_slack() as slack:
        served = bench.gateway(bench.upstream(), extra=account(slack))
        await warm(slack)
        chats = [f"D1CHAT{number}" for number in range(50)]
        for chat in chats:
            slack.add_channel(chat)
        before, began = served.cpu_s(), time.perf_counter()
        for chat in chats:
            slack.say("all at once", chat)
        await slack.until(lambda: all(slack.ours(chat) for chat in chats))
        wall_s, cpu_s = time.perf_counter() - began, served.cpu_s() - before
        late = max(slack.sockets.took)
        record(
            TABLE, "a burst of 50 chats, all answered", cpu_s=round(cpu_s, 3), wall_ms=round(wall_s * 1000),
            longest_to_acknowledge_ms=round(late * 1000),
        )  # fmt: skip
        print(cpu_s, wall_s, late)
        assert cpu_s <= 10 * 0.6
        assert late < 3
