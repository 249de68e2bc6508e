"""IRC keeps the contract of platforms, clause by clause: with all that IRCv3 adds, and with RFC 2812 alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hermes.events import InboundEvent
from hermes.platform import Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses
from hermes.testing.fake_irc import PLAIN, FakeIrc, open_fake_irc
from platforms.irc import IrcConfig, platform
from platforms.irc.lines import BadLine, parse
from platforms.irc.names import Server
from platforms.irc.translate import Facts, event_of

DAYS: tuple[Switch, ...] = ("refuse", "fail", "garbage", "hang", "lose", "limit", "reject", "repeat")


class Service:
    """The fake as the kit wants to see it. It knows no acknowledgements."""

    chat = "friend"
    switches = DAYS

    def __init__(self, fake: FakeIrc) -> None:
        self.fake = fake

    def post(self, text: str) -> str:
        return self.fake.say(text)

    def shown(self) -> Sequence[str]:
        return self.fake.shown["friend"]

    def acknowledged(self) -> tuple[str, ...]:
        return ()

    def requests(self) -> Sequence[str]:
        return self.fake.asked

    def set(self, switch: Switch | None) -> None:
        self.fake.day = switch


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    async with open_fake_irc() as fake:
        yield Service(fake)


@asynccontextmanager
async def open_plain_service() -> AsyncIterator[Service]:
    async with open_fake_irc(PLAIN) as fake:
        yield Service(fake)


def config(service: Service, _: TestHost) -> IrcConfig:
    return IrcConfig(
        server="127.0.0.1", port=service.fake.port, tls=False, nick="hermes", flood_burst=10_000, flood_interval_s=0.001,
        sasl_password=Secret("secret") if service.fake.offered else None,
    )  # fmt: skip


def translated(sample: bytes) -> Sequence[InboundEvent]:
    facts = Facts(
        account="kit", nick="hermes", server=Server(), nonce="n", tagged=True, commands=("new",), mentions=("bot",)
    )
    events = []
    for number, raw in enumerate(sample.split(b"\n")):
        try:
            event = event_of(parse(raw.rstrip(b"\r")), facts, number)
        except BadLine:
            continue
        if event is not None:
            events.append(event)
    return events


SUBJECT = Subject(
    spec=platform,
    service=open_service,
    config=config,
    samples={path.stem: path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("samples/irc/*.txt"))},
    translate=translated,
    endings=40,
)
ABOUT_SENDING = ("enter", "send", "once")  # what else there is needs a server that keeps what was said


@pytest.mark.wall_clock_s(60)
@pytest.mark.parametrize("clause", check_platform_clauses())
def test_irc_keeps(clause: Clause) -> None:
    try:
        clause(SUBJECT)
    except AssertionError as breach:
        pytest.fail(str(breach))


@pytest.mark.parametrize("clause", [each for each in check_platform_clauses() if each.name in ABOUT_SENDING])
def test_irc_of_1999_keeps(clause: Clause) -> None:
    try:
        clause(replace(SUBJECT, service=open_plain_service))
    except AssertionError as breach:
        pytest.fail(str(breach))
