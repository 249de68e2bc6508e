"""Six accounts, one of each platform, in one real process: one is black-holed, one flaps, one is refused, and the others do not
notice. Over both runs each platform is once among the bad and once among the good.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from hermes.connections import STARTS_AT_ONCE
from hermes.platform import Secret
from hermes.testing.fake_caller import call
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_irc import FakeIrc, open_fake_irc
from hermes.testing.fake_mail import ANNA, PASSWORD, TRUSTED, USER, FakeMail, letter, open_fake_mail
from hermes.testing.fake_mail_wire import Fault as MailFault
from hermes.testing.fake_model import open_fake_model
from hermes.testing.fake_slack import DM, FakeSlack, open_fake_slack
from hermes.testing.fake_telegram import Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config
from hermes.testing.messaging_process import (
    QUICK,
    DiscordService,
    Service,
    TelegramService,
    account,
    look,
    sections,
    until_state,
)
from platforms.webhook.config import Route
from platforms.webhook.signing import sign

SCRIPT = Path(__file__).with_name("starts_counted.py")
ROUNDS = 8
FLAPS = 3
TIMES = 10.0  # a wait for any of the bad ones takes a hundred times as long as an answer, and seconds
PATIENT_S = 60.0
LATER = "for when you are back"


class One(Service, Protocol):
    """An account, and what its service can do to it."""

    def hears(self) -> object:
        """Whether what is written now is heard."""
        ...


class Telegram(TelegramService):
    to = "telegram:7"

    def hears(self) -> object:
        return self.fake.polling

    def swallow(self, *, yes: bool) -> None:
        """A black hole: whatever is sent is taken, and nothing comes back; or not any more."""
        self.fake.standing = {"*": Fault(hang=True)} if yes else {}


class Discord(DiscordService):
    def hears(self) -> object:
        return self.fake.gateway.live

    def refuse(self, *, yes: bool) -> None:
        """The token is not valid; or is again."""
        self.fake.reject_auth = yes


class Slack:
    name = "slack"
    to = f"slack:{DM}"

    def __init__(self, fake: FakeSlack) -> None:
        self.fake = fake

    def section(self, **more: Any) -> dict[str, Any]:
        return {
            "bot_token": self.fake.bot_token, "app_token": self.fake.app_token, "base_url": self.fake.base_url,
            "allowed_users": ["*"], **more,
        }  # fmt: skip

    def write(self, text: str, chat: int = 0) -> None:
        self.fake.say(text)

    def texts(self, chat: int = 0) -> list[str]:
        return self.fake.shown()

    def hears(self) -> object:
        return self.fake.sockets.connections

    async def flap(self) -> None:
        """Take a connection, and cut it when it is there."""
        await self.fake.until(self.hears)
        await self.fake.sockets.drop()
        await self.fake.until(lambda: not self.hears())


class Irc:
    name = "irc"
    to = "irc:friend"

    def __init__(self, fake: FakeIrc) -> None:
        self.fake = fake

    def section(self, **more: Any) -> dict[str, Any]:
        return {
            "server": "127.0.0.1", "port": self.fake.port, "tls": False, "nick": "hermes", "channels": ["#den"],
            "flood_burst": 10_000, "flood_interval_s": 0.001, "allowed_users": ["*"], **more,
        }  # fmt: skip

    def write(self, text: str, chat: int = 0) -> None:
        self.fake.say(text)

    def texts(self, chat: int = 0) -> list[str]:
        return self.fake.shown["friend"]

    def hears(self) -> object:
        channel = self.fake.channels.get("#den")
        return channel is not None and "hermes" in channel.members

    async def flap(self) -> None:
        """Take a connection, and cut it when it is there."""
        await self.fake.until(self.hears)
        self.fake.cut()
        await self.fake.until(lambda: not self.hears())


class Email:
    name = "email"
    to = f"email:{ANNA}"

    def __init__(self, fake: FakeMail) -> None:
        self.fake = fake
        self._written = 0

    def section(self, **more: Any) -> dict[str, Any]:
        return {
            "address": USER, "password": PASSWORD, "imap_host": "127.0.0.1", "imap_port": self.fake.imap_port,
            "imap_security": "none", "smtp_host": "127.0.0.1", "smtp_port": self.fake.smtp_port, "smtp_security": "none",
            "authserv_id": TRUSTED, "allowed_users": [ANNA], "sent_copy": "none", **more,
        }  # fmt: skip

    def write(self, text: str, chat: int = 0) -> None:
        self._written += 1
        self.fake.arrive(letter(text, number=f"q{self._written}", subject=f"Question {self._written}"))

    def texts(self, chat: int = 0) -> list[str]:
        return self.fake.texts()

    def hears(self) -> object:
        return "imap IDLE" in self.fake.requests

    def swallow(self, *, yes: bool) -> None:
        """A black hole: whatever is sent is taken, and nothing comes back; or not any more."""
        self.fake.standing = {"*": MailFault(hang=True)} if yes else {}


class Webhook:
    """A program that asks and waits for the answer. What is refused is a route whose replies would come back to itself."""

    name = "webhook"
    route = Route(name="ask", signature="bearer", secret=Secret("a-secret-of-the-route"))

    def __init__(self, nursery: trio.Nursery) -> None:
        self.url = ""
        self.refused = False
        self._nursery = nursery
        self._answers: list[str] = []
        self._asked = 0

    def section(self, **more: Any) -> dict[str, Any]:
        goes = {"deliver": f"{self.name}:1"} if self.refused else {}
        route = {
            "signature": "bearer", "secret": self.route.secret.reveal(), "prompt": "{text}", "answer": True,
            "rate_per_minute": 100_000, **goes,
        }  # fmt: skip
        return {"routes": {"ask": route}, **more}

    def write(self, text: str, chat: int = 0) -> None:
        self._asked += 1
        self._nursery.start_soon(self._ask, text, str(self._asked))

    async def _ask(self, text: str, name: str) -> None:
        body = json.dumps({"text": text, "id": name}).encode()
        answer = await call(self.url, body, sign(self.route, body, at=time.time(), id=name))
        assert answer is not None
        assert answer.status == 200, answer
        self._answers.append(answer.fields["reply"])

    def texts(self, chat: int = 0) -> list[str]:
        return self._answers

    def hears(self) -> object:
        return self.url

    def refuse(self, *, yes: bool) -> None:
        """It is configured wrongly; or is not."""
        self.refused = yes


class Starts:
    """What `starts_counted.py` writes down."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "starts"
        self._go = directory / "go"
        self.wrap = (sys.executable, str(SCRIPT), str(self._log), str(self._go))

    def go(self) -> None:
        """Let those go on that have begun."""
        self._go.touch()

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def begun(self, name: str) -> int:
        """How many starts of an account have begun."""
        return self._lines().count(["begins", name])

    def under_way(self, name: str) -> bool:
        """Whether an account is being started now."""
        return self.begun(name) > self._lines().count(["over", name])

    def in_flight(self) -> list[int]:
        """How many were under way after each line."""
        found = [0]
        for what, _ in self._lines():
            found.append(found[-1] + (1 if what == "begins" else -1))
        return found


