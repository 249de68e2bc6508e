"""Slack keeps the contract of platforms, clause by clause."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from hermes.events import AttachmentRef, InboundEvent
from hermes.platform import Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.fake_slack import BOT, BOT_ID, DM, FakeSlack, Fault, open_fake_slack
from platforms.slack import SlackConfig, platform
from platforms.slack.api import Token
from platforms.slack.translate import View, commanded, happened, pressed
from platforms.slack.wire import decode_callback, decode_command, decode_envelope, decode_interaction
from platforms.slack.workspaces import Workspace

ALWAYS = 10**9
DAYS: dict[Switch, Fault] = {
    "fail": Fault(answer=Answered(status=503), times=ALWAYS),
    "garbage": Fault(answer=Answered(body=b"<html>"), times=ALWAYS),
    "hang": Fault(answer=Answered(hang=True), times=ALWAYS),
    "lose": Fault(answer=Answered(body=b'{"ok": true, "ts": "1.0"}', cut=40), times=ALWAYS, serve=True),
    "limit": Fault(
        answer=answer_json({"ok": False, "error": "ratelimited"}, 429, {"retry-after": "7"}), times=ALWAYS
    ),
    "reject": Fault(
        answer=answer_json({"ok": False, "error": "restricted_action"}), path=r"chat\.(postMessage|update)", times=ALWAYS
    ),
}  # fmt: skip
SOCKET: dict[Switch | None, int] = {"fail": 503, "garbage": 200, "limit": 429, "refuse": 403}


class Service:
    """The fake as the kit wants to see it."""

    chat = DM
    switches: tuple[Switch, ...] = (*DAYS, "refuse", "repeat")

    def __init__(self, fake: FakeSlack) -> None:
        self.fake = fake
        fake.add_file("a.txt", b"x" * 5000, id_="F0KIT")

    def post(self, text: str) -> str:
        return str(self.fake.say(text)["ts"])

    def shown(self) -> Sequence[str]:
        return self.fake.shown()

    def acknowledged(self) -> Sequence[str]:
        return self.fake.sockets.acknowledged

    def requests(self) -> Sequence[str]:
        return [f"{asked.method} {asked.path}" for asked in self.fake.requests]

    def set(self, switch: Switch | None) -> None:
        self.fake.faults[:] = [DAYS[switch]] if switch in DAYS else []
        self.fake.reject_auth = switch == "refuse"
        self.fake.duplicates = switch == "repeat"
        self.fake.greets = switch != "hang"
        self.fake.socket_status = SOCKET.get(switch, 0)


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    async with open_fake_slack(clock=lambda: 1_700_000_000.0) as fake:
        yield Service(fake)


def config(service: Service, host: TestHost) -> SlackConfig:
    fake = service.fake
    return SlackConfig(
        bot_token=Secret(fake.bot_token), app_token=Secret(fake.app_token), base_url=fake.base_url, timeout_s=20.0
    )


SPACE = Workspace(
    id="T0HERMES", name="Hermes", token=Token(Secret("xoxb-x"), "bot_token"), user=BOT, bot=BOT_ID, home=True
)
VIEW = View(account="kit", commands=frozenset({"stop", "new", "help"}), names={"U0ALICE": "Alice"})


def translated(sample: bytes) -> Sequence[InboundEvent]:
    """As a socket's envelope is read: what is not as documented is no event."""
    try:
        envelope = decode_envelope(sample)
        match envelope.type:
            case "events_api":
                event = happened(decode_callback(envelope.payload), SPACE, VIEW)
            case "slash_commands":
                event = commanded(decode_command(envelope.payload), SPACE, VIEW, 1_700_000_000.0)
            case "interactive":
                event = pressed(decode_interaction(envelope.payload), SPACE, VIEW)
            case _:
                event = None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return [] if event is None else [event]


SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "slack").glob("*.json"))
SUBJECT = Subject(
    spec=platform,
    service=open_service,
    config=config,
    samples={path.stem: path.read_bytes() for path in SAMPLES},
    translate=translated,
    file=(AttachmentRef(kind="document", ref="F0KIT"), b"x" * 5000),
    endings=100 if os.environ.get("HERMES_FULL") == "1" else 40,
)


@pytest.mark.parametrize("clause", check_platform_clauses())
def test_slack_keeps(clause: Clause) -> None:
    try:
        clause(SUBJECT)
    except AssertionError as breach:
        pytest.fail(str(breach))
