"""What every subcommand shares: errors to exit codes, the one `trio.run`, and text that is safe to print."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from hermes.config import process_environment
from hermes.errors import ConfigError, HermesError, InstanceHeld, NoGateway, SchemaTooNew
from hermes.home import Home, find_socket, locate_home

Result = TypeVar("Result")

DONE: Final = 0
FAILED: Final = 1
NOT_RUNNING: Final = 3
HELD: Final = 69
RESTART: Final = 75
CONFIGURATION: Final = 78
INTERRUPTED: Final = 130


def guarded(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a subcommand; an error that has a name ends with its words on stderr and its exit code.

    Any other error is a crash: it goes on with its traceback, and the process ends with 1.
    """
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except HermesError as error:
        return explain(error)
    except BaseExceptionGroup as group:
        known = _known_leaf(group)
        if known is None:
            raise
        return INTERRUPTED if isinstance(known, KeyboardInterrupt) else explain(known)


def explain(error: HermesError) -> int:
    """Say on stderr what is wrong; returns the exit code that belongs to it."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            print(f"hermes: {printable(str(problem))}", file=sys.stderr)
        return CONFIGURATION
    print(f"hermes: {printable(str(error))}", file=sys.stderr)
    if isinstance(error, InstanceHeld):
        print("hermes: `hermes stop` ends it, `hermes serve --replace` takes over from it", file=sys.stderr)
        return HELD
    if isinstance(error, NoGateway):
        return NOT_RUNNING
    return CONFIGURATION if isinstance(error, SchemaTooNew) else FAILED


def run_trio(function: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """Run an async function to its end: the only `trio.run`."""
    import trio

    return trio.run(function, *arguments)


def add_home(parser: argparse.ArgumentParser) -> None:
    """Add `--home`."""
    parser.add_argument(
        "--home", type=Path, metavar="DIR", help="the home directory (default: $HERMES_HOME, else ~/.hermes-gateway)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def home_of(arguments: argparse.Namespace) -> Home:
    """The home that the arguments and the environment name."""
    return Home(locate_home(arguments.home, process_environment()))


def ask(arguments: argparse.Namespace, method: str, path: str, body: Any = None, *, timeout_s: float = 30.0) -> Any:
    """One request to the running gateway.

    Raises:
        NoGateway: none is running.
        ControlFailed: it answered with an error.
    """
    from hermes.control_client import call

    socket = find_socket(home_of(arguments))

    async def request() -> Any:
        return await call(socket, method, path, body, timeout_s=timeout_s)

    return run_trio(request)


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def printable(text: str) -> str:
    """Text without control characters: what others wrote must not steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def in_words(value: Any) -> str:
    """A value of a JSON answer for people, on one line."""
    if isinstance(value, str):
        return printable(value)
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def when(seconds: object) -> str:
    """Seconds since the epoch as a local time; nothing for what is no time."""
    if not isinstance(seconds, (int, float)):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""


def _known_leaf(group: BaseExceptionGroup[BaseException]) -> HermesError | KeyboardInterrupt | None:
    """The first error with a name, if every error in the group has one."""
    leaves: list[BaseException] = [group]
    found: list[HermesError | KeyboardInterrupt] = []
    while leaves:
        leaf = leaves.pop(0)
        if isinstance(leaf, BaseExceptionGroup):
            leaves.extend(leaf.exceptions)
        elif isinstance(leaf, HermesError | KeyboardInterrupt):
            found.append(leaf)
        else:
            return None
    return found[0] if found else None
