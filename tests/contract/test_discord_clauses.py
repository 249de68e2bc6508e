"""Discord keeps the contract of platforms, clause by clause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from hermes.events import InboundEvent
from hermes.platform import Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses
from hermes.testing.fake_discord import DM, FakeDiscord, Fault, open_fake_discord
from hermes.testing.fake_http import Answered, answer_json
from platforms.discord import DiscordConfig, platform
from platforms.discord.places import place_of
from platforms.discord.translate import message_event
from platforms.discord.wire import Channel, Message

LIMIT = {"message": "You are being rate limited.", "retry_after": 7.0, "global": False}
ALWAYS = 10**9
MESSAGES = r"/channels/\d+/messages"
DAYS: dict[Switch, Fault] = {
    "fail": Fault(answer=Answered(status=503), times=ALWAYS),
    "garbage": Fault(answer=Answered(body=b"<html>"), times=ALWAYS),
    "hang": Fault(answer=Answered(hang=True), times=ALWAYS),
    "lose": Fault(answer=Answered(body=b'{"id": "lost"}', cut=40), times=ALWAYS, serve=True),
    "limit": Fault(
        answer=answer_json(LIMIT, 429, {"retry-after": "7", "x-ratelimit-scope": "user"}), times=ALWAYS
    ),
    "reject": Fault(
        answer=answer_json({"message": "Cannot send an empty message", "code": 50006}, 400),
        method="POST|PATCH", path=MESSAGES, times=ALWAYS,
    ),
}  # fmt: skip


class Service:
    """The fake as the kit wants to see it. It knows no acknowledgements."""

    chat = DM
    switches: tuple[Switch, ...] = (*DAYS, "refuse", "repeat")

    def __init__(self, fake: FakeDiscord) -> None:
        self.fake = fake

    def post(self, text: str) -> str:
        return str(self.fake.say(text)["id"])

    def shown(self) -> Sequence[str]:
        return self.fake.shown()

    def acknowledged(self) -> tuple[str, ...]:
        return ()

    def requests(self) -> Sequence[str]:
        return [f"{asked.method} {asked.path}" for asked in self.fake.requests]

    def set(self, switch: Switch | None) -> None:
        self.fake.faults[:] = [DAYS[switch]] if switch in DAYS else []
        self.fake.reject_auth = switch == "refuse"
        self.fake.duplicates = switch == "repeat"
        self.fake.greets = self.fake.acks = switch != "hang"


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    async with open_fake_discord(clock=lambda: 1_700_000_000.0) as fake:
        yield Service(fake)


def config(service: Service, host: TestHost) -> DiscordConfig:
    return DiscordConfig(token=Secret(service.fake.token), base_url=service.fake.base_url)


def translated(sample: bytes) -> Sequence[InboundEvent]:
    """As `MESSAGE_CREATE` is read: what is not as documented is no event."""
    try:
        found = json.loads(sample)
        message = msgspec.convert(found["message"], Message)
        place = place_of(msgspec.convert(found["place"], Channel))
    except (ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError):
        return []
    event = message_event(message, place, "kit", "1000000000000000001", auto_thread=True)
    return [] if event is None else [event]


SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "discord").glob("*.json"))
SUBJECT = Subject(
    spec=platform,
    service=open_service,
    config=config,
    samples={path.stem: path.read_bytes() for path in SAMPLES},
    translate=translated,
)


@pytest.mark.parametrize("clause", check_platform_clauses())
def test_discord_keeps(clause: Clause) -> None:
    try:
        clause(SUBJECT)
    except AssertionError as breach:
        pytest.fail(str(breach))
