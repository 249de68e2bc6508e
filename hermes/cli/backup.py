"""`hermes backup`: a verified copy of the database, made by the running gateway."""

from __future__ import annotations

import argparse
from pathlib import Path

from hermes.cli.running import DONE, add_home, add_json, ask, in_words, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    add_json(parser)
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="for the copy (default: 3600)")
    parser.add_argument("file", type=Path, metavar="FILE", help="where the copy goes; it must not exist")


def run(arguments: argparse.Namespace) -> int:
    """Make the copy."""
    path = str(arguments.file.absolute())
    answer = ask(arguments, "POST", "/control/backup", {"path": path}, timeout_s=arguments.timeout)
    if arguments.json:
        print_json(answer)
    else:
        print(f"the database was copied to {in_words(path)}")
    return DONE
