"""The numbers of accounts for `/metrics`: each account's own, beside how many are in which state. Plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hermes.accounts import AccountStatus
from hermes.store.backlog import NOTHING, Backlog

Numbers = Callable[[], Mapping[str, float]]


def account_readings(
    accounts: Callable[[], Sequence[AccountStatus]], backlogs: Callable[[], Mapping[str, Backlog]]
) -> Iterator[tuple[str, str, Numbers]]:
    """Name without its beginning, what it is, and what reads it: account -> number.

    Args:
        accounts: as they are now.
        backlogs: what waits, as it was read last.
    """
    states: tuple[tuple[str, str, Callable[[AccountStatus], float]], ...] = (
        ("works", "1 while it can be written through and heard.", lambda each: float(each.works)),
        ("state_seconds", "Since when it is in its state.", lambda each: each.since_s),
        ("generation", "The number of its connection.", lambda each: float(each.generation)),
        ("restarts", "Connections that failed.", lambda each: float(each.restarts)),
    )
    for name, about, number in states:
        yield name, about, lambda number=number: {each.account: number(each) for each in accounts()}  # type: ignore[misc]
    yield (
        "state",
        "1 for the state that it is in, as account/state.",
        lambda: {f"{each.account}/{each.state}": 1.0 for each in accounts()},
    )
    yield (
        "progress_age_seconds",
        "Since the last sign of life of each path, as account/path.",
        lambda: {f"{each.account}/{path}": age for each in accounts() for path, age in each.progress_s.items()},
    )
    waits: tuple[tuple[str, str, Callable[[Backlog], float]], ...] = (
        ("waiting", "Messages that wait for their answers.", lambda each: float(each.waiting)),
        ("waiting_oldest_seconds", "How long the oldest of them waits.", lambda each: each.waiting_oldest_s or 0.0),
        ("to_send", "Parts that are to be sent.", lambda each: float(each.to_send)),
        ("to_send_oldest_seconds", "How long the oldest of them waits.", lambda each: each.to_send_oldest_s or 0.0),
        ("undelivered", "Parts that were given up and are kept.", lambda each: float(each.undelivered)),
    )
    for name, about, of in waits:
        yield (
            name,
            about,
            lambda of=of: {  # type: ignore[misc]
                each.account: of(backlogs().get(each.account, NOTHING)) for each in accounts()
            },
        )
