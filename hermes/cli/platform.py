"""`hermes platform`: which platforms there are, what a service says of an account, trying again, and a new plugin."""

from __future__ import annotations

import argparse
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes.cli import platform_new
from hermes.cli.running import DONE, FAILED, add_home, add_json, ask, home_of, in_words, print_json, printable, run_trio
from hermes.config import load, process_environment
from hermes.errors import PlatformError
from hermes.gateway_options import Overrides

if TYPE_CHECKING:
    from hermes.platform import CheckReport, PlatformSpec
    from hermes.platform_config import AccountConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("list", "say which platforms are installed, and what can be set of them"),
        ("check", "ask the service who an account is and what is missing, without sending anything"),
        ("retry", "make the running gateway try an account again now"),
        ("manifest", "print the description from which a service makes an app"),
    ):
        action = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
        if name == "manifest":
            action.add_argument("platform", help="such as slack")
            action.add_argument("--name", default="Hermes", help="what people see (default: Hermes)")
        elif name != "list":
            action.add_argument("account", help="its id in the configuration")
        if name == "check":
            action.add_argument(
                "--config", type=Path, metavar="FILE", help="the configuration (default: config.yaml in the home)"
            )
        add_home(action)
        add_json(action)
    summary = "write the skeleton of a plugin, with a test that passes"
    action = actions.add_parser("new", help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
    platform_new.add_arguments(action)
    add_home(action)


def run(arguments: argparse.Namespace) -> int:
    """List, check, retry or begin a new one."""
    if arguments.action == "new":
        return platform_new.run(arguments)
    if arguments.action == "list":
        return _list(arguments)
    if arguments.action == "manifest":
        return _manifest(arguments)
    return _check(arguments) if arguments.action == "check" else _retry(arguments)


def _retry(arguments: argparse.Namespace) -> int:
    answer = ask(arguments, "POST", "/control/account-retry", {"account": arguments.account})
    if arguments.json:
        print_json(answer)
    else:
        print("tried again now" if answer.get("tried") else "there was nothing to try again")
    return DONE


def _list(arguments: argparse.Namespace) -> int:
    from hermes.discovery import BadPlugin, find_platforms

    shown: list[dict[str, Any]] = []
    for name, found in sorted(find_platforms(home_of(arguments).path).items()):
        try:
            shown.append({"name": name, "where": found.where, **describe(found.load())})
        except BadPlugin as error:
            shown.append({"name": name, "where": found.where, "error": str(error)})
    if arguments.json:
        print_json(shown)
        return DONE
    for each in shown:
        print(f"{each['name']}: {printable(each.get('help') or each['error'])}  ({printable(each['where'])})")
        for setting in each.get("settings", ()):
            default = "needed" if setting["needed"] else f"default {in_words(setting['default'])}"
            print(f"    {setting['name']}: {setting['about']} ({default})")
        for variable, key in each.get("environment", {}).items():
            print(f"    from the environment: {variable} = {key}")
    return DONE


def _manifest(arguments: argparse.Namespace) -> int:
    from hermes.commands import COMMANDS
    from hermes.discovery import BadPlugin, find_platforms

    found = find_platforms(home_of(arguments).path).get(arguments.platform)
    try:
        spec = found.load() if found is not None else None
    except BadPlugin as error:
        print(f"hermes: {printable(arguments.platform)} {printable(str(error))}", file=sys.stderr)
        return FAILED
    if spec is None or spec.manifest is None:
        what = "has no manifest" if spec is not None else "is not installed"
        print(f"hermes: the platform {printable(arguments.platform)!r} {what}", file=sys.stderr)
        return FAILED
    made = spec.manifest(arguments.name, COMMANDS)
    if arguments.json:
        print_json(made)
    else:
        import yaml

        print(yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120), end="")
    return DONE


def describe(spec: PlatformSpec[Any]) -> dict[str, Any]:
    """What a platform says of itself, for a list."""
    settings = [
        {
            "name": each.name,
            "about": each.metadata.get("about", ""),
            "needed": each.default is MISSING,
            "default": None if each.default is MISSING else each.default,
        }
        for each in fields(spec.config)
    ]
    return {"help": spec.help, "settings": settings, "environment": dict(spec.environment)}


def _check(arguments: argparse.Namespace) -> int:
    config = load(arguments.home, arguments.config, Overrides(), process_environment()).config
    account = config.platforms.get(arguments.account)
    if account is None:
        known = ", ".join(sorted(config.platforms)) or "none"
        print(f"hermes: there is no account {printable(arguments.account)!r} (there are: {known})", file=sys.stderr)
        if not config.platforms:
            print("hermes: `hermes platform list` says what can be written under `platforms:`", file=sys.stderr)
        return FAILED
    if account.spec.check is None:
        print(f"hermes: the platform {account.spec.name} has no check", file=sys.stderr)
        return FAILED
    try:
        report: CheckReport = run_trio(_asked, account)
    except PlatformError as error:
        print(f"hermes: {printable(str(error))}", file=sys.stderr)
        return FAILED
    if arguments.json:
        print_json({"identity": report.identity, "facts": report.facts, "missing": report.missing})
        return DONE if not report.missing else FAILED
    print(printable(report.identity))
    for fact in report.facts:
        print(f"  {printable(fact)}")
    for lack in report.missing:
        print(f"  missing: {printable(lack)}")
    return FAILED if report.missing else DONE


async def _asked(account: AccountConfig) -> CheckReport:
    from hermes.hosting import open_passing_host

    assert account.spec.check is not None
    async with open_passing_host(account.account) as host:
        return await account.spec.check(account.config, host)
