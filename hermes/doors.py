"""The doors: the listener on TCP and on the control socket, what is mounted on it and when, and what a person reads at the start."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from hermes.account_control import account_actions
from hermes.control import control_actions
from hermes.current import Current
from hermes.errors import ListenFailed
from hermes.health import Health
from hermes.home import Home, ensure_api_key, place_socket
from hermes.http.api.app import build_app
from hermes.http.listener import Limits, Server, open_server
from hermes.http.services import Services
from hermes.instance import Instance
from hermes.messaging import Messaging
from hermes.observe.logs import get_log
from hermes.pairing_control import pairing_actions
from hermes.sessions import Sessions
from hermes.settings import Config, HttpConfig
from hermes.stopping import Stop
from hermes.store import Store
from hermes.store.recovery import Recovered

log = get_log(__name__)

RESPONSES_S = 5.0  # for responses that are being written when everything behind them is closed


@asynccontextmanager
async def open_listener(
    services: Services, current: Current, stop: Stop, home: Home, store: Store, health: Health, mode: str
) -> AsyncIterator[Server]:
    """Listen on TCP (a gateway) and on the control socket.

    Lifetime: enter = bound; `/health` answers from here on, and what is not mounted is 503. Exit = responses that are
    being written are finished, within what the stop leaves.

    Raises:
        ListenFailed: an address is taken or not ours.
    """
    config = current.config
    if mode == "gateway":
        _open_key(services, current, home)
    services.store = store
    services.look = health.look
    services.ready, services.status, services.metrics, services.lifetimes = (
        health.ready,
        health.status,
        health.metrics.render,
        health.lifetimes,
    )
    limits = _limits(config.http)
    host = config.http.host if mode == "gateway" else None
    socket_path = place_socket(home, config.surroundings)
    bound = False
    try:
        async with open_server(
            build_app(services), host=host, port=config.http.port, unix_path=socket_path, limits=limits,
            on_error=lambda error: log.error("http.application_failed", error=error),
        ) as server:  # fmt: skip
            bound = True
            yield server
            server.drain_by = stop.within(RESPONSES_S)
    except OSError as error:
        if bound:
            raise
        raise _listen_failed(error, config.http) from error


def _limits(http: HttpConfig) -> Limits:
    return Limits(
        header_timeout_s=http.header_timeout_s, idle_timeout_s=http.idle_timeout_s, body_timeout_s=http.body_timeout_s,
        send_timeout_s=http.send_timeout_s, max_body_bytes=http.max_body_bytes, max_connections=http.max_connections,
    )  # fmt: skip


def _listen_failed(error: OSError, http: HttpConfig) -> ListenFailed:
    where = f"{http.host} port {http.port}"
    change = "choose another with --port NUMBER, or http.port in config.yaml"
    if error.errno == errno.EADDRINUSE or (
        isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
    ):
        return ListenFailed(f"{where} is taken by another program; {change}")
    if error.errno == errno.EACCES:
        return ListenFailed(f"{where} may not be used by this user; {change}")
    return ListenFailed(
        f"{where} cannot be listened on ({error.strerror or error}); choose another with --host and --port"
    )


def _open_key(services: Services, current: Current, home: Home) -> None:
    """Set the key that opens the TCP listener: the configured one, else the home's own, made once."""
    if current.config.http.key is None:
        kept = ensure_api_key(home)
        services.new_key = kept.key.reveal() if kept.made else None
        own = kept.key.reveal()
    else:
        own = ""

    def key() -> str:
        configured = current.config.http.key
        return configured.reveal() if configured is not None else own

    services.key = key


@contextmanager
def mounted(
    services: Services,
    sessions: Sessions,
    messaging: Messaging,
    health: Health,
    current: Current,
    stop: Stop,
    instance: Instance,
) -> Iterator[None]:
    """While inside, turns can be asked for and the control socket obeys; afterwards both answer 503."""
    services.control = dict(control_actions(services, current, stop))
    if services.store is not None:
        services.control.update(account_actions(services.store, messaging))
        services.control.update(pairing_actions(services.store, lambda: current.config.platforms.keys()))
    health.instance = instance
    services.sessions = sessions
    try:
        yield
    finally:
        services.sessions = None
        stop.request(
            "an error", current.config.shutdown.total_s, exit_code=1
        )  # the first request counts: only without one


def log_start(addresses: tuple[tuple[str, int], ...], mode: str, left: Recovered) -> None:
    """Note in the log that the gateway serves, and what the last process had left."""
    if left.turns_cut:
        log.warning("store.recovered", cut=left.turns_cut, interrupted=left.rows_interrupted, resumed=left.rows_resumed)
    log.info("gateway.serving", addresses=" ".join(f"{host}:{port}" for host, port in addresses), mode=mode)


def announce_start(
    announce: Callable[[str], None],
    config: Config,
    addresses: tuple[tuple[str, int], ...],
    new_key: str | None,
    mode: str,
) -> None:
    """Say in words where the gateway is, how to open it, and which model answers."""
    for warning in config.warnings:
        announce(f"note: {warning}")
    if mode != "gateway":
        return
    for host, port in addresses:
        announce(f"Hermes serves http://{f'[{host}]' if ':' in host else host}:{port} (home: {config.home})")
    if new_key is not None:
        announce(f"API key, made now and kept in {config.home / 'api_key'}: {new_key}")
    primary = config.model.primary
    if primary.api == "demo":
        announce(
            "Model: the built-in demo. For a real one set OPENAI_API_KEY (and OPENAI_BASE_URL), or `model:` in config.yaml"
        )
    else:
        announce(f"Model: {primary.model} at {primary.base_url}")
    announce("Talk to it: hermes chat")
