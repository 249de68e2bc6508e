"""From a batch of updates to events, whichever way it came."""

from __future__ import annotations

from typing import Any

from hermes.events import InboundEvent
from platforms.telegram.translate import NoEvent, translate
from platforms.telegram.words import Me


def read(updates: list[Any], *, account: str, me: Me) -> tuple[list[InboundEvent], int | None, list[tuple[str, Any]]]:
    """A batch in its order: its events, its highest number (None if no update has one), and what is malformed, with the reason."""
    events, numbers, bad = list[InboundEvent](), list[int](), list[tuple[str, Any]]()
    for update in updates:
        number = update.get("update_id") if isinstance(update, dict) else None
        if isinstance(number, bool) or not isinstance(number, int):
            bad.append(("it has no number", update))
            continue
        numbers.append(number)
        try:
            event = translate(update, account=account, me=me)
        except NoEvent as error:
            bad.append((str(error), update))
        else:
            if event is not None:
                events.append(event)
    return events, max(numbers, default=None), bad
