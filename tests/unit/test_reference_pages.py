"""The reference pages name everything there is: every setting with its bounds, every subcommand and option."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes import commands, settings
from hermes.access_config import read_access
from hermes.cli import COMMANDS, build_parser
from hermes.config import load_config
from hermes.current import LIVE_SECTIONS
from hermes.decode import Findings
from hermes.gateway_options import Overrides
from hermes.platform_config import CORE_KEYS, setting_rules
from hermes.schema import ENDPOINT, MODEL, SECTIONS
from hermes.store.conversations import MAX_EXCHANGES
from hermes.yamltree import read_tree
from platforms.discord import platform as discord
from platforms.slack import platform as slack
from platforms.telegram import platform as telegram

PAGES = Path(__file__).parents[2] / "docs" / "reference"
NOT_IN_THE_FILE = {"home", "warnings", "surroundings"}


def written(default: Any) -> str:
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return f"`{json.dumps(list(default) if isinstance(default, tuple) else default)}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_has_a_rule_and_a_row(section: str) -> None:
    page = (PAGES / "config.md").read_text()
    kind, rules = SECTIONS[section]
    assert set(rules) == {each.name for each in dataclasses.fields(kind)}
    default = kind()
    for key, rule in rules.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{section}.{key}` |"))
        assert row.endswith(f"| {written(getattr(default, key))} | {rule.says} |")


def test_every_default_follows_its_own_rule() -> None:
    for kind, rules in SECTIONS.values():
        default = kind()
        for key, rule in rules.items():
            value = getattr(default, key)
            if value is not None:
                assert rule.read(list(value) if isinstance(value, tuple) else value) == value


def test_the_model_section_is_whole() -> None:
    page = (PAGES / "config.md").read_text()
    keys = {*ENDPOINT, *MODEL, "default", "fallback", "aliases"}
    assert all(f"| `model.{key}` |" in page for key in keys)
    fields = {each.name for each in dataclasses.fields(settings.ModelConfig)} - {"primary"}
    assert fields == {*MODEL, "fallback", "aliases"}
    assert {each.name for each in dataclasses.fields(settings.Endpoint)} == {*ENDPOINT, "model"}


def test_every_section_is_read() -> None:
    page = (PAGES / "config.md").read_text()
    names = {each.name for each in dataclasses.fields(settings.Config)} - NOT_IN_THE_FILE
    assert names == {*SECTIONS, "model", "platforms", "workspace"}
    assert all(f"\n## `{name}`\n" in page for name in names)
    (waiting,) = re.findall(r"from then on, except (.*?): they hold after a restart", page, re.DOTALL)
    keys = {"agent.tools", "logging.format", "logging.max_bytes", "logging.files"}
    assert set(re.findall(r"`([a-z._]+)`", waiting)) == (names - LIVE_SECTIONS) | keys


def rows_after(page: str, heading: str) -> dict[str, list[str]]:
    table = page.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {cells[0].strip("`"): cells for cells in lines}


def test_every_key_of_an_account_is_on_the_page() -> None:
    page = (PAGES / "config.md").read_text()
    assert set(rows_after(page, "Of every account:")) == set(CORE_KEYS)
    for heading, spec in (("Of a Telegram bot", telegram), ("Of a Discord bot", discord), ("Of a Slack app", slack)):
        shown = rows_after(page, heading)
        rules = setting_rules(spec)
        assert set(shown) == set(rules)
        for each in dataclasses.fields(spec.config):
            _, about, default, takes = shown[each.name]
            assert about == each.metadata["about"]
            assert takes == rules[each.name].says
            if each.default is not dataclasses.MISSING:
                assert json.loads(default.strip("`")) == each.default


def test_the_page_s_example_is_read(tmp_path: Path) -> None:
    example = (PAGES / "config.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "config.yaml").write_text(example)
    config = load_config(tmp_path, None, Overrides(), {"OPENAI_API_KEY": "k", "API_SERVER_KEY": "k" * 16})
    assert config.shutdown.total_s == 90
    assert dict(config.model.aliases)["small"].model == "gpt-5-nano"


def test_each_account_of_the_how_to_is_read(tmp_path: Path) -> None:
    page = (PAGES.parent / "how-to" / "connect-a-service.md").read_text()
    read: set[str] = set()
    for example in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        (tmp_path / "config.yaml").write_text(example)
        variables = dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", example), "a-made-up-secret")
        config = load_config(tmp_path, None, Overrides(), variables)
        read.update(account.spec.name for account in config.platforms.values())
    assert read == {"telegram", "discord", "slack", "webhook", "email", "irc"}


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield name
                yield from options(inner)
        else:
            yield from action.option_strings


def test_every_subcommand_and_option_is_on_the_page() -> None:
    page = (PAGES / "cli.md").read_text()
    own = [name for name in COMMANDS if name != "chat"]  # chat has a page of its own options: `hermes chat --help`
    named = set(options(build_parser(own))) - {"-h"}
    assert {"serve", "--replace", "-q", "export", "--follow"} <= named
    assert [name for name in sorted(named) if not re.search(rf"[` \[]{re.escape(name)}\b", page)] == []
    assert all(f"`hermes {name}" in page for name in COMMANDS)


def test_every_command_is_on_the_page() -> None:
    page = (PAGES / "commands.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `/")
    ]
    assert [cells[0].strip("`/") for cells in rows] == [each.name for each in commands.COMMANDS]
    for (_, arguments, about, who), each in zip(rows, commands.COMMANDS, strict=True):
        assert (arguments.strip("`"), about) == (each.arguments, each.help)
        name = commands.ALIASES.get(each.name, each.name)
        meant = "always" if name in commands.ALWAYS else "admins" if name in commands.FOR_ADMINS else "everybody"
        assert who == meant
    others = {
        name: meant for name, meant in commands.ALIASES.items() if name not in {each.name for each in commands.COMMANDS}
    }
    assert dict(re.findall(r"`/(\w+)` is `/(\w+)`", page)) == others
    assert f"takes 1 to {MAX_EXCHANGES}." in page


def test_the_commands_page_s_example_is_read() -> None:
    section, _ = read_tree((PAGES / "commands.md").read_text().partition("```yaml\n")[2].partition("```")[0])
    findings = Findings()
    policy = read_access(section["platforms"]["telegram"], "platforms.telegram", findings)
    assert not findings.problems
    assert policy.may_use("9", "retry") == "admins"
    assert policy.may_use("9", "sethome") == "yes"
    assert policy.may_use("12345", "branch") == "disabled"
