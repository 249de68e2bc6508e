"""The real process and services that fall silent in every way: said by `/ready`, healed alone, nothing lost, nothing left open."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_discord import Fault as DiscordFault
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_http import Answered
from hermes.testing.fake_model import open_fake_model
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    DiscordService,
    TelegramService,
    account,
    answered,
    final_states,
    open_rows,
    sections,
    until_state,
)

TWICE_S = 8.0  # twice the longest deadline of a path in these tests, a second and its grace, and a look
LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are read from /proc")


def sockets(gateway: GatewayProcess) -> Counter[str]:
    """What it holds, but for connections that come and go with a request."""
    return Counter(name.partition(":")[0] for name in gateway.descriptors().values())


async def not_connected(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    """Wait until `/ready` says that an account does not work; what it says of it."""

    async def see() -> dict[str, Any]:
        answer = await gateway.client.get("/ready")
        found: dict[str, Any] = answer.json()["accounts"][name]
        assert (answer.status_code == 200) == found["works"]  # the other accounts are well
        return {} if found["works"] else found

    return await until(see, f"{name} does not work", within_s=TWICE_S)


@LINUX
@pytest.mark.wall_clock_s(90)
async def test_discord_falls_silent_in_every_way(tmp_path: Path) -> None:
    """No acknowledgement, no event although one is there, a cut without a word, minutes of 502, sends that fail, SIGSTOP."""
    home = tmp_path / "home"
    async with open_fake_discord(heartbeat_s=1.0) as fake, open_fake_model(default=Reply(text="hello")) as model:
        discord = DiscordService(fake)
        configured = sections(model, discord)
        configured["platforms"]["discord"] |= {"timeout_s": 1, "quiet_s": 1}
        write_config(home, configured)
        async with open_gateway_process(home) as gateway:
            said = 0

            async def healed() -> None:
                nonlocal said
                said += 1
                discord.write(f"question {said}")
                await answered(discord, said)
                await until_state(gateway, "discord", "connected")

            await until(lambda: fake.gateway.live, "a session")
            await healed()
            before = sockets(gateway)

            fake.acks = fake.greets = False  # a black hole behind an open socket
            await not_connected(gateway, "discord")
            fake.acks = fake.greets = True
            await healed()

            fake.forwards = fake.greets = False  # heartbeats are answered, and nothing is told
            said += 1
            discord.write("unheard")
            found = await not_connected(gateway, "discord")
            assert found["deaf"], found
            fake.forwards = fake.greets = True
            await answered(discord, said)
            await healed()

            await fake.gateway.drop()  # half open: they have gone without a word
            await healed()

            fake.fail(DiscordFault(answer=Answered(status=502), times=10_000))
            fake.greets = False
            await fake.gateway.drop()
            discord.write("during the outage")
            said += 1
            await not_connected(gateway, "discord")
            fake.faults.clear()
            fake.greets = True
            await answered(discord, said)
            await healed()

            fake.fail(DiscordFault(answer=Answered(hang=True), method="POST", path="/messages$", times=10_000))
            discord.write("whose answer cannot be sent")
            said += 1
            found = await not_connected(gateway, "discord")
            assert "send" in found["words"], found["words"]
            fake.faults.clear()
            await answered(discord, said)
            await healed()

            gateway.process.send_signal(signal.SIGSTOP)
            discord.write("while it was stopped")
            said += 1
            await trio.sleep(3)  # longer than two heartbeats and their grace: the time is what is tested
            gateway.process.send_signal(signal.SIGCONT)
            await answered(discord, said)
            await healed()

            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            await until(lambda: sockets(gateway)["socket"] <= before["socket"] + 2, "no socket is left")
            assert sum(sockets(gateway).values()) <= sum(before.values()) + 2
            assert len(discord.texts()) == said
            assert await gateway.terminate() == 0
        assert final_states(home) == ({"answered": said}, {"sent": said})


@LINUX
@pytest.mark.wall_clock_s(90)
async def test_two_accounts_one_behind_a_black_hole_and_a_second_poller(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with (
        open_fake_telegram() as fake, open_fake_discord() as other, open_fake_model(default=Reply(text="hello")) as model,
    ):  # fmt: skip
        telegram, discord = TelegramService(fake), DiscordService(other)
        hole = DiscordFault(answer=Answered(hang=True), times=10_000)
        other.fail(hole)
        write_config(home, sections(model, telegram, discord))
        telegram.write("before it was there")
        async with open_gateway_process(home) as gateway:
            await answered(telegram, 1)
            assert (await account(gateway, "discord"))["state"] in ("connecting", "retrying")
            assert (await gateway.client.get("/ready")).status_code == 503
            assert (await gateway.chat("hi")).status_code == 200
            other.faults.clear()
            await until_state(gateway, "discord", "connected")
            await until(lambda: other.gateway.live, "a session")
            discord.write("at last")
            await answered(discord, 1)
            assert (await gateway.client.get("/ready")).status_code == 200

            conflict = (
                "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
            )
            fake.standing["getUpdates"] = Fault(code=409, description=conflict)
            fake.notify()
            fake.write(7, "while somebody else polls")  # wakes the poll that is held
            found = await until_state(gateway, "telegram", "conflict")
            assert "another" in found["words"] or "else" in found["words"] or "second" in found["words"], found["words"]
            discord.write("are you there?")
            await answered(discord, 2)
            fake.standing.clear()
            assert (await hermes(home, "platform", "retry", "telegram")).returncode == 0  # or in a minute by itself
            await until_state(gateway, "telegram", "connected")
            telegram.write("and now?")
            await answered(telegram, 3)

            fake.down = True
            telegram.write("meanwhile")
            await not_connected(gateway, "telegram")
            fake.down = False
            await answered(telegram, 4)
            gateway.process.send_signal(signal.SIGSTOP)
            telegram.write("while it was stopped")
            fake.notify()
            await trio.sleep(1)
            gateway.process.send_signal(signal.SIGCONT)
            await answered(telegram, 5)
            await until_state(gateway, "telegram", "connected")

            before = sockets(gateway)
            fake.standing["getUpdates"] = Fault(hang=True)
            telegram.write("into the black hole")  # the poll that is held brings it; the next one hangs
            fake.standing["sendMessage"] = Fault(code=502)
            found = await not_connected(gateway, "telegram")
            assert "send" in found["words"], found["words"]
            fake.standing.clear()
            await answered(telegram, 6)
            assert sockets(gateway)["socket"] <= before["socket"] + 4
            assert await gateway.terminate() == 0
        assert final_states(home)[1] == {"sent": 8}
