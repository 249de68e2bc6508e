"""What tells an operator about a gateway leaves nothing behind, however it is ended."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import trio

from hermes.observe.logs import get_log, open_logging
from hermes.observe.notify import open_notifier
from hermes.observe.steps import watch_steps
from hermes.observe.watchdog import open_watchdog
from hermes.settings import LoggingConfig
from hermes.testing import cancel_at_every_step


async def test_signs_of_life_end_at_every_step(tmp_path: Path) -> None:
    log = get_log("hermes.tests")

    async def scenario() -> None:
        with (
            open_logging(LoggingConfig(), tmp_path / "x.log", 0, io.StringIO()),
            (tmp_path / "stacks").open("a") as stream,
            open_watchdog(stream, end=lambda _code: None) as watchdog,
            watch_steps(),
        ):
            async with (
                open_notifier(str(tmp_path / "notify"), watchdog_s=1) as notifier,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(watchdog.keep_beating)
                notifier.ready()
                for number in range(3):
                    log.info("a.line", n=number)
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        report = await cancel_at_every_step(scenario, ways=("cancel", "sibling"))
    assert report.steps >= 5
