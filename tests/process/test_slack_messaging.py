"""The real process with a Slack account: a person's messages through kills, outages, repeats and a bad token."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.home import Home
from hermes.intake import FINAL_ROW_STATES
from hermes.testing.fake_http import Answered
from hermes.testing.fake_model import FakeModel, Gate, Slow, open_fake_model
from hermes.testing.fake_slack import BOT, CHANNEL, DM, FakeSlack, Fault, open_fake_slack
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config

SCRIPT = Path(__file__).with_name("killed_at.py")
POINTS = (
    "after the fetch", "after the persist", "as the turn begins", "after the reply's commit", "before the send",
    "after the send", "after a draft",
)  # fmt: skip
QUICK = {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2}


def sections(slack: FakeSlack, model: FakeModel, **account: Any) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {"slack": {
            "bot_token": slack.bot_token, "app_token": slack.app_token, "base_url": slack.base_url,
            "allowed_users": ["*"], "timeout_s": 10, **account,
        }},
        "supervision": QUICK,
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
        "shutdown": {"flush_timeout_s": 1},
    }  # fmt: skip


def look(home: Path, sql: str) -> list[Any]:
    """Read the database of a gateway, running or not."""
    with closing(sqlite3.connect(f"file:{Home(home).database}?mode=ro", uri=True)) as con:
        return con.execute(sql).fetchall()


def open_rows(home: Path) -> tuple[int, int]:
    """How many rows of the inbox and of the outbox have no final state."""
    (inbox,) = look(home, "SELECT count(*) FROM inbox WHERE finished_at IS NULL")[0]
    (outbox,) = look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0]
    return inbox, outbox


async def answered(slack: FakeSlack, channel: str, count: int, *, within_s: float = 20.0) -> list[str]:
    await until(lambda: len(slack.shown(channel)) >= count, f"{count} messages in {channel}", within_s=within_s)
    return slack.shown(channel)


async def state(gateway: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.status())["accounts"]["slack"]
    return found


def down(slack: FakeSlack, *, yes: bool) -> None:
    """The service is away, or back."""
    slack.faults[:] = [Fault(answer=Answered(status=503), times=10**9)] if yes else []
    slack.socket_status = 503 if yes else 0


@pytest.mark.wall_clock_s(60)
async def test_a_person_talks_in_messages_threads_and_commands_and_what_waited_is_answered(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_slack() as slack, open_fake_model(default=Reply(text="**Yes** & no")) as model:
        write_config(home, sections(slack, model))
        async with open_gateway_process(home) as gateway:
            slack.say("hello")
            assert await answered(slack, DM, 1) == ["Yes & no"]
            asked = slack.say(f"<@{BOT}> and here?", CHANNEL)
            assert await answered(slack, CHANNEL, 1) == ["Yes & no"]
            slack.say("and then?", CHANNEL, thread_ts=asked["ts"])  # no mention: the thread is followed
            await answered(slack, CHANNEL, 2)
            assert {each["thread_ts"] for each in slack.ours(CHANNEL)} == {asked["ts"]}
            slack.command("/hermes", "status", DM)
            assert "1 turn, " in (await answered(slack, DM, 2))[1]
            sent = await hermes(home, "send", "--to", f"slack:{DM}", "from the *command* line")
            assert sent.returncode == 0
            assert (await answered(slack, DM, 3))[2] == "from the command line"
            checked = await hermes(home, "platform", "check", "slack")
            assert checked.stdout.startswith("U0HERMES in T0Hermes")
            assert await gateway.terminate() == 0
        slack.gives_up = True
        slack.say("while you were away")
        slack.sockets.waiting.clear()  # Slack has long stopped bringing it
        async with open_gateway_process(home) as gateway:
            assert (await answered(slack, DM, 4))[3] == "Yes & no"
            assert await gateway.terminate() == 0
        assert len(slack.shown()) == 4
        assert slack.sockets.closes[-1] == 1000


@pytest.mark.wall_clock_s(60)
async def test_a_bad_token_makes_one_attempt_and_a_changed_one_needs_no_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_slack() as slack, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(slack, model, bot_token="xoxb-wrong"))
        async with open_gateway_process(home) as gateway:

            async def parked() -> dict[str, Any] | None:
                found = await state(gateway)
                return found if found["state"] == "parked(refused)" else None

            found = await until(parked, "a parked account")
            assert len(slack.requests) == 1
            assert "`bot_token` is of no use" in found["words"]
            assert (await gateway.chat("hi")).status_code == 200
            shown = (await hermes(home, "status")).stdout
            write_config(home, sections(slack, model))
            assert (await hermes(home, "reload")).returncode == 0
            slack.say("now?")
            assert await answered(slack, DM, 1) == ["hello"]
            assert await gateway.terminate() == 0
        assert "xoxb-wrong" not in shown + gateway.log + gateway.said


@pytest.mark.wall_clock_s(90)
async def test_a_reply_that_is_ready_during_an_outage_arrives_once_after_it_and_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_slack() as slack, open_fake_model() as model:
        gate = trio.Event()
        model.script(Gate(event=gate, reply=Reply(text="the answer")))
        write_config(home, sections(slack, model))
        async with open_gateway_process(home) as gateway:
            slack.say("a question")
            await until(lambda: model.answering, "the question at the model")
            down(slack, yes=True)
            gate.set()
            await until(lambda: len(slack.asked("chat.postMessage")) > 2, "attempts to send")
            assert await gateway.terminate() == 0
        async with open_gateway_process(home) as gateway:
            await until(lambda: state(gateway), "the account")
            down(slack, yes=False)
            assert await answered(slack, DM, 1) == ["the answer"]
            assert await gateway.terminate() == 0
        assert slack.shown() == ["the answer"]
        assert look(home, "SELECT state FROM outbox") == [("sent",)]


@pytest.mark.wall_clock_s(90)
async def test_every_event_delivered_three_times_is_one_turn(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_slack(duplicates=True) as slack, open_fake_model(default=Reply(text="once")) as model:
        write_config(home, sections(slack, model))
        async with open_gateway_process(home) as gateway:
            kept = []
            for number in range(3):
                message = slack.say(f"/queue question {number}")
                kept.append({**message, "channel": DM, "channel_type": "im", "event_ts": message["ts"]})
                slack.say(f"<@{BOT}> question {number}", CHANNEL)
            await answered(slack, DM, 3)
            await answered(slack, CHANNEL, 3)
            for event in kept:
                slack.event(event)
            await until(lambda: not slack.sockets.waiting, "everything acknowledged")
            assert await gateway.terminate() == 0
        async with open_gateway_process(home) as gateway:
            for event in kept:
                slack.event(event)
            await until(lambda: not slack.sockets.waiting, "everything acknowledged")
            await until(lambda: open_rows(home) == (0, 0), "every row ended")
            assert await gateway.terminate() == 0
        assert (len(slack.shown()), len(slack.shown(CHANNEL))) == (3, 3)
        assert len(model.requests) == 6


@pytest.mark.wall_clock_s(300)
async def test_nothing_is_lost_and_nothing_shown_twice_when_the_process_is_killed_at_any_moment(
    tmp_path: Path, full: bool, seed: int, record: Callable[..., None]
) -> None:
    """Kills between envelope and commit, while the model thinks, around the reply's commit, and around each send."""
    chance = random.Random(seed)
    home = tmp_path / "home"
    rounds = 60 if full else 3
    async with (
        open_fake_slack() as slack,
        open_fake_model(default=Slow(first_s=0.01, reply=Reply(text="an answer"))) as model,
    ):
        write_config(home, sections(slack, model))
        chats = ["D0ONE", "D0TWO", "D0THREE"]
        for chat in chats:
            slack.add_channel(chat)
        written: Counter[str] = Counter()
        for number in range(rounds):
            async with open_gateway_process(home) as gateway:
                for _ in range(chance.randint(1, 4)):
                    chat = chance.choice(chats)
                    written[chat] += 1
                    slack.say(f"/queue question {written[chat]} of {chat}", chat)
                if chance.random() < 0.5:
                    slack.fail(Fault(path="chat.postMessage", answer=Answered(cut=0), serve=True))
                await _moment(slack, model, chance, number)
                await gateway.kill()
        slack.faults.clear()
        async with open_gateway_process(home) as gateway:
            total = sum(written.values())
            await until(lambda: not slack.sockets.waiting, "all envelopes acknowledged")
            await until(lambda: open_rows(home) == (0, 0), "every row ended", within_s=40)
            assert await gateway.terminate() == 0
        rows = look(home, "SELECT state, count(*) FROM inbox GROUP BY state")
        assert sum(count for _, count in rows) == total
        assert {name for name, _ in rows} <= set(FINAL_ROW_STATES)
        assert look(home, "SELECT state, count(*) FROM outbox GROUP BY state") == [("sent", total)]
        for chat, count in written.items():  # read back by their metadata: none is shown twice, and none bears a mark
            shown = slack.shown(chat)
            assert len(shown) == count
            assert all(each == "an answer" or "!retry" in each for each in shown)  # what died three times is set aside
        record("Kills of the real process", "Slack: any moment", kills=rounds, messages=total)


