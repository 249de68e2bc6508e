"""Typing: a sign that is repeated while something is being prepared, and ends with it."""

from __future__ import annotations

import trio

from hermes.delivery.lane import Parts
from hermes.errors import AccountDown, LeaseEnded, RateLimited, leaves
from hermes.events import Activity, Address
from hermes.observe.logs import get_log

log = get_log(__name__)

SIGNAL_S = 5.0
FIRST_AFTER_S = 0.3  # what is ready sooner needs no sign: it is begun so late
TYPING = Activity(kind="typing")


class Typing:
    """The sign at one address, repeated until it is closed."""

    def __init__(self, address: Address, every_s: float, parts: Parts) -> None:
        self._address = address
        self._every_s = every_s
        self._parts = parts
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Show it until closed."""
        try:
            with self._scope:
                while True:
                    due = max(trio.current_time(), self._parts.limits.free_at(self._address, "signal"))
                    await trio.sleep_until(due)
                    if self._parts.limits.is_free(self._address, "signal"):
                        await self._show()
                        await trio.sleep(self._every_s)
        finally:
            self._ended.set()

    async def _show(self) -> None:
        try:
            with trio.move_on_after(SIGNAL_S):
                async with self._parts.lease(self._address.account) as platform:
                    try:
                        await platform.signal(self._address, TYPING)
                    except Exception as error:  # noqa: BLE001  # a plugin's hook
                        self._failed(error)
        except (AccountDown, LeaseEnded):
            pass  # nobody to show it

    def _failed(self, error: Exception) -> None:
        """Nothing but a limit is of interest."""
        log.debug("delivery.sign_failed", address=str(self._address), error=error)
        for each in leaves(error):
            if isinstance(each, RateLimited):
                self._parts.limits.limit(self._address, "signal", each)

    async def close(self) -> None:
        """End it; when this returns nothing more is shown."""
        self._scope.cancel("what was prepared is ready")
        with trio.move_on_after(SIGNAL_S, shield=True):
            await self._ended.wait()
