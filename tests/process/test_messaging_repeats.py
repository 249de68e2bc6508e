"""The real process and services that deliver everything several times: one turn and one reply each."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_model import open_fake_model
from hermes.testing.fake_telegram import open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    DiscordService,
    TelegramService,
    answered,
    final_states,
    open_rows,
    sections,
    until_state,
)

SAID = ("a question", "/status", "/queue later", "/new", "/nosuch")


@pytest.mark.wall_clock_s(60)
async def test_telegram_delivers_everything_three_times(tmp_path: Path) -> None:
    """At once, later, after a restart; the same update, and another update of the same message."""
    home = tmp_path / "home"
    async with open_fake_telegram() as fake, open_fake_model(default=Reply(text="hello")) as model:
        service = TelegramService(fake)
        write_config(home, sections(model, service))
        numbers: list[int] = []

        def again() -> None:
            fake.repeat(*numbers)
            for each in list(fake._recent):
                fake.push({"message": copy.deepcopy(each["message"])})

        async with open_gateway_process(home) as gateway:
            for count, text in enumerate(SAID, 1):
                numbers.append(fake.write(7, text))
                fake.repeat(numbers[-1])
                await answered(service, count)
            again()
            last = fake.write(7, "the last")
            await answered(service, len(SAID) + 1)
            await until(lambda: fake.confirmed >= last, "all was confirmed")
            assert await gateway.terminate() == 0
        again()
        numbers.append(last)
        again()
        async with open_gateway_process(home) as gateway:
            await until(lambda: not fake.updates, "all was confirmed")
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            assert await gateway.terminate() == 0
        assert len(fake.texts(7)) == len(SAID) + 1
        assert len(model.requests) == 3
        inbox, outbox = final_states(home)
        assert inbox == {"answered": 3, "command": 3}
        assert outbox == {"sent": 6}


@pytest.mark.wall_clock_s(60)
async def test_discord_delivers_everything_three_times(tmp_path: Path) -> None:
    """At once, again later under new sequence numbers, and in the session after a restart."""
    home = tmp_path / "home"
    async with open_fake_discord(duplicates=True) as fake, open_fake_model(default=Reply(text="hello")) as model:
        service = DiscordService(fake)
        write_config(home, sections(model, service))

        def again() -> None:
            for message in list(fake.messages[service.channel(0)].values()):
                fake.gateway.dispatch("MESSAGE_CREATE", fake.event_of(message))

        async with open_gateway_process(home) as gateway:
            await until_state(gateway, "discord", "connected")
            await until(lambda: fake.gateway.live, "a session")
            for count, text in enumerate(SAID, 1):
                service.write(text)
                await answered(service, count)
            again()
            service.write("the last")
            await answered(service, len(SAID) + 1)
            assert await gateway.terminate() == 0
        again()
        async with open_gateway_process(home) as gateway:
            await until(lambda: fake.gateway.live, "a session")
            again()
            service.write("after all")
            await answered(service, len(SAID) + 2)
            fake.gateway.close(4009, forget=True)
            await until(lambda: fake.gateway.live and len(fake.gateway.identifies) > 1, "a new session")
            again()
            service.write("after everything")
            await answered(service, len(SAID) + 3)
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            assert await gateway.terminate() == 0
        assert len(service.texts()) == len(SAID) + 3
        inbox, outbox = final_states(home)
        assert inbox == {"answered": 5, "command": 3}
        assert outbox == {"sent": 8}
        assert len(model.requests) == 5
