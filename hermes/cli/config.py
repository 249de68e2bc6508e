"""`hermes config check` and `hermes config show`: the configuration as it would be used, without starting anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hermes.cli.running import CONFIGURATION, DONE, add_home, add_json, explain, in_words, print_json, printable
from hermes.config import Loaded, load, process_environment
from hermes.config_display import flatten, to_display
from hermes.errors import ConfigError
from hermes.gateway_options import Overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("check", "say everything that is wrong"),
        ("show", "show every setting and its origin"),
    ):
        action = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
        add_home(action)
        action.add_argument(
            "--config", type=Path, metavar="FILE", help="the configuration (default: config.yaml in the home)"
        )
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Check or show; 78 when something is wrong."""
    try:
        loaded = load(arguments.home, arguments.config, Overrides(), process_environment())
    except ConfigError as error:
        if not arguments.json:
            return explain(error)
        problems = [{"path": problem.path, "reason": problem.reason} for problem in error.problems]
        print_json({"ok": False, "problems": problems})
        return CONFIGURATION
    return _check(loaded, arguments.json) if arguments.action == "check" else _show(loaded, arguments.json)


def _check(loaded: Loaded, as_json: bool) -> int:
    if as_json:
        print_json({"ok": True, "warnings": list(loaded.config.warnings)})
        return DONE
    _warn(loaded)
    print("the configuration is in order")
    return DONE


def _show(loaded: Loaded, as_json: bool) -> int:
    tree = to_display(loaded.config)
    if as_json:
        print_json({"config": tree, "origins": dict(loaded.origins), "warnings": list(loaded.config.warnings)})
        return DONE
    _warn(loaded)
    for path, value in flatten(tree):
        print(f"{printable(path)}: {in_words(value)}{_origin(loaded, path)}")
    return DONE


def _origin(loaded: Loaded, path: str) -> str:
    """Where a value is from; a part of a key has the origin of its key."""
    known = [key for key in loaded.origins if path == key or path.startswith(key + ".")]
    return f"  ({printable(loaded.origins[max(known, key=len)])})" if known else ""


def _warn(loaded: Loaded) -> None:
    for warning in loaded.config.warnings:
        print(f"hermes: warning: {printable(warning)}", file=sys.stderr)
