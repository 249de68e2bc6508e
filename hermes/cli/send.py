"""`hermes send`: have the running gateway show a text somewhere, or files."""

from __future__ import annotations

import argparse
import os
import sys

from hermes.cli.running import DONE, FAILED, add_home, add_json, ask, in_words, print_json

SEND_S = 120.0  # the gateway copies the files before it answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="account:chat[:thread], or an account alone")
    parser.add_argument(
        "text", nargs="?", help="what to say, as markdown (default: standard input; with files, nothing)"
    )
    parser.add_argument(
        "--file", action="append", default=[], metavar="PATH", help="send this file; may be given up to ten times"
    )
    add_home(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Send; done when the gateway has committed it, which then delivers it through outages and restarts."""
    files = [os.path.abspath(each) for each in arguments.file]  # noqa: PTH100  # nothing is resolved: the gateway looks
    text = arguments.text if arguments.text is not None else "" if files else sys.stdin.read()
    if not text.strip() and not files:
        print("hermes: there is nothing to send", file=sys.stderr)
        return FAILED
    answer = ask(
        arguments, "POST", "/control/send", {"to": arguments.to, "text": text, "files": files}, timeout_s=SEND_S
    )
    if arguments.json:
        print_json(answer)
    else:
        print(f"to {in_words(answer['to'])}: committed as {in_words(', '.join(answer['keys']))}")
    return DONE
