"""The IRC platform ended at each of its steps: nothing stays, nobody else is hurt, and the survivor works."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
import trio

from hermes.errors import ConnectionEnded, SendUncertain
from hermes.events import Address, Content
from hermes.testing import Ending, RecordingInbox, cancel_at_every_step, open_test_host
from hermes.testing.fake_irc import MODERN, PLAIN, open_fake_irc
from platforms.irc import IrcConfig
from platforms.irc import platform as spec

TO = Address("irc", "friend")


@pytest.mark.wall_clock_s(120)
@pytest.mark.parametrize("offered", [MODERN, PLAIN], ids=["modern", "plain"])
async def test_everything_ended_at_each_step_leaves_nothing(
    offered: Collection[str], full: bool, record: Callable[..., None]
) -> None:
    async with open_fake_irc(offered) as irc, open_test_host("irc", clock=irc.clock) as host:
        config = IrcConfig(
            server="127.0.0.1", port=irc.port, tls=False, nick="hermes", channels=("#den",), flood_burst=1000,
            flood_interval_s=0.001,
        )  # fmt: skip

        async def scenario() -> None:
            inbox = RecordingInbox(account="irc")
            async with spec.open(config, host) as platform, trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, inbox, {})
                irc.say("hello")
                await inbox.until(lambda: inbox.events)
                async with trio.open_nursery() as sends:
                    for text in ("one", "two\nlines"):
                        sends.start_soon(lambda text=text: platform.send(TO, Content(text=text), key="k", reply=None))
                nursery.cancel_scope.cancel()

        async def check() -> None:
            await irc.until(lambda: not irc.clients)
            irc.shown.clear()

        closes = Ending("the server closes", irc.cut, tolerate=(ConnectionEnded, SendUncertain))
        await scenario()
        await check()
        report = await cancel_at_every_step(
            scenario, check=check, ways=("cancel", "deadline", "sibling", closes), stride=1 if full else 3
        )
        record(
            "Cancellation matrix",
            f"IRC: everything ended at each step leaves nothing ({len(offered)} capabilities)",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 40
        await scenario()
        assert irc.shown["friend"] in (["one", "two", "lines"], ["two", "lines", "one"])


@pytest.mark.wall_clock_s(60)
async def test_a_send_that_is_cancelled_is_shown_whole_or_not_at_all() -> None:
    async with open_fake_irc(PLAIN) as irc, open_test_host("irc", clock=irc.clock) as host:
        config = IrcConfig(
            server="127.0.0.1", port=irc.port, tls=False, nick="hermes", flood_burst=1000, flood_interval_s=0.001
        )
        async with spec.open(config, host) as platform:
            sent = 0

            async def scenario() -> None:
                await platform.send(TO, Content(text="a\nb\nc"), key="k", reply=None)

            async def check() -> None:
                nonlocal sent
                sent += 1
                await platform.send(TO, Content(text=f"after {sent}"), key="k", reply=None)
                *before, last = irc.shown.pop("friend")
                assert (before, last) == (["a", "b", "c"] * (len(before) // 3), f"after {sent}")

            await check()
            await cancel_at_every_step(scenario, check=check, ways=("cancel", "deadline"), stride=1)
