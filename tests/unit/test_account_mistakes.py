"""Sections of accounts in which each setting is right by itself and which cannot work: refused before anything is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from hermes.decode import Findings
from hermes.discovery import FoundPlatform
from hermes.platform import PlatformSpec
from hermes.platform_config import read_accounts
from hermes.variables import Variables
from platforms.discord import platform as discord
from platforms.email import platform as email
from platforms.irc import platform as irc
from platforms.slack import platform as slack
from platforms.telegram import platform as telegram

NEEDED: Mapping[str, Mapping[str, Any]] = {
    "telegram": {"token": "1:secret"},
    "discord": {"token": "secret"},
    "slack": {"bot_token": "xoxb-1", "app_token": "xapp-1"},
    "irc": {"server": "irc.example.org", "nick": "bot"},
    "email": {"address": "bot@example.org", "password": "p", "imap_host": "i.example", "smtp_host": "s.example"},
}
SPECS: tuple[PlatformSpec[Any], ...] = (telegram, discord, slack, irc, email)


def problems(account: str, *, specs: tuple[PlatformSpec[Any], ...] = SPECS, **section: Any) -> list[tuple[str, str]]:
    findings = Findings()
    known = {
        each.name: FoundPlatform(name=each.name, where="here", load=lambda spec=each: spec)  # type: ignore[misc]
        for each in specs
    }
    found = read_accounts({account: {**NEEDED[account], **section}}, Variables({}, {}), findings, lambda: known, {})
    assert bool(found) != bool(findings.problems)
    return [(each.path.removeprefix(f"platforms.{account}."), each.reason) for each in findings.problems]


@pytest.mark.parametrize(
    ("account", "section"),
    [
        ("telegram", {"mode": "webhook"}),
        ("telegram", {"mode": "webhook", "webhook_url": "https://b.example", "webhook_secret": "not this"}),
        ("telegram", {"allowed_users": ["@anna"]}),
        ("telegram", {"allowed_users": [7, "anna"]}),
        ("telegram", {"admins": ["@anna"]}),
        ("telegram", {"free_response_chats": ["@our_group"]}),
        ("discord", {"allowed_users": ["anna"]}),
        ("discord", {"allowed_chats": ["#general"]}),
        ("slack", {"allowed_users": ["@anna"]}),
        ("slack", {"ignored_chats": ["#general"]}),
        ("irc", {"channels": ["den"]}),
        ("irc", {"channels": ["#den", "#a,#b"]}),
        ("irc", {"channels": ["#den key more"]}),
        ("irc", {"allowed_users": ["@anna"]}),
        ("irc", {"allowed_users": ["*!anna@home.example"]}),
        ("irc", {"allowed_users": ["anna"], "identity": "hostmask"}),
        ("irc", {"allowed_users": ["*!anna@Home.example"], "identity": "hostmask"}),
        ("irc", {"ignored_chats": ["#Den"]}),
        ("email", {"allowed_users": ["Anna@example.org"]}),
        ("email", {"allowed_users": ["@example.org"]}),
        ("email", {"timeout_s": 10.5}),
    ],
)
def test_what_cannot_work_is_found_at_its_key(account: str, section: dict[str, Any]) -> None:
    ((key, words),) = problems(account, **section)
    assert key in section or key == "webhook_url"
    assert words
    assert "secret" not in words.replace("webhook_secret", "")


@pytest.mark.parametrize(
    ("account", "section"),
    [
        ("telegram", {"mode": "webhook", "webhook_url": "https://b.example", "webhook_secret": "this-1_A"}),
        ("telegram", {"allowed_users": [7, "8", "*"], "allowed_chats": [-1001234567890], "admins": "7, 8"}),
        ("discord", {"allowed_users": [80351110224678912], "allowed_chats": ["41771983423143937"]}),
        ("slack", {"allowed_users": ["U0123ABCD", "T0123/W0456"], "allowed_chats": ["C0123ABCD"]}),
        ("irc", {"channels": ["#den", "&local", "#den key"], "allowed_users": ["anna"], "ignored_chats": ["#other"]}),
        ("irc", {"allowed_users": ["*!~Anna@home.example"], "identity": "hostmask"}),
        ("email", {"allowed_users": ["anna@example.org", "*"]}),
    ],
)
def test_what_can_work_is_taken(account: str, section: dict[str, Any]) -> None:
    assert problems(account, **section) == []


def test_a_platform_that_cannot_say_costs_its_account_alone() -> None:
    def broken(_config: Any, _ids: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
        yield "token", "is short"
        raise RuntimeError("1:secret")

    spec = PlatformSpec(
        name="telegram", config=telegram.config, capabilities=telegram.capabilities, secrets=("token",), help="it",
        open=telegram.open, mistakes=broken,
    )  # fmt: skip
    assert problems("telegram", specs=(spec,)) == [
        ("platform", "cannot say whether this section is right: RuntimeError")
    ]
