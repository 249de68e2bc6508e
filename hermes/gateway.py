"""The gateway: its lifetimes, nested. This nesting is the start-up plan and, read from the inside out, the shutdown plan.

There is no other procedure for either. What is far away is supervised; what is here is ready when its block is entered, and gone
when it is left, on every path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from hermes.agent.opening import open_model_door
from hermes.agents import Agents
from hermes.background import open_background
from hermes.blobs import Blobs
from hermes.capacity import fit
from hermes.current import Current
from hermes.doors import announce_start, log_start, mounted, open_listener
from hermes.gateway_options import ServeOptions
from hermes.health import Health
from hermes.home import Home
from hermes.http.listener import raise_descriptor_limit
from hermes.http.services import Services
from hermes.instance import open_instance
from hermes.messaging import open_messaging
from hermes.observe.logs import get_log
from hermes.process import open_process
from hermes.sessions import CUT_S, open_sessions
from hermes.settings import Config
from hermes.stopping import Stop, StoppedInStart, open_signals
from hermes.store import open_store
from hermes.tools import open_builtin
from hermes.toolset import combine

log = get_log(__name__)

Mode = Literal["gateway", "embedded"]
Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway that serves.

    Args:
        stop: to ask for its end.
        addresses: where it listens over TCP; empty when embedded.
        home: whose control socket answers.
        turning: how many turns run now.
    """

    stop: Stop
    addresses: tuple[tuple[str, int], ...]
    home: Home
    turning: Callable[[], int]


async def run_gateway(config: Config, *, options: ServeOptions, announce: Announce = print) -> int:
    """Serve until somebody asks for the end.

    Returns: the exit code.

    Raises, alone or in groups: InstanceHeld, ListenFailed, ConfigError, StoreError. Everything is closed by then.
    """
    try:
        async with open_gateway(config, options=options, mode="gateway", announce=announce) as gateway:
            await gateway.stop.wait()
            turning = gateway.turning()
            log.info("gateway.stopping", reason=gateway.stop.reason, turns=turning)
            if turning:
                announce(f"Stopping: {turning} turns are being finished; another signal cuts them")
    except StoppedInStart:
        return 0  # as was asked
    return gateway.stop.exit_code


@asynccontextmanager
async def open_gateway(
    config: Config, *, options: ServeOptions, mode: Mode, announce: Announce
) -> AsyncIterator[Gateway]:
    """Everything, in the order in which it depends on each other.

    Args:
        config: as read at the start; a reload replaces it.
        options: the command line, to read the configuration again.
        mode: `embedded` is the same tree for `hermes chat`: no TCP, no signals, nothing on stderr.
        announce: told in words what a person should know of the start.

    Lifetime: enter = turns can be asked for over every door. Exit = turns finished or cut, responses written, everything
    closed, within `shutdown.total_s` of the stop; a watchdog thread ends the process if that fails.
    """
    soft, _hard = raise_descriptor_limit()
    stop, current, home = Stop(), Current(config, options, lambda read: fit(read, soft)), Home(config.home)
    config = current.config
    blobs = Blobs(home.blobs)
    services, health = Services(config=current), Health(current, stop, mode)
    async with (
        open_signals(stop, health, listen=mode == "gateway"),
        open_instance(
            home, command="hermes serve" if mode == "gateway" else "hermes chat", replace=options.replace,
            takeover_s=config.shutdown.total_s + config.shutdown.watchdog_s, embedded=mode == "embedded",
        ) as instance,
        open_process(current, stop, health, options, mode),
        open_store(home.database, config, instance.boot_id) as store,
        open_listener(services, current, stop, home, store, health, mode) as server,
        open_model_door(config.model) as door,
        open_builtin(config, config.surroundings.terminal_env) as tools,
        open_messaging(store, current, stop, services.hooks, blobs, door, mode=mode) as messaging,
        open_sessions(
            store,
            Agents(store, door, combine(tools, messaging.tools()), current, health.turn_ended, messaging, blobs),
            lambda: current.config.sessions,
            drain_by=lambda: stop.within(current.config.shutdown.drain_timeout_s), cut_by=lambda: stop.within(CUT_S),
            sweeps=mode == "gateway",
        ) as sessions,
        open_background(current, store, door, blobs),
    ):  # fmt: skip
        health.watch(store, server, sessions, door, messaging)
        messaging.attach(sessions)
        with mounted(services, sessions, messaging, health, current, stop, instance), sessions.admitting():
            addresses = tuple((str(host), port) for host, port in server.addresses if port is not None)
            log_start(addresses, mode, store.recovered)
            announce_start(announce, current.config, addresses, services.new_key, mode)
            health.serving()
            stop.serving = True
            yield Gateway(stop=stop, addresses=addresses, home=home, turning=lambda: sessions.statistics().turning)
    if not stop.serving:
        raise StoppedInStart("stopped before the start was over")
