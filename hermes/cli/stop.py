"""`hermes stop`: ask the running gateway to stop, and wait until the home is free."""

from __future__ import annotations

import argparse
import sys

from hermes.cli.running import DONE, FAILED, add_home, home_of, run_trio
from hermes.home import Home, find_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    parser.add_argument(
        "--timeout", type=float, default=75.0, metavar="SECONDS", help="how long to wait until it is gone (default: 75)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Stop it; nothing to stop is success too."""
    home = home_of(arguments)
    return run_trio(_stop, home, arguments.timeout)


async def _stop(home: Home, timeout_s: float) -> int:
    from hermes.control_client import call
    from hermes.errors import NoGateway
    from hermes.instance import is_held, wait_until_free

    try:
        await call(find_socket(home), "POST", "/control/stop", {"reason": "stop"}, timeout_s=timeout_s)
    except NoGateway:
        if not is_held(home):
            print("no gateway is running")
            return DONE
        print("hermes: an instance holds the home, but does not answer (is it only just starting?)", file=sys.stderr)
        return FAILED
    if await wait_until_free(home, timeout_s=timeout_s):
        print("stopped")
        return DONE
    print(f"hermes: it is still stopping after {timeout_s:g} s", file=sys.stderr)
    return FAILED
