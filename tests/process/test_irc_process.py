"""The real process on IRC: kills, an outage with a restart, repeats, and its pace."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.intake import FINAL_ROW_STATES
from hermes.testing.fake_irc import PLAIN, FakeIrc, open_fake_irc
from hermes.testing.fake_model import FakeModel, Gate, Slow, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config

SET_ASIDE = "Your message was interrupted three times, set aside. !retry tries once more."
QUICK = {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2}


def sections(irc: FakeIrc, model: FakeModel, **account: Any) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {"irc": {
            "server": "127.0.0.1", "port": irc.port, "tls": False, "nick": "hermes", "channels": ["#den"],
            "flood_burst": 10_000, "flood_interval_s": 0.001, "allowed_users": ["friend"], "dm_policy": "allowlist", **account,
        }},
        "supervision": QUICK,
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
    }  # fmt: skip


def real(offered: Any = None) -> Any:
    return open_fake_irc(*([] if offered is None else [offered]), clock=time.time)


def look(home: Path, sql: str) -> list[Any]:
    import sqlite3

    con = sqlite3.connect(f"file:{home / 'hermes.db'}?mode=ro", uri=True)
    try:
        return con.execute(sql).fetchall()
    finally:
        con.close()


async def connected(gateway: GatewayProcess) -> None:
    async def looks() -> bool:
        found = (await gateway.status())["accounts"].get("irc", {})
        return bool(found.get("state") == "connected" and "server" in found.get("progress_s", {}))

    await until(looks, "a connected account")


async def shown(irc: FakeIrc, count: int, *, of: str = "friend") -> list[str]:
    await until(lambda: len(irc.shown[of]) >= count, f"{count} messages to {of}", within_s=20)
    return irc.shown[of]


@pytest.mark.wall_clock_s(60)
async def test_a_person_talks_and_nobody_else_does(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with real() as irc, open_fake_model(default=Reply(text="**Yes**\n\n- one\n- two")) as model:
        irc.people["mallory"] = ("~friend@home.test", "")  # the same mask, and nobody's account
        write_config(home, sections(irc, model))
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            irc.say("hello", nick="mallory")
            irc.say("hello")
            assert await shown(irc, 3) == ["\x02Yes\x02", "• one", "• two"]
            irc.say("!status")
            assert any("1 turn, " in text for text in await shown(irc, 4))
            irc.say("!sessions")
            await until(
                lambda: any("!resume and a number" in text for text in irc.shown["friend"]), "what can be typed"
            )
            before = len(irc.shown["friend"])
            irc.say("!help")
            await shown(irc, before + 1)
            irc.say("!help new")
            said = (await shown(irc, before + 2))[before:]
            assert "!start !help " in said[0]  # all in one line
            assert "[title]" in said[1]
            irc.say("hermes: and here?", to="#den")
            assert (await shown(irc, 3, of="#den"))[0] == "friend: \x02Yes\x02"
            sent = await hermes(home, "send", "--to", "irc:#den", "from the *command* line")
            assert sent.returncode == 0
            await until(lambda: "from the \x1dcommand\x1d line" in irc.shown["#den"], "what was sent")
            assert not irc.shown["mallory"]
            checked = await hermes(home, "platform", "check", "irc")
            assert "hermes_ (not logged in)" in checked.stdout
            assert await gateway.terminate() == 0
        assert irc.client() is None


@pytest.mark.wall_clock_s(60)
async def test_two_accounts_on_one_server_and_a_ban_of_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with real() as irc, open_fake_model(default=Reply(text="yes")) as model:
        found = sections(irc, model)
        found["platforms"]["other"] = {**found["platforms"]["irc"], "platform": "irc", "nick": "second"}
        write_config(home, found)
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            await until(lambda: irc.client("second"), "the second")
            irc.cut("second", words="Closing Link: (K-Lined)")

            async def parked() -> bool:
                return bool((await gateway.status())["accounts"]["other"]["state"] == "parked(refused)")

            await until(parked, "a parked account")
            irc.cut("hermes", words="Closing Link: (Ping timeout)")
            await until(lambda: irc.connections == 3, "another connection")
            await connected(gateway)
            irc.say("hello")
            assert await shown(irc, 1) == ["yes"]
            assert irc.connections == 3


@pytest.mark.wall_clock_s(90)
@pytest.mark.parametrize("offered", [None, PLAIN], ids=["modern", "plain"])
async def test_a_reply_that_is_ready_during_an_outage_arrives_once_after_it_and_a_restart(
    tmp_path: Path, offered: Any
) -> None:
    home = tmp_path / "home"
    async with real(offered) as irc, open_fake_model() as model:
        gate = trio.Event()
        model.script(Gate(event=gate, reply=Reply(text="the answer")))
        write_config(home, sections(irc, model, identity="hostmask", allowed_users=["*!~friend@home.test"]))
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            irc.say("a question")
            await until(lambda: model.answering, "the question at the model")
            irc.day = "fail"
            irc.cut()
            before = irc.connections
            gate.set()
            await until(lambda: irc.connections > before + 2, "attempts to connect")
            await _told_of_the_outage(gateway)
            assert await gateway.terminate() == 0
        async with open_gateway_process(home) as gateway:
            before = irc.connections
            await until(lambda: irc.connections > before, "an attempt of the next process")
            irc.day = None
            assert await shown(irc, 1) == ["the answer"]
            assert await gateway.terminate() == 0
        assert irc.shown["friend"] == ["the answer"]
        assert look(home, "SELECT state FROM outbox") == [("sent",)]


async def _told_of_the_outage(gateway: GatewayProcess) -> None:
    """What waits and why is said to whoever looks, in words and in numbers."""

    async def waits() -> bool:
        found = (await gateway.status())["accounts"]["irc"]
        return bool(found["to_send"] == 1 and found["waiting"] == 0 and found["restarts"] > 1)

    await until(waits, "the reply in the outbox")
    lines = (await hermes(gateway.home, "status")).stdout.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("account   irc: "))
    assert "The server is full" in lines[at]
    assert " failed)" in lines[at]
    assert lines[at + 1].startswith("          last: ")
    assert "heard " in lines[at + 1]
    assert lines[at + 2].startswith("          1 part is to be sent, the oldest for ")
    numbers = await gateway.metrics()
    assert numbers['hermes_account_to_send{account="irc"}'] == 1
    assert numbers['hermes_account_works{account="irc"}'] == 0
    assert numbers['hermes_account_state{account="irc/retrying"}'] == 1
    assert numbers['hermes_account_restarts{account="irc"}'] > 1
    assert numbers['hermes_account_progress_age_seconds{account="irc/deliver"}'] > 0


@pytest.mark.wall_clock_s(60)
async def test_what_comes_three_times_is_answered_once(tmp_path: Path) -> None:
    """At once, later, and told again by the server after a restart."""
    home = tmp_path / "home"
    async with real() as irc, open_fake_model(default=Reply(text="yes")) as model:
        write_config(home, sections(irc, model))
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            irc.day = "repeat"
            irc.say("one")
            await shown(irc, 1)
            client = irc.client()
            assert client is not None
            irc.write(client, irc.as_line(client, irc.history[0]))
            irc.day = None
            irc.say("two")
            assert await shown(irc, 2) == ["yes", "yes"]
            await until(
                lambda: look(home, "SELECT count(*) FROM outbox WHERE state = 'sent'") == [(2,)], "two receipts"
            )
            await gateway.kill()
        irc.say("three, while nobody was there")
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            client = irc.client()
            assert client is not None
            irc.write(client, irc.as_line(client, irc.history[0]))
            await shown(irc, 3)
            assert await gateway.terminate() == 0
        assert irc.shown["friend"] == ["yes"] * 3
        assert look(home, "SELECT count(*) FROM inbox") == [(3,)]


@pytest.mark.wall_clock_s(300)
async def test_nothing_that_the_server_keeps_is_lost_by_kills(tmp_path: Path, full: bool, seed: int) -> None:
    """Between arrival and commit, while the model thinks, around the reply's commit, and around each send."""
    chance = random.Random(seed)
    home = tmp_path / "home"
    slow = Slow(first_s=0.01, reply=Reply(text="an answer"))
    async with real() as irc, open_fake_model(default=slow) as model:
        write_config(home, sections(irc, model))
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            irc.say("/queue the first")
            await shown(irc, 1)
            await gateway.kill()
        written = 1
        for number in range(60 if full else 5):
            async with open_gateway_process(home) as gateway:
                for _ in range(chance.randint(1, 4)):
                    written += 1
                    irc.say(f"/queue question {written}")
                asked, sends = len(model.requests), irc.asked.count("PRIVMSG friend")
                moments: tuple[Callable[[], object], ...] = (
                    lambda: irc.client(),
                    lambda asked=asked: len(model.requests) > asked,  # type: ignore[misc]
                    lambda sends=sends: irc.asked.count("PRIVMSG friend") > sends,  # type: ignore[misc]
                )
                await until(moments[number % len(moments)], "the moment")
                await trio.sleep(chance.random() * 0.03)
                if number % 4 == 3:
                    irc.day = "lose"
                    await trio.sleep(0.02)
                    irc.day = None
                await gateway.kill()
        async with open_gateway_process(home) as gateway:
            await connected(gateway)

            def ended() -> bool:
                (inbox,) = look(home, "SELECT count(*) FROM inbox WHERE finished_at IS NOT NULL")[0]
                (outbox,) = look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0]
                return bool(inbox == written and outbox == 0)

            await until(ended, "every row ended", within_s=60)
            assert await gateway.terminate() == 0
        rows = dict(look(home, "SELECT state, count(*) FROM inbox GROUP BY state"))
        assert set(rows) <= set(FINAL_ROW_STATES)
        parts = dict(look(home, "SELECT state, count(*) FROM outbox GROUP BY state"))
        assert parts == {"sent": written}
        shown_parts = [text for text in irc.shown["friend"] if text != "(may be a duplicate)"]  # a line of its own
        marks = len(irc.shown["friend"]) - len(shown_parts)
        assert Counter(shown_parts).keys() <= {"an answer", SET_ASIDE}, Counter(shown_parts)
        assert len(shown_parts) - marks <= written <= len(shown_parts)


