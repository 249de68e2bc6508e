"""Receiving: look for new mails, commit what they say, wait by IDLE or for a while, and look again.

A wake-up is a hint, the mailbox the truth: whatever IDLE says or does not say, the mailbox is looked through at each turn. A mail is
acknowledged by moving the cursor in the transaction of its event; afterwards it is marked as read, for people.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn, TypeVar

import trio

from hermes.errors import PlatformError, PlatformProtocolError, PlatformUnavailable, SendRejected
from hermes.events import InboundEvent
from hermes.platform import Host, Inbox
from platforms.email.aside import Aside, read_aside, write_aside
from platforms.email.config import EmailConfig
from platforms.email.imap import Imap, open_imap
from platforms.email.reading import (
    Reading,
    advanced,
    begin,
    came_at,
    next_uids,
    read_cursor,
    write_cursor,
)
from platforms.email.threads import Known, bucket, read_known, write_known
from platforms.email.translate import BROKEN, TOO_LARGE, Passed, open_mail, translate

T = TypeVar("T")
log = logging.getLogger(__name__)

BATCH = 20  # mails of one commit
BATCH_BYTES = 4_194_304
LARGE = 131_072  # bytes of a mail that is not parsed between two steps of everybody else


async def receive(inbox: Inbox, cursors: Mapping[str, bytes], *, config: EmailConfig, host: Host) -> NoReturn:
    """Read mails as they come, for ever.

    Raises:
        PlatformError: what the mailbox ran into.
    """
    async with open_imap(config, host) as imap:
        mailbox = await imap.select(config.mailbox, write=config.mark_seen)
        before = read_cursor(cursors, config)
        reading = begin(before, mailbox, config, host.clock())
        if before is None:
            await inbox.deliver(cursors=write_cursor(reading.position))
        elif reading.since is not None:
            log.warning("the mailbox was made anew: what came since the last mail that was read is read again")
        waits_s = config.idle_s if _idles(imap, config) else config.poll_s
        aside = read_aside(cursors, reading.position.whose, mailbox.validity)
        mailroom = Mailroom(imap, inbox, config, host, aside)
        while True:
            imap.news = False
            inbox.alive("imap", next_within_s=waits_s + 6 * config.timeout_s)
            reading = await mailroom.read(reading)
            if imap.news:
                continue
            if _idles(imap, config):
                await imap.idle(config.idle_s)
            else:
                await trio.sleep(config.poll_s)
                await imap.call(b"NOOP")


def _idles(imap: Imap, config: EmailConfig) -> bool:
    return config.idle and "IDLE" in imap.capabilities


class _Batch:
    """What is read for one commit.

    Attributes:
        events: of the mails that say something.
        memory: bucket -> the conversations there afterwards.
        read: UIDs of the mails that were read, or are gone.
        proven: the server handed out a mail.
        size: bytes of them.
    """

    def __init__(self) -> None:
        self.events: list[InboundEvent] = []
        self.memory: dict[str, list[Known]] = {}
        self.read: list[int] = []
        self.proven = False
        self.size = 0


class Mailroom:
    """Takes mails out of the mailbox, a batch a commit."""

    def __init__(self, imap: Imap, inbox: Inbox, config: EmailConfig, host: Host, aside: Aside) -> None:
        self._patience_s = max(60.0, config.idle_s, config.poll_s) + 6 * config.timeout_s
        self._imap = imap
        self._inbox = inbox
        self._config = config
        self._host = host
        self._aside = aside
        imap.on_progress(self._alive)

    def _alive(self) -> None:
        self._inbox.alive("imap", next_within_s=self._patience_s)

    async def read(self, reading: Reading) -> Reading:
        """Commit everything that is new. Returns where reading stands then."""
        uids = self._aside.waiting(await next_uids(self._imap, reading))
        again = reading.since is not None
        while uids:
            reading, done = await self._batch(reading, uids, last=again)
            uids = uids[done:]
        if again:  # only now does the new position say what was read
            reading = Reading(position=reading.position)
            await self._inbox.deliver(cursors=write_cursor(reading.position))
        for uid in self._aside.due(self._host.clock()):
            reading, _ = await self._batch(reading, [uid], last=False)
        return reading

    async def _batch(self, reading: Reading, uids: list[int], *, last: bool) -> tuple[Reading, int]:
        """Commit the first of these mails. Returns how many.

        Raises:
            PlatformError: one could not be read; what came before it, and that, is committed.
        """
        batch, aside, trouble = _Batch(), self._aside, None
        for uid in uids[:BATCH]:
            try:
                reading = await self._take(uid, reading, batch)
            except PlatformError as error:
                trouble = error
                break
            if batch.size > BATCH_BYTES:
                break
        aside = aside.read(batch.read, proven=batch.proven)
        if trouble is not None:
            aside, reading = self._failed(aside, uids[len(batch.read)], reading, trouble)
        await self._commit(batch, aside, {} if last else write_cursor(reading.position))
        if trouble is not None:
            if isinstance(trouble, SendRejected):
                raise PlatformUnavailable(str(trouble)) from trouble
            raise trouble
        if self._config.mark_seen:
            uids_read = b",".join(b"%d" % uid for uid in batch.read)
            await self._imap.call(b"UID STORE " + uids_read + b" +FLAGS.SILENT (\\Seen)", check=False)
        self._alive()
        return reading, len(batch.read)

    async def _commit(self, batch: _Batch, aside: Aside, cursors: dict[str, bytes]) -> None:
        for name, known in batch.memory.items():
            await self._host.memory.put(name, write_known(known))
        if aside != self._aside:
            cursors |= write_aside(aside)
        if batch.events or cursors:
            await self._inbox.deliver(*batch.events, cursors=cursors)
        self._aside = aside

    def _failed(self, aside: Aside, uid: int, reading: Reading, why: PlatformError) -> tuple[Aside, Reading]:
        """What is to be remembered of a mail that cannot be read, and where reading stands then."""
        aside = aside.failed(uid, self._host.clock())
        found = aside.of(uid)
        if found is not None and found.is_hopeless:
            self._inbox.quarantine(f"the mail {aside.validity}/{uid} cannot be had: {why}", b"")
            aside = aside.without(uid)
        elif found is not None and not found.is_aside:
            return aside, reading
        return aside, advanced(reading, uid, None, self._host.clock())

    async def _take(self, uid: int, reading: Reading, batch: _Batch) -> Reading:
        """Read a mail, if it is there and not too old. Returns where reading stands then."""
        found = await came_at(self._imap, uid)
        at, length = found if found is not None else (None, 0)
        is_old = reading.since is not None and at is not None and at < reading.since
        if found is not None and not is_old:
            event = await self._event(uid, at, length, batch)
            batch.events += [event] if event is not None else []
        batch.read.append(uid)
        batch.size += length
        self._alive()  # a slow connection is no silent one
        return advanced(reading, uid, at, self._host.clock())

    async def _event(self, uid: int, at: float | None, length: int, batch: _Batch) -> InboundEvent | None:
        """What a mail says; None for one that says nothing to us."""
        config, where = self._config, f"{self._aside.validity}/{uid}"
        failing = self._aside.of(uid)
        whole = length <= config.max_message_bytes and (failing is None or failing.is_whole)
        raw = await self._fetch(uid, whole=whole)
        if raw is None:
            return None
        batch.proven, memory = True, batch.memory
        why_not = TOO_LARGE if length > config.max_message_bytes else BROKEN
        try:
            read = partial(
                open_mail, raw, config, where=where, at=at, too_large=None if whole else length, why_not=why_not
            )
            opened = await off_loop(len(raw), read)
            if isinstance(opened, Passed):
                log.info("the mail %s was passed over: %s", where, opened.why)
                return None
            mail, sender = opened
            name = bucket(sender.id)
            if name not in memory:
                memory[name] = read_known(await self._host.memory.get(name))
            say = partial(translate, mail, sender, memory[name], account=self._host.account)
            event, memory[name] = await off_loop(len(raw), say)
        except PlatformProtocolError as error:
            self._inbox.quarantine(f"the mail {where}: {error}", raw[:1000])
            return None
        return event

    async def _fetch(self, uid: int, *, whole: bool) -> bytes | None:
        """The bytes of a mail, or of its head; None if it is gone.

        Raises:
            SendRejected: the server does not hand them out.
        """
        name = "BODY[]" if whole else "BODY[HEADER]"
        found = await self._imap.fetch(uid, b"BODY.PEEK[]" if whole else b"BODY.PEEK[HEADER]")
        if found is None:
            return None
        raw = found.get(name)
        if not isinstance(raw, bytes):
            raise SendRejected("the server has no bytes of the mail")
        return raw


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Do something with so many bytes: in a thread, where it would keep everybody else waiting."""
    if size <= LARGE:
        return work()
    return await trio.to_thread.run_sync(work)
