"""The durable truth: one method, one transaction. SQL lives in this package alone.

`Store` groups the methods by what they are about; each is a plain function of this package run inside one transaction of the
writer, or on a leased reader.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from hermes.errors import RequestError
from hermes.events import Address, InboundEvent, Receipt, ReplyRef, StoredContent
from hermes.intake import Intake, TurnEnd
from hermes.messages import Message
from hermes.settings import Config, RetentionConfig
from hermes.store import (
    addresses,
    awaited,
    cursors,
    inbox,
    live_parts,
    outbox,
    outbox_upkeep,
    pairing,
    reception,
    recovery,
    responses,
    retention,
    sessions,
    steps,
    turns,
)
from hermes.store.attachments import AttachmentTable
from hermes.store.awaited import Awaited
from hermes.store.backlog import Backlog, backlogs
from hermes.store.conversation_table import ConversationTable
from hermes.store.database import Database, open_database
from hermes.store.live_parts import LiveRow
from hermes.store.outbox import Added, Advance, Ended, Method
from hermes.store.outbox_upkeep import OutboxRecovered, OutboxRow
from hermes.store.pairing import Allowed, Pending
from hermes.store.reception import Delivered, Place
from hermes.store.recovery import Recovered
from hermes.store.responses import StoredResponse
from hermes.store.rows import Accepted, Claim, InboxRow, Next, RunRow, SessionRow, Settled, StoredMessage
from hermes.store.schema import MIGRATIONS
from hermes.store.tables import Clock, Tables
from hermes.store.turns import Finish


class InboxTable(Tables):
    """Accepting, and ending rows that never ran."""

    async def accept(self, intake: Intake) -> Accepted:
        """Commit one event; see `hermes.store.inbox.accept`."""
        return await self._write(inbox.accept, intake, self._clock(), self._lasts_s(intake))

    def _lasts_s(self, intake: Intake) -> float:
        """Seconds that a session of this one request is kept: as long as what may be asked of it again."""
        kept = self._config.retention
        response = kept.responses_s if intake.payload.response is not None else 0.0
        return max(kept.ephemeral_s, response, kept.idempotency_s if intake.idempotency is not None else 0.0)

    async def accept_and_take_up(
        self, intake: Intake, turn_id: str, left: frozenset[str], *, remembers: bool
    ) -> tuple[Accepted, Next | None]:
        """Commit one event and begin a turn for its mailbox's oldest row, in one transaction; for a mailbox that nobody serves."""
        look = self._look(intake.session_key, turn_id, left, remembers)
        lasts_s = self._lasts_s(intake)

        def both(con: sqlite3.Connection) -> tuple[Accepted, Next | None]:
            accepted = inbox.accept(con, intake, look.now, lasts_s)
            return accepted, turns.take_up(con, look, accepted.session) if accepted.fresh else None

        return await self._database.write(both)

    async def deliver(self, place: Place, events: Sequence[InboundEvent], to: Mapping[str, bytes]) -> Delivered:
        """Judge and commit what a messaging service brought, and how far the account has read."""
        return await self._write(reception.deliver, place, events, to, self._clock())

    async def deliver_and_take_up(
        self,
        place: Place,
        event: InboundEvent,
        to: Mapping[str, bytes],
        key: str,
        turn_id: str,
        left: frozenset[str],
        *,
        remembers: bool,
    ) -> tuple[Delivered, Next | None]:
        """Commit an event, how far the account has read, and the beginning of its turn; for a mailbox that nobody serves."""
        look = self._look(key, turn_id, left, remembers)

        def both(con: sqlite3.Connection) -> tuple[Delivered, Next | None]:
            done = reception.deliver(con, place, (event,), to, look.now)
            session = done.session if done.session is not None and done.session.key == key else None
            return done, turns.take_up(con, look, session) if done.rows else None

        return await self._database.write(both)

    async def cursors(self, account: str) -> Mapping[str, bytes]:
        """How far an account has read."""
        return await self._read(cursors.cursors, account)

    async def next_commands(self, limit: int) -> list[InboxRow]:
        """Commands that wait to be run, in their order."""
        return await self._read(inbox.next_commands, limit)

    async def finish_command(
        self, row: InboxRow, reply: Sequence[StoredContent], *, refused: str | None = None
    ) -> None:
        """End a command, with what is said to it; `refused` says why it was not run."""
        await self._write(inbox.finish_command, row, reply, self._clock(), refused=refused)

    async def stop(
        self, key: str, event_id: str, before: int | None = None
    ) -> tuple[tuple[Settled, ...], frozenset[str]]:
        """End every row that waits in this mailbox now; tells which events are in a turn."""
        return await self._write(inbox.stop, key, event_id, self._clock(), before)

    async def waits(self, key: str) -> int:
        """How many rows wait in a mailbox."""
        return await self._read(inbox.waits, key)

    async def stop_one(self, event_id: str) -> Settled | None:
        """End one row if it waits."""
        return await self._write(inbox.stop_one, event_id, self._clock())

    async def awaited(self, limit: int) -> list[tuple[int, str]]:
        """Rows and accounts of messages that wait or are being answered."""
        return await self._read(awaited.awaited, limit)

    async def placed(self, rows: Collection[int]) -> list[Awaited]:
        """Where the messages of some rows are."""
        return await self._read(awaited.placed, rows)

    async def waiting_keys(self, limit: int) -> list[str]:
        """Mailboxes with rows nobody has begun."""
        return await self._read(inbox.waiting_keys, limit)


