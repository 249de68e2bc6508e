"""Telegram keeps the contract of platforms, clause by clause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes.events import AttachmentRef, InboundEvent
from hermes.nurseries import open_background_nursery
from hermes.platform import Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses, open_wire_server
from hermes.testing.fake_telegram import BOT, TOKEN, FakeTelegram, Fault
from hermes.testing.fake_telegram_webhook import push_updates
from platforms.telegram import platform
from platforms.telegram.config import TelegramConfig
from platforms.telegram.reading import read
from platforms.telegram.words import Me

DAYS: dict[Switch, Fault] = {
    "refuse": Fault(code=401, description="Unauthorized"),
    "fail": Fault(code=502, description="Bad Gateway"),
    "garbage": Fault(body=b"<html>"),
    "hang": Fault(hang=True),
    "lose": Fault(cut_after=30, done=True),
    "limit": Fault(code=429, description="Too Many Requests: retry after 7", parameters={"retry_after": 7}),
}
FILE = b"the bytes of a file" * 100


class Daily(FakeTelegram):
    """The fake, whose every answer is as the day is."""

    day: Switch | None = None

    def _fault(self, method: str) -> Fault | None:
        if self.day == "reject" and method in ("sendMessage", "editMessageText"):
            return Fault(code=400, description="Bad Request: message is too long")
        return DAYS.get(self.day) if self.day is not None else None

    async def _get_updates(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        found = await super()._get_updates(params)
        return [each for each in found for _ in range(2)] if self.day == "repeat" else found


class Service:
    """The fake as the kit wants to see it."""

    chat = "7"
    switches: tuple[Switch, ...] = (*DAYS, "reject", "repeat")

    def __init__(self) -> None:
        self.fake = Daily()
        self.numbers: dict[int, str] = {}
        self.fake.files["voice"] = ("voice/1.oga", FILE)

    def post(self, text: str) -> str:
        number = self.fake.write(7, text)
        (update,) = [each for each in self.fake.updates if each["update_id"] == number]
        self.numbers[number] = f"{BOT['id']}.{update['message']['message_id']}"
        return self.numbers[number]

    def shown(self) -> Sequence[str]:
        return self.fake.texts(7)

    def acknowledged(self) -> set[str]:
        return {message for number, message in self.numbers.items() if number <= self.fake.confirmed}

    def requests(self) -> Sequence[str]:
        return [call.method for call in self.fake.calls]

    def set(self, switch: Switch | None) -> None:
        self.fake.day = switch


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    service = Service()
    async with open_wire_server(service.fake.handle) as port, open_background_nursery() as nursery:
        service.fake.port = port
        nursery.start_soon(push_updates, service.fake)
        yield service


def config(service: Service, host: TestHost) -> TelegramConfig:
    return TelegramConfig(token=Secret(TOKEN), base_url=service.fake.base_url)


def config_for_webhooks(service: Service, host: TestHost) -> TelegramConfig:
    return TelegramConfig(
        token=Secret(TOKEN), base_url=service.fake.base_url, mode="webhook", webhook_url=host.base_url
    )


def translated(sample: bytes) -> Sequence[InboundEvent]:
    try:
        updates = json.loads(sample)
    except (ValueError, RecursionError):
        return []  # what is no JSON ends at the API, before it is translated
    events, _, _ = read([updates], account="kit", me=Me(id=4242, username="hermes_test_bot"))
    return events


SAMPLES = {
    path.stem: json.dumps(json.loads(path.read_text())["update"]).encode()
    for path in sorted(Path(__file__).parents[1].glob("samples/telegram/*.json"))
}

SUBJECT = Subject(
    spec=platform,
    service=open_service,
    config=config,
    samples=SAMPLES,
    translate=translated,
    file=(AttachmentRef(kind="voice", ref="voice"), FILE),
)


@pytest.mark.parametrize("clause", check_platform_clauses())
@pytest.mark.parametrize("subject", [SUBJECT, replace(SUBJECT, config=config_for_webhooks)], ids=["polls", "webhook"])
def test_telegram_keeps(subject: Subject, clause: Clause) -> None:
    try:
        clause(subject)
    except AssertionError as breach:
        pytest.fail(str(breach))
