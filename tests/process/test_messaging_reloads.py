"""The real process while accounts come, go and change under it, and while it is asked to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_model import Gate, open_fake_model
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    DiscordService,
    TelegramService,
    account,
    answered,
    final_states,
    look,
    open_rows,
    sections,
    until_state,
)


async def names(gateway: GatewayProcess) -> set[str]:
    return set((await gateway.client.get("/ready")).json()["accounts"])


@pytest.mark.wall_clock_s(60)
async def test_an_account_is_removed_while_a_turn_runs_and_replies_wait(tmp_path: Path) -> None:
    """Its replies are held and its rows refused, each with the reason; nobody else notices, and it can come back."""
    home = tmp_path / "home"
    async with (
        open_fake_telegram() as fake, open_fake_discord() as other, open_fake_model(default=Reply(text="hello")) as model,
    ):  # fmt: skip
        telegram, discord = TelegramService(fake), DiscordService(other)
        write_config(home, sections(model, telegram, discord))
        async with open_gateway_process(home) as gateway:
            await until_state(gateway, "discord", "connected")
            fake.standing["sendMessage"] = Fault(code=502)
            telegram.write("answered, and the answer waits", 1)
            await until(lambda: fake.counts["sendmessage"], "an attempt to send")
            gate = trio.Event()
            model.script(Gate(event=gate))
            telegram.write("in a turn")
            await until(lambda: model.answering, "the turn runs")
            telegram.write("/queue behind the turn")
            last = telegram.fake.write(7, "/queue behind it too")
            await until(lambda: fake.confirmed >= last, "all is kept")
            asked = len(model.requests)
            write_config(home, sections(model, discord))
            assert (await hermes(home, "reload")).returncode == 0
            await until(lambda: names(gateway), "the accounts")

            async def gone() -> bool:
                return await names(gateway) == {"discord"}

            await until(gone, "telegram is gone")
            gate.set()
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            assert len(model.requests) == asked
            rows = look(home, "SELECT state, reason FROM inbox WHERE account = 'telegram' ORDER BY id")
            assert rows[0] == ("answered", None)
            assert rows[2:] == [("refused", "account removed")] * 2
            held = look(home, "SELECT DISTINCT state, reason FROM outbox WHERE account = 'telegram'")
            assert held == [("held", "account removed")]
            discord.write("are you there?")
            await answered(discord, 1)
            fake.standing.clear()
            write_config(home, sections(model, telegram, discord))
            assert (await hermes(home, "reload")).returncode == 0
            telegram.write("again")
            assert await answered(telegram, 1) == ["hello"]
            assert await gateway.terminate() == 0
        final_states(home)


@pytest.mark.wall_clock_s(60)
async def test_an_account_that_was_removed_while_it_was_down_leaves_nothing_open(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as fake, open_fake_model(default=Gate(event=trio.Event())) as model:
        telegram = TelegramService(fake)
        write_config(home, sections(model, telegram))
        async with open_gateway_process(home) as gateway:
            telegram.write("in a turn")
            await until(lambda: model.answering, "the turn runs")
            last = fake.write(7, "/queue behind it")
            await until(lambda: fake.confirmed >= last, "all is kept")
            await gateway.kill()
        model.default = Reply(text="hello")
        write_config(home, sections(model))
        async with open_gateway_process(home) as gateway:
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            assert (await gateway.chat("hi")).status_code == 200
            assert await gateway.terminate() == 0
        inbox, outbox = final_states(home)
        assert inbox == {"refused": 2, "answered": 1}
        assert set(outbox) <= {"held"}


@pytest.mark.wall_clock_s(60)
async def test_an_account_is_added_and_changed_and_a_refused_one_needs_no_restart(tmp_path: Path) -> None:
    """Discord's token and its missing intents: one attempt each, words, and a changed section tries again."""
    home = tmp_path / "home"
    async with open_fake_discord() as fake, open_fake_model(default=Reply(text="hello")) as model:
        discord = DiscordService(fake)
        write_config(home, sections(model))
        async with open_gateway_process(home) as gateway:

            async def change(**more: Any) -> None:
                configured = sections(model, discord)
                configured["platforms"]["discord"] |= more
                write_config(home, configured)
                assert (await hermes(home, "reload")).returncode == 0

            await change(token="wrong")
            found = await until_state(gateway, "discord", "parked(refused)")
            assert "token" in found["words"]
            assert len(fake.asked("GET", "/users/@me$")) == 1
            assert (await gateway.client.get("/ready")).status_code == 200
            fake.allowed_intents &= ~(1 << 15)
            await change()
            found = await until_state(gateway, "discord", "parked(refused)")
            assert "Message Content" in found["words"], found["words"]
            attempts = len(fake.gateway.identifies)
            assert attempts <= 1
            await change(message_content=False)
            await until_state(gateway, "discord", "connected")
            await until(lambda: fake.gateway.live, "a session")
            discord.write("hi")
            assert await answered(discord, 1) == ["hello"]
            fake.gateway.close(4004, forget=True)
            await until_state(gateway, "discord", "parked(refused)")
            assert len(fake.gateway.identifies) == attempts + 1
            assert (await hermes(home, "platform", "retry", "discord")).returncode == 0
            await until_state(gateway, "discord", "connected")
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(60)
@pytest.mark.parametrize("patient", [True, False])
async def test_a_stop_during_a_long_turn_lets_the_person_have_the_reply(tmp_path: Path, patient: bool) -> None:
    """Within the drain, or else after the next start."""
    home = tmp_path / "home"
    async with open_fake_telegram() as fake, open_fake_model() as model:
        telegram = TelegramService(fake)
        gate = trio.Event()
        model.script(Gate(event=gate, reply=Reply(text="at last")))
        model.default = Reply(text="resumed")
        configured = sections(model, telegram)
        configured["shutdown"] = {"drain_timeout_s": 15 if patient else 0.2}
        write_config(home, configured)
        async with open_gateway_process(home) as gateway:
            telegram.write("a long question")
            await until(lambda: model.answering, "the turn runs")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gateway.terminate)
                if patient:

                    async def draining() -> bool:
                        return bool((await account(gateway, "telegram"))["state"])

                    await until(draining, "it still says what it does")
                    gate.set()
            assert gateway.process.returncode == 0
        if not patient:
            assert telegram.texts() == []
            async with open_gateway_process(home) as gateway:
                await answered(telegram, 1)
                assert await gateway.terminate() == 0
        assert telegram.texts() == ["at last" if patient else "resumed"]
        assert final_states(home) == ({"answered": 1}, {"sent": 1})
