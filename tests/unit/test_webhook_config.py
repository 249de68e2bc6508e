"""Routes as a person writes them: what is missing is said, and no secret is repeated."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hermes.config_display import to_display
from hermes.decode import Findings
from hermes.discovery import FoundPlatform
from hermes.platform import Address
from hermes.platform_config import AccountConfig, read_accounts
from hermes.variables import Variables
from hermes.yamltree import read_tree
from platforms.webhook import platform
from platforms.webhook.config import RULES, Route

GOOD = {"signature": "github", "secret": "sesame-open-42", "deliver": "telegram:12345"}


def read(routes: Any, **more: Any) -> tuple[AccountConfig | None, list[str], list[str]]:
    findings = Findings()
    found = FoundPlatform(name="webhook", where="here", load=lambda: platform)
    tree = {"hooks": {"platform": "webhook", "routes": routes, **more}}
    accounts = read_accounts(tree, Variables({}, {}), findings, lambda: {"webhook": found}, {})
    return accounts.get("hooks"), [str(each) for each in findings.problems], findings.warnings


def routes_of(account: AccountConfig | None) -> dict[str, Route]:
    assert account is not None
    return {each.name: each for each in account.config.routes}


def test_a_route_and_who_may_speak_by_it() -> None:
    account, problems, warnings = read({
        "issues": {**GOOD, "events": ["issues.*"], "when": {"action": ["opened", "reopened"], "n": 5, "draft": False},
                   "unless": {"x": None}, "prompt": "{issue.title}", "session": "{issue.number}"},
        "ask": {"signature": "bearer", "secret": "It's a Secret to Everybody", "answer": True, "header": "X-Token"},
    })  # fmt: skip
    assert not problems
    assert not any("everybody" in each for each in warnings)
    found = routes_of(account)
    assert found["issues"].when == (("action", ("opened", "reopened")), ("n", ("5",)), ("draft", ("false",)))
    assert found["issues"].unless == (("x", ("null",)),)
    assert found["issues"].deliver == Address("telegram", "12345")
    assert found["ask"].header == "x-token"
    assert account is not None
    assert (account.access.dm_policy, account.access.busy) == ("open", "queue")


def test_access_that_is_written_holds() -> None:
    account, problems, _ = read({"r": GOOD}, dm_policy="allowlist", allowed_users=["other"], busy="interrupt")
    assert not problems
    assert account is not None
    assert (account.access.dm_policy, account.access.busy) == ("allowlist", "interrupt")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"secret": None}, "secret has no value"),
        ({"secret": ""}, "secret must be text of 8"),
        ({"secret": "sesame"}, "secret must be text of 8"),
        ({"secret": 12345678}, "is a number; quote it"),
        ({"secret": ...}, "without one anybody could call it, so there is no route"),
        ({"signature": ...}, "signature is missing"),
        ({"signature": "md5"}, "signature must be one of"),
        ({"deliver": ...}, "its reply goes nowhere"),
        ({"deliver": "12345"}, "account:chat"),
        ({"signature": "hmac"}, "header is missing"),
        ({"prefix": "x"}, "`signature: hmac` alone"),
        ({"header": "x-y"}, "the others have theirs"),
        ({"prompt": "{a"}, "at character 1 a brace"),
        ({"when": {"a..b": "x"}}, "when has a field that is none"),
        ({"when": []}, "when must be a section"),
        ({"rate_per_minute": 0}, "rate_per_minute"),
        ({"promt": "x"}, "did you mean prompt?"),
    ],
)
def test_what_cannot_be_served_is_said(section: dict[str, Any], words: str) -> None:
    written = {name: value for name, value in {**GOOD, **section}.items() if value is not ...}
    account, problems, _ = read({"fine": GOOD, "r": written})
    assert account is None
    assert len(problems) == 1
    assert problems[0].startswith("platforms.hooks.routes: cannot be served: r is no route: ")
    assert words in problems[0]
    assert "sesame-open-42" not in problems[0]


@pytest.mark.parametrize("routes", [{}, [], None, "x", {"a/b": GOOD}, {"": GOOD}, {5: GOOD}, {"r": 5}, {"r": None}])
def test_no_routes_are_no_account(routes: Any) -> None:
    account, problems, _ = read(routes)
    assert account is None
    assert problems
    assert "sesame-open-42" not in str(problems)


def test_all_mistakes_are_said_at_once() -> None:
    _, problems, _ = read({"a": {**GOOD, "secret": 5}, "b": {"answer": True}})
    assert "a is no route: secret must be" in problems[0]
    assert "b is no route: secret is missing" in problems[0]
    assert "signature is missing" in problems[0]


def test_the_environment_alone_makes_no_account() -> None:
    findings = Findings()
    found = FoundPlatform(name="webhook", where="here", load=lambda: platform)
    variables = Variables({"WEBHOOK_URL": "http://somebody.else"}, {})
    assert not read_accounts({}, variables, findings, lambda: {"webhook": found}, {})
    assert not findings.problems


def test_no_secret_is_displayed(tmp_path: Any) -> None:
    from hermes.observe.redact import secrets_in
    from hermes.settings import Config

    account, _, _ = read({"r": GOOD})
    assert account is not None
    config = Config(home=tmp_path, workspace=tmp_path, platforms={"hooks": account})
    assert "sesame-open-42" not in str(to_display(config)) + repr(config)
    assert "sesame-open-42" in secrets_in(config)


def test_every_key_of_a_route_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    table = page.partition("Of a route, whose name")[2].partition("\n\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == list(RULES)
    defaults = {each.name: each.default for each in fields(Route)}
    for name, _, default, takes in rows:
        assert takes == RULES[name.strip("`")].says
        value = defaults[name.strip("`")]
        if isinstance(value, int | float) or (isinstance(value, str) and value):
            assert default == f"`{str(value).lower() if isinstance(value, bool) else value}`".replace(".0`", "`")


def test_the_page_s_example_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "webhooks.md").read_text(encoding="utf-8")
    tree, _ = read_tree(page.partition("```yaml\n")[2].partition("```")[0].replace("${", "key-of-").replace("}", "", 0))
    account, problems, _ = read(tree["platforms"]["hooks"]["routes"])
    assert not problems
    assert set(routes_of(account)) == {"issues", "ask"}


def test_an_address_of_an_account_that_is_not_there_is_a_warning() -> None:
    account, problems, warnings = read({"a": GOOD, "b": {**GOOD, "deliver": "hooks:a"}})
    assert account is not None
    assert not problems
    assert "platforms.hooks: names the address telegram:12345, and there is no account telegram" in warnings
    assert not any("hooks:a" in each for each in warnings)
