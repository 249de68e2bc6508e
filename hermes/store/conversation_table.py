"""What commands do to conversations, as methods of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes.events import Address, StoredContent
from hermes.ids import new_id
from hermes.intake import Busy
from hermes.store import conversations
from hermes.store.conversations import Outcome
from hermes.store.rows import InboxRow, SessionRow
from hermes.store.tables import Tables


class ConversationTable(Tables):
    """Each method that takes a command's row does what it says once, however often the row is run."""

    async def own(self, key: str, principal: str, limit: int) -> list[SessionRow]:
        """The conversations of whoever speaks, the newest first."""
        return await self._read(conversations.own, key, principal, limit)

    async def begin_anew(self, command: InboxRow, key: str, title: str | None) -> Outcome:
        """End the conversation that a key names and begin an empty one."""
        return await self._write(conversations.begin_anew, command, key, new_id("sess"), title, self._clock())

    async def set_title(self, command: InboxRow, key: str, title: str | None) -> Outcome:
        """Name the conversation, or tell its name."""
        return await self._write(conversations.set_title, command, key, new_id("sess"), title, self._clock())

    async def resume(self, command: InboxRow, key: str, session_id: str) -> Outcome:
        """Go on with another conversation of whoever speaks."""
        return await self._write(conversations.resume, command, key, session_id, self._clock())

    async def branch(self, command: InboxRow, key: str, title: str | None) -> Outcome:
        """Go on in a copy."""
        return await self._write(conversations.branch, command, key, new_id("sess"), title, self._clock())

    async def undo(self, command: InboxRow, key: str, number: int) -> Outcome:
        """Take the last exchanges out of the history."""
        return await self._write(conversations.undo, command, key, number, self._clock())

    async def retry(self, command: InboxRow, key: str, *, may_change: bool) -> Outcome:
        """Take the last exchange out of the history and ask again."""
        return await self._write(conversations.retry, command, key, may_change, self._clock())

    async def resubmit(self, command: InboxRow, key: str, text: str, busy: Busy, *, may_change: bool) -> None:
        """End a command whose words are a message, and put that into the mailbox."""
        await self._write(conversations.resubmit, command, key, text, busy, may_change, self._clock())

    async def finish_restart(self, command: InboxRow, reply: Sequence[StoredContent]) -> None:
        """End a command that restarts the gateway."""
        await self._write(conversations.finish_restart, command, reply, self._clock())

    async def say_back(self, words: Callable[[Address], Sequence[StoredContent]]) -> list[Address]:
        """Say once, where it was restarted from, that the gateway is back."""
        return await self._write(conversations.say_back, words, self._clock())

    async def set_home(self, command: InboxRow) -> Outcome:
        """Remember where the command was typed."""
        return await self._write(conversations.set_home, command, self._clock())

    async def home(self, account: str) -> Address | None:
        """The place that was remembered so."""
        return await self._read(conversations.home, account)
