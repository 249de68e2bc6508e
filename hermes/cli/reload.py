"""`hermes reload`: make the running gateway read its configuration again."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from hermes.cli.running import DONE, add_home, add_json, ask, in_words, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reload; an invalid configuration is an error, and the gateway goes on with the one it has."""
    answer = ask(arguments, "POST", "/control/reload", {}, timeout_s=60.0)
    if arguments.json:
        print_json(answer)
        return DONE
    known = answer if isinstance(answer, dict) else {}
    print("reloaded" + (f"; changed: {_names(known['changed'])}" if known.get("changed") else "; nothing changed"))
    if known.get("after_restart"):
        print(f"holds only after a restart: {_names(known['after_restart'])}")
    return DONE


def _names(sections: Iterable[object]) -> str:
    return ", ".join(map(in_words, sections))
