"""The process around the lifetimes: its log, what watches its loop, and what the last one left running."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from hermes.current import Current
from hermes.gateway_options import ServeOptions
from hermes.health import Health
from hermes.home import Home
from hermes.observe.logs import get_log, open_logging
from hermes.observe.notify import open_notifier
from hermes.observe.redact import secrets_in
from hermes.observe.steps import watch_steps
from hermes.observe.watchdog import Watchdog, open_watchdog
from hermes.settings import Config
from hermes.stopping import Stop
from hermes.tools.leftovers import sweep_leftovers

log = get_log(__name__)


@asynccontextmanager
async def open_process(
    current: Current, stop: Stop, health: Health, options: ServeOptions, mode: str
) -> AsyncIterator[None]:
    """What every other lifetime runs inside of; for the holder of the home alone, because the log is the home's.

    Lifetime: enter = logging to the home's file (and stderr for a gateway), slow steps noticed, processes that a killed
    gateway left are gone. Exit = the log is written. From the stop on a thread ends the process `shutdown.watchdog_s` after
    the deadline, with every stack on stderr.
    """
    config, home = current.config, Home(current.config.home)
    stream = sys.stderr if mode == "gateway" else None
    with open_logging(config.logging, home.log_file, options.verbosity, stream, secrets=secrets_in(config)) as logging:

        def configure(new: Config) -> None:
            logging.learn(secrets_in(new))
            logging.set_level(new.logging, options.verbosity)

        current.listen(configure)
        with open_watchdog(sys.__stderr__ or sys.stderr, flush=logging.flush) as watchdog, watch_steps() as steps:
            health.steps = steps
            http = config.http
            log.info(
                "process.sized", descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0], connections=http.max_connections,
                turns=http.max_concurrent_turns, commands=config.terminal.max_commands, clients=config.model.max_clients,
            )  # fmt: skip
            killed = await trio.to_thread.run_sync(sweep_leftovers, home.path)
            if killed:
                log.warning("process.leftovers_killed", processes=killed)
            surroundings = config.surroundings
            async with (
                open_notifier(
                    surroundings.notify_socket, watchdog_s=surroundings.watchdog_s, healthy=health.alive
                ) as health.notifier,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(watchdog.keep_beating)
                stop.when_asked(lambda: _stopping(watchdog, stop, current, health))
                yield
                nursery.cancel_scope.cancel("left")


def _stopping(watchdog: Watchdog, stop: Stop, current: Current, health: Health) -> None:
    """Let the watchdog wait behind the deadline of the stop, and tell the service manager."""
    watchdog.arm(time.monotonic() + stop.by - trio.current_time() + current.config.shutdown.watchdog_s)
    if health.notifier is not None:
        health.notifier.stopping(stop.reason)
