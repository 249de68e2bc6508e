"""Running commands: rows that wait for nobody's turn, one after the other, each ended with its answer in one transaction.

A command whose row was not ended when the process died is run again at the next start; what changes rows does so once
(`hermes.store.conversations`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from hermes import commands
from hermes.access import AccessPolicy, still_allowed
from hermes.accounts import AccountStatus
from hermes.commands.run import run_command
from hermes.commands.services import Asked, Reply, Restart, Result, Services
from hermes.errors import HermesError, StoreUnavailable
from hermes.observe.logs import get_log
from hermes.replies import NOT_ALLOWED, Replies
from hermes.session_keys import kind_of_chat
from hermes.sessions import Sessions
from hermes.store import Store
from hermes.store.backlog import Backlog
from hermes.store.inbox import COMMAND
from hermes.store.outbox_upkeep import REMOVED
from hermes.store.rows import InboxRow, SessionRow

log = get_log(__name__)

BATCH = 32
LOOK_S = 30.0  # a wake that was lost costs so long
RUN_S = 20.0  # for one command
NO_RESTART = "This gateway cannot start itself again."
ENDS = "I am being stopped, and nobody has asked for another start."
BACK = "I am back."


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayView:
    """What commands may know and ask of the gateway around them; it is their `hermes.commands.services.Gateway`.

    Args:
        store: for what is there of a conversation.
        model: the name of the model that answers now.
        accounts: how accounts do.
        retry_account: connects one again now; False if there is nothing to try.
        is_brief: whether long answers take long to arrive at an account.
        policy: account -> who may speak and command there now; None for one that is not configured (any more).
        restart: ends the gateway so that it is started again; None where nobody would start it.
        ends: whether it ends already, and not to be started again.
    """

    store: Store
    model: Callable[[], str]
    accounts: Callable[[], Sequence[AccountStatus]] = tuple
    retry_account: Callable[[str], bool] = lambda _account: False
    is_brief: Callable[[str], bool] = lambda _account: False
    policy: Callable[[str], AccessPolicy | None] = lambda _account: None
    restart: Callable[[], object] | None = None
    ends: Callable[[], bool] = lambda: False

    async def standing(self, key: str) -> tuple[SessionRow | None, int]:
        """The conversation that a mailbox feeds, and how many rows wait in it."""
        session, _ = await self.store.sessions.opened(key)
        return session, await self.store.inbox.waits(key)

    async def backlogs(self) -> Mapping[str, Backlog]:
        """What waits at accounts."""
        return await self.store.accounts.backlogs()

    async def set_home(self, command: InboxRow) -> object:
        """Remember where the command was typed."""
        return await self.store.conversations.set_home(command)


class Commanding:
    """Runs what people command; see `open_commanding`."""

    def __init__(self, store: Store, replies: Replies, gateway: GatewayView) -> None:
        self._store = store
        self._replies = replies
        self._gateway = gateway
        self._sessions: Sessions
        self._waits = trio.Event()

    def wake(self) -> None:
        """A command was committed."""
        self._waits.set()

    async def run(self, sessions: Callable[[], Awaitable[Sessions]]) -> None:
        """Run commands as they come; never returns."""
        self._sessions = await sessions()
        said_back = False
        while True:
            self._waits = trio.Event()
            try:
                if not said_back:
                    await self._say_back()
                    said_back = True
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

    async def _say_back(self) -> None:
        """Say where somebody restarted the gateway that it serves again."""
        for address in await self._store.conversations.say_back(lambda to: self._replies.parts(to, BACK)):
            self._replies.wake(address)

    async def _one(self, row: InboxRow) -> None:
        address, key = row.address, row.session_key.removeprefix(COMMAND)
        policy = self._gateway.policy(row.account)
        if address is None or not row.readable or policy is None:
            await self._store.inbox.finish_command(row, (), refused=REMOVED if policy is None else "unreadable")
            return
        command = commands.parse(row.payload.messages[0].text) or commands.Command("help")
        asked = Asked(command=command, row=row, key=key, address=address, policy=policy)
        result: Result = Reply("That took too long. Try again.", again=True)
        try:
            with trio.move_on_after(RUN_S):
                result = await self._run(asked)
        except StoreUnavailable:
            raise
        except HermesError as error:
            result = Reply(f"That did not work: {error}")
        await self._end(asked, result)
        self._replies.wake(address)
        self._sessions.wake(key)  # its rows waited for this command
        log.info("command.run", name=command.name if command.known else "(unknown)", account=address.account)

    async def _run(self, asked: Asked) -> Result:
        """Run a command, if who typed it is still let in."""
        paired = await self._store.accounts.is_paired(asked.address.account, asked.person)
        kind = kind_of_chat(asked.key)
        address = asked.address
        chat = await self._store.accounts.listed_as(address.account, address.chat, asked.policy.listed_chats)
        if not still_allowed(asked.policy, kind, chat, asked.person, paired=paired):
            return Reply(NOT_ALLOWED)
        services = Services(turns=self._sessions, conversations=self._store.conversations, gateway=self._gateway)
        return await run_command(asked, services)

    async def _end(self, asked: Asked, result: Result) -> None:
        """Commit the end of a command and its answer, then do what is to be done outside the store."""
        row, address = asked.row, asked.address
        if isinstance(result, Restart):
            if self._gateway.restart is None:
                await self._store.inbox.finish_command(row, self._replies.parts(address, NO_RESTART))
                return
            if self._gateway.ends():  # the first request counts
                await self._store.inbox.finish_command(row, self._replies.parts(address, ENDS))
                return
            await self._store.conversations.finish_restart(row, self._replies.parts(address, result.text))
            self._gateway.restart()
        elif isinstance(result, Reply):
            text = self._replies.typed(address, result.text)
            await self._store.inbox.finish_command(row, self._replies.parts(address, text, result.buttons))
        else:
            may_change = asked.policy.may_change_id(asked.person)
            await self._store.conversations.resubmit(row, asked.key, result.text, result.busy, may_change=may_change)


@asynccontextmanager
async def open_commanding(
    store: Store, sessions: Callable[[], Awaitable[Sessions]], replies: Replies, gateway: GatewayView
) -> AsyncIterator[Commanding]:
    """Run commands while inside, also those that an earlier process left.

    Args:
        sessions: the sessions, once they are open; until then commands wait.
        replies: how answers reach people.
        gateway: what commands know of it.

    Lifetime: exit = none is being run; what was not ended waits for the next start.
    """
    commanding = Commanding(store, replies, gateway)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commanding.run, sessions)
        yield commanding
        nursery.cancel_scope.cancel("left")
