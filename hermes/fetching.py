"""Fetching: pictures that people sent, from their service into blobs and into the message that waits for them.

Rows are the truth: a message says itself until when it waits. Its pictures are fetched beside each other, within that time; what
does not come is put in words. A process that dies in between leaves the row as it was, and the next one fetches again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from hermes.blobs import BlobNotWritten, Blobs, BlobTooLarge
from hermes.delivery.lane import patiently
from hermes.delivery.outcomes import judge, retry_after
from hermes.errors import AccountDown, LeaseEnded, RateLimited, leaves
from hermes.events import AttachmentRef
from hermes.inbound import flat
from hermes.messages import Image, Part, Text
from hermes.observe.logs import get_log
from hermes.pictures import BLOB, picture_type
from hermes.platform import Platform
from hermes.settings import MediaConfig
from hermes.store import Store
from hermes.store.attachments import Unfetched

log = get_log(__name__)

Lease = Callable[[str], AbstractAsyncContextManager[Platform]]

AT_ONCE: Final = 16  # messages whose pictures are fetched at a time
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
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._blobs = blobs
        self._lease = lease
        self._wait_connected = wait_connected
        self._settings = settings
        self._wake_session = wake_session
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
        """The pictures of one message, and the transaction that adds them."""
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
        parts: dict[int, Part] = {}
        slots = trio.CapacityLimiter(FILES_AT_ONCE)

        async def one(position: int, file: AttachmentRef) -> None:
            parts[position] = in_words(file, LATE)
            with trio.move_on_at(by):
                async with slots:
                    parts[position] = await self._patient_part(of.account, file)

        async with trio.open_nursery() as nursery:
            for position, file in enumerate(of.files):
                nursery.start_soon(one, position, file)
        return [parts[position] for position in range(len(of.files))]

    async def _patient_part(self, account: str, file: AttachmentRef) -> Part:
        """A file, fetched or in words; tried again as long as it may still come."""
        pause = PAUSE_S
        while True:
            try:
                return await self._part(account, file)
            except _Again as again:
                if not again.at_once:
                    await trio.sleep(max(again.after_s, pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _part(self, account: str, file: AttachmentRef) -> Part:
        most = self._settings().max_inbound_bytes
        larger = in_words(file, f"larger than {most / 1_000_000:g} MB")
        if file.size_bytes is not None and file.size_bytes > most:
            return larger
        try:
            async with self._lease(account) as platform:
                digest = await self._store_bytes(platform, file, most)
        except LeaseEnded:
            raise _Again(at_once=True) from None
        except AccountDown:
            await self._connected(account)
            raise _Again(at_once=True) from None
        except BlobTooLarge:
            return larger
        except BlobNotWritten as error:
            log.warning("media.not_stored", account=account, error=error)
            raise _Again from None
        except _Refused as refused:
            return in_words(file, refused.why)
        return Image(BLOB + digest) if digest is not None else in_words(file, NO_PICTURE)

    async def _connected(self, account: str) -> None:
        """Wait for a connection; for one that will not come back as well, until time is up: its account may be configured again."""
        try:
            await self._wait_connected(account)
        except AccountDown:
            raise _Again from None

    async def _store_bytes(self, platform: Platform, file: AttachmentRef, most: int) -> str | None:
        """The digest under which the file is kept; None for one that is no picture.

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
            return await writer.commit() if picture_type(writer.head) is not None else None


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


def in_words(file: AttachmentRef, why: str) -> Text:
    """What a model reads instead of a picture."""
    return Text(f"\n[{file.kind}: could not be fetched: {why}]")


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
) -> AsyncIterator[Fetcher]:
    """Fetch what messages wait for.

    Args:
        lease: the use of an account's connection, for one file; raises AccountDown, and LeaseEnded on leaving.
        wait_connected: returns when an account may be leased; raises AccountDown if it will not, as far as is known.
        wake_session: told of a mailbox whose message waits no more.

    Lifetime: enter = what waited in an earlier process waits anew, and is being fetched; exit = nothing is fetched any more. What
    was under way is there to be fetched by the next.

    Raises:
        StoreUnavailable: what waits could not be taken over.
    """
    if taken := await store.attachments.wait_again(settings().wait_s):
        log.info("media.recovered", messages=taken)
    async with trio.open_nursery() as nursery:
        fetcher = Fetcher(nursery, store, blobs, lease, wait_connected, settings, wake_session)
        nursery.start_soon(fetcher.run)
        try:
            yield fetcher
        finally:
            nursery.cancel_scope.cancel("nothing is fetched any more")
