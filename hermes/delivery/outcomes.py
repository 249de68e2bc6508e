"""What an error of a send or an edit says about what was requested: one pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from hermes.errors import (
    AddressGone,
    HermesError,
    PlatformConflict,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    Unreachable,
    WebSocketClosed,
    leaves,
    said,
)
from hermes.events import MAX_ID, Receipt, encode_receipt

Verdicts = Literal["sent", "rejected", "gone", "moved", "again", "uncertain", "bug"]

# The most doubtful first: of several errors at once the worst is believed.
_ORDER: Final[tuple[Verdicts, ...]] = ("bug", "uncertain", "gone", "moved", "rejected", "again")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a request, as in `hermes.store.outbox.Ended`."""

    how: Verdicts
    reason: str
    moved_to: str | None = None


def judge(error: BaseException) -> Verdict:
    """What an error says about what was requested.

    A complete answer is definite: rejected, gone, a limit, an error of the service. So is a request of which nothing can have
    left. Whatever else happened, it may be shown.
    """
    return min((_judge(each) for each in leaves(error)), key=lambda each: _ORDER.index(each.how))


def _judge(error: BaseException) -> Verdict:
    words = said(error) or type(error).__name__
    match error:
        case SendRejected():
            return Verdict("rejected", words)
        case AddressGone(moved_to=str() as chat) if _is_id(chat):
            return Verdict("moved", words, chat)
        case AddressGone():
            return Verdict("gone", words)
        case RateLimited() | PlatformConflict() | PlatformRefused() | Unreachable(sent=False):
            return Verdict("again", words)
        case Unreachable() | WebSocketClosed():  # what was written last may have been read
            return Verdict("uncertain", words)
        case PlatformUnavailable():  # the service said so
            return Verdict("again", words)
        case HermesError():  # SendUncertain, or an answer that is not the protocol
            return Verdict("uncertain", words)
        case _:
            return Verdict("bug", f"{type(error).__name__}: {words}")


def _is_id(chat: str) -> bool:
    return 0 < len(chat) <= MAX_ID and chat.isprintable()


def storable(receipt: Receipt) -> Receipt | None:
    """A receipt that can be kept; None for one that cannot, so that what is shown can only never be edited."""
    try:
        encode_receipt(receipt)
    except (ValueError, TypeError, msgspec.MsgspecError):
        return None
    return receipt


def retry_after(error: BaseException) -> float | None:
    """What a service that does not serve now asks for, in seconds."""
    waits = [
        each.retry_after_s
        for each in leaves(error)
        if isinstance(each, (PlatformUnavailable, PlatformConflict)) and each.retry_after_s is not None
    ]
    return max(waits, default=None)
