"""What the HTTP routes work with. A part that is not open (yet, or any more) is None, and its routes answer 503."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hermes.hooks import Hooks
from hermes.sessions import Sessions
from hermes.settings import Config
from hermes.store import Store

Json = Mapping[str, Any]


async def _nothing() -> None:
    """Nothing is to be read."""


@dataclass(slots=True, kw_only=True)
class Services:
    """The gateway's parts as the routes see them; the gateway sets and clears each as its scope is entered and left.

    Args:
        config: the configuration as it is now.
        key: the API key that opens the TCP listener; nothing opens it while it is empty.
        new_key: the key, if it was made at this start and should be shown.
        store: the database.
        sessions: the live sessions, while turns may be asked for.
        look: reads what `metrics` and `status` show and only the database knows; asked before each of them.
        ready: (works, report): whether the gateway can serve, and the report that `/ready` shows; details only for those
            who may see them.
        metrics: Prometheus text.
        lifetimes: the live scope tree.
        control: name -> what `POST /control/{name}` does (socket only).
        status: what `hermes status` shows (socket only).
        hooks: the webhooks that platforms have mounted.
        counts: totals of the API since the start, by constant names: `unknown_fields`.
    """

    config: Callable[[], Config]
    key: Callable[[], str] = str
    new_key: str | None = None
    store: Store | None = None
    sessions: Sessions | None = None
    look: Callable[[], Awaitable[None]] = _nothing
    ready: Callable[[], tuple[bool, Json]] = lambda: (False, {"status": "starting"})
    metrics: Callable[[], str] = lambda: ""
    lifetimes: Callable[[], Json] = dict
    control: dict[str, Callable[[Json], Awaitable[Json]]] = field(default_factory=dict)
    status: Callable[[], Json] = dict
    hooks: Hooks = field(default_factory=Hooks)
    counts: Counter[str] = field(default_factory=Counter)
