"""The Discord platform ended at each of its steps: nothing stays, nothing acknowledged is lost, the survivor works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from hermes.errors import PlatformUnavailable
from hermes.events import Activity, Address, AttachmentRef, Content
from hermes.platform import Secret
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_discord import DM, open_fake_discord
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.discord import DiscordConfig
from platforms.discord import platform as spec

TO = Address("discord", DM)


@pytest.mark.wall_clock_s(120)
async def test_opening_and_sending_ended_at_each_step_leave_nothing_and_show_each_key_once(
    full: bool, record: Callable[..., None]
) -> None:
    async with open_fake_discord() as discord, open_test_host("discord", clock=discord.clock) as host:
        config = DiscordConfig(token=Secret(discord.token), base_url=discord.base_url)
        discord.files["1/a"] = b"x" * 1000
        ref = AttachmentRef(kind="document", ref=f"http://127.0.0.1:{discord.port}/attachments/1/a")

        async def scenario() -> None:
            async with spec.open(config, host) as platform:
                sent = await platform.send(TO, Content(text="same"), key="same", reply=None)
                await platform.edit(sent, Content(text="same"))
                await platform.signal(TO, Activity(kind="typing"))
                async with platform.fetch(ref, max_bytes=1000) as pieces:
                    assert b"".join([piece async for piece in pieces]) == b"x" * 1000

        async def check() -> None:
            assert discord.shown() in ([], ["same"])

        report = await cancel_at_every_step(
            scenario, check=check, ways=("cancel", "deadline", "sibling"), stride=1 if full else 3
        )
        record(
            "Cancellation matrix",
            "Discord: opening and sending ended at each step leave nothing and show each key once",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 20
        await scenario()
        assert discord.shown() == ["same"]


@pytest.mark.wall_clock_s(120)
async def test_receiving_ended_at_each_step_loses_nothing(full: bool, record: Callable[..., None]) -> None:
    async with (
        open_fake_discord(identifies_left=100_000) as discord,
        open_test_host("discord", clock=discord.clock) as host,
    ):
        config = DiscordConfig(token=Secret(discord.token), base_url=discord.base_url)
        inbox = RecordingInbox()
        said: list[str] = []

        async def until_received(count: int) -> None:
            async with spec.open(config, host) as platform, trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, inbox, dict(inbox.cursors))
                await inbox.until(lambda: len(inbox.events) >= count)
                nursery.cancel_scope.cancel()

        async def scenario() -> None:
            said.extend((discord.say("one")["id"], discord.command("stop")["id"]))
            await until_received(len(said))

        async def check() -> None:
            await until_received(len(said))
            assert sorted(event.id for event in inbox.events) == sorted(said)

        await until_received(0)
        async with spec.open(config, host) as platform, trio.open_nursery() as nursery:
            nursery.start_soon(platform.receive, inbox, {})
            await inbox.until(lambda: "session" in inbox.cursors)
            nursery.cancel_scope.cancel()
        report = await cancel_at_every_step(
            scenario,
            check=check,
            ways=("cancel", "sibling"),
            stride=1 if full else 5,
            tolerate=(PlatformUnavailable,),
        )
        record(
            "Cancellation matrix",
            "Discord: receiving ended at each step loses nothing",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 15
        assert len(discord.gateway.identifies) == 1  # each restart has resumed


async def test_memory_is_what_it_was() -> None:
    """Ending a session's start does not lose the count of identifies."""
    memory = TestMemory()
    async with open_fake_discord() as discord, open_test_host("discord", memory=memory, clock=discord.clock) as host:
        config = DiscordConfig(token=Secret(discord.token), base_url=discord.base_url)
        async with spec.open(config, host) as platform:
            with trio.move_on_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(platform.receive, RecordingInbox(), {})
                    await discord.until(lambda: discord.gateway.identifies)
                    nursery.cancel_scope.cancel()
        assert b'"left":999' in memory.values["identify"]
