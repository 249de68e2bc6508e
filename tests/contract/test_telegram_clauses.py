"""Telegram keeps the contract of platforms, clause by clause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hermes.events import AttachmentRef, InboundEvent
from hermes.platform import Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses, open_wire_server
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault
from platforms.telegram import platform
from platforms.telegram.config import TelegramConfig
from platforms.telegram.reading import read
from platforms.telegram.translate import Me

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
        self.numbers[number] = str(update["message"]["message_id"])
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
    async with open_wire_server(service.fake.handle) as port:
        service.fake.port = port
        yield service


def config(service: Service, host: TestHost) -> TelegramConfig:
    return TelegramConfig(token=Secret(TOKEN), base_url=service.fake.base_url)


def translated(sample: bytes) -> Sequence[InboundEvent]:
    try:
        updates = json.loads(sample)
    except (ValueError, RecursionError):
        return []  # what is no JSON ends at the API, before it is translated
    events, _ = read([updates], account="kit", me=Me(id=4242, username="hermes_test_bot"))
    return events


def sample(**fields: Any) -> bytes:
    anna = {"id": 7, "is_bot": False, "first_name": "Anna", "username": "anna", "language_code": "en"}
    chat = {"id": 7, "first_name": "Anna", "type": "private"}
    message = {"message_id": 5, "from": anna, "chat": chat, "date": 1_700_000_000, **fields}
    return json.dumps({"update_id": 1, "message": message}).encode()


SUBJECT = Subject(
    spec=platform,
    service=open_service,
    config=config,
    samples={
        "words": sample(text="hello"),
        "a voice note": sample(voice={"file_id": "voice", "file_unique_id": "v", "duration": 3, "file_size": len(FILE)}),
        "an answer": sample(
            text="yes", reply_to_message={"message_id": 3, "chat": {"id": 7, "type": "private"}, "date": 1, "text": "?"}
        ),
    },
    translate=translated,
    file=(AttachmentRef(kind="voice", ref="voice"), FILE),
)


@pytest.mark.parametrize("clause", check_platform_clauses())
def test_telegram_keeps(clause: Clause) -> None:
    try:
        clause(SUBJECT)
    except AssertionError as breach:
        pytest.fail(str(breach))
