"""The real process, called by other programs: answers on the spot, replies elsewhere, kills, repetitions, outages, leaving."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from killed_rounds import KilledRounds

from hermes.intake import FINAL_ROW_STATES
from hermes.platform import Secret
from hermes.testing.fake_caller import Answered, FakeCaller, call
from hermes.testing.fake_model import FakeModel, Gate, Slow, Status, open_fake_model
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config
from platforms.webhook.config import Route
from platforms.webhook.signing import sign

QUICK = {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2}
SECRET = "a-secret-of-the-route"
ROUTES: dict[str, dict[str, Any]] = {
    "ask": {"signature": "bearer", "prompt": "{text}", "answer": True},
    "tell": {"signature": "github", "prompt": "{text}", "deliver": "telegram:7", "rate_per_minute": 100_000},
    "both": {"signature": "stripe", "prompt": "{text}", "answer": True, "deliver": "telegram:7"},
}
SIGNING = {name: Route(name=name, signature=each["signature"], secret=Secret(SECRET)) for name, each in ROUTES.items()}


def sections(telegram: FakeTelegram, model: FakeModel, **routes: Any) -> dict[str, Any]:
    chosen = {name: {"secret": SECRET, **each} for name, each in {**ROUTES, **routes}.items()}
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {
            "telegram": {"token": TOKEN, "base_url": telegram.base_url, "allowed_users": ["*"], "poll_timeout_s": 5},
            "hooks": {"platform": "webhook", "routes": chosen},
        },
        "supervision": QUICK,
        "shutdown": {"flush_timeout_s": 0.5},
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
    }


async def ask(gateway: GatewayProcess, route: str, text: str, name: str = "1") -> Answered:
    body = json.dumps({"text": text, "id": name}).encode()
    answer = await call(f"{gateway.url}/hooks/{route}", body, sign(SIGNING[route], body, at=time.time(), id=name))
    assert answer is not None
    return answer


async def served(gateway: GatewayProcess) -> None:
    """Wait until the routes are there."""

    async def there() -> bool:
        found = await call(f"{gateway.url}/hooks/ask", b"{}", {})
        return found is not None and found.status == 401

    await until(there, "the routes")


def look(home: Path, sql: str) -> list[Any]:
    con = sqlite3.connect(f"file:{home / 'hermes.db'}?mode=ro", uri=True)
    try:
        return con.execute(sql).fetchall()
    finally:
        con.close()


@asynccontextmanager
async def calling(caller: FakeCaller) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.wall_clock_s(60)
async def test_programs_are_answered_and_people_are_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="**Yes** & no")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            await served(gateway)
            answer = await ask(gateway, "ask", "a question")
            assert (answer.status, answer.fields) == (200, {"id": "1", "reply": "**Yes** & no"})
            assert json.dumps("a question") in json.dumps(model.requests[-1].body)
            assert (await ask(gateway, "ask", "a question")).fields == answer.fields  # said again, asked once
            assert (await ask(gateway, "tell", "/stop")).status == 202
            await until(lambda: telegram.texts(7) == ["Yes & no"], "the reply in the chat")
            assert json.dumps("tell: /stop") in json.dumps(model.requests[-1].body)
            answer = await ask(gateway, "both", "again", "evt_2")
            assert answer.fields == {"id": "evt_2", "reply": "**Yes** & no"}
            await until(lambda: len(telegram.texts(7)) == 2, "the second reply in the chat")
            model.script(Status(code=400))
            failed = await ask(gateway, "ask", "what the model refuses", "2")
            assert failed.status == 500
            assert "That did not work" in failed.fields["error"]
            checked = await hermes(home, "platform", "check", "hooks")
            assert "POST /hooks/tell, signed by github; the reply goes to telegram:7" in checked.stdout
            shown = await hermes(home, "config", "show")
            assert await gateway.terminate() == 0
        assert SECRET not in shown.stdout + gateway.log + gateway.said
        async with open_gateway_process(home) as gateway:
            await served(gateway)
            assert (await ask(gateway, "ask", "a question")).status == 409
            assert (await ask(gateway, "tell", "/stop")).fields == {"status": "known"}
            assert await gateway.terminate() == 0
        states = Counter(look(home, "SELECT account, state FROM outbox"))
        assert states == {("telegram", "sent"): 2, ("hooks", "sent"): 5 - 1}
        assert len(model.requests) == 4


@pytest.mark.wall_clock_s(60)
async def test_a_caller_that_leaves_ends_its_turn_and_nothing_is_left_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model() as model:
        model.script(Gate(event=trio.Event(), reply=Reply(text="too late")))
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            await served(gateway)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, gateway, "ask", "a long question")
                await until(lambda: model.answering, "the question at the model")
                nursery.cancel_scope.cancel()
            await until(lambda: look(home, "SELECT 1 FROM inbox WHERE finished_at IS NOT NULL"), "the row's end")
            assert await gateway.terminate() == 0
        assert look(home, "SELECT state, reason FROM inbox") == [("interrupted", "the caller left")]
        assert not look(home, "SELECT * FROM outbox")  # nobody is there to read of it


@pytest.mark.wall_clock_s(60)
async def test_a_route_without_a_secret_is_not_served(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model() as model:
        found = sections(telegram, model)
        del found["platforms"]["hooks"]["routes"]["ask"]["secret"]
        write_config(home, found)
        done = await hermes(home, "serve", "--port", "0")
        assert done.returncode == 78
        assert "ask is no route: secret is missing" in done.stderr


@pytest.mark.wall_clock_s(90)
async def test_replies_of_an_outage_arrive_once_after_it_and_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="the news")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            await served(gateway)
            telegram.down = True
            for _ in range(3):  # at once, and again
                assert (await ask(gateway, "tell", "news", "d-1")).status in (200, 202)
            await until(
                lambda: look(home, "SELECT 1 FROM outbox WHERE account = 'telegram'"), "the reply in the outbox"
            )
            assert await gateway.terminate() == 0
        async with open_gateway_process(home) as gateway:
            await served(gateway)
            assert (await ask(gateway, "tell", "news", "d-1")).fields == {"status": "known"}
            telegram.down = False
            await until(lambda: telegram.texts(7), "the reply in the chat")
            assert await gateway.terminate() == 0
        assert telegram.texts(7) == ["the news"]
        assert len(model.requests) == 1
        assert Counter(look(home, "SELECT account, state FROM outbox")) == {
            ("telegram", "sent"): 1,
            ("hooks", "sent"): 1,
        }


@pytest.mark.wall_clock_s(120)
async def test_a_death_while_somebody_waits_ends_what_only_they_wanted(tmp_path: Path, full: bool) -> None:
    """`ask` ends as interrupted and is never run again; `both` goes on at the next start, for the chat."""
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model() as model:
        write_config(home, sections(telegram, model))
        for number in range(5 if full else 1):
            gate = trio.Event()
            model.script(Gate(event=gate, reply=Reply(text="late")), Gate(event=gate, reply=Reply(text="late")))
            async with open_gateway_process(home) as gateway, trio.open_nursery() as nursery:
                await served(gateway)
                for route in ("ask", "both"):
                    nursery.start_soon(cut_off, gateway, route, f"{route}{number}")
                await until(lambda: model.answering == 2, "both at the model")
                await gateway.kill()
            gate.set()
            model.script(Reply(text=f"answer {number}"))
            async with open_gateway_process(home) as gateway:
                await served(gateway)
                await until(lambda number=number: len(telegram.texts(7)) > number, "the reply in the chat")
                assert (await ask(gateway, "ask", "x", f"ask{number}")).status == 409
                assert await gateway.terminate() == 0
            assert telegram.texts(7)[-1] == f"answer {number}"
        rounds = number + 1
        assert Counter(look(home, "SELECT chat, state FROM inbox")) == {
            ("ask", "interrupted"): rounds,
            ("both", "answered"): rounds,
        }


async def cut_off(gateway: GatewayProcess, route: str, name: str) -> None:
    body = json.dumps({"text": "a question", "id": name}).encode()
    headers = sign(SIGNING[route], body, at=time.time(), id=name)
    with suppress(OSError, trio.BrokenResourceError):
        assert await call(f"{gateway.url}/hooks/{route}", body, headers) is None


@pytest.mark.wall_clock_s(400)
async def test_nothing_is_lost_when_the_process_is_killed_at_any_moment(
    tmp_path: Path, full: bool, seed: int, record: Callable[..., None]
) -> None:
    """Kills around the commit of a call, while the model thinks, around the reply's commit, its forwarding and its sending."""
    chance = random.Random(seed)
    home = tmp_path / "home"
    rounds = 60 if full else 6
    caller = FakeCaller(
        lambda body, name: sign(SIGNING["tell"], body, at=0.0, id=name), retry_s=0.02, longest_retry_s=0.2, twice=True
    )
    async with (
        open_fake_telegram() as telegram,
        open_fake_model(default=Slow(first_s=0.01, reply=Reply(text="an answer"))) as model,
        calling(caller),
    ):
        write_config(home, sections(telegram, model))
        posted = 0
        for number in range(rounds):
            async with open_gateway_process(home) as gateway:
                await served(gateway)
                caller.url = f"{gateway.url}/hooks/tell"
                for _ in range(chance.randint(1, 4)):
                    posted += 1
                    caller.post(f"d-{posted}", {"text": f"news {posted}"})
                taken, asked, sends = len(caller.taken), len(model.requests), telegram.counts["sendmessage"]
                moments = (
                    lambda taken=taken: len(caller.taken) > taken,
                    lambda asked=asked: len(model.requests) > asked,
                    lambda sends=sends: telegram.counts["sendmessage"] > sends,
                    lambda: not caller.waiting,
                )
                await until(moments[number % 4], "the moment")
                await trio.sleep(chance.random() * 0.03)
                await gateway.kill()
                caller.url = None
        async with open_gateway_process(home) as gateway:
            await served(gateway)
            caller.url = f"{gateway.url}/hooks/tell"
            caller.notify()
            await until(lambda: not caller.waiting, "all calls taken")
            await until(lambda: _open_rows(home) == (0, 0), "every row ended", within_s=40)
            assert await gateway.terminate() == 0
        rows = look(home, "SELECT state, count(*) FROM inbox GROUP BY state")
        assert sum(count for _, count in rows) == posted
        assert {name for name, _ in rows} <= set(FINAL_ROW_STATES)
        states = Counter(look(home, "SELECT account, state FROM outbox"))
        assert states == {("hooks", "sent"): posted, ("telegram", "sent"): posted}
        said = telegram.texts(7)
        unmarked = [text for text in said if not text.startswith("(may be a duplicate)")]
        assert len(unmarked) <= posted <= len(said)
        record("Kills of the real process", "webhooks: any moment", kills=rounds, messages=posted)


