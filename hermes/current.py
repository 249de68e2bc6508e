"""Current: the configuration as it is now, replaced as a whole by a reload, never changed."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from hermes.config import config_fingerprint, diff_config, reload_config
from hermes.errors import ConfigError
from hermes.gateway_options import ServeOptions
from hermes.observe.logs import get_log
from hermes.settings import Config

log = get_log(__name__)

LIVE_SECTIONS = frozenset(
    {
        "model",
        "agent",
        "sessions",
        "retention",
        "shutdown",
        "session_reset",
        "delivery",
        "media",
        "transcription",
        "supervision",
        "logging",
        "platforms",
    }
)
WATCH_S = 2.0


class Current:
    """The configuration in force, and what is to be known of the last attempt to change it.

    Args:
        config: as read at the start.
        options: how it was asked for, to read it again.
        fit: what each configuration that is read goes through before it holds.

    Attributes:
        error: why the last reload was refused; the old configuration still holds.
        changed: sections that the last reload changed.
        waiting: sections that were changed and hold only after a restart.
    """

    def __init__(
        self, config: Config, options: ServeOptions, fit: Callable[[Config], Config] = lambda config: config
    ) -> None:
        self.config = config = fit(config)
        self._fit = fit
        self.error: str | None = None
        self.changed: frozenset[str] = frozenset()
        self.waiting: frozenset[str] = frozenset()
        self.reloaded_at: float | None = None
        self._options = options
        self._started_with = config
        self._listeners: list[Callable[[Config], None]] = []
        self._nudge = trio.Event()
        self._reading = trio.Lock()

    def __call__(self) -> Config:
        return self.config

    def listen(self, listener: Callable[[Config], None]) -> None:
        """Be told of each new configuration, synchronously; for parts that live as long as this."""
        self._listeners.append(listener)

    def nudge(self) -> None:
        """Have the files read again soon (a signal came)."""
        self._nudge.set()

    async def reload(self) -> bool:
        """Read everything again. Returns False if it is invalid: then the old one holds and `error` says why.

        One at a time: an older reading never comes after a newer one.
        """
        async with self._reading:
            return await self._reload()

    async def _reload(self) -> bool:
        try:
            config = self._fit(await trio.to_thread.run_sync(reload_config, self._options))
        except ConfigError as error:
            self.error = str(error)
            log.error("config.refused", problems=str(error))
            return False
        self.error = None
        self.changed = diff_config(self.config, config)
        self.waiting = _after_restart(self._started_with, config)
        self.config = config
        self.reloaded_at = time.time()
        log.info(
            "config.reloaded",
            changed=",".join(sorted(self.changed)) or "nothing",
            after_restart=",".join(sorted(self.waiting)),
        )
        for listener in self._listeners:
            listener(config)
        return True

    async def watch(self) -> None:
        """Reload when a file changed or somebody nudged; never returns."""
        seen = await trio.to_thread.run_sync(self._fingerprint)
        while True:
            with trio.move_on_after(WATCH_S):
                await self._nudge.wait()
            found = await trio.to_thread.run_sync(self._fingerprint)
            if found != seen or self._nudge.is_set():
                seen, self._nudge = found, trio.Event()
                await self.reload()

    def _fingerprint(self) -> object:
        return config_fingerprint(self._started_with.home, self._options.config_file)


def _after_restart(old: Config, new: Config) -> frozenset[str]:
    """What differs and holds only after a restart: sections, and single keys of those that otherwise hold at once."""
    names = {name for name in diff_config(old, new) if name.partition(".")[0] not in LIVE_SECTIONS}
    if new.agent.tools != old.agent.tools:
        names.add("agent.tools")
    kept = ("format", "max_bytes", "files")
    names.update(f"logging.{key}" for key in kept if getattr(new.logging, key) != getattr(old.logging, key))
    return frozenset(names)
