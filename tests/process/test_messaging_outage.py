"""The real process through an outage of both services with a restart inside: everything answered once, in order per chat."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.testing.fake_discord import Fault as DiscordFault
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_http import Answered
from hermes.testing.fake_model import open_fake_model
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    DiscordService,
    TelegramService,
    answered,
    final_states,
    look,
    open_rows,
    sections,
    until_state,
)

CHATS, EACH = 3, 4
AWAY = Answered(status=502)


@pytest.mark.wall_clock_s(90)
async def test_replies_of_an_outage_arrive_once_and_in_their_order_after_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with (
        open_fake_telegram() as fake, open_fake_discord() as other, open_fake_model(default=Reply(text="late")) as model,
    ):  # fmt: skip
        services = telegram, discord = TelegramService(fake), DiscordService(other)
        total = len(services) * CHATS * EACH
        model.script(*(Reply(text=f"answer {number:03}") for number in range(total)))
        write_config(home, sections(model, telegram, discord, shutdown={"flush_timeout_s": 0.5}))
        async with open_gateway_process(home) as gateway:
            await until(lambda: other.gateway.live, "a session")
            await until_state(gateway, "telegram", "connected")
            fake.standing["sendMessage"] = Fault(code=502)
            other.fail(DiscordFault(answer=AWAY, method="POST", path="/messages$", times=1_000_000))
            for number in range(EACH):
                for chat in range(CHATS):
                    for service in services:
                        service.write(f"/queue question {number}", chat)
            await until(
                lambda: look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0] == (total,), "replies"
            )
            fake.down = True
            other.fail(DiscordFault(answer=AWAY, times=1_000_000))
            other.greets = False
            assert await gateway.terminate() == 0
        for service in services:
            service.write("/queue and while it was away", 0)
        async with open_gateway_process(home) as gateway:
            refused = len(other.requests)
            await until(lambda: len(other.requests) > refused + 3, "attempts")
            assert open_rows(home) == (0, total)
            fake.down = False
            fake.standing.clear()
            other.faults.clear()
            other.greets = True
            for service in services:
                await answered(service, EACH + 1, 0)
                for chat in range(1, CHATS):
                    await answered(service, EACH, chat)
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            assert await gateway.terminate() == 0
        for service in services:
            for chat in range(CHATS):
                said = service.texts(chat)
                assert said == sorted(said)
                assert len(set(said)) == len(said) == EACH + (chat == 0)
        assert final_states(home) == ({"answered": total + 2}, {"sent": total + 2})
