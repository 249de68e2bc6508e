"""What the kit asks of a fake of a messaging service: enough to see a platform from the service's side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, Protocol, get_args

Switch = Literal["refuse", "fail", "garbage", "hang", "lose", "limit", "reject", "repeat"]
"""A bad day of a service, from when it is set until another is set:

| switch | what the service does |
|---|---|
| `refuse` | answers every request that the credentials are no good; nothing has an effect |
| `fail` | answers every request, completely, that it cannot serve now (HTTP 503); nothing has an effect |
| `garbage` | answers every request with something that is not its protocol; nothing has an effect |
| `hang` | takes every request and connection and never answers; nothing has an effect |
| `lose` | does what is asked and closes the connection before the answer is complete |
| `limit` | answers every request that it is one too many, and when to come again; nothing has an effect |
| `reject` | answers every message to be shown that it will never be shown; nothing has an effect |
| `repeat` | hands out every event twice, with the same id |
"""

SWITCHES: Final = get_args(Switch)
NEEDED: Final[tuple[Switch, ...]] = ("refuse", "fail", "garbage", "hang", "lose")  # every service has days like these


class FakeService(Protocol):
    """A messaging service that a test serves on the loopback. It answers every account alike and forgets nothing.

    Attributes:
        chat: the id of a chat where one person writes to us and reads us.
        switches: which switches it has: `refuse`, `fail`, `garbage`, `hang` and `lose` at least, if the platform calls it.
    """

    chat: str
    switches: Collection[Switch]

    def post(self, text: str) -> str:
        """The person writes this in `chat`; returns the id that the `InboundEvent` will have."""

    def shown(self) -> Sequence[str]:
        """The texts of our messages that the person sees in `chat` now, in the order of their appearance."""

    def acknowledged(self) -> Collection[str]:
        """The ids of events that it takes for received and will hand out no more; empty if it knows no such thing."""

    def requests(self) -> Sequence[str]:
        """Every request and every connection that was made so far, each as words such as `POST /messages`, oldest first."""

    def set(self, switch: Switch | None) -> None:
        """Have a day of this kind from now on; None: a good one."""