class TurnTable(Tables):
    """A turn's life in the store."""

    async def take_up(self, key: str, turn_id: str, left: frozenset[str], *, remembers: bool) -> Next:
        """Begin a turn for the oldest row that needs one."""
        return await self._write(turns.take_up, self._look(key, turn_id, left, remembers))

    async def finish(self, how: Finish) -> tuple[TurnEnd, tuple[Message, ...]]:
        """End a turn in one transaction."""
        return await self._write(turns.finish, how, self._boot_id, self._clock())

    async def steer(self, claim: Claim) -> tuple[Message, ...]:
        """Merge what was said meanwhile into the running turn."""
        return await self._write(turns.steer, claim, self._clock())

    async def run(self, event_id: str) -> RunRow | None:
        """A detached run."""
        return await self._read(turns.run, event_id)

    async def open_runs(self) -> int:
        """How many runs wait or run."""
        return await self._read(turns.open_runs)

    async def run_events(self, event_id: str, after: int, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Stored events of a run."""
        return await self._read(turns.run_events, event_id, after, limit)


class StepTable(Tables):
    """The journal of a step."""

    async def open(
        self,
        claim: Claim,
        number: int,
        message: Message,
        calls: Sequence[steps.JournalCall],
        events: Sequence[tuple[int, bytes]],
    ) -> tuple[Message, ...]:
        """Commit the assistant's message and its calls before any of them runs, and what a run has told so far."""

        def both(con: sqlite3.Connection) -> tuple[Message, ...]:
            turns.keep_events(con, claim.rows[-1].event_id, events)
            return steps.open_step(
                con, turn_id=claim.turn_id, session_id=claim.session.id, number=number, message=message, calls=calls,
                now=self._clock(),
            )  # fmt: skip

        return await self._database.write(both)

    async def start_call(self, turn_id: str, number: int, position: int) -> None:
        """Commit that a call begins now."""
        await self._write(steps.start_call, turn_id, number, position)

    async def finish_call(
        self, turn_id: str, session_id: str, number: int, position: int, result: Message
    ) -> tuple[Message, ...]:
        """Commit a result; returns the step when it is whole."""
        return await self._write(steps.finish_call, turn_id, session_id, number, position, result, self._clock())


class SessionTable(Tables):
    """Conversations."""

    async def get(self, session_id: str) -> SessionRow | None:
        """The conversation with this id."""
        return await self._read(sessions.get, session_id)

    async def opened(self, key: str) -> tuple[SessionRow | None, frozenset[str]]:
        """The conversation that a mailbox feeds now, and the client's calls that it waits for."""

        def look(con: sqlite3.Connection) -> tuple[SessionRow | None, frozenset[str]]:
            row = sessions.get_open(con, key)
            return row, frozenset(steps.awaited(con, row.id)) if row is not None else frozenset()

        return await self._database.read(look)

    async def create(
        self,
        *,
        session_id: str,
        source: str,
        principal: str,
        title: str | None,
        model: str | None,
        instructions: str | None,
    ) -> SessionRow:
        """Make a conversation whose key is its id. Raises RequestError 409."""
        return await self._write(
            sessions.create, session_id=session_id, key=session_id, source=source, principal=principal, now=self._clock(),
            title=title, model=model, instructions=instructions,
        )  # fmt: skip

    async def listing(
        self, *, limit: int, offset: int, source: str | None = None, ephemeral: bool = False
    ) -> tuple[list[SessionRow], bool]:
        """The newest conversations, and whether there are more."""
        return await self._read(sessions.listing, limit=limit, offset=offset, source=source, ephemeral=ephemeral)

    async def update(self, session_id: str, **changes: str | float | None) -> SessionRow:
        """Change title, model, instructions or end. Raises RequestError 404."""
        return await self._write(sessions.update, session_id, self._clock(), **changes)

    async def renew(self, key: str, new_id: str, reason: str) -> SessionRow | None:
        """End the conversation that a key names and begin an empty one; returns the one that ended."""
        return await self._write(sessions.renew, key, new_id, reason, self._clock())

    async def delete(self, session_id: str) -> bool:
        """Remove a conversation. False if there was none."""
        return await self._write(sessions.delete, session_id)

    async def fork(
        self,
        session_id: str,
        new_id: str,
        *,
        title: str | None = None,
        upto: int | None = None,
        ephemeral: bool = False,
    ) -> SessionRow:
        """Copy a conversation. Raises RequestError 404, 409."""
        now, kept = self._clock(), self._config.retention
        expires_at = now + max(kept.ephemeral_s, kept.responses_s) if ephemeral else None
        return await self._write(sessions.fork, session_id, new_id, now, title=title, upto=upto, expires_at=expires_at)

    async def history(self, session_id: str) -> list[Message]:
        """All that a model may see."""
        return await self._read(sessions.history, session_id)

    async def messages(self, session_id: str, *, after: int | None = None, limit: int = 1000) -> list[StoredMessage]:
        """Stored messages with their places."""
        return await self._read(sessions.messages, session_id, after=after, limit=limit)


class AccountTable(Tables):
    """What accounts keep: values of their own, and whom the owner let in."""

    async def recall(self, account: str, key: str) -> bytes | None:
        """A value that an account keeps."""
        return await self._read(cursors.recall, account, key)

    async def keep(self, account: str, key: str, value: bytes | None) -> None:
        """Keep a value; None forgets it."""
        await self._write(cursors.keep, account, key, value, self._clock())

    async def approve(self, account: str, code: str) -> str:
        """Let in whoever was told this code; a wrong one is counted. Raises RequestError 404, 429."""
        found = await self._write(pairing.attempt, account, code, self._clock())
        if isinstance(found, RequestError):
            raise found
        return found

    async def is_paired(self, account: str, person: str) -> bool:
        """Whether the owner let this person in, and has not taken it back."""
        return await self._read(pairing.is_allowed, account, person)

    async def listed_as(self, account: str, chat: str, lists: Collection[str]) -> str:
        """The id by which lists of chats know a chat: its own, or the one it had before it moved."""
        return await self._read(addresses.listed_as, account, chat, lists)

    async def revoke(self, account: str, person: str) -> bool:
        """Let a person in no more."""
        return await self._write(pairing.revoke, account, person)

    async def backlogs(self) -> Mapping[str, Backlog]:
        """What waits at each account where anything does."""
        return await self._read(backlogs, self._clock())

    async def pairings(self) -> tuple[list[Pending], list[Allowed]]:
        """Who waits to be let in, and who was."""
        now = self._clock()
        return await self._database.read(lambda con: (pairing.pending(con, now), pairing.allowed(con, 1000)))


class ResponseTable(Tables):
    """Remembered responses."""

    async def get(self, response_id: str, principal: str) -> StoredResponse | None:
        """The response of this id."""
        return await self._read(responses.get, response_id, principal)

    async def delete(self, response_id: str, principal: str) -> bool:
        """Forget a response."""
        return await self._write(responses.delete, response_id, principal)


class OutboxTable(Tables):
    """What is to be shown on messaging services."""

    async def add(
        self,
        address: Address,
        parts: Sequence[StoredContent],
        *,
        reply: ReplyRef | None,
        source: str,
        turn_id: str | None = None,
        once: str | None = None,
    ) -> Added:
        """Commit parts that belong to no other transaction; those that have a name, only once."""
        return await self._write(
            outbox.add, address, parts, reply=reply, source=source, turn_id=turn_id, now=self._clock(), once=once
        )

    async def advance(
        self,
        address: Address,
        ended: Ended | None,
        *,
        deduplicates: bool,
        edits: bool,
        methods: frozenset[Method],
        finds: bool = False,
    ) -> Advance:
        """Write how the last attempt at an address ended and claim its next part."""
        delivery = self._config.delivery
        look = outbox.Look(
            boot_id=self._boot_id, now=self._clock(), expire_s=delivery.expire_s, hold=delivery.ambiguous == "hold",
            deduplicates=deduplicates, edits=edits, methods=methods, finds=finds,
        )  # fmt: skip
        return await self._write(outbox.advance, address, look, ended)

    async def settle(self, ended: Ended) -> Sequence[Address]:
        """Write how an attempt ended; returns the addresses to which parts went."""
        return await self._write(outbox.settle, ended, self._boot_id, self._clock())

    async def open_live(
        self, address: Address, content: StoredContent, *, reply: ReplyRef | None, source: str, turn_id: str
    ) -> LiveRow | None:
        """Commit that a draft is about to be shown; None where nobody is any more."""
        return await self._write(
            live_parts.open_live, address, content, reply=reply, source=source, turn_id=turn_id, boot_id=self._boot_id,
            now=self._clock(),
        )  # fmt: skip

    async def take_over(self, dead: str, turn_id: str) -> list[tuple[LiveRow, Receipt | None]]:
        """Go on with what a turn was writing when it was cut."""
        return await self._write(live_parts.take_over, dead, turn_id, self._boot_id)

    async def shown(self, row: int, receipt: Receipt) -> None:
        """Commit the receipt of a draft."""
        await self._write(live_parts.shown, row, receipt)

    async def doubt(self, row: int) -> None:
        """Commit that a draft may be shown."""
        await self._write(live_parts.doubt, row)

    async def recover(self) -> OutboxRecovered:
        """Take over from dead processes."""
        return await self._write(outbox_upkeep.recover, self._boot_id, self._clock())

    async def keep_up(self, accounts: Collection[str] | None) -> int:
        """Hold what is too old, and what waits for accounts other than these (None = all are there). Returns how much."""

        now = self._clock()

        def both(con: sqlite3.Connection) -> int:
            held = outbox_upkeep.expire(con, now - self._config.delivery.expire_s, now)
            return held + (outbox_upkeep.hold_removed(con, accounts, now) if accounts is not None else 0)

        return await self._database.write(both)

    async def open_accounts(self) -> list[str]:
        """Accounts for which something waits."""
        return await self._read(outbox_upkeep.open_accounts)

    async def open_addresses(self, account: str, after: tuple[str, str] | None, limit: int) -> list[Address]:
        """A page of the addresses for which something waits."""
        return await self._read(outbox_upkeep.open_addresses, account, after, limit)

    async def counts(self) -> dict[str, int]:
        """How many parts are on their way, rejected, held."""
        return await self._read(outbox_upkeep.counts)

    async def listing(self, *, limit: int = 100, account: str | None = None) -> list[OutboxRow]:
        """What is on its way and what did not arrive."""
        return await self._read(outbox_upkeep.listing, limit=limit, account=account)

    async def state_of(self, key: str) -> tuple[str, str | None] | None:
        """State and reason of a part."""
        return await self._read(outbox_upkeep.state_of, key)

    async def retry(self, key: str) -> Address | None:
        """Have a part that did not arrive sent after all; the address to wake."""
        return await self._write(outbox_upkeep.retry, key, self._clock())

    async def drop(self, key: str) -> bool:
        """End a part that waits or is held, or forget one that was rejected."""
        return await self._write(outbox_upkeep.drop, key, self._clock())


class Store:
    """The database behind its groups of methods. `recovered` says what the last process had left."""

    def __init__(self, database: Database, clock: Clock, boot_id: str, config: Config, recovered: Recovered) -> None:
        group = (database, clock, boot_id, config)
        self.database = database
        self.boot_id = boot_id
        self.recovered = recovered
        self.clock = clock
        self.inbox = InboxTable(*group)
        self.turns = TurnTable(*group)
        self.steps = StepTable(*group)
        self.sessions = SessionTable(*group)
        self.responses = ResponseTable(*group)
        self.outbox = OutboxTable(*group)
        self.accounts = AccountTable(*group)
        self.conversations = ConversationTable(*group)
        self.attachments = AttachmentTable(*group)

    def configure(self, config: Config) -> None:
        """Take over a new configuration: how long rows are kept, and when they are stale."""
        groups = (
            self.inbox, self.turns, self.steps, self.sessions, self.responses, self.outbox, self.accounts,
            self.conversations, self.attachments,
        )  # fmt: skip
        for group in groups:
            group.configure(config)

    async def forget_old(self, settings: RetentionConfig) -> int:
        """Remove what is past its time, a bounded batch. Returns how many rows went."""
        return await self.database.write(lambda con: retention.sweep(con, settings, self.clock()))


@asynccontextmanager
async def open_store(path: Path, config: Config, boot_id: str, clock: Clock = time.time) -> AsyncIterator[Store]:
    """Open the database and close what the last process left running.

    Lifetime: enter = migrated, probed, recovered; exit = every handle closed, after the calls that had begun.

    Raises:
        SchemaTooNew, StoreCorrupt, StoreUnavailable: in words for a person.
    """
    async with open_database(path, settings=config.store, migrations=MIGRATIONS) as database:
        now = clock()
        recovered = await database.write(lambda con: recovery.recover(con, boot_id, now))
        yield Store(database, clock, boot_id, config, recovered)
