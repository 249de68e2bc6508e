"""From a batch of updates to events, whichever way it came."""

from __future__ import annotations

import logging
from typing import Any

from hermes.events import InboundEvent
from platforms.telegram.translate import NoEvent, translate
from platforms.telegram.words import Me

log = logging.getLogger(__name__)


def read(updates: list[Any], *, account: str, me: Me) -> tuple[list[InboundEvent], int | None]:
    """The events of a batch, in its order, and its highest number; None if no update has one.

    What is malformed is passed over, with one line in the log for the batch.
    """
    events, numbers, bad = list[InboundEvent](), list[int](), list[tuple[Any, str]]()
    for update in updates:
        number = update.get("update_id") if isinstance(update, dict) else None
        if isinstance(number, bool) or not isinstance(number, int):
            bad.append((update, "it has no number"))
            continue
        numbers.append(number)
        try:
            event = translate(update, account=account, me=me)
        except NoEvent as error:
            bad.append((update, str(error)))
        else:
            if event is not None:
                events.append(event)
    if bad:
        sample, why = bad[0]
        log.warning("%d of %d updates were passed over, the first: %s: %.200r", len(bad), len(updates), why, sample)
    return events, max(numbers, default=None)
