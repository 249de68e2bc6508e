"""Fetching: files that people sent, from their service into blobs and into the message that waits for them.

Rows are the truth: a message says itself until when it waits. Its files are fetched beside each other, within that time; what
does not come is put in words. A process that dies in between leaves the row as it was, and the next one fetches again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from hermes.attached import READ_BYTES, TEXT_CHARS, TEXTS_CHARS, Use
from hermes.blobs import BlobNotWritten, Blobs, BlobTooLarge
from hermes.delivery.lane import patiently
from hermes.delivery.outcomes import judge, retry_after
from hermes.errors import AccountDown, LeaseEnded, RateLimited, leaves
from hermes.events import AttachmentRef
from hermes.filework import FileWork, Kept, in_words
from hermes.inbound import flat
from hermes.messages import Part
from hermes.observe.logs import get_log
from hermes.pictures import picture_type
from hermes.platform import Platform
from hermes.settings import MediaConfig
from hermes.store import Store
from hermes.store.attachments import Unfetched

log = get_log(__name__)

Lease = Callable[[str], AbstractAsyncContextManager[Platform]]

AT_ONCE: Final = 16  # messages whose files are fetched at a time
OF_ACCOUNT: Final = 4  # of these, of one account: one that hangs holds nobody else up
FILES_AT_ONCE: Final = 4  # of one message
LOOK: Final = 1000  # rows of a look at what waits
SWEEP_S: Final = 30.0
MARGIN_S: Final = 1.0  # before a message waits no more, so that what did not come is said in it
OVERDUE_S: Final = 20.0  # for a message that waits for another turn anyway
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 8.0
MAX_WHY: Final = 120

LATE: Final = "it did not come in time"
NO_PICTURE: Final = "it is no JPEG, PNG, GIF or WebP"


class _Again(Exception):
    """It may be there later."""

    def __init__(self, after_s: float = 0.0, *, at_once: bool = False) -> None:
        super().__init__()
        self.after_s = after_s
        self.at_once = at_once


class Fetcher:
    """Fetches what messages wait for. See `open_fetching`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        blobs: Blobs,
        lease: Lease,
        wait_connected: Callable[[str], Awaitable[None]],
        settings: Callable[[], MediaConfig],
        wake_session: Callable[[str], None],
        work: FileWork,
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._blobs = blobs
        self._lease = lease
        self._wait_connected = wait_connected
        self._settings = settings
        self._wake_session = wake_session
        self._work = work
        self._in_hand: dict[int, str] = {}
        self._wakes = 0
        self._lot = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """Something waits to be fetched; a hint."""
        self._wakes += 1
        self._lot.unpark_all()

    async def run(self) -> None:
        """Look at what waits; never returns."""
        while True:
            seen = self._wakes
            rows = await patiently(self._store, lambda: self._store.attachments.waiting(LOOK))
            for row, account in choose(rows, self._in_hand):
                self._in_hand[row] = account
                self._nursery.start_soon(self._fetch, row, name=f"fetches for {account}")
            with trio.move_on_after(SWEEP_S):
                while seen == self._wakes:
                    await self._lot.park()

    async def _fetch(self, row: int) -> None:
        """The files of one message, and the transaction that adds them."""
        try:
            found = await patiently(self._store, lambda: self._store.attachments.unfetched(row))
            if found is None:
                return
            parts = await self._parts(found)
            if await patiently(self._store, lambda: self._store.attachments.fetched(found, parts)):
                self._wake_session(found.session_key)
        finally:
            del self._in_hand[row]
            self.wake()

    async def _parts(self, of: Unfetched) -> Sequence[Part]:
        left = of.until - self._store.clock()
        by = trio.current_time() + (OVERDUE_S if left <= 0 else max(left - MARGIN_S, left / 2))
        found: dict[int, Sequence[Part]] = {}
        slots = trio.CapacityLimiter(FILES_AT_ONCE)
        wanted = [(each, self._work.use_of(each, of)) for each in of.files]
        texts = max(1, sum(use == "read" for _, use in wanted))
        share = min(TEXT_CHARS, TEXTS_CHARS // texts)

        async def one(position: int, file: AttachmentRef, use: Use) -> None:
            found[position] = [in_words(file, LATE)]
            with trio.move_on_at(by):
                async with slots:
                    found[position] = await self._patient_parts(of, file, use, share)

        async with trio.open_nursery() as nursery:
            for position, (file, use) in enumerate(wanted):
                if use is not None:
                    nursery.start_soon(one, position, file, use)
        return [part for position in sorted(found) for part in found[position]]

    async def _patient_parts(self, of: Unfetched, file: AttachmentRef, use: Use, share: int) -> Sequence[Part]:
        """A file, as it is to be read or in words; tried again as long as it may still come."""
        pause = PAUSE_S
        while True:
            try:
                kept = await self._fetched(of, file, use)
            except _Again as again:
                if not again.at_once:
                    await trio.sleep(max(again.after_s, pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except _Refused as refused:
                return [in_words(file, refused.why)]
            else:
                return await self._work.parts(of, file, use, kept, share)

    async def _fetched(self, of: Unfetched, file: AttachmentRef, use: Use) -> Kept:
        """Where the bytes are now. Raises _Again, _Refused."""
        most = self._settings().max_inbound_bytes
        if use == "read" and not self._work.saves(of):
            most = min(most, READ_BYTES)
        larger = _Refused(f"larger than {most / 1_000_000:g} MB")
        if file.size_bytes is not None and file.size_bytes > most:
            raise larger
        try:
            async with self._lease(of.account) as platform:
                return await self._store_bytes(platform, file, most, picture=use == "see")
        except LeaseEnded:
            raise _Again(at_once=True) from None
        except AccountDown:
            pass
        except BlobTooLarge:
            raise larger from None
        except BlobNotWritten as error:
            log.warning("media.not_stored", account=of.account, error=error)
            raise _Again from None
        await self._connected(of.account)
        raise _Again(at_once=True)

    async def _connected(self, account: str) -> None:
        """Wait for a connection; for one that will not come back as well, until time is up: its account may be configured again."""
        try:
            await self._wait_connected(account)
        except AccountDown:
            raise _Again from None

    async def _store_bytes(self, platform: Platform, file: AttachmentRef, most: int, *, picture: bool) -> Kept:
        """Have the file as a blob.

        Args:
            picture: nothing else is wanted.

        Raises:
            BlobTooLarge: it is larger than `most`.
            BlobNotWritten: it cannot be kept now.
            _Refused: it will not come.
            _Again: it may come later.
        """
        async with self._blobs.writing(most) as writer:
            try:
                async with platform.fetch(file, max_bytes=most) as pieces:
                    async for piece in pieces:
                        await writer.write(piece)
            except Exception as error:  # noqa: BLE001  # a plugin's hook
                raise _judged(error) from None
            if picture and picture_type(writer.head) is None:
                raise _Refused(NO_PICTURE)
            return Kept(await writer.commit(), writer.head, writer.size)


class _Refused(Exception):
    """It will not come; `why` in words of the service, on one line."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _judged(error: Exception) -> Exception:
    """What an error of a fetch means; what our own side raised may have passed through nurseries of the platform."""
    ours = next((each for each in leaves(error) if isinstance(each, (BlobTooLarge, BlobNotWritten))), None)
    if ours is not None:
        return ours
    found = judge(error)
    if found.how in ("again", "uncertain"):  # nothing was shown by a fetch, so what is uncertain can be asked again
        waits = [each.retry_after_s for each in leaves(error) if isinstance(each, RateLimited)]
        return _Again(max((*waits, retry_after(error) or 0.0)))
    if found.how == "bug":
        log.error("media.bug", error=error)
        return _Refused("an error of the platform")
    return _Refused(flat(found.reason, MAX_WHY))


def choose(rows: Iterable[tuple[int, str]], in_hand: Mapping[int, str]) -> list[tuple[int, str]]:
    """Which rows are begun now: the oldest that are not in hand, within what may be fetched at once. Pure."""
    busy, chosen = Counter(in_hand.values()), list[tuple[int, str]]()
    for row, account in rows:
        if len(in_hand) + len(chosen) >= AT_ONCE:
            break
        if row not in in_hand and busy[account] < OF_ACCOUNT:
            busy[account] += 1
            chosen.append((row, account))
    return chosen


@asynccontextmanager
async def open_fetching(
    store: Store,
    blobs: Blobs,
    *,
    lease: Lease,
    wait_connected: Callable[[str], Awaitable[None]],
    settings: Callable[[], MediaConfig],
    wake_session: Callable[[str], None],
    work: FileWork | None = None,
) -> AsyncIterator[Fetcher]:
    """Fetch what messages wait for.

    Args:
        lease: the use of an account's connection, for one file; raises AccountDown, and LeaseEnded on leaving.
        wait_connected: returns when an account may be leased; raises AccountDown if it will not, as far as is known.
        wake_session: told of a mailbox whose message waits no more.
        work: what is made of a file; without it pictures are shown and small texts are read.

    Lifetime: enter = what waited in an earlier process waits anew, and is being fetched; exit = nothing is fetched any more. What
    was under way is there to be fetched by the next.

    Raises:
        StoreUnavailable: what waits could not be taken over.
    """
    if taken := await store.attachments.wait_again(settings().wait_s):
        log.info("media.recovered", messages=taken)
    async with trio.open_nursery() as nursery:
        made_of = work if work is not None else FileWork(blobs)
        fetcher = Fetcher(nursery, store, blobs, lease, wait_connected, settings, wake_session, made_of)
        nursery.start_soon(fetcher.run)
        try:
            yield fetcher
        finally:
            nursery.cancel_scope.cancel("nothing is fetched any more")
