"""What a message on IRC costs: from its coming to the first line that answers it, and in CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from message_costs import Costs

from hermes.testing.fake_irc import FakeIrc, open_fake_irc

TABLE = "Messages through IRC, zero-delay model on loopback"


def account(irc: FakeIrc) -> str:
    """Nothing is held back for the server's sake: what is measured is what we do."""
    return (
        f"platforms: {{irc: {{server: '127.0.0.1', port: {irc.port}, tls: false, nick: hermes, channels: ['#den'],"
        " allowed_users: ['*'], flood_burst: 10000, flood_interval_s: 0.001}}\n"
    )


def people(irc: FakeIrc, name: str, count: int) -> list[str]:
    """Further people who are on the network; their nicks."""
    nicks = [f"{name}{number}" for number in range(count)]
    irc.people.update({nick: (f"~{nick}@home.test", nick) for nick in nicks})
    return nicks


@pytest.mark.wall_clock_s(240)
async def test_one_chat_a_thousand_in_a_minute_and_a_burst_of_fifty(bench: Any, record: Callable[..., None]) -> None:
    async with open_fake_irc(clock=time.time) as irc:
        fifty, many = people(irc, "burst", 50), people(irc, "person", 1000 if bench.full else 100)

        async def shown(nick: str, count: int) -> None:
            await irc.until(lambda: len(irc.shown[nick]) >= count)

        served = bench.gateway(bench.upstream(), extra=account(irc))
        costs = Costs(served, record, TABLE, lambda nick, text: irc.say(text, nick=nick), shown)
        await irc.until(lambda: "#den" in irc.channels and "hermes" in irc.channels["#den"].members)
        await costs.warm("friend")
        await costs.one_chat("friend", 300 if bench.full else 30)
        await costs.crowd(many)
        await costs.burst(fifty)
        assert irc.connections == 1
