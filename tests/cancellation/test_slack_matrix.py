"""The Slack platform ended at each of its steps: nothing stays, nothing acknowledged is lost, the survivor works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio

from hermes.errors import PlatformUnavailable
from hermes.events import Activity, Address, AttachmentRef, Content, OutboundFile
from hermes.platform import ReadsBack, Secret
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_slack import BOT, CHANNEL, DM, open_fake_slack
from hermes.testing.host import RecordingInbox, open_test_host
from platforms.slack import SlackConfig
from platforms.slack import platform as spec

TO = Address("slack", DM)


@pytest.mark.wall_clock_s(120)
async def test_opening_showing_finding_and_fetching_ended_at_each_step_leave_nothing(
    full: bool, tmp_path: Path, record: Callable[..., None]
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 1000)
    file = OutboundFile(path=path, name="a", media_type="text/plain", size_bytes=1000)
    async with open_fake_slack() as slack, open_test_host("slack", clock=slack.clock) as host:
        config = SlackConfig(
            bot_token=Secret(slack.bot_token), app_token=Secret(slack.app_token), base_url=slack.base_url
        )
        slack.add_file("a", b"x" * 1000, id_="F0FILE")
        ref = AttachmentRef(kind="document", ref="F0FILE")
        since = slack.clock()
        runs = 0

        async def once(key: str) -> None:
            """What delivery does with a part: send it, or look whether an attempt before has shown it."""
            async with spec.open(config, host) as platform:
                found = await cast("ReadsBack", platform).find(TO, key=key, since=since)
                if found is None:
                    found = await platform.send(TO, Content(text=key), key=key, reply=None)
                await platform.edit(found, Content(text=f"{key}!"))

        async def scenario() -> None:
            nonlocal runs
            runs += 1
            key = f"part{runs}"
            try:
                await once(key)
                async with spec.open(config, host) as platform:
                    sent = await platform.send(TO, Content(file=file), key=f"file{runs}", reply=None)
                    await platform.signal(Address("slack", DM, sent.message_id), Activity(kind="reaction"))
                    async with platform.fetch(ref, max_bytes=1000) as pieces:
                        assert b"".join([piece async for piece in pieces]) == b"x" * 1000
            finally:
                keys.append(key)

        async def check() -> None:
            await once(keys[-1])
            assert slack.shown().count(f"{keys[-1]}!") == 1  # cut wherever it was, and repeated: shown once
            assert keys[-1] not in slack.shown()

        keys: list[str] = []
        slack.add_message(DM, text="x", user="U0ALICE")
        report = await cancel_at_every_step(
            scenario, check=check, ways=("cancel", "deadline", "sibling"), stride=1 if full else 4
        )
        record(
            "Cancellation matrix",
            "Slack: opening showing finding and fetching ended at each step leave nothing",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 30


@pytest.mark.wall_clock_s(120)
async def test_receiving_ended_at_each_step_loses_nothing(full: bool, record: Callable[..., None]) -> None:
    async with open_fake_slack() as slack, open_test_host("slack", clock=slack.clock) as host:
        config = SlackConfig(
            bot_token=Secret(slack.bot_token), app_token=Secret(slack.app_token), base_url=slack.base_url
        )
        inbox = RecordingInbox(account="slack")
        said: list[str] = []

        async def until_received(count: int) -> None:
            async with spec.open(config, host) as platform, trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, inbox, dict(inbox.cursors))
                await inbox.until(lambda: len(inbox.events) >= count)
                if slack.sockets.connections:
                    slack.sockets.renew()  # and once more while a socket is replaced
                    said.append(slack.say("at the change")["ts"])
                    await inbox.until(lambda: len(inbox.events) >= len(said))
                nursery.cancel_scope.cancel()

        async def scenario() -> None:
            said.append(slack.say("one")["ts"])
            said.append(slack.say(f"<@{BOT}> two", CHANNEL)["ts"])
            await until_received(len(said))

        async def check() -> None:
            early = set(slack.sockets.acknowledged) - {event.id for event in inbox.events}
            assert not early
            await until_received(len(said))
            assert sorted(event.id for event in inbox.events) == sorted(said)

        report = await cancel_at_every_step(
            scenario, check=check, ways=("cancel", "sibling"), stride=1 if full else 12, tolerate=(PlatformUnavailable,)
        )
        record(
            "Cancellation matrix",
            "Slack: receiving ended at each step loses nothing",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 8