class KilledHooks(KilledRounds):
    """A program calls, again until it is answered; the replies go to a person."""

    service_points = ("before telegram's send", "after telegram's send")
    caller: FakeCaller
    telegram: FakeTelegram

    async def begun(self, gateway: GatewayProcess) -> None:
        await served(gateway)
        self.caller.url = f"{gateway.url}/hooks/tell"
        self.caller.notify()

    def ended(self) -> None:
        self.caller.url = None

    def write(self, number: int) -> None:
        self.caller.post(f"d-{number}", {"text": f"news {number}"})

    def texts(self) -> list[str]:
        return self.telegram.texts(7)

    def stall(self) -> Callable[[], object]:
        before = len(self.texts())
        self.telegram.fail("sendMessage", Fault(hang=True, done=True))
        return lambda: len(self.texts()) > before


@pytest.mark.wall_clock_s(900)
async def test_killed_at_each_named_point_it_tells_of_each_call_and_never_twice_unmarked(
    tmp_path: Path, full: bool, seed: int, record: Callable[..., None]
) -> None:
    """The account's own send is the forwarding; the other account's is the one that people see."""
    home = tmp_path / "home"
    caller = FakeCaller(
        lambda body, name: sign(SIGNING["tell"], body, at=0.0, id=name), retry_s=0.02, longest_retry_s=0.2
    )
    async with open_fake_telegram() as telegram, open_fake_model() as model, calling(caller):
        configured = sections(telegram, model)
        configured["platforms"]["hooks"].update(admins=["tell"], admin_tools=True)
        write_config(home, configured)
        killed = KilledHooks(home, model)
        killed.caller, killed.telegram = caller, telegram
        await killed.run(full=full, seed=seed)
        total = killed.written
        assert look(home, "SELECT state, count(*) FROM inbox GROUP BY state") == [("answered", total)]
        states = Counter(look(home, "SELECT account, state FROM outbox"))
        assert states == {("hooks", "sent"): total, ("telegram", "sent"): total}
        assert not caller.waiting
        record("Kills of the real process", "webhooks: each named point", kills=total, messages=total)


def _open_rows(home: Path) -> tuple[int, int]:
    (inbox,) = look(home, "SELECT count(*) FROM inbox WHERE finished_at IS NULL")[0]
    (outbox,) = look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0]
    return inbox, outbox