class Six:
    """The accounts of a run.

    Attributes:
        flaps: how often the flapping one was cut.
    """

    def __init__(self, every: dict[str, Any], hole: str, flapping: str, refused: str) -> None:
        self.every: dict[str, Any] = every
        self.hole, self.flapping, self.refused = every[hole], every[flapping], every[refused]
        self.good: list[One] = [each for name, each in every.items() if name not in (hole, flapping, refused)]
        self.flaps = 0
        self._flaps = trio.CancelScope()

    async def flap(self) -> None:
        """Cut the flapping one whenever it is connected, until it is healed."""
        with self._flaps:
            while True:
                await self.flapping.flap()
                self.flaps += 1

    def heal(self) -> None:
        """All is well with everybody."""
        self._flaps.cancel()
        self.hole.swallow(yes=False)
        self.refused.refuse(yes=False)


@asynccontextmanager
async def open_six(hole: str, flapping: str, refused: str) -> AsyncIterator[Six]:
    """The services, three of them bad."""
    async with (
        open_fake_telegram() as telegram, open_fake_discord() as discord, open_fake_slack() as slack,
        open_fake_irc(clock=time.time) as irc, open_fake_mail() as mail, trio.open_nursery() as nursery,
    ):  # fmt: skip
        every = [Telegram(telegram), Discord(discord), Slack(slack), Irc(irc), Email(mail), Webhook(nursery)]
        six = Six({each.name: each for each in every}, hole, flapping, refused)
        six.hole.swallow(yes=True)
        six.refused.refuse(yes=True)
        nursery.start_soon(six.flap)
        yield six
        nursery.cancel_scope.cancel()


async def ask(service: One, text: str) -> float:
    """Write, and wait for the answer; how long it took."""
    said, began = len(service.texts()), time.perf_counter()
    service.write(text)
    with trio.fail_after(PATIENT_S):
        while len(service.texts()) <= said:  # noqa: ASYNC110  # six services, whose changes are told in as many ways
            await trio.sleep(0.001)
    return time.perf_counter() - began


