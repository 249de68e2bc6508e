"""The real process with accounts: a person on Telegram, through kills, outages, refusals and reloads."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.intake import FINAL_ROW_STATES
from hermes.testing.fake_model import FakeModel, Gate, Slow, open_fake_model
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config

QUICK = {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2}
FINAL_PARTS = ("sent", "rejected", "held")


def sections(telegram: FakeTelegram, model: FakeModel, **account: Any) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {"telegram": {
            "token": TOKEN, "base_url": telegram.base_url, "allowed_users": ["*"], "poll_timeout_s": 5, **account,
        }},
        "supervision": QUICK,
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
    }  # fmt: skip


def look(home: Path, sql: str) -> list[Any]:
    """Read the database of a gateway that has ended."""
    con = sqlite3.connect(f"file:{home / 'hermes.db'}?mode=ro", uri=True)
    try:
        return con.execute(sql).fetchall()
    finally:
        con.close()


async def answered(telegram: FakeTelegram, chat: int, count: int, *, within_s: float = 20.0) -> list[str]:
    await until(lambda: len(telegram.texts(chat)) >= count, f"{count} messages in chat {chat}", within_s=within_s)
    return telegram.texts(chat)


async def state(gateway: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.status())["accounts"]["telegram"]
    return found


@pytest.mark.wall_clock_s(60)
async def test_a_person_talks_through_a_stop_and_what_waited_is_answered(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="**Yes** & no")) as model:
        write_config(home, sections(telegram, model))
        telegram.write(7, "written before anybody listened")
        async with open_gateway_process(home) as gateway:
            assert await answered(telegram, 7, 1) == ["Yes & no"]
            assert [each["type"] for each in next(iter(telegram.shown.values())).message["entities"]] == ["bold"]
            telegram.write(7, "/status")
            assert "1 turn, " in (await answered(telegram, 7, 2))[1]
            assert (await gateway.client.get("/ready")).status_code == 200
            sent = await hermes(home, "send", "--to", "telegram:7", "from the *command* line")
            assert sent.returncode == 0
            assert (await answered(telegram, 7, 3))[2] == "from the command line"
            assert "everything has arrived" in (await hermes(home, "outbox", "list")).stdout
            for command in (["send", "--to", "telegrm:7", "hi"], ["outbox", "list", "--account", "telegrm"]):
                wrong = await hermes(home, *command)
                assert (wrong.returncode, wrong.stdout) == (1, "")
                assert "no account 'telegrm' (there are: telegram)" in wrong.stderr
            telegram.gone["8"] = "Bad Request: chat not found"
            await hermes(home, "send", "--to", "telegram:8", "two\n\nparagraphs")
            await until(
                lambda: look(home, "SELECT 1 FROM outbox WHERE state = 'rejected'"), "a part that did not arrive"
            )
            listed = (await hermes(home, "outbox", "list")).stdout
            assert "\n    two paragraphs\n" in listed
            assert "hermes outbox retry" in listed
            assert await gateway.terminate() == 0
        telegram.write(7, "while you were away")
        async with open_gateway_process(home) as gateway:
            assert (await answered(telegram, 7, 4))[3] == "Yes & no"
        assert telegram.most_polling <= 2  # a poll of the process before may not have been noticed to be gone
        assert len(telegram.texts(7)) == 4


@pytest.mark.wall_clock_s(60)
async def test_what_did_not_arrive_is_sent_after_all_or_given_up_by_hand(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="yes")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            telegram.gone["8"] = "Bad Request: chat not found"
            for text in ("one", "two"):
                await hermes(home, "send", "--to", "telegram:8", text)
                await until(lambda: look(home, "SELECT 1 FROM outbox WHERE state = 'rejected'"), "a dead letter")
            listed = json.loads((await hermes(home, "outbox", "list", "--json")).stdout)["parts"]
            keys = {each["text"]: each["key"] for each in listed}
            assert {each["state"] for each in listed} == {"rejected"}
            assert (await hermes(home, "outbox", "drop", keys["two"])).stdout == "given up\n"
            del telegram.gone["8"]
            assert (await hermes(home, "outbox", "retry", keys["one"])).stdout == "it is sent again\n"
            assert await answered(telegram, 8, 1) == ["one"]
            for action in ("retry", "drop"):
                wrong = await hermes(home, "outbox", action, keys["two"])
                assert (wrong.returncode, wrong.stdout) == (1, "")
                assert "no part" in wrong.stderr
            assert "everything has arrived" in (await hermes(home, "outbox", "list")).stdout
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(60)
async def test_a_bad_token_makes_one_attempt_and_a_changed_one_needs_no_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(telegram, model, token="1:wrong"))
        async with open_gateway_process(home) as gateway:

            async def parked() -> dict[str, Any] | None:
                found = await state(gateway)
                return found if found["state"] == "parked(refused)" else None

            found = await until(parked, "a parked account")
            assert telegram.refused == 1
            assert "BotFather" in found["words"]
            assert (await gateway.client.get("/ready")).status_code == 200  # reported and excused
            assert (await gateway.chat("hi")).status_code == 200
            assert (await gateway.metrics())['hermes_accounts{of="parked(refused)"}'] == 1
            shown = (await hermes(home, "status")).stdout
            assert "refused by the service" in shown
            assert "`hermes platform retry telegram`" in shown
            checked = await hermes(home, "platform", "check", "telegram")
            assert checked.returncode == 1
            assert "BotFather" in checked.stderr
            assert telegram.refused == 2  # ours, and that of the check
            write_config(home, sections(telegram, model))
            assert (await hermes(home, "reload")).returncode == 0
            telegram.write(7, "now?")
            assert await answered(telegram, 7, 1) == ["hello"]
            assert (await hermes(home, "platform", "check", "telegram")).stdout.startswith("@hermes_test_bot (id 4242)")
            assert await gateway.terminate() == 0
        assert "1:wrong" not in shown + gateway.log + gateway.said


@pytest.mark.wall_clock_s(90)
async def test_a_reply_that_is_ready_during_an_outage_arrives_once_after_it_and_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model() as model:
        gate = trio.Event()
        model.script(Gate(event=gate, reply=Reply(text="the answer")))
        write_config(home, {**sections(telegram, model), "shutdown": {"flush_timeout_s": 0.5}})
        async with open_gateway_process(home) as gateway:
            telegram.write(7, "a question")
            await until(lambda: model.answering, "the question at the model")
            telegram.down = True
            gate.set()
            await until(lambda: telegram.counts["sendmessage"] > 2, "attempts to send")
            assert await gateway.terminate() == 0
        async with open_gateway_process(home) as gateway:
            await until(lambda: state(gateway), "the account")
            telegram.down = False
            assert await answered(telegram, 7, 1) == ["the answer"]
            assert await gateway.terminate() == 0
        assert telegram.texts(7) == ["the answer"]
        assert look(home, "SELECT state FROM outbox") == [("sent",)]


@pytest.mark.wall_clock_s(60)
async def test_one_token_in_two_homes_is_used_by_one_of_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    state_home = {"XDG_STATE_HOME": str(tmp_path / "state")}
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="hello")) as model:
        for home in (first, second):
            write_config(home, sections(telegram, model))
        async with open_gateway_process(second, more=state_home) as waits:
            telegram.write(7, "who is it?")
            await answered(telegram, 7, 1)
            async with open_gateway_process(first, more=state_home) as late:

                async def conflict() -> dict[str, Any] | None:
                    found = await state(late)
                    return found if found["state"] == "conflict" else None

                found = await until(conflict, "a conflict")
                assert f"the account telegram of {second}" in found["words"]
                assert (await late.client.get("/ready")).status_code == 503
                telegram.down = True
                before = (await state(waits))["restarts"]

                async def out() -> bool:
                    return bool((await state(waits))["restarts"] > before + 4)

                await until(out, "the first is without a connection, again and again")
                assert (await state(late))["state"] == "conflict"  # and yet nobody takes its place
                telegram.down = False
                assert await waits.terminate() == 0
                telegram.write(7, "and now?")
                assert await answered(telegram, 7, 2) == ["hello", "hello"]
                assert await late.terminate() == 0
        assert look(first, "SELECT count(*) FROM inbox") == [(1,)]
        assert not list((tmp_path / "state" / "hermes").iterdir())


@pytest.mark.wall_clock_s(300)
async def test_nothing_is_lost_when_the_process_is_killed_at_any_moment(tmp_path: Path, full: bool, seed: int) -> None:
    """Kills between fetch and commit, while the model thinks, around the reply's commit, and around each send."""
    chance = random.Random(seed)
    home = tmp_path / "home"
    rounds = 60 if full else 6
    async with (
        open_fake_telegram() as telegram,
        open_fake_model(default=Slow(first_s=0.01, reply=Reply(text="an answer"))) as model,
    ):
        write_config(home, sections(telegram, model))
        written: Counter[int] = Counter()
        for number in range(rounds):
            async with open_gateway_process(home) as gateway:
                for _ in range(chance.randint(1, 4)):
                    chat = chance.randint(1, 3)
                    written[chat] += 1
                    telegram.write(chat, f"/queue question {written[chat]} of {chat}")
                if chance.random() < 0.3:
                    telegram.fail("sendMessage", Fault(cut_after=30, done=True))
                await _moment(telegram, model, chance, number)
                await gateway.kill()
        async with open_gateway_process(home) as gateway:
            total = sum(written.values())
            await until(lambda: not telegram.updates, "all updates confirmed")
            await until(lambda: _open_rows(home) == (0, 0), "every row ended", within_s=40)
            assert await gateway.terminate() == 0
        rows = look(home, "SELECT state, count(*) FROM inbox GROUP BY state")
        assert sum(count for _, count in rows) == total
        assert {name for name, _ in rows} <= set(FINAL_ROW_STATES)
        parts = dict(look(home, "SELECT state, count(*) FROM outbox GROUP BY state"))
        assert set(parts) <= set(FINAL_PARTS)
        assert parts["sent"] == total
        for chat, count in written.items():
            said = telegram.texts(chat)
            unmarked = [text for text in said if not text.startswith("(may be a duplicate)")]
            assert len(unmarked) <= count <= len(said)
        (offset,) = look(home, "SELECT value FROM cursors WHERE name = 'offset'")[0]
        assert int(offset.split()[-1]) == telegram.confirmed + 1


def _open_rows(home: Path) -> tuple[int, int]:
    (inbox,) = look(home, "SELECT count(*) FROM inbox WHERE finished_at IS NULL")[0]
    (outbox,) = look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0]
    return inbox, outbox


async def _moment(telegram: FakeTelegram, model: FakeModel, chance: random.Random, number: int) -> None:
    """Wait for one of the moments at which it hurts."""
    confirmed, asked, sends = telegram.confirmed, len(model.requests), telegram.counts["sendmessage"]
    moments = (
        lambda: telegram.confirmed > confirmed,  # fetched and kept
        lambda: len(model.requests) > asked,  # the model thinks
        lambda: telegram.counts["sendmessage"] > sends,  # a reply is being sent
        lambda: not telegram.updates,
    )
    await until(moments[number % len(moments)], "the moment")
    await trio.sleep(chance.random() * 0.03)
