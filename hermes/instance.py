"""One instance per home: a kernel lock on `hermes.lock`, held by an open descriptor for the life of the process.

The kernel frees the lock when its holder dies, however it dies; no process id is ever judged or signalled. The file's
text says who holds it, for people only. Taking and describing happen under a second, short lock on the home's
directory, so that whoever finds the first one held reads the words of the one that holds it. flock(2); the home must be
on a local file system.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import trio

from hermes.control_client import call
from hermes.errors import ConfigError, ControlFailed, InstanceHeld, NoGateway, Problem
from hermes.home import Home, find_socket, make_home

RETRY_S: Final = 0.05
GUARD_RETRY_S: Final = 0.002
GUARD_WAIT_S: Final = 10.0
ASK_TIMEOUT_S: Final = 5.0
MAX_TEXT: Final = 1024
UNKNOWN_HOLDER: Final = "an instance that has not said who it is"
ANSWERING_HOLDER: Final = "an instance that answers at the control socket, though hermes.lock is free (was it removed?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The instance that holds a home.

    Args:
        home: what it holds.
        boot_id: names this run of the process; never used twice.
        command: what was started, such as `hermes serve`.
        pid: for people.
        started_at: UTC, RFC 3339.
    """

    home: Home
    boot_id: str
    command: str
    pid: int
    started_at: str


class _Busy(Exception):
    """Another start is between taking and describing the lock."""


@asynccontextmanager
async def open_instance(
    home: Home,
    *,
    command: str = "hermes serve",
    replace: bool = False,
    takeover_s: float = 70.0,
    embedded: bool = False,
) -> AsyncIterator[Instance]:
    """Hold a home, creating it where it is missing.

    A holder that is only an embedded gateway (`hermes chat`) is asked to hand over; any other is asked to stop when
    `replace` says so. Both times the lock and the socket are tried until the deadline. An embedded gateway asks nobody.

    Args:
        home: what to hold.
        command: said to those who come later.
        replace: ask the holder to stop, and wait for it.
        takeover_s: how long to wait for a holder that was asked.
        embedded: whoever holds the home keeps it, and is used instead.

    Raises:
        InstanceHeld: somebody else holds it.
        ConfigError: the home cannot be used.

    Lifetime:
        The lock is gone when the block is left, or with the process.
    """
    make_home(home)
    instance = Instance(
        home=home,
        boot_id=os.urandom(8).hex(),
        command=command,
        pid=os.getpid(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    descriptor = await _take_over(instance, replace, takeover_s, asks=not embedded)
    try:
        yield instance
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for a child that was forked without exec and shares the lock
        os.close(descriptor)


def is_held(home: Home) -> bool:
    """Whether an instance holds this home now. Creates nothing.

    Raises:
        OSError: the lock file is there and cannot be opened.
    """
    try:
        descriptor = os.open(home.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        with _guard(home):
            return not _lock(descriptor)
    except _Busy:
        return True
    finally:
        os.close(descriptor)


async def wait_until_free(home: Home, *, timeout_s: float) -> bool:
    """Wait until nobody holds the home; False when somebody still does after `timeout_s` seconds."""
    with trio.move_on_after(timeout_s):
        while is_held(home):  # noqa: ASYNC110 - the kernel tells nobody that a lock is free
            await trio.sleep(RETRY_S)
        return True
    return False


async def _take_over(instance: Instance, replace: bool, takeover_s: float, *, asks: bool) -> int:
    home = instance.home
    deadline = trio.current_time() + takeover_s
    stopping: str | None = None  # the words of the holder that has agreed to go
    while True:
        found = await _attempt_guarded(instance)
        if isinstance(found, int):
            if not await _somebody_listens(home, found):
                return found
            os.close(found)
            found = ANSWERING_HOLDER
        if found != stopping:
            agreed = await _ask(home, replace) if asks else False
            if agreed is True:
                stopping = found
            elif agreed is False or not replace:
                raise InstanceHeld(found)
        if trio.current_time() >= deadline:
            raise InstanceHeld(found)
        await trio.sleep(RETRY_S)


async def _attempt_guarded(instance: Instance) -> int | str:
    """The locked descriptor, or what the holder says about itself."""
    give_up = trio.current_time() + GUARD_WAIT_S
    while True:
        try:
            with _guard(instance.home):
                return _attempt(instance)
        except _Busy:
            if trio.current_time() >= give_up:
                raise InstanceHeld("a start that does not go on") from None
            await trio.sleep(GUARD_RETRY_S)
        except OSError as error:
            raise ConfigError(Problem("home", f"cannot be locked: {error.strerror}")) from None


def _attempt(instance: Instance) -> int | str:
    path = instance.home.lock_file
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    kept = False
    try:
        if not _lock(descriptor):
            return _said(os.pread(descriptor, MAX_TEXT, 0))
        text = json.dumps(
            {
                "pid": instance.pid,
                "command": instance.command,
                "started_at": instance.started_at,
                "boot_id": instance.boot_id,
            }
        )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode() + b"\n", 0)
        kept = True
        return descriptor
    finally:
        if not kept:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _guard(home: Home) -> Iterator[None]:
    """Hold the short lock on the home's directory; raises _Busy while another does."""
    descriptor = os.open(home.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _lock(descriptor):
            raise _Busy
        yield
    finally:
        os.close(descriptor)


def _said(content: bytes) -> str:
    """The holder's text in words; whatever else is in the file is shown as it is, printable and short."""
    text = content.decode("utf-8", "replace").strip()
    try:
        known = json.loads(text)
        return f"{known['command']}, process {known['pid']}, since {known['started_at']} ({known['boot_id']})"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "".join(letter for letter in text[:200] if letter.isprintable()) or UNKNOWN_HOLDER


async def _somebody_listens(home: Home, descriptor: int) -> bool:
    """Whether a gateway answers although its lock file could be locked: then the file was removed and made anew."""
    answers = True
    try:
        await call(find_socket(home), "GET", "/control/status", timeout_s=ASK_TIMEOUT_S)
    except NoGateway:
        answers = False
    except ControlFailed:
        pass  # it listens, whatever it says
    except BaseException:
        os.close(descriptor)
        raise
    return answers


async def _ask(home: Home, replace: bool) -> bool | None:
    """Ask the holder to go: True if it will, False if it will not, None if it does not answer yet."""
    socket = find_socket(home)
    try:
        if not replace:
            status = await call(socket, "GET", "/control/status", timeout_s=ASK_TIMEOUT_S)
            if not isinstance(status, dict) or status.get("mode") != "embedded":
                return False
        reason = "replace" if replace else "hand_over"
        await call(socket, "POST", "/control/stop", {"reason": reason}, timeout_s=ASK_TIMEOUT_S)
    except (NoGateway, ControlFailed):
        return None
    return True
