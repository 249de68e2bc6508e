"""`hermes chat`: talk to the agent in the terminal, or ask one thing from a script."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from hermes.cli.running import add_home, home_of, run_trio
from hermes.config import process_environment
from hermes.errors import HermesError
from hermes.gateway_options import Overrides, ServeOptions

MOST_INPUT: Final = 8_388_608
"""Bytes that `-q -` takes from standard input."""
SESSION: Final = re.compile(r"[A-Za-z0-9._:@-]{1,200}", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    parser.add_argument("-q", metavar="TEXT", help="ask this, print the reply and nothing else; -: read standard input")
    parser.add_argument("--session", type=_session, metavar="ID", help="go on with this conversation")
    parser.add_argument("--model", metavar="NAME", help="the model to ask, one of those the gateway offers")
    parser.add_argument("--reasoning", action="store_true", help="show what the model thinks aloud")


def run(arguments: argparse.Namespace) -> int:
    """Chat; returns the exit code."""
    home = home_of(arguments)

    def options() -> ServeOptions:
        return ServeOptions(home=home.path, overrides=Overrides(workspace=_here()))

    if arguments.q is not None:
        from hermes.cli.chat.once import ask_once

        text = _standard_input() if arguments.q == "-" else arguments.q
        return run_trio(ask_once, home, options, _utf8(text), arguments.session, arguments.model)
    from hermes.cli.chat.interactive import talk

    return run_trio(talk, home, options, arguments, process_environment())


def _here() -> Path:
    """The current directory, in which an embedded gateway's tools work."""
    try:
        return Path.cwd()
    except OSError as error:
        raise HermesError(f"the current directory cannot be used: {error.strerror}") from None


def _standard_input() -> str:
    data = sys.stdin.buffer.read(MOST_INPUT + 1)
    if len(data) > MOST_INPUT:
        raise HermesError(f"standard input holds more than {MOST_INPUT} bytes")
    return data.decode("utf-8", "replace")


def _utf8(text: str) -> str:
    """Text that can be sent: bytes of the command line that are no UTF-8 become replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _session(text: str) -> str:
    if not SESSION.fullmatch(text):
        raise argparse.ArgumentTypeError("must have 1 to 200 characters of A-Z a-z 0-9 . _ : @ -")
    return text
