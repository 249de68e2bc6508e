"""The fake Discord does not lie: discord.py, used as a client in a process of its own, accepts all that our platform relies on."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_discord import CHANNEL, DM, FakeDiscord, open_fake_discord

CLIENT = Path(__file__).parents[1] / "samples" / "discord" / "client.py"

if importlib.util.find_spec("discord") is None:
    pytest.skip("discord.py is not installed: the fake Discord is not compared with it", allow_module_level=True)


class Client:
    """discord.py in a process: it says what it sees, a JSON line each, and does what it is told, a line each."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._waiting = b""
        self.seen: list[dict[str, Any]] = []

    async def until(self, what: str) -> dict[str, Any]:
        """The next thing of this kind; what comes before it is kept in `seen`."""
        assert self._process.stdout is not None
        while True:
            while b"\n" in self._waiting:
                line, _, self._waiting = self._waiting.partition(b"\n")
                found: dict[str, Any] = json.loads(line)
                self.seen.append(found)
                assert found["saw"] == what or found["saw"] not in ("broke", "failed"), found
                if found["saw"] == what:
                    return found
            data = await self._process.stdout.receive_some()
            assert data, f"discord.py ended; it had seen {self.seen}"
            self._waiting += data

    async def tell(self, **order: Any) -> None:
        """Do something."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def end(self) -> int:
        """Wait until it has ended."""
        return await self._process.wait()


async def start(nursery: trio.Nursery, discord: FakeDiscord, token: str | None = None) -> Client:
    command = [sys.executable, str(CLIENT), discord.base_url, discord.gateway_url, token or discord.token]
    run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
    process: trio.Process = await nursery.start(run)
    return Client(process)


@pytest.mark.wall_clock_s(25)
async def test_discord_py_connects_receives_answers_edits_types_reacts_and_registers_commands() -> None:
    async with open_fake_discord() as discord, trio.open_nursery() as nursery:
        client = await start(nursery, discord)
        assert (await client.until("ready"))["user"] == "1000"
        assert "compress=z" in discord.gateway.paths[0]
        for channel in (DM, CHANNEL):
            message = discord.say("hello <@1000>", channel)
            seen = await client.until("message")
            assert (seen["id"], seen["text"], seen["author"], seen["mentioned"]) == (
                message["id"], "hello <@1000>", "900", True
            )  # fmt: skip
            await client.tell(do="answer", channel=channel, message=message["id"], text="hi, alice")
            answered = await client.until("answered")
            shown = discord.messages[channel][answered["id"]]
            assert shown["content"] == "hi, alice"
            assert shown["message_reference"]["message_id"] == message["id"]
            await client.tell(do="edit", channel=channel, message=answered["id"], text="hi, Alice")
            await client.until("edited")
            assert shown["content"] == "hi, Alice"
        await client.tell(do="type", channel=DM)
        await client.until("typed")
        assert discord.typing == [DM]
        await client.tell(do="react", channel=DM, message=answered["id"], in_=CHANNEL)
        await client.until("reacted")
        assert discord.reactions[-1][2] == "👀"
        await client.tell(do="sync")
        await client.until("synced")
        assert [each["name"] for each in discord.commands] == ["stop"]
        discord.command("stop", "now")
        assert (await client.until("command"))["arguments"] == "now"
        await client.until("deferred")
        assert next(iter(discord.interactions.values()))["answer"]["type"] == 5
        await client.tell(do="quit")
        assert await client.end() == 0
        await discord.until(lambda: not discord.gateway.connections)
        assert discord.gateway.closes == [4000]
        assert len(discord.gateway.sessions) == 1  # such a close keeps the session


@pytest.mark.wall_clock_s(25)
async def test_discord_py_resumes_and_gets_what_it_missed() -> None:
    async with open_fake_discord() as discord, trio.open_nursery() as nursery:
        client = await start(nursery, discord)
        await client.until("ready")
        await discord.gateway.drop()
        missed = discord.say("while you were away")
        assert (await client.until("message"))["id"] == missed["id"]
        await client.until("resumed")
        assert len(discord.gateway.resumes) == 1
        assert len(discord.gateway.identifies) == 1
        await client.tell(do="quit")
        await client.end()


@pytest.mark.wall_clock_s(25)
async def test_discord_py_identifies_anew_when_its_session_is_invalid(full: bool) -> None:
    if not full:
        pytest.skip("discord.py waits for many seconds here; HERMES_FULL=1 runs it")
    async with open_fake_discord() as discord, trio.open_nursery() as nursery:
        client = await start(nursery, discord)
        await client.until("ready")
        discord.invalid_sessions = 1
        await discord.gateway.drop()
        await client.until("ready")
        assert len(discord.gateway.identifies) == 2
        await client.tell(do="quit")
        await client.end()


@pytest.mark.wall_clock_s(25)
async def test_discord_py_knows_a_bad_token_and_missing_intents_by_their_answers() -> None:
    async with open_fake_discord() as discord, trio.open_nursery() as nursery:
        client = await start(nursery, discord, token="another")
        assert (await client.until("failed"))["error"] == "LoginFailure"
        await client.end()
        discord.allowed_intents = 1
        client = await start(nursery, discord)
        assert (await client.until("failed"))["error"] == "PrivilegedIntentsRequired"
        await client.end()


@pytest.mark.wall_clock_s(25)
async def test_discord_py_understands_the_rules_for_messages() -> None:
    async with open_fake_discord() as discord, trio.open_nursery() as nursery:
        client = await start(nursery, discord)
        await client.until("ready")
        for text, code in (("x" * 2001, 50035), ("", 50006)):
            await client.tell(do="send", channel=DM, text=text)
            assert (await client.until("failed"))["code"] == code
        discord.denied[DM] = 50007
        await client.tell(do="send", channel=DM, text="x")
        assert (await client.until("failed"))["code"] == 50007
        del discord.denied[DM]
        await client.tell(do="file", channel=DM, text="with a file")
        sent = await client.until("sent")
        attachment = discord.messages[DM][sent["id"]]["attachments"][0]
        assert discord.files[f"{attachment['id']}/a.txt"] == b"content"
        discord.bucket = (1, 0.2)
        for _ in range(3):
            await client.tell(do="send", channel=DM, text="x")
            await client.until("sent")  # discord.py reads the bucket's headers and waits by itself
        await client.tell(do="quit")
        await client.end()
