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

from hermes.errors import PlatformProtocolError, SendRejected
from hermes.events import InboundEvent
from hermes.platform import Host, Inbox
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
from platforms.email.translate import Passed, open_mail, translate

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
        mailroom = Mailroom(imap, inbox, config, host, mailbox.validity)
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


class Mailroom:
    """Takes mails out of the mailbox, a batch a commit."""

    def __init__(self, imap: Imap, inbox: Inbox, config: EmailConfig, host: Host, validity: int) -> None:
        self._validity = validity
        self._patience_s = max(60.0, config.idle_s, config.poll_s) + 6 * config.timeout_s
        self._imap = imap
        self._inbox = inbox
        self._config = config
        self._host = host

    async def read(self, reading: Reading) -> Reading:
        """Commit everything that is new. Returns where reading stands then."""
        uids = await next_uids(self._imap, reading)
        again = reading.since is not None
        while uids:
            reading, done = await self._batch(reading, uids, last=again)
            uids = uids[done:]
        if again:  # only now does the new position say what was read
            reading = Reading(position=reading.position)
            await self._inbox.deliver(cursors=write_cursor(reading.position))
        return reading

    async def _batch(self, reading: Reading, uids: list[int], *, last: bool) -> tuple[Reading, int]:
        """Commit the first of these mails. Returns how many."""
        events: list[InboundEvent] = []
        memory: dict[str, list[Known]] = {}
        size = done = 0
        for uid in uids[:BATCH]:
            found = await came_at(self._imap, uid)
            done += 1
            at, length = found if found is not None else (None, 0)
            is_old = reading.since is not None and at is not None and at < reading.since
            if found is not None and not is_old:
                event = await self._event(uid, at, length, memory)
                events += [event] if event is not None else []
            reading = advanced(reading, uid, at)
            size += length
            if size > BATCH_BYTES:
                break
        for name, known in memory.items():
            await self._host.memory.put(name, write_known(known))
        if events or not last:
            await self._inbox.deliver(*events, cursors={} if last else write_cursor(reading.position))
        if self._config.mark_seen:
            uids_read = b",".join(b"%d" % uid for uid in uids[:done])
            await self._imap.call(b"UID STORE " + uids_read + b" +FLAGS.SILENT (\\Seen)", check=False)
        self._inbox.alive("imap", next_within_s=self._patience_s)
        return reading, done

    async def _event(
        self, uid: int, at: float | None, length: int, memory: dict[str, list[Known]]
    ) -> InboundEvent | None:
        """What a mail says; None for one that says nothing to us."""
        config, where = self._config, f"{self._validity}/{uid}"
        whole = length <= config.max_message_bytes
        raw = await self._fetch(uid, whole=whole)
        if raw is None:
            return None
        try:
            read = partial(open_mail, raw, config, where=where, at=at, too_large=None if whole else length)
            opened = await aside(len(raw), read)
            if isinstance(opened, Passed):
                log.info("the mail %s was passed over: %s", where, opened.why)
                return None
            mail, sender = opened
            name = bucket(sender.id)
            if name not in memory:
                memory[name] = read_known(await self._host.memory.get(name))
            say = partial(translate, mail, sender, memory[name], account=self._host.account)
            event, memory[name] = await aside(len(raw), say)
        except PlatformProtocolError as error:
            self._inbox.quarantine(f"the mail {where}: {error}", raw[:1000])
            return None
        return event

    async def _fetch(self, uid: int, *, whole: bool) -> bytes | None:
        """The bytes of a mail, or of its head; None if they cannot be had."""
        name = "BODY[]" if whole else "BODY[HEADER]"
        try:
            found = await self._imap.fetch(uid, b"BODY.PEEK[]" if whole else b"BODY.PEEK[HEADER]")
        except SendRejected as error:
            self._inbox.quarantine(f"the mail {self._validity}/{uid} cannot be had: {error}", b"")
            return None
        raw = found.get(name) if found is not None else None
        return raw if isinstance(raw, bytes) else None


async def aside(size: int, work: Callable[[], T]) -> T:
    """Do something with so many bytes: in a thread, where it would keep everybody else waiting."""
    if size <= LARGE:
        return work()
    return await trio.to_thread.run_sync(work)
