"""Running commands: rows that wait for nobody's turn, one after the other, each ended with its answer in one transaction.

A command whose row was not ended when the process died is run again at the next start, so each of them may be run twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from hermes import commands
from hermes.errors import HermesError, RequestError, StoreUnavailable
from hermes.events import Address
from hermes.ids import new_id
from hermes.observe.logs import get_log
from hermes.replies import Replies
from hermes.sessions import Sessions
from hermes.store import Store
from hermes.store.inbox import COMMAND
from hermes.store.rows import InboxRow, SessionRow

log = get_log(__name__)

BATCH = 32
LOOK_S = 30.0  # a wake that was lost costs so long
RUN_S = 20.0  # for one command


class Commanding:
    """Runs what people command; see `open_commanding`."""

    def __init__(self, store: Store, replies: Replies, model: Callable[[], str]) -> None:
        self._store = store
        self._replies = replies
        self._model = model
        self._sessions: Sessions
        self._waits = trio.Event()

    def wake(self) -> None:
        """A command was committed."""
        self._waits.set()

    async def run(self, sessions: Callable[[], Awaitable[Sessions]]) -> None:
        """Run commands as they come; never returns."""
        self._sessions = await sessions()
        while True:
            self._waits = trio.Event()
            try:
                rows = await self._store.inbox.next_commands(BATCH)
                for row in rows:
                    await self._one(row)
            except StoreUnavailable as error:
                log.warning("commands.wait", error=error)
                await self._store.database.wait_available()
                continue
            if not rows:
                with trio.move_on_after(LOOK_S):
                    await self._waits.wait()

    async def _one(self, row: InboxRow) -> None:
        address = row.address
        if address is None or not row.readable:
            await self._store.inbox.finish_command(row, ())
            return
        command = commands.parse(row.payload.messages[0].text) or commands.Command("help")
        text = "That took too long. Try again."
        try:
            with trio.move_on_after(RUN_S):
                text = await self._said(command, row, address)
        except StoreUnavailable:
            raise
        except (HermesError, RequestError) as error:
            text = f"That did not work: {error}"
        await self._store.inbox.finish_command(row, self._replies.parts(address, text))
        self._replies.wake(address)
        log.info("command.run", name=command.name if command.known else "(unknown)", account=address.account)

    async def _said(self, command: commands.Command, row: InboxRow, address: Address) -> str:
        key = row.session_key.removeprefix(COMMAND)
        match command.name:
            case "help":
                return commands.help_text()
            case "stop":
                ended = await self._sessions.stop(key, row.event_id, row.id)
                return "Stopped." if ended else "Nothing was going on."
            case "new":
                return await self._new(key, row)
            case "status":
                return await self._status(key)
            case "whoami":
                person = row.principal.partition(":")[2]
                return (
                    f"You are `{person}` at `{address.account}`. This place is `{address}`, its conversation `{key}`."
                )
            case "title":
                return await self._title(key, command.arguments)
            case "queue" | "steer":
                return f"Say what: `/{command.name} words`"
            case _:
                return commands.unknown_text(command)

    async def _new(self, key: str, row: InboxRow) -> str:
        """End the conversation, with what runs and waits in it; what came after goes into the new one."""
        ended = await self._store.sessions.renew(key, new_id("sess"), "new")
        await self._sessions.stop(key, row.event_id, row.id)
        self._sessions.forget(key)
        return "A new conversation. The old one is kept." if ended is not None else "This is a new conversation."

    async def _status(self, key: str) -> str:
        session, _ = await self._store.sessions.opened(key)
        waiting = await self._store.inbox.waits(key)
        now = "I am answering." if self._sessions.is_turning(key) else "I am idle."
        queue = f" {waiting} messages wait." if waiting else ""
        return f"{now}{queue}\n\n{_described(session)}\nModel: `{self._model()}`"

    async def _title(self, key: str, title: str) -> str:
        session, _ = await self._store.sessions.opened(key)
        if session is None:
            return "There is no conversation yet."
        if not title:
            return f"This conversation is called: {session.title}" if session.title else "It has no name yet."
        await self._store.sessions.update(session.id, title=" ".join(title.split())[:200])
        return "Named."


def _described(session: SessionRow | None) -> str:
    if session is None:
        return "Nothing was said here yet."
    name = f"“{session.title}”, " if session.title else ""
    tokens = session.input_tokens + session.output_tokens
    return f"Conversation: {name}{session.turns} turns, {session.messages} messages, {tokens} tokens."


@asynccontextmanager
async def open_commanding(
    store: Store, sessions: Callable[[], Awaitable[Sessions]], replies: Replies, model: Callable[[], str]
) -> AsyncIterator[Commanding]:
    """Run commands while inside, also those that an earlier process left.

    Args:
        sessions: gives the sessions once they are open; none is run before.
        model: the name of the model that answers now.

    Lifetime: exit = none is being run; what was not ended waits for the next start.
    """
    commanding = Commanding(store, replies, model)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commanding.run, sessions)
        yield commanding
        nursery.cancel_scope.cancel("left")
