"""The command `hermes`: arguments, exit codes, and the only place that starts trio.

Each subcommand is a module with `add_arguments(parser)` and `run(arguments) -> int`, imported when it is chosen: help
and mistakes cost nothing more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from hermes import __version__

COMMANDS: Final = MappingProxyType(
    {
        "serve": "run the gateway",
        "chat": "talk to the agent in the terminal",
        "status": "say what the running gateway does",
        "stop": "ask the running gateway to stop, and wait until it has",
        "reload": "make the running gateway read its configuration again",
        "sessions": "list, show, export or delete conversations",
        "platform": "list platforms, check or retry an account, print an app's manifest, begin a plugin",
        "pairing": "list, approve or revoke people who wrote without being let in",
        "outbox": "list, retry or drop what is to be delivered",
        "send": "have the running gateway send a text",
        "config": "check or show the configuration",
        "logs": "show the log, and follow it",
        "backup": "copy the database while the gateway serves",
    }
)
"""Every subcommand, in the order of the help."""

OF_PLATFORMS: Final = ("manifest",)  # `hermes slack manifest` is `hermes platform manifest slack`


def build_parser(chosen: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, in which only the chosen subcommands know their arguments."""
    parser = argparse.ArgumentParser(
        prog="hermes", description="An always-on gateway between people and an AI agent.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"hermes {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False
        )
        if name in chosen:
            _module(name).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None takes the process's.

    Returns:
        The exit code: 0 asked to stop or done, 1 failed, 2 usage, 3 no gateway, 69 another instance holds the home,
        75 restart wanted, 78 configuration, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) > 1 and words[1] in OF_PLATFORMS and words[0] not in COMMANDS:
        words[:2] = ["platform", words[1], words[0]]
    chosen = next((word for word in words if not word.startswith("-")), "")
    try:
        arguments = build_parser((chosen,)).parse_args(words)
    except SystemExit as end:  # argparse has printed the help or the mistake
        return end.code if isinstance(end.code, int) else 2
    from hermes.cli.running import guarded

    return guarded(_module(arguments.command).run, arguments)


def _module(name: str) -> Any:
    return import_module(f"hermes.cli.{name}")
