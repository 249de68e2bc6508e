"""What a message on Slack costs: from its coming to the first request that answers it, and in CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from message_costs import Costs

from hermes.testing.fake_slack import DM, FakeSlack, open_fake_slack

TABLE = "Messages through Slack, zero-delay model on loopback"


def account(slack: FakeSlack) -> str:
    return (
        f"platforms: {{slack: {{bot_token: '{slack.bot_token}', app_token: '{slack.app_token}', base_url: '{slack.base_url}',"
        " allowed_users: ['*']}}\n"
    )


def people(slack: FakeSlack, name: str, count: int) -> list[str]:
    """Further direct messages; their channels."""
    channels = [f"D1{name}{number}" for number in range(count)]
    for channel in channels:
        slack.add_channel(channel)
    return channels


@pytest.mark.wall_clock_s(240)
async def test_one_chat_a_thousand_in_a_minute_and_a_burst_of_fifty(bench: Any, record: Callable[..., None]) -> None:
    async with open_fake_slack() as slack:
        fifty, many = people(slack, "BURST", 50), people(slack, "PERSON", 1000 if bench.full else 100)

        async def shown(channel: str, count: int) -> None:
            await slack.until(lambda: len(slack.ours(channel)) >= count)

        def late_ms() -> int:
            """The longest that Slack has waited for an acknowledgement since this was asked last."""
            late_s = max(slack.sockets.took)
            slack.sockets.took.clear()
            assert late_s < 3  # it brings an envelope again after that
            return round(late_s * 1000)

        served = bench.gateway(bench.upstream(), extra=account(slack))
        costs = Costs(served, record, TABLE, lambda channel, text: slack.say(text, channel), shown)
        await costs.warm(DM)
        await costs.one_chat(DM, 300 if bench.full else 30)
        slack.sockets.took.clear()
        await costs.crowd(many, longest_to_acknowledge_ms=late_ms)
        await costs.burst(fifty, longest_to_acknowledge_ms=late_ms)
        assert slack.sockets.opened == 1
