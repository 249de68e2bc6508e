"""`hermes reload`: make the running gateway read its configuration again."""

from __future__ import annotations

import argparse

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
    changed = answer.get("changed") if isinstance(answer, dict) else None
    print("reloaded" + (f"; changed: {', '.join(map(in_words, changed))}" if changed else "; nothing changed"))
    return DONE
