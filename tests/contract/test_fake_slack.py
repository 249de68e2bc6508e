"""The fake Slack does not lie: slack-sdk's Socket Mode and Web clients, in a process of their own, accept all that we rely on."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.testing.fake_http import answer_json
from hermes.testing.fake_slack import ALICE, BOT, BOT_ID, CHANNEL, DM, TEAM, FakeSlack, Fault, open_fake_slack

CLIENT = Path(__file__).parents[1] / "samples" / "slack" / "client.py"
pytestmark = pytest.mark.wall_clock_s(25)

if importlib.util.find_spec("slack_sdk") is None:
    pytest.skip("slack-sdk is not installed: the fake Slack is not compared with it", allow_module_level=True)


LONG = {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}


class Client:
    """slack-sdk in a process: it says what it sees, a JSON line each, and does what it is told, a line each."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._waiting = b""
        self.seen: list[dict[str, Any]] = []

    async def until(self, what: str) -> dict[str, Any]:
        """The next thing of this kind."""
        for place, each in enumerate(self.seen):
            if each["saw"] == what:
                return self.seen.pop(place)
        assert self._process.stdout is not None
        while True:
            while b"\n" in self._waiting:
                line, _, self._waiting = self._waiting.partition(b"\n")
                found: dict[str, Any] = json.loads(line)
                if found["saw"] == what:
                    return found
                assert found["saw"] not in ("broke", "failed"), found
                self.seen.append(found)
            data = await self._process.stdout.receive_some()
            assert data, f"slack-sdk ended; it had seen {self.seen}"
            self._waiting += data

    async def ask(self, do: str, expect: str = "done", **more: Any) -> dict[str, Any]:
        """Do something; what came of it."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": do, **more}).encode() + b"\n")
        return await self.until(expect)

    async def event(self) -> dict[str, Any]:
        """The payload of the next envelope."""
        return dict((await self.until("envelope"))["payload"])


@asynccontextmanager
async def open_client(slack: FakeSlack, **tokens: str) -> AsyncIterator[Client]:
    command = [
        sys.executable, str(CLIENT), slack.base_url, tokens.get("bot", slack.bot_token), tokens.get("app", slack.app_token)
    ]  # fmt: skip
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        try:
            yield Client(process)
        finally:
            process.kill()  # it takes its time to close


async def test_the_socket_client_gets_events_commands_and_buttons_and_acknowledges_them() -> None:
    async with open_fake_slack() as slack, open_client(slack) as client:
        await client.ask("connect", expect="connected")
        await slack.until(lambda: slack.sockets.connections)
        message = slack.say(f"hello <@{BOT}>", CHANNEL)
        first, second = await client.event(), await client.event()
        assert {first["event"]["type"], second["event"]["type"]} == {"message", "app_mention"}
        assert first["event"]["ts"] == second["event"]["ts"] == message["ts"]
        assert (first["team_id"], first["event"]["user"]) == (TEAM, ALICE)
        command = slack.command("/hermes", "stop")
        assert (await client.event())["trigger_id"] == command["trigger_id"]
        shown = (await client.ask("buttons", channel=DM))["answer"]
        slack.press(DM, slack.messages[DM][shown["ts"]])
        pressed = await client.event()
        assert (pressed["type"], pressed["actions"][0]["value"]) == ("block_actions", "yes")
        await slack.until(lambda: len(slack.sockets.acknowledged) == 4)
        assert not slack.sockets.waiting
        assert max(slack.sockets.took) < 3


async def test_the_socket_client_follows_a_request_for_another_socket_and_gets_again_what_it_did_not_acknowledge() -> (
    None
):
    async with open_fake_slack() as slack, open_client(slack) as client:
        await client.ask("connect", expect="connected")
        await client.ask("acknowledge", yes=False)
        await slack.until(lambda: slack.sockets.connections)
        message = slack.say("one")
        assert (await client.until("envelope"))["retry"] == 0
        await client.ask("acknowledge", yes=True)
        slack.sockets.renew()
        again = await client.until("envelope")
        assert again["retry"] == 1
        assert again["payload"]["event"]["ts"] == message["ts"]
        await slack.until(lambda: slack.sockets.acknowledged == [message["ts"]])
        assert slack.sockets.opened == 2


async def test_the_web_client_writes_edits_finds_and_reads() -> None:
    async with open_fake_slack() as slack, open_client(slack) as client:
        who = await client.ask("auth_test")
        assert (who["answer"]["user_id"], who["answer"]["bot_id"], who["answer"]["team_id"]) == (BOT, BOT_ID, TEAM)
        assert "chat:write" in who["scopes"]
        sent = (await client.ask("metadata", channel=DM, text="*a* &amp; b"))["answer"]
        assert slack.shown() == ["a & b"]
        assert sent["message"]["bot_id"] == BOT_ID
        await client.ask("chat_update", channel=DM, ts=sent["ts"], text="c")
        assert slack.shown() == ["c"]
        history = (await client.ask("conversations_history", channel=DM, include_all_metadata=True))["answer"]
        assert history["messages"][0]["metadata"]["event_payload"] == {"key": "k1"}
        bare = (await client.ask("conversations_history", channel=DM, limit=5))["answer"]
        assert "metadata" not in bare["messages"][0]
        reply = (await client.ask("chat_postMessage", channel=DM, text="in it", thread_ts=sent["ts"]))["answer"]
        replies = (await client.ask("conversations_replies", channel=DM, ts=sent["ts"]))["answer"]
        assert [each["ts"] for each in replies["messages"]] == [sent["ts"], reply["ts"]]
        await client.ask("assistant_threads_setStatus", channel_id=DM, thread_ts=sent["ts"], status="is writing…")
        assert slack.statuses == [(DM, sent["ts"], "is writing…")]
        await client.ask("reactions_add", channel=DM, timestamp=sent["ts"], name="eyes")
        await client.ask("reactions_add", expect="failed", channel=DM, timestamp=sent["ts"], name="eyes")
        shown = (await client.ask("reactions_get", channel=DM, timestamp=sent["ts"]))["answer"]["message"]["reactions"]
        assert shown == [{"name": "eyes", "users": [BOT], "count": 1}]
        await client.ask("reactions_remove", channel=DM, timestamp=sent["ts"], name="eyes")
        name = (await client.ask("users_info", user=ALICE))["answer"]["user"]["profile"]["display_name"]
        assert name == "Alice"
        opened = (await client.ask("conversations_open", users=ALICE))["answer"]
        assert opened["channel"]["id"] == DM


async def test_the_web_client_uploads_a_file() -> None:
    async with open_fake_slack() as slack, open_client(slack) as client:
        file = (await client.ask("file", channel=DM, initial_comment="look"))["file"]
        assert slack.contents[file] == b"content of it"
        (message,) = slack.ours()
        assert (message["text"], message["files"][0]["id"]) == ("look", file)
        info = (await client.ask("files_info", file=file))["answer"]["file"]
        assert info["shares"]["private"][DM][0]["ts"] == message["ts"]


async def test_the_clients_know_the_errors_by_their_answers() -> None:
    async with open_fake_slack() as slack:
        async with open_client(slack) as client:
            for error, order in (
                ("channel_not_found", {"channel": "C0NOWHERE", "text": "x"}),
                ("no_text", {"channel": DM, "text": ""}),
                ("msg_too_long", {"channel": DM, "text": "x" * 40_001}),
                ("thread_not_found", {"channel": DM, "text": "x", "thread_ts": "1.000000"}),
                ("invalid_blocks", {"channel": DM, "text": "x", "blocks": [LONG]}),
            ):  # fmt: skip
                assert (await client.ask("chat_postMessage", expect="failed", **order))["error"] == error
            slack.fail(Fault(answer=answer_json({"ok": False, "error": "ratelimited"}, 429, {"retry-after": "1"})))
            assert (await client.ask("chat_postMessage", expect="failed", channel=DM, text="x"))[
                "error"
            ] == "ratelimited"
            slack.fail(Fault(answer=answer_json({"ok": False, "error": "ratelimited"}, 429, {"retry-after": "0"})))
            await client.ask("patiently", channel=DM, text="x")  # it reads Retry-After and waits by itself
            assert slack.shown() == ["x"]
        async with open_client(slack, bot="xoxb-another", app="xapp-another") as client:
            assert (await client.ask("auth_test", expect="failed"))["error"] == "invalid_auth"
            assert (await client.ask("connect", expect="failed"))["error"] == "invalid_auth"
