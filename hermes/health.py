"""Health: what the gateway says of itself, computed from what its parts show now and never from what was once started.

One object reads them all; `/ready`, `/metrics`, `hermes status` and the service manager are told from it alone.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import trio

from hermes import __version__
from hermes.account_metrics import account_readings
from hermes.accounts import AccountStatus, all_required_work
from hermes.current import Current
from hermes.errors import StoreUnavailable
from hermes.http.listener import Server
from hermes.http.services import Json
from hermes.instance import Instance
from hermes.intake import TurnEnd
from hermes.messaging import Messaging
from hermes.observe.logs import get_log
from hermes.observe.notify import Notifier
from hermes.observe.scopes import scope_lines, scope_tree
from hermes.observe.statistics import Metrics
from hermes.observe.steps import SlowSteps
from hermes.sessions import Sessions
from hermes.stopping import Stop
from hermes.store import Store
from hermes.store.backlog import NOTHING, Backlog

if TYPE_CHECKING:
    from hermes.agent.model import ModelDoor

log = get_log(__name__)

_IDLE_WORKER = re.compile(r"Trio thread \d+")


class Health:
    """What the parts of a gateway show.

    Args:
        current: the configuration in force.
        stop: whether it is stopping.
        mode: `gateway` or `embedded`.
    """

    def __init__(self, current: Current, stop: Stop, mode: str) -> None:
        self.instance: Instance | None = None
        self.steps: SlowSteps | None = None
        self.notifier: Notifier | None = None
        self.metrics = Metrics()
        self._turns = self.metrics.counter("hermes_turns_total", "Turns that ended, by how.", "state")
        self._turn_seconds = self.metrics.histogram("hermes_turn_seconds", "How long turns took.")
        self._tokens = self.metrics.counter("hermes_tokens_total", "Tokens as the providers count them.", "kind")
        self._current = current
        self._stop = stop
        self._mode = mode
        self._started_at = time.time()
        self._store: Store | None = None
        self._server: Server | None = None
        self._sessions: Sessions | None = None
        self._door: ModelDoor | None = None
        self._messaging: Messaging | None = None
        self._backlogs: Mapping[str, Backlog] = {}
        self._register(self.metrics)

    @property
    def total_s(self) -> float:
        """Seconds within which a stop is over."""
        return self._current.config.shutdown.total_s

    def reload(self) -> None:
        """Read the configuration again soon."""
        self._current.nudge()

    def dump(self) -> None:
        """Write every task with its stack to the log."""
        for line in scope_lines(scope_tree(stacks=True)):
            log.warning("scopes", text=line)

    def watch(self, store: Store, server: Server, sessions: Sessions, door: ModelDoor, messaging: Messaging) -> None:
        """Read these parts from now on; they outlive everything that asks."""
        self._store, self._server, self._sessions, self._door = store, server, sessions, door
        self._messaging = messaging

    def serving(self) -> None:
        """Turns are admitted from now on: tell the service manager that the start is over."""
        if self.notifier is not None:
            self.notifier.ready("serving")

    def checks(self) -> dict[str, str]:
        """Part -> `ok`, or why it does not work."""
        store = self._store.database.statistics() if self._store is not None else None
        return {
            "store": "opening"
            if store is None
            else "ok"
            if store.unavailable is None
            else f"unavailable ({store.unavailable})",
            "listener": "ok" if self._server is not None and not self._server.draining else "starting",
            "sessions": "draining" if self._stop.asked else "starting" if self._sessions is None else "ok",
        }

    async def look(self) -> None:
        """Read what waits at each account; what was read last stays where the store cannot be read now."""
        if self._store is not None:
            try:
                self._backlogs = await self._store.accounts.backlogs()
            except StoreUnavailable as error:
                log.info("health.backlogs_unread", error=error)

    def ready(self) -> tuple[bool, Json]:
        """Whether turns are served now, and the report of `/ready`."""
        checks = self.checks()
        accounts = self._messaging.accounts() if self._messaging is not None else ()
        works = all(each == "ok" for each in checks.values()) and all_required_work(accounts)
        status = (
            "draining"
            if self._stop.asked
            else "ready"
            if works
            else "starting"
            if "starting" in checks.values()
            else "degraded"
        )
        return works, {
            "status": status,
            "checks": checks,
            "accounts": {each.account: _plain(each) for each in accounts},
        }

    def status(self) -> Json:
        """What `hermes status` shows."""
        works, report = self.ready()
        config = self._current.config
        primary = config.model.primary
        waits = {account: _plain(self._backlogs.get(account, NOTHING)) for account in report["accounts"]}
        return {
            **report,
            "accounts": {account: {**state, **(waits[account] or {})} for account, state in report["accounts"].items()},
            "ready": works,
            "mode": self._mode,
            "version": __version__,
            "home": str(config.home),
            "workspace": str(config.workspace),
            "pid": self.instance.pid if self.instance is not None else None,
            "boot_id": self.instance.boot_id if self.instance is not None else None,
            "uptime_s": round(time.time() - self._started_at, 1),
            "listening": [f"{host}:{port}" for host, port in self._server.addresses if port is not None]
            if self._server
            else [],
            "model": {
                "name": primary.model,
                "api": primary.api,
                "provider": primary.provider,
                "base_url": primary.base_url,
            },
            "config": {
                "error": self._current.error,
                "after_restart": sorted(self._current.waiting),
                "warnings": list(config.warnings),
            },
            "recovered": _plain(self._store.recovered) if self._store is not None else None,
            "sessions": _plain(self._sessions.statistics()) if self._sessions is not None else None,
            "model_clients": _plain(self._door.clients.statistics()) if self._door is not None else None,
            "http": _plain(self._server.statistics()) if self._server is not None else None,
            "store": _plain(self._store.database.statistics()) if self._store is not None else None,
        }

    def turn_ended(self, end: TurnEnd, seconds: float) -> None:
        """Count a turn."""
        self._turns.of(end.state).add()
        self._turn_seconds.of().observe(seconds)
        self._tokens.of("input").add(end.usage.input_tokens)
        self._tokens.of("output").add(end.usage.output_tokens)

    def alive(self) -> bool:
        """Whether the service manager should hear a sign of life: the store can be written, or is known to be waited for."""
        return self._store is None or self._store.database.statistics().unavailable != "closed"

    def lifetimes(self) -> Json:
        """The live scope tree, read from trio itself."""
        return scope_tree()

    def _accounts(self) -> tuple[AccountStatus, ...]:
        return self._messaging.accounts() if self._messaging is not None else ()

    def _account_states(self) -> dict[str, float]:
        return {state: float(count) for state, count in Counter(each.state for each in self._accounts()).items()}

    def _event_counts(self) -> dict[str, float]:
        return dict(self._messaging.counts()) if self._messaging is not None else {}

    def _register(self, metrics: Metrics) -> None:
        metrics.reading("hermes_ready", "1 while turns are served.", lambda: float(self.ready()[0]))
        metrics.reading("hermes_uptime_seconds", "Since the start.", lambda: time.time() - self._started_at)
        metrics.reading("hermes_tasks", "Living tasks.", lambda: trio.lowlevel.current_statistics().tasks_living)
        metrics.reading("hermes_threads", "Living threads, idle workers not among them.", _busy_threads)
        for part, about, read in (
            ("sessions", "Live sessions", lambda: self._sessions),
            ("store", "The database", lambda: self._store and self._store.database),
            ("http", "The listener", lambda: self._server),
            ("model_clients", "Clients of model providers", lambda: self._door and self._door.clients),
        ):
            metrics.reading(f"hermes_{part}", f"{about}, as it counts itself.", _reader(read))
        metrics.reading("hermes_accounts", "Accounts by state.", self._account_states)
        for name, what, numbers in account_readings(self._accounts, lambda: self._backlogs):
            metrics.reading(f"hermes_account_{name}", what, numbers, label="account", counter=name == "restarts")
        metrics.reading("hermes_events", "What became of what was received.", self._event_counts, counter=True)
        metrics.reading(
            "hermes_slow_steps",
            "Task steps over 50 ms of the loop's CPU time.",
            lambda: self.steps.slow if self.steps else 0,
            counter=True,
        )
        metrics.reading(
            "hermes_longest_step_seconds",
            "The most CPU time one step took.",
            lambda: self.steps.longest_cpu_s if self.steps else 0.0,
        )


def _busy_threads() -> int:
    """Threads but for the main one and trio's workers between two jobs, which end by themselves."""
    return sum(not _IDLE_WORKER.fullmatch(thread.name) for thread in threading.enumerate()) - 1


def _reader(part: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    def read() -> dict[str, float]:
        found = part()
        plain = _plain(found.statistics()) if found is not None else None
        return {
            name: float(value)
            for name, value in (plain or {}).items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }

    return read


def _plain(part: object) -> dict[str, Any] | None:
    """The fields of a snapshot as JSON can hold them."""
    if part is None or not is_dataclass(part) or isinstance(part, type):
        return None
    return {field.name: _value(getattr(part, field.name)) for field in fields(part)}


def _value(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _value(each) for name, each in value.items()}
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
