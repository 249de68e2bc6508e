"""Values that come out of the store."""

from __future__ import annotations

import msgspec

from hermes.events import Address, ReplyRef
from hermes.intake import HTTP, Busy, Mode, Payload, RowState, TurnEnd, TurnState
from hermes.messages import Message


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as stored."""

    id: str
    key: str
    source: str
    principal: str
    title: str | None
    model: str | None
    instructions: str | None
    parent_id: str | None
    created_at: float
    updated_at: float
    ended_at: float | None
    end_reason: str | None
    expires_at: float | None
    turns: int
    messages: int
    has_prefix: bool
    input_tokens: int
    output_tokens: int


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message with its place in the conversation."""

    seq: int
    turn_id: str
    created_at: float
    message: Message


class InboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted event."""

    id: int
    event_id: str
    account: str
    chat: str
    thread: str | None
    reply: ReplyRef | None
    session_key: str
    mode: Mode
    source: str
    principal: str
    busy: Busy
    may_change: bool
    accepted_at: float
    attempts: int
    resume: bool
    state: RowState
    reason: str | None
    turn_id: str | None
    held_until: float | None
    part_of: str | None
    fetch_until: float | None
    payload: Payload
    readable: bool = True

    @property
    def ready_at(self) -> float:
        """Until when it waits, seconds since the epoch: for more parts of itself, for its pictures."""
        return max(self.held_until or 0.0, self.fetch_until or 0.0)

    @property
    def address(self) -> Address | None:
        """Where the answer is to be delivered; None when somebody fetches it."""
        return None if self.account == HTTP else Address(self.account, self.chat, self.thread)


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What `accept` did.

    Args:
        event_id: of the row that stands for the request: its own, or the one an idempotency key or a repeat points to.
        session_id: the conversation.
        fresh: False when nothing new was written.
        end: the stored end, when the row that the key points to is already done.
        session: the conversation of a fresh row, as it is now.
        begun: the conversation was made for it.
    """

    event_id: str
    session_id: str
    fresh: bool
    end: TurnEnd | None = None
    session: SessionRow | None = None
    begun: bool = False


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that was begun in the store, with what it needs to run.

    Args:
        turn_id: the new turn.
        rows: the inbox rows it answers, oldest first; the first gives mode, principal and options.
        session: the conversation.
        appended: what entered the history at its begin, in order (closing an awaiting step included).
        resumed: the rows had been begun before; their messages are in the history already.
        base: messages the conversation held when the turn began, its own included.
        started_at: seconds since the epoch.
        first_event: the number of the first event that this turn tells.
        history: all that a model may see, what was appended included, where that was asked for and is short.
    """

    turn_id: str
    rows: tuple[InboxRow, ...]
    session: SessionRow
    appended: tuple[Message, ...]
    resumed: bool
    base: int
    started_at: float
    first_event: int
    history: tuple[Message, ...] | None = None

    @property
    def resumes(self) -> str | None:
        """The turn that is gone on with, and with what it has shown; what came since was in no turn."""
        return self.rows[0].turn_id if self.resumed else None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A row that ended without a turn (left, stopped, quarantined, refused); `told` is where that is said."""

    event_id: str
    end: TurnEnd
    told: Address | None = None


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """What a mailbox holds: a claim to run, rows that were settled on the way, and whether more waits.

    Args:
        held_s: seconds for which the first rows still wait for more parts of themselves or for pictures; 0 = for nothing.
    """

    claim: Claim | None
    settled: tuple[Settled, ...]
    more: bool
    held_s: float = 0.0


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A detached run as its client sees it."""

    event_id: str
    session_key: str
    session_id: str
    state: RowState
    reason: str | None
    accepted_at: float
    turn_state: TurnState | None
    started_at: float | None
    ended_at: float | None
    end: TurnEnd | None
