"""Accounts from the file and the environment: strict, every mistake at its place, no secret in any word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.decode import Findings
from hermes.discovery import BadPlugin, FoundPlatform, find_platforms
from hermes.platform import Capabilities, PlatformSpec, Secret, seconds, setting
from hermes.platform_config import AccountConfig, read_accounts
from hermes.variables import Variables

TOKEN = "4242:planted-secret-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    token: Secret = setting(about="from the shop")
    wait_s: float = setting(5.0, rule=seconds(60), about="how long")
    loud: bool = setting(False, about="whether to shout")
    room: str = setting("lobby", about="where")


def never(*_: object) -> Any:
    raise AssertionError("reading a configuration opens nothing")


def spec(name: str, **more: Any) -> PlatformSpec[Any]:
    return PlatformSpec(
        name=name, config=Settings, capabilities=Capabilities(), secrets=("token",), help="a shop", open=never, **more
    )


SHOP = spec("shop", environment={"SHOP_TOKEN": "token", "SHOP_ALLOWED_USERS": "allowed_users"})
BAR = spec("bar")


def broken() -> PlatformSpec[Any]:
    raise BadPlugin("cannot be loaded: ImportError: no module named bricks")


KNOWN = {
    "shop": FoundPlatform(name="shop", where="the package shop", load=lambda: SHOP),
    "bar": FoundPlatform(name="bar", where="the package bar", load=lambda: BAR),
    "broken": FoundPlatform(name="broken", where="the file broken.py", load=broken),
}


def read(tree: object, environ: Mapping[str, str] | None = None) -> tuple[Mapping[str, AccountConfig], Findings]:
    findings = Findings()
    found = read_accounts(tree, Variables(environ or {}, {}), findings, lambda: KNOWN, {})
    return found, findings


def problems(tree: object, environ: Mapping[str, str] | None = None) -> list[str]:
    return [str(each) for each in read(tree, environ)[1].problems]


def test_an_account_is_read_with_its_defaults() -> None:
    accounts, findings = read({"shop": {"token": TOKEN, "loud": True, "allowed_users": [7], "required": False}})
    assert not findings.problems
    account = accounts["shop"]
    assert account.config == Settings(token=Secret(TOKEN), loud=True)
    assert account.access.allowed_users == {"7"}
    assert (account.required, account.spec.name) == (False, "shop")
    assert TOKEN not in repr(accounts)


def test_several_accounts_of_one_platform_and_none_that_is_switched_off() -> None:
    accounts, findings = read(
        {
            "shop": {"token": "a"},
            "work": {"platform": "shop", "token": "b"},
            "old": {"platform": "shop", "enabled": False},
        }
    )
    assert not findings.problems
    assert set(accounts) == {"shop", "work"}


def test_every_mistake_is_found_at_its_place() -> None:
    found = problems(
        {
            "shop": {"tokn": "x", "wait_s": 100, "dm_policy": "all", "required": "perhaps"},
            "a b": {},
            "http": {},
            "bar": 5,
            "pub": {"platform": "shp", "token": "x"},
            "broken": {},
        }
    )
    assert [each.partition(": ")[0] for each in found] == [
        "platforms.(key 2)", "platforms.http", "platforms.bar", "platforms.pub.platform", "platforms.broken", "platforms.shop.tokn",
        "platforms.shop.wait_s", "platforms.shop.token", "platforms.shop.dm_policy", "platforms.shop.required",
    ]  # fmt: skip
    assert "did you mean token?" in found[5]
    assert "from the shop" in found[7]
    assert "did you mean shop?" in found[3]
    assert "the file broken.py, which cannot be loaded: ImportError" in found[4]


def test_the_same_token_twice_names_the_other_account_and_not_the_token() -> None:
    (found,) = problems({"shop": {"token": TOKEN}, "work": {"platform": "shop", "token": TOKEN}})
    assert found == "platforms.work.token: is the same as that of the account shop"
    assert not problems({"shop": {"token": TOKEN}, "bar": {"token": TOKEN}})


@pytest.mark.parametrize(
    ("tree", "environ", "accounts"),
    [
        (None, {"SHOP_TOKEN": "e"}, {"shop": "e"}),
        ({}, {"SHOP_TOKEN": "e"}, {"shop": "e"}),
        (None, {"SHOP_ALLOWED_USERS": "7"}, {}),
        ({"shop": {}}, {"SHOP_TOKEN": "e"}, {"shop": "e"}),
        ({"shop": {"token": "f"}}, {"SHOP_TOKEN": "e"}, {"shop": "f"}),
        ({"work": {"platform": "shop", "token": "f"}}, {"SHOP_TOKEN": "e"}, {"work": "f"}),
        ({"bar": {"token": "f"}}, {"SHOP_TOKEN": "e"}, {"bar": "f", "shop": "e"}),
        ({"shop": {"enabled": False}}, {"SHOP_TOKEN": "e"}, {}),
        ({"shop": {"platform": "bar", "token": "f"}}, {"SHOP_TOKEN": "e"}, {"shop": "f"}),
    ],
)
def test_what_the_environment_makes_and_fills(tree: Any, environ: dict[str, str], accounts: dict[str, str]) -> None:
    found, findings = read(tree, environ)
    assert not findings.problems
    assert {name: each.config.token.reveal() for name, each in found.items()} == accounts


def test_people_may_be_let_in_by_the_environment() -> None:
    found, _ = read(None, {"SHOP_TOKEN": "e", "SHOP_ALLOWED_USERS": "7, 8"})
    assert found["shop"].access.allowed_users == {"7", "8"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["token", "platform", "shop", "wait_s", 1]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(ANYTHING | st.dictionaries(st.sampled_from(["shop", "bar", "x", "broken"]), ANYTHING, max_size=3))
def test_whatever_is_written_is_read_or_told(tree: Any) -> None:
    accounts, findings = read(tree)
    for account in accounts.values():
        assert isinstance(account.config, Settings)
    if isinstance(tree, dict) and tree and not accounts:
        switched_off = all(isinstance(each, dict) and each.get("enabled") is False for each in tree.values())
        assert findings.problems or switched_off


FILE = """
from dataclasses import dataclass
from hermes.platform import *
from hermes.platform import Secret, setting

@dataclass(frozen=True)
class Config:
    token: Secret = setting(about="x")

platform = PlatformSpec(name="postbox", config=Config, capabilities=Capabilities(), secrets=("token",), help="h", open=None)
"""


def test_platforms_are_found_as_files_in_the_home_and_loaded_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "platforms"
    folder.mkdir(parents=True)
    for name, text in {
        "postbox": FILE, "other": FILE, "empty": "", "syntax": "(", "exits": "raise SystemError('no')", "Not-One": "1/0",
    }.items():  # fmt: skip
        (folder / f"{name}.py").write_text(text)
        (folder / f"{name}.py").chmod(0o600)
    found = find_platforms(tmp_path)
    assert {"postbox", "other", "empty", "syntax", "exits"} <= set(found)
    assert "Not-One" not in found
    assert found["postbox"].load().name == "postbox"
    for name, why in {
        "other": "calls itself",
        "empty": "has no",
        "syntax": "SyntaxError",
        "exits": "SystemError",
    }.items():
        with pytest.raises(BadPlugin, match=why):
            found[name].load()
    (folder / "postbox.py").chmod(0o666)
    with pytest.raises(BadPlugin, match="chmod"):
        found["postbox"].load()