async def _moment(slack: FakeSlack, model: FakeModel, chance: random.Random, number: int) -> None:
    """Wait for one of the moments at which it hurts."""
    taken, asked = len(slack.sockets.acknowledged), len(model.requests)
    sends = len(slack.asked("chat.postMessage"))
    moments = (
        lambda: slack.sockets.connections,
        lambda: len(slack.sockets.acknowledged) > taken,
        lambda: len(model.requests) > asked,
        lambda: len(slack.asked("chat.postMessage")) > sends,
        lambda: not slack.sockets.waiting,
    )
    await until(moments[number % len(moments)], "the moment")
    await trio.sleep(chance.random() * 0.03)


@pytest.mark.wall_clock_s(900)
async def test_killed_at_each_named_point_it_shows_each_reply_once_and_unmarked(
    tmp_path: Path, full: bool, record: Callable[..., None]
) -> None:
    points = POINTS if full else POINTS[1::4]
    home, armed = tmp_path / "home", tmp_path / "armed"
    slowly = Slow(between_s=0.15, reply=Reply(text=("the", " an", "swe", "r")))
    async with open_fake_slack() as slack, open_fake_model(default=Reply(text="the answer")) as model:
        write_config(home, sections(slack, model))
        written = 0

        def over() -> bool:
            (taken,) = look(home, "SELECT count(*) FROM inbox")[0]
            return bool(taken == written and open_rows(home) == (0, 0))

        for point in points * (30 if full else 1):
            wrap = (sys.executable, str(SCRIPT), point, str(armed))
            async with open_gateway_process(home, wrap=wrap) as gateway:
                await until(over, "what was written before is dealt with", within_s=20)
                if point == "after a draft":
                    model.script(slowly)
                armed.write_text("1")
                # By turns what is kept and begun by two commits, and what is by one.
                slack.say(f"question {written}" if written % 2 else f"/queue question {written}")
                written += 1
                with trio.fail_after(20):
                    assert await gateway.process.wait() == -signal.SIGKILL
                armed.unlink()
            model.steps.clear()
        async with open_gateway_process(home) as gateway:
            await until(over, "everything is dealt with", within_s=20)
            assert await gateway.terminate() == 0
        assert not slack.sockets.waiting
        assert slack.shown() == ["the answer"] * written
        record("Kills of the real process", f"Slack: {', '.join(points)}", kills=written, messages=written)
