"""What goes on beside the turns: following the configuration, forgetting what is old, warming up, checking after an unclean stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from hermes.blobs import Blobs
from hermes.current import Current
from hermes.errors import StoreUnavailable
from hermes.observe.logs import get_log
from hermes.received import forget
from hermes.settings import Config, ModelConfig
from hermes.store import Store

log = get_log(__name__)

WARM_AFTER_S = 0.5  # for what is waiting at the start; a first turn that comes earlier loads the library itself
CHECK_AGAIN_S = 5.0  # after a check for which there was no file handle, no memory, or no lock
SWEEP_PAUSE_S = 0.05  # between two batches of a sweep, so that turns get their commits in between


class ModelParts(Protocol):
    """What of the model door is used here."""

    def configure(self, settings: ModelConfig) -> None:
        """Take over new settings."""
        ...

    async def warm(self) -> None:
        """Load what the first call needs."""
        ...


@asynccontextmanager
async def open_background(
    current: Current,
    store: Store,
    door: ModelParts,
    blobs: Blobs,
    further: tuple[Callable[[], Awaitable[None]], ...] = (),
) -> AsyncIterator[None]:
    """Run the tasks that nobody waits for.

    Args:
        further: tasks that never return, run beside.

    Lifetime: enter = started; exit = cancelled and gone. An error in one of them is a bug of the core and ends the process.
    """

    def configure(config: Config) -> None:
        door.configure(config.model)
        store.configure(config)

    current.listen(configure)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(current.watch)
        nursery.start_soon(_sweep, current, store, blobs)
        nursery.start_soon(_warm_up, store, door)
        for task in further:
            nursery.start_soon(task)
        yield
        nursery.cancel_scope.cancel("left")


async def _warm_up(store: Store, door: ModelParts) -> None:
    """After the listener is ready: load the model library off the loop, then look at a database that was not closed."""
    await trio.sleep(WARM_AFTER_S)
    await door.warm()
    while store.database.unclean:
        try:
            await store.database.quick_check()
        except StoreUnavailable as error:
            log.warning("store.check_waits", error=error)
            await trio.sleep(CHECK_AGAIN_S)
        else:
            log.info("store.checked", after="an unclean stop")
            return


async def _sweep(current: Current, store: Store, blobs: Blobs) -> None:
    """Forget what retention says, batch by batch."""
    while True:
        try:
            while gone := await store.forget_old(current.config.retention):
                log.debug("store.forgot", rows=gone)
                await trio.sleep(SWEEP_PAUSE_S)
        except StoreUnavailable as error:
            log.warning("store.sweep_waits", error=error)
        try:
            await _forget_files(current.config, store.clock(), blobs)
        except OSError as error:  # no descriptor is free, or the directory cannot be read; the next sweep looks again
            log.warning("blobs.sweep_waits", error=error)
        await trio.sleep(current.config.retention.sweep_s)


async def _forget_files(config: Config, now: float, blobs: Blobs) -> None:
    kept_s = max(config.retention.blobs_s, config.delivery.expire_s)  # for what waits to be sent
    while gone := await blobs.forget(now - kept_s, now):
        log.debug("blobs.forgot", files=gone)
    old = now - config.retention.blobs_s
    while gone := await blobs.run(partial(forget, config.workspace, config.home, old)):
        log.debug("received.forgot", files=gone)
