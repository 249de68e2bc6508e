"""One user of a token per person and machine: a kernel lock on a file that is named by a hash of the token.

Two gateways with one token take each other's messages, whatever homes they have. Inside a home the configuration is checked; across
homes this lock tells. The kernel frees it when its holder dies, however it dies; no process id is ever judged. The file's text says
who holds it, for people only. Taking and describing, and letting go, happen under a short lock on the directory, so that whoever
finds a token held reads the words of its holder. flock(2); the directory must be on a local file system.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from hermes.errors import PlatformConflict
from hermes.observe.logs import get_log
from hermes.settings import Secret

log = get_log(__name__)

MAX_WORDS: Final = 500  # bytes
RETRY_S: Final = 0.002
GIVE_UP_S: Final = 5.0
UNKNOWN: Final = "somebody who has not said who it is"


class _Busy(Exception):
    """Another one is between taking and describing a lock."""


def token_hash(platform: str, secrets: Iterable[Secret | str]) -> str:
    """A name for the identity that an account has at its service; the secrets cannot be found from it.

    Args:
        platform: its name, so that two services may use one word.
        secrets: in the order of `PlatformSpec.secrets`.
    """
    digest = hashlib.sha256(platform.encode())
    for secret in secrets:
        word = secret.reveal() if isinstance(secret, Secret) else secret
        digest.update(b"\0" + hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


@asynccontextmanager
async def open_token_lock(directory: Path, token: str, owner_words: str) -> AsyncIterator[None]:
    """Be the only one who uses a token.

    Args:
        directory: where the locks of this user are (`$XDG_STATE_HOME/hermes`); made if it is missing. One that cannot be used
            is noted in the log, and there is no lock then.
        token: what `token_hash` gave.
        owner_words: what others are told: the account and its home; at most 500 bytes are kept.

    Raises:
        PlatformConflict: somebody else uses it; the text says who.

    Lifetime: the lock is gone when the block is left, or with the process.
    """
    let_go = await take_token_lock(directory, token, owner_words)
    try:
        yield
    finally:
        if let_go is not None:
            let_go()


async def take_token_lock(directory: Path, token: str, owner_words: str) -> Callable[[], None] | None:
    """The same for whoever holds it longer than one block; arguments and errors as of `open_token_lock`.

    Returns:
        what lets it go, to be called once; None where it could not be had, and nothing is held.
    """
    try:
        descriptor = await _taken(directory, token, owner_words)
    except OSError as error:
        log.warning("token_lock.unavailable", directory=str(directory), because=error.strerror or type(error).__name__)
        return None
    return partial(_let_go, directory, token, descriptor)


async def _taken(directory: Path, token: str, owner_words: str) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240  # a stat as a rule
    give_up = trio.current_time() + GIVE_UP_S
    while True:
        try:
            with _guard(directory):
                return _take(_place(directory, token), owner_words)
        except _Busy:
            if trio.current_time() >= give_up:
                raise PlatformConflict("another start that does not go on holds the locks of all tokens") from None
        await trio.sleep(RETRY_S)


def _place(directory: Path, token: str) -> Path:
    return directory / f"token-{token}.lock"


def _take(path: Path, owner_words: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    kept = False
    try:
        if not _lock(descriptor):
            raise PlatformConflict(f"another Hermes uses the same token: {_said(os.pread(descriptor, MAX_WORDS, 0))}")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner_words.encode("utf-8", "replace")[:MAX_WORDS], 0)
        kept = True
        return descriptor
    finally:
        if not kept:
            os.close(descriptor)


def _let_go(directory: Path, token: str, descriptor: int) -> None:
    """Free the lock and, unless somebody is looking at it just now, remove its file."""
    try:
        with suppress(OSError, _Busy), _guard(directory):
            _place(directory, token).unlink()
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for a child that was forked without exec and shares the lock
    finally:
        os.close(descriptor)


@contextmanager
def _guard(directory: Path) -> Iterator[None]:
    """Hold the short lock on the directory; raises _Busy while another does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _lock(descriptor):
            raise _Busy
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _said(content: bytes) -> str:
    """The holder's words, printable."""
    text = "".join(letter for letter in content.decode("utf-8", "replace") if letter.isprintable()).strip()
    return text or UNKNOWN
