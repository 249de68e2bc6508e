"""The boundary around what a platform does: whatever goes wrong inside comes out as a value, and nobody else is disturbed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hermes.errors import StoreError, leaves
from hermes.observe.logs import get_log

log = get_log(__name__)


async def contained(work: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Do something of a platform's and return what it raised, None if nothing.

    Errors beside a cancellation are logged and the cancellation goes on: a clean-up that fails during a shutdown ends
    nothing else.

    Raises:
        StoreError: the database cannot be used at all; that ends the process.

    Cancellation: passes through.
    """
    found: BaseException | None = None
    complete = False
    try:
        try:
            await work()
        except* Exception as group:
            if any(isinstance(each, StoreError) for each in leaves(group)):
                raise
            found = group
        complete = True
    finally:
        if found is not None and not complete:
            log.warning("account.cleanup_failed", error=found)
    return found
