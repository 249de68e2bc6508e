"""Blobs: files of the home under the digest of their content, `blobs/ab/<sha256>`; rows name them by that digest alone.

What is written has a temporary name until all of it is on the disk. Work with files is done in threads, a few at a time.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import trio

from hermes.errors import HermesError

T = TypeVar("T")

HEAD: Final = 16  # bytes that say what a file is
NEW_S: Final = 3_600.0  # what is under a temporary name for so long was left by a dead process
_NEW: Final = "new-"
_BUFFER: Final = 262_144
_THREADS: Final = 4
_BATCH: Final = 500
_HEX: Final = frozenset("0123456789abcdef")


class BlobTooLarge(HermesError):
    """More bytes than the bound."""


class BlobNotWritten(HermesError):
    """The disk does not take it now; the message says why."""


class Blobs:
    """The blobs of a home.

    Args:
        root: their directory; it is made when it is needed.

    Nothing stays open between calls, so it has no lifetime of its own.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._slots = trio.CapacityLimiter(_THREADS)
        self._lock = threading.Lock()  # a file is used and forgotten by one thread at a time

    @asynccontextmanager
    async def writing(self, most: int) -> AsyncIterator[BlobWriter]:
        """A new blob; it is there once `BlobWriter.commit` has returned, and nothing of it otherwise.

        Args:
            most: bytes at most.

        Raises:
            BlobNotWritten: it cannot be created.

        Cancellation: a thread that works is waited for, then what it wrote is removed.
        """
        name = self._root / f"{_NEW}{os.urandom(8).hex()}"
        writer = BlobWriter(self, name, await self._in_thread(lambda: self._create(name)), most)
        try:
            yield writer
        finally:
            writer.discard()

    async def read(self, digest: str, most: int) -> bytes | None:
        """The content of a blob, which counts as its use. None if it is not there (any more), or larger than `most` bytes."""
        return await self.run(lambda: self.read_now(digest, most))

    def read_now(self, digest: str, most: int) -> bytes | None:
        """As `read`, in a thread of the caller's."""
        path = self.find(digest)
        if path is None:
            return None
        try:
            with self._lock, path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_size > most:
                    return None
                content = file.read(most + 1)
                os.utime(file.fileno())
        except OSError:
            return None
        return content if len(content) <= most else None

    def find(self, digest: str) -> Path | None:
        """Where the file of a blob is, or would be; None for what is no digest."""
        if len(digest) != 64 or not _HEX.issuperset(digest):
            return None
        return self._root / digest[:2] / digest

    async def forget(self, unused_since: float, now: float) -> int:
        """Remove blobs that were not used since a time, and what dead processes had not finished; a bounded batch.

        Args:
            unused_since, now: seconds since the epoch.

        Returns: how many files went; call again while it is not 0.
        """
        return await self.run(lambda: self._forget(unused_since, now - NEW_S))

    async def run(self, work: Callable[[], T]) -> T:
        """Work with files in a thread, a few at a time."""
        async with self._slots:
            return await trio.to_thread.run_sync(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await self.run(work)
        except OSError as error:
            raise BlobNotWritten(f"a blob cannot be written: {error.strerror}") from None

    def _create(self, name: Path) -> int:
        self._root.mkdir(mode=0o700, exist_ok=True)
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _keep(self, name: Path, digest: str) -> None:
        path = self._root / digest[:2] / digest
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            name.rename(path)
        for directory in (path.parent, self._root):
            _sync(directory)

    def _forget(self, unused_since: float, new_since: float) -> int:
        gone = 0
        for path in self._files():
            before = new_since if path.parent == self._root else unused_since
            with self._lock, suppress(OSError):  # another look at it comes with the next sweep
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
            if gone >= _BATCH:
                break
        return gone

    def _files(self) -> Iterator[Path]:
        try:
            tops = list(self._root.iterdir())
        except FileNotFoundError:
            return
        for top in tops:
            if top.name.startswith(_NEW):
                yield top
            elif len(top.name) == 2 and _HEX.issuperset(top.name):
                yield from list(top.iterdir())


class BlobWriter:
    """A blob that is being written.

    Attributes:
        size: bytes so far.
        head: the first of them.
    """

    def __init__(self, blobs: Blobs, name: Path, descriptor: int, most: int) -> None:
        self.size = 0
        self.head = b""
        self._blobs = blobs
        self._name = name
        self._descriptor = descriptor
        self._most = most
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._kept = False

    async def write(self, piece: bytes) -> None:
        """Add bytes. Raises BlobTooLarge, BlobNotWritten."""
        self.size += len(piece)
        if self.size > self._most:
            raise BlobTooLarge(f"more than {self._most} bytes")
        if len(self.head) < HEAD:
            self.head = (self.head + piece[:HEAD])[:HEAD]
        self._buffer += piece
        if len(self._buffer) >= _BUFFER:
            await self._flush(last=False)

    async def commit(self) -> str:
        """Have it on the disk under its digest, which is returned. Raises BlobNotWritten."""
        await self._flush(last=True)
        digest = self._hash.hexdigest()
        await self._blobs._in_thread(lambda: self._blobs._keep(self._name, digest))
        self._kept = True
        return digest

    async def _flush(self, *, last: bool) -> None:
        content, self._buffer = bytes(self._buffer), bytearray()

        def work() -> None:
            self._hash.update(content)
            left = memoryview(content)
            while left:
                left = left[os.write(self._descriptor, left) :]
            if last:
                os.fsync(self._descriptor)

        await self._blobs._in_thread(work)

    def discard(self) -> None:
        """Close it, and remove it unless it was committed."""
        os.close(self._descriptor)
        if not self._kept:
            self._name.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
