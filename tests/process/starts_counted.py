"""Run by `test_six_accounts.py`: a gateway that writes down when each start of an account begins and when it is over.

    python starts_counted.py LOG GO PYTHON -m hermes WORDS...

A start is a call of `PlatformSpec.open`, until it yields or raises. None goes on before the file GO is there. They are not spread
over the first moments: all accounts want theirs at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import trio

import hermes.connections
from hermes.cli import main
from hermes.platform import Host, Platform

PLATFORMS = ("discord", "email", "irc", "slack", "telegram", "webhook")


def say(log: Path, *words: str) -> None:
    """Append a line, whole."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(words) + "\n").encode())
    os.close(descriptor)


@asynccontextmanager
async def counted(
    log: Path,
    go: Path,
    inner: Callable[[Any, Host], AbstractAsyncContextManager[Platform]],
    config: Any,
    host: Host,
) -> AsyncIterator[Platform]:
    """A platform's own `open`, with a line before and after."""
    say(log, "begins", host.account)
    over = False
    try:
        while not go.exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
            await trio.sleep(0.01)
        async with inner(config, host) as platform:
            over = True
            say(log, "over", host.account)
            yield platform
    finally:
        if not over:
            say(log, "over", host.account)


if __name__ == "__main__":
    hermes.connections.SPREAD_S = 0.0
    for name in PLATFORMS:
        module = import_module(f"platforms.{name}")
        module.platform = replace(  # type: ignore[attr-defined]
            module.platform, open=partial(counted, Path(sys.argv[1]), Path(sys.argv[2]), module.platform.open)
        )
    sys.argv = sys.argv[5:]
    sys.argv[0] = "hermes"
    sys.exit(main())