@pytest.mark.measured
@pytest.mark.wall_clock_s(60)
async def test_its_pace(tmp_path: Path, record: Callable[..., None]) -> None:
    """From a message to the first line of its answer, with a model that takes no time; and fifty people at once."""
    home = tmp_path / "home"
    async with real() as irc, open_fake_model(default=Reply(text="yes")) as model:
        irc.people.update({f"p{number}": (f"~p{number}@home.test", f"p{number}") for number in range(50)})
        everybody = ["friend", *(f"p{number}" for number in range(50))]
        found = sections(irc, model, allowed_users=everybody)
        write_config(home, {**found, "sessions": {"merge_window_s": 0.001}})
        async with open_gateway_process(home) as gateway:
            await connected(gateway)
            times = []
            for number in range(30):
                began = time.perf_counter()
                irc.say(f"question {number}")
                while len(irc.shown["friend"]) <= number:
                    await irc.changed.park()
                times.append(time.perf_counter() - began)
            used = _cpu_of(gateway.pid)
            for number in range(50):
                irc.say("all at once", nick=f"p{number}")
            await irc.until(lambda: all(irc.shown[f"p{number}"] for number in range(50)))
            used = _cpu_of(gateway.pid) - used
            p50_ms = 1000 * sorted(times)[len(times) // 2]
            record("IRC", "a message to the first line of its answer", p50_ms=round(p50_ms, 1))
            record("IRC", "fifty people at once", cpu_s=round(used, 2))
            assert await gateway.terminate() == 0


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
