"""`hermes status`: what the running gateway says about itself."""

from __future__ import annotations

import argparse

from hermes.cli.running import DONE, NOT_RUNNING, add_home, add_json, ask, home_of, in_words, print_json
from hermes.cli.status_words import describe
from hermes.errors import NoGateway


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the status; exit code 3 without a running gateway."""
    try:
        answer = ask(arguments, "GET", "/control/status")
    except NoGateway:
        if arguments.json:
            print_json({"running": False, "home": str(home_of(arguments).path)})
        else:
            print(f"no gateway is running for {in_words(str(home_of(arguments).path))}; `hermes serve` starts one")
        return NOT_RUNNING
    if arguments.json:
        print_json({"running": True, **answer} if isinstance(answer, dict) else answer)
        return DONE
    for line in describe(answer if isinstance(answer, dict) else {"status": answer}):
        print(in_words(line))
    return DONE
