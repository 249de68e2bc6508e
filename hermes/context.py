"""TurnContext: who a turn is for, passed as an argument to everything a turn calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hermes.events import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnContext:
    """The identity of one turn. It is an explicit, frozen argument: never a global, never a context variable.

    Args:
        turn_id: the turn's id.
        session_id: the conversation's id.
        session_key: the key that names the mailbox.
        principal: who asked, as a stable id (`key:…` for an API key holder, `local` for the control socket).
        source: the door the request came through, such as `chat.completions`, `runs`, `chat`.
        workspace: the directory that file tools and the terminal work in.
        may_change: whether tools with side effects may run for this caller.
        address: the chat on a messaging service in which this is said; None for other doors.
    """

    turn_id: str
    session_id: str
    session_key: str
    principal: str
    source: str
    workspace: Path
    may_change: bool
    address: Address | None = None

    def log_fields(self) -> dict[str, str]:
        """The fields that every log line of this turn carries."""
        return {"turn": self.turn_id, "session": self.session_id, "source": self.source}
