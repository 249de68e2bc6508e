"""What is checked: a platform, the service it speaks to, and samples of what that says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes.events import AttachmentRef, InboundEvent
from hermes.platform import PlatformSpec
from hermes.testing.host import TestHost


class Breach(AssertionError):
    """A clause that does not hold; the text says what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A platform to be checked.

    Args:
        spec: the platform.
        service: opens a fake of its service, a `FakeService`, on the loopback. It is asked for a new one again and again.
        config: the configuration of an account of that fake, with good credentials. The host is there for services that call us:
            `host.base_url` is where routes are.
        samples: recorded input of the service, by names for people; at least one that is an event.
        translate: the platform's translation of one sample.
        file: a file that the fake has: how the platform would find it, and its bytes. None: the platform fetches nothing.
        sources: the platform's own modules; by default the package or the file that `spec.open` is defined in.
        account: the account's id.
        calls: whether the platform calls its service. One that is only called by others has nobody to be refused by: its fake needs
            no switches, and to be entered it asks nobody.
        endings: how often a scenario is ended at most, for each way to end it; the steps are spread evenly.
    """

    spec: PlatformSpec[Any]
    service: Callable[[], AbstractAsyncContextManager[Any]]
    config: Callable[[Any, TestHost], Any]
    samples: Mapping[str, bytes]
    translate: Callable[[bytes], Sequence[InboundEvent]]
    file: tuple[AttachmentRef, bytes] | None = None
    sources: tuple[Path, ...] = ()
    account: str = "kit"
    calls: bool = True
    endings: int = 100


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause, and how it is checked. Call it with a `Subject`.

    Args:
        number: in the contract.
        name: in one word; pytest names tests after it.
        says: what holds.
        check: raises Breach.
    """

    number: int
    name: str
    says: str
    check: Callable[[Subject], None]

    @property
    def __name__(self) -> str:
        """What pytest calls a parameter."""
        return self.name

    def __call__(self, subject: Subject) -> None:
        """Check it.

        Raises:
            Breach: it does not hold.
        """
        try:
            self.check(subject)
        except AssertionError as error:
            raise Breach(f"clause {self.number}, {self.says}: {error}") from error
