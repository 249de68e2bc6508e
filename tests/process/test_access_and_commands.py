"""The real process: a stranger is let in from the command line, and somebody restarts the gateway from a chat."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_model import FakeModel, Gate, open_fake_model
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import hermes, open_gateway_process, until, write_config


def sections(telegram: FakeTelegram, model: FakeModel, **account: Any) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {"telegram": {"token": TOKEN, "base_url": telegram.base_url, "poll_timeout_s": 5, **account}},
    }


async def answered(telegram: FakeTelegram, chat: int, count: int) -> list[str]:
    await until(lambda: len(telegram.texts(chat)) >= count, f"{count} messages in chat {chat}", within_s=20.0)
    return telegram.texts(chat)


@pytest.mark.wall_clock_s(60)
async def test_a_stranger_is_let_in_by_the_owner_and_shut_out_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            telegram.write(7, "let me in")
            (said,) = await answered(telegram, 7, 1)
            found = re.search(r"hermes pairing approve telegram ([A-Z2-9]{8})$", said)
            assert found is not None
            assert "telegram  7" in (await hermes(home, "pairing", "list")).stdout
            wrong = await hermes(home, "pairing", "approve", "telegram", "AAAAAAAA")
            assert (wrong.returncode, wrong.stdout) == (1, "")
            assert "no such code" in wrong.stderr
            approved = await hermes(home, "pairing", "approve", "telegram", found[1].lower())
            assert (approved.returncode, approved.stdout) == (0, "7 may talk to telegram\n")
            telegram.write(7, "hi")
            assert (await answered(telegram, 7, 2))[1] == "hello"
            assert (await hermes(home, "pairing", "revoke", "telegram", "7")).returncode == 0
            listed = json.loads((await hermes(home, "pairing", "list", "--json")).stdout)
            assert listed == {"waiting": [], "allowed": []}
            telegram.write(7, "still there?")
            assert "hermes pairing approve" in (await answered(telegram, 7, 3))[2]
            assert await gateway.terminate() == 0
        assert found[1] not in gateway.log + gateway.said
    assert (await hermes(home, "pairing", "list")).returncode == 3


@pytest.mark.wall_clock_s(60)
async def test_a_restart_from_a_chat_is_one_restart_that_says_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(telegram, model, allowed_users=["8"], admins=["7"]))
        async with open_gateway_process(home) as gateway:
            telegram.write(8, "/restart")
            assert "for admins" in (await answered(telegram, 8, 1))[0]
            first = (await gateway.status())["boot_id"]
            telegram.write(7, "/restart")
            said = await answered(telegram, 7, 2)
            assert said == ["Restarting: what runs is finished first.", "I am back."]
            second = await gateway.status()
            assert second["boot_id"] != first
            assert second["pid"] == gateway.pid  # the same process, executed anew
            telegram.write(7, "hi")
            assert (await answered(telegram, 7, 3))[2] == "hello"
            assert await gateway.terminate() == 0
        async with open_gateway_process(home, more={"INVOCATION_ID": "1"}) as gateway:
            telegram.write(7, "/restart")
            assert (await answered(telegram, 7, 4))[3].startswith("Restarting")
            assert await gateway.process.wait() == 75
        async with open_gateway_process(home) as gateway:
            assert (await answered(telegram, 7, 5))[4] == "I am back."
            telegram.write(7, "hi")
            assert (await answered(telegram, 7, 6))[5] == "hello"
        assert len(telegram.texts(7)) == 6


@pytest.mark.wall_clock_s(60)
async def test_a_restart_that_is_brought_again_waits_for_the_turn_and_happens_once_in_its_topic(tmp_path: Path) -> None:
    home = tmp_path / "home"
    finish = trio.Event()
    chat = {"id": -1001, "type": "supergroup", "title": "den", "is_forum": True}
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        model.script(Gate(event=finish, reply=Reply(text="at last")))
        config = sections(telegram, model, admins=["7"], drafts=False, require_mention=False)
        config["shutdown"] = {"total_s": 60, "drain_timeout_s": 50}
        write_config(home, config)

        def write(text: str) -> int:
            return telegram.write(7, text, chat=chat, message_thread_id=5, is_topic_message=True)

        async with open_gateway_process(home) as gateway:
            first = (await gateway.status())["boot_id"]
            write("a long question")
            await until(lambda: model.answering, "the turn runs")
            number = write("/restart")
            telegram.repeat(number)
            assert len(await answered(telegram, -1001, 1)) == 1
            assert (await gateway.status())["boot_id"] == first  # it finishes what runs
            finish.set()
            await answered(telegram, -1001, 3)
            telegram.repeat(number)
            last = write("/whoami")
            said = await answered(telegram, -1001, 4)
            assert said[:3] == ["Restarting: what runs is finished first.", "at last", "I am back."]
            assert said[3].startswith("You are 7")
            await until(lambda: telegram.confirmed >= last, "all was confirmed")
            assert (await gateway.status())["boot_id"] != first
            assert await gateway.terminate() == 0
        assert gateway.log.count("gateway.stopping") == 2  # the restart, and the end just now
        assert [each.message["message_thread_id"] for each in telegram.shown.values()] == [5, 5, 5, 5]


@pytest.mark.wall_clock_s(60)
async def test_what_is_sent_to_an_account_alone_goes_where_sethome_was_typed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(telegram, model, admins=["7"]))
        async with open_gateway_process(home) as gateway:
            refused = await hermes(home, "send", "--to", "telegram", "news")
            assert refused.returncode == 1
            assert "nobody has typed /sethome in a chat of telegram" in refused.stderr
            assert "slack" in (await hermes(home, "send", "--to", "slack", "news")).stderr
            telegram.write(7, "/sethome")
            await answered(telegram, 7, 1)
            assert await gateway.terminate() == 0
        async with open_gateway_process(home):
            assert (await hermes(home, "send", "--to", "telegram", "news")).returncode == 0
            assert (await answered(telegram, 7, 2))[1] == "news"


@pytest.mark.wall_clock_s(60)
async def test_commands_are_answered_while_it_drains_and_stop_ends_what_it_waits_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    never = trio.Event()
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        model.script(Gate(event=never, reply=Reply(text="never")))
        config = sections(telegram, model, admins=["7"])
        config["shutdown"] = {"total_s": 60, "drain_timeout_s": 50}
        write_config(home, config)
        async with open_gateway_process(home) as gateway:
            telegram.write(7, "a long question")
            await until(lambda: model.answering, "the turn runs")
            gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: "gateway.stopping" in gateway.log or "draining" in gateway.log, "it drains")
            telegram.write(7, "/status")
            assert (await answered(telegram, 7, 1))[0].startswith("I am answering.")
            telegram.write(7, "/dance")
            assert "no command" in (await answered(telegram, 7, 2))[1]
            telegram.write(7, "/restart")
            assert (await answered(telegram, 7, 3))[2].startswith("I am being stopped")
            telegram.write(7, "/stop")
            assert (await answered(telegram, 7, 4))[3] == "Stopped."
            assert await gateway.process.wait() == 0
        assert len(telegram.texts(7)) == 4


@pytest.mark.wall_clock_s(60)
async def test_under_a_service_manager_that_is_told_of_the_end_it_restarts_us(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(telegram, model, admins=["7"]))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "n"))
            async with open_gateway_process(home, more={"NOTIFY_SOCKET": str(tmp_path / "n")}) as gateway:
                telegram.write(7, "/restart")
                await answered(telegram, 7, 1)
                assert await gateway.process.wait() == 75
