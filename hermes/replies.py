"""What a person on a messaging service reads at the end of a turn, or of a message that got none. Pure; markdown.

Every final state but `context` and `command` shows itself to the person who wrote, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from hermes.events import Address, Button, StoredContent
from hermes.intake import Failure, TurnEnd

if TYPE_CHECKING:
    from hermes.store.rows import Claim


Buttons = tuple[tuple[Button, ...], ...]
NOT_ALLOWED = "You may not talk to me any more."
_RETRY = "Send it again, or /retry."


class Draw(Protocol):
    """What a turn at work tells of itself."""

    def words(self, pieces: Sequence[str]) -> None:
        """The reply is these pieces so far; they may grow before the next call."""
        ...

    def began(self, call_id: str, tool: str) -> None:
        """A tool began to run."""
        ...

    def ended(self, call_id: str) -> None:
        """It ended."""
        ...


class Replies(Protocol):
    """How a turn's end reaches the person who wrote."""

    def parts(self, address: Address, markdown: str, buttons: Buttons = ()) -> Sequence[StoredContent]:
        """A text as it will be sent there: rendered, each part short enough; buttons below the last, where there are such."""
        ...

    def typed(self, address: Address, text: str) -> str:
        """Words of ours, with the commands that they name as people type them there."""
        ...

    def wake(self, address: Address) -> None:
        """Something was committed for this address; a hint."""
        ...

    def showing(self, claim: Claim) -> AbstractAsyncContextManager[Draw | None]:
        """Show that a turn is at work, and its reply while it is written; None where nobody would see it.

        Lifetime: exit = nothing more is shown of it but by its end.
        """
        ...


class NoReplies:
    """For a gateway without accounts."""

    def parts(self, _address: Address, _markdown: str, _buttons: Buttons = ()) -> Sequence[StoredContent]:
        """Nothing: nobody is there."""
        return ()

    def typed(self, _address: Address, text: str) -> str:
        """The words as they are."""
        return text

    def wake(self, _address: Address) -> None:
        """Nothing to wake."""

    def showing(self, _claim: Claim) -> AbstractAsyncContextManager[Draw | None]:
        """Nothing is shown."""
        return nullcontext()


def reply_text(end: TurnEnd, rows: str) -> str:
    """The reply to a turn's rows.

    Args:
        end: how the turn ended.
        rows: what becomes of its rows, as in `Finish.rows`.

    Returns: markdown; empty when there is nothing to say now: the rows are taken up again, a newer message is answered
        in their place, or whoever said /stop reads its own answer.
    """
    if rows in ("pending", "superseded", "stopped"):
        return ""
    if end.state == "done":
        return end.message.text.strip() if end.message is not None and end.message.text.strip() else "(no words)"
    return failure_text(end.failure) if end.failure is not None else ""


def failure_text(failure: Failure) -> str:
    """Why there is no reply, for the person who waits for it; empty where nobody does, or can be reached, any more."""
    if failure.code in ("client_left", "account_removed"):
        return ""
    if failure.code == "turn_timeout":
        return f"This took longer than a turn may, and was ended. {_RETRY}"
    if failure.code == "quarantined":
        return f"Your message was {failure.message}. /retry tries once more."
    if failure.code == "unreadable":  # nothing of it is in the conversation, for /retry to find
        return "A message of yours could not be read back, and was set aside. Send it again."
    if failure.code == "not_allowed":
        return NOT_ALLOWED
    if failure.kind == "interrupted":
        return f"Interrupted: {failure.message}. {_RETRY}"
    return f"That did not work: {failure.message}. {_RETRY}"
