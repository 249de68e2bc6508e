"""What a command is run with and what comes of it: values, and the narrow views of the gateway that commands have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hermes.access import AccessPolicy
from hermes.accounts import AccountStatus
from hermes.commands import Command
from hermes.events import Address
from hermes.replies import Buttons
from hermes.store.backlog import Backlog
from hermes.store.conversations import Outcome
from hermes.store.rows import InboxRow, SessionRow


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, as markdown.

    Args:
        again: the mailbox has something to do.
        buttons: rows of them below the text, where the service has buttons; the text says all that is needed without them.
    """

    text: str
    again: bool = False
    buttons: Buttons = ()


@dataclass(frozen=True, slots=True)
class Resubmit:
    """The words are a message of the person, to be delivered with this busy policy; nothing is answered."""

    text: str
    busy: Literal["queue", "steer"]


@dataclass(frozen=True, slots=True)
class Restart:
    """The gateway is to be started again, once `text` is committed as the answer."""

    text: str


Result = Reply | Resubmit | Restart


class Turns(Protocol):
    """The live side of a mailbox; `hermes.sessions.Sessions` is one."""

    async def stop(self, key: str, by: str, before: int | None = None) -> int:
        """End the turn and every row that was accepted before the row `before`; returns how many."""
        ...

    def is_turning(self, key: str) -> bool:
        """Whether a turn runs."""
        ...

    def forget(self, key: str) -> None:
        """Let go of the history in memory: its rows changed."""
        ...


class Conversations(Protocol):
    """What commands do to conversations; `hermes.store.conversation_table.ConversationTable` is one. Each does it once."""

    async def own(self, key: str, principal: str, limit: int) -> list[SessionRow]:
        """Of whoever speaks, the newest first."""
        ...

    async def begin_anew(self, command: InboxRow, key: str, title: str | None) -> Outcome:
        """A new one in place of the one that goes on."""
        ...

    async def set_title(self, command: InboxRow, key: str, title: str | None) -> Outcome:
        """Its name."""
        ...

    async def resume(self, command: InboxRow, key: str, session_id: str) -> Outcome:
        """Another one in its place."""
        ...

    async def branch(self, command: InboxRow, key: str, title: str | None) -> Outcome:
        """A copy in its place."""
        ...

    async def undo(self, command: InboxRow, key: str, number: int) -> Outcome:
        """Without its last exchanges."""
        ...

    async def retry(self, command: InboxRow, key: str, *, may_change: bool) -> Outcome:
        """Its last exchange again."""
        ...


class Gateway(Protocol):
    """What else commands ask for."""

    async def standing(self, key: str) -> tuple[SessionRow | None, int]:
        """The conversation that a mailbox feeds, and how many rows wait in it."""
        ...

    async def set_home(self, command: InboxRow) -> object:
        """Remember where the command was typed."""
        ...

    def model(self) -> str:
        """The name of the model that answers."""
        ...

    def accounts(self) -> Sequence[AccountStatus]:
        """How accounts do."""
        ...

    async def backlogs(self) -> Mapping[str, Backlog]:
        """What waits at accounts."""
        ...

    def is_brief(self, account: str) -> bool:
        """Whether long answers take long to arrive there."""
        ...

    def retry_account(self, account: str) -> bool:
        """Connect an account again now; False if there is nothing to try."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What commands work with."""

    turns: Turns
    conversations: Conversations
    gateway: Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A command to be run.

    Args:
        command: as it was read.
        row: of the inbox.
        key: the session's.
        address: where it was typed.
        policy: of the account, as it is now.
    """

    command: Command
    row: InboxRow
    key: str
    address: Address
    policy: AccessPolicy

    @property
    def person(self) -> str:
        """Who asks: the service's id."""
        return self.row.principal.partition(":")[2]

    @property
    def arguments(self) -> str:
        """What follows the command."""
        return self.command.arguments

    @property
    def admin(self) -> bool:
        """Whether an admin asks."""
        return self.person in self.policy.admins
