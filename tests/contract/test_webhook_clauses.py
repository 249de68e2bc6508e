"""Webhooks keep the contract of platforms, clause by clause, as far as it speaks of a platform that calls nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from hermes.events import InboundEvent
from hermes.nurseries import open_background_nursery
from hermes.platform import Address, Secret
from hermes.testing import Clause, Subject, Switch, TestHost, check_platform_clauses
from hermes.testing.fake_caller import FakeCaller
from hermes.testing.host import TestOutbox
from platforms.webhook import platform
from platforms.webhook.config import Route, WebhookConfig
from platforms.webhook.signing import Proof, sign
from platforms.webhook.translate import Plan, Unreadable, is_wanted, read_call, to_event

ROUTE = Route(
    name="r", signature="github", secret=Secret("a-good-secret"), prompt="{text}", deliver=Address("chats", "1"),
    rate_per_minute=100_000,
)  # fmt: skip


class Service:
    """Somebody who calls, and a chat of another account where the replies are read."""

    chat = "r"
    switches: Collection[Switch] = ("repeat",)

    def __init__(self) -> None:
        self.caller = FakeCaller(lambda body, name: sign(ROUTE, body, at=1.7e9, id=name))
        self.outbox: TestOutbox | None = None
        self._numbers = count(1)

    def post(self, text: str) -> str:
        name = f"call-{next(self._numbers)}"
        self.caller.post(name, {"text": text, "number": name})
        return name

    def shown(self) -> Sequence[str]:
        return [text for _, text in self.outbox.posted.values()] if self.outbox is not None else []

    def acknowledged(self) -> Collection[str]:
        return self.caller.taken

    def requests(self) -> Sequence[str]:
        return []

    def set(self, switch: Switch | None) -> None:
        self.caller.twice = switch == "repeat"


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    service = Service()
    async with open_background_nursery() as nursery:
        nursery.start_soon(service.caller.run)
        yield service


def config(service: Service, host: TestHost) -> WebhookConfig:
    assert isinstance(host.outbox, TestOutbox)
    service.outbox = host.outbox
    service.caller.url = f"{host.base_url}/hooks/{ROUTE.name}"
    service.caller.notify()
    return WebhookConfig(routes=(ROUTE, replace(ROUTE, name="other", answer=True)))


def translated(sample: bytes) -> Sequence[InboundEvent]:
    proof = Proof(id="1", mark="m")
    try:
        call = read_call(ROUTE, {"x-github-event": "push"}, sample, proof)
    except Unreadable:
        return []
    return [to_event(Plan.of(ROUTE), call, proof, account="kit", fresh="")] if is_wanted(ROUTE, call) else []


SAMPLES = {
    path.stem: json.dumps(json.loads(path.read_text())["body"]).encode()
    for path in sorted(Path(__file__).parents[1].glob("samples/webhook/*.json"))
}
SUBJECT = Subject(
    spec=platform, service=open_service, config=config, samples=SAMPLES, translate=translated, calls=False
)


@pytest.mark.parametrize("clause", check_platform_clauses())
def test_webhooks_keep(clause: Clause) -> None:
    try:
        clause(SUBJECT)
    except AssertionError as breach:
        pytest.fail(str(breach))