async def ask_all(services: list[One], enough: Callable[[], bool] = lambda: True) -> dict[str, float]:
    """The median time of an answer of each, over some rounds, all of them at once."""
    times: dict[str, list[float]] = {each.name: [] for each in services}

    async def one(service: One) -> None:
        times[service.name].append(await ask(service, "are you there?"))

    number = 0
    while number < ROUNDS or not enough():
        number += 1
        async with trio.open_nursery() as nursery:
            for each in services:
                nursery.start_soon(one, each)
    return {name: statistics.median(found) for name, found in times.items()}


async def reload(gateway: GatewayProcess, configured: dict[str, Any]) -> None:
    write_config(gateway.home, configured)
    done = await hermes(gateway.home, "reload")
    assert done.returncode == 0, done.stderr


def told(service: One) -> bool:
    """Whether what waited for a service has come, marked as doubtful or not."""
    return any(LATER in text for text in service.texts())


async def only(gateway: GatewayProcess, services: list[One]) -> bool:
    """Whether the gateway has these accounts and no others."""
    accounts = (await gateway.client.get("/ready")).json()["accounts"]
    return bool(accounts.keys() == {each.name for each in services})


@pytest.mark.wall_clock_s(120)
@pytest.mark.parametrize(
    ("hole", "flapping", "refused"), [("telegram", "irc", "webhook"), ("email", "slack", "discord")]
)
async def test_three_that_are_bad_disturb_neither_the_others_nor_the_starts(
    tmp_path: Path, hole: str, flapping: str, refused: str
) -> None:
    home, starts = tmp_path / "home", Starts(tmp_path)
    async with open_six(hole, flapping, refused) as six, open_fake_model(default=Reply(text="yes")) as model:
        patient = {"supervision": {**QUICK, "open_timeout_s": PATIENT_S}}
        configured = partial(sections, model, **patient)
        write_config(home, configured(*six.every.values()))
        async with open_gateway_process(home, wrap=starts.wrap) as gateway:
            six.every["webhook"].url = f"{gateway.url}/hooks/ask"
            await until(lambda: starts.in_flight()[-1] == STARTS_AT_ONCE, "all starts that are allowed at once")
            starts.go()
            for each in six.good:
                await until_state(gateway, each.name, "connected")
                await until(each.hears, f"{each.name} hears")
                await ask(each, "warm up")
            found = await until_state(gateway, refused, "parked(refused)")
            assert found["next_attempt_s"] is None
            await until(lambda: starts.under_way(hole) and six.flaps, "one hangs, one flaps")

            for each in (six.hole, six.flapping):  # what is to be said there waits for itself alone
                await gateway.control("POST", "/control/send", {"to": each.to, "text": LATER, "files": []})

            hung, flaps = starts.begun(hole), six.flaps
            among_bad = await ask_all(six.good, lambda: six.flaps >= flaps + FLAPS)
            assert starts.begun(hole) - hung <= ROUNDS // 4  # most answers came while one and the same start hung
            assert starts.begun(refused) == 1
            for each in six.good:
                seen = await account(gateway, each.name)
                assert (seen["state"], seen["generation"], seen["restarts"]) == ("connected", 1, 0), each.name

            await reload(gateway, configured(*six.good))
            await until(partial(only, gateway, six.good), "the bad ones are gone")
            alone = await ask_all(six.good)
            print(among_bad, alone, six.flaps)
            for name, seconds in among_bad.items():
                assert seconds <= TIMES * alone[name], (name, among_bad, alone)

            waits = "SELECT key FROM outbox WHERE finished_at IS NULL"
            held = "SELECT key FROM outbox WHERE state = 'held'"  # what is for an account that was taken away
            await until(lambda: look(home, held) and not look(home, waits), "everything sent or held")
            six.heal()
            await reload(gateway, configured(*six.every.values()))
            for (key,) in look(home, held):
                await gateway.control("POST", "/control/outbox-retry", {"key": key})
            for each in (six.hole, six.flapping):
                await until(partial(told, each), f"what waited for {each.name}")
            for each in six.every.values():
                await until_state(gateway, each.name, "connected")
                await until(each.hears, f"{each.name} hears")
                await ask(each, "and now?")
            assert [starts.begun(each.name) for each in six.good] == [1, 1, 1]
            assert await gateway.terminate() == 0
        assert max(starts.in_flight()) == STARTS_AT_ONCE
        assert starts.in_flight()[-1] == 0
        assert not look(home, "SELECT 1 FROM outbox WHERE state != 'sent'")
