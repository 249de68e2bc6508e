"""What every group of the store's methods is made of: a plain function, run as one transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from hermes.access import AccessPolicy
from hermes.settings import Config
from hermes.store.database import Database
from hermes.store.turns import TakeUp

T = TypeVar("T")
Clock = Callable[[], float]


class Tables:
    """What every group of methods needs: the database, the clock, the process's id."""

    def __init__(self, database: Database, clock: Clock, boot_id: str, config: Config) -> None:
        self._database = database
        self._clock = clock
        self._boot_id = boot_id
        self._config = config

    def configure(self, config: Config) -> None:
        """Take over a new configuration."""
        self._config = config

    async def _write(self, fn: Callable[..., T], *args: object, **kwargs: object) -> T:
        return await self._database.write(functools.partial(_call, fn, args, kwargs))

    def _look(self, key: str, turn_id: str, left: frozenset[str], remembers: bool) -> TakeUp:
        return TakeUp(
            key=key, turn_id=turn_id, boot_id=self._boot_id, now=self._clock(), left=left,
            stale_after_s=self._config.sessions.stale_after_s, remembers=remembers, access=self._access,
            prefix=self._prefix,
        )  # fmt: skip

    def _access(self, account: str) -> AccessPolicy | None:
        found = self._config.platforms.get(account)
        return None if found is None else found.access

    def _prefix(self, account: str) -> str:
        found = self._config.platforms.get(account)
        return "/" if found is None else found.command_prefix

    async def _read(self, fn: Callable[..., T], *args: object, **kwargs: object) -> T:
        return await self._database.read(functools.partial(_call, fn, args, kwargs))


def _call(fn: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object], con: sqlite3.Connection) -> T:
    return fn(con, *args, **kwargs)
