"""What SQLite's result codes mean to Hermes: wait and go on, end the process, or a bug of the statement.

The table is over primary result codes (https://www.sqlite.org/rescode.html); the extended code only goes into the text.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from hermes.errors import SchemaTooNew, StoreCorrupt, StoreError, StoreUnavailable

Reason: TypeAlias = Literal["busy", "full", "read-only", "io", "closed"]

_UNAVAILABLE: dict[int, Reason] = {
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_PROTOCOL: "busy",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CANTOPEN: "io",
    sqlite3.SQLITE_NOMEM: "io",
    sqlite3.SQLITE_NOLFS: "io",
}
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


def primary_code(error: BaseException) -> int | None:
    """SQLite's primary result code, or None where the error did not come out of the library."""
    if not isinstance(error, sqlite3.Error):
        return None
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_interrupt(error: BaseException) -> bool:
    """Whether a statement ended because it was interrupted."""
    return primary_code(error) == sqlite3.SQLITE_INTERRUPT


def fault_of(error: BaseException) -> StoreUnavailable | StoreCorrupt | None:
    """The store's own error for a fault of the file, the disk or the lock; None for everything else.

    Args:
        error: what a statement or a function over a connection raised.

    Returns:
        A new error whose `__cause__` is `error`, or None when `error` says something about the statement and not
        about the store (a constraint, bad SQL, a wrong type, an interrupt, or no SQLite error at all).
    """
    code = primary_code(error)
    if code is None:
        return None
    detail = f"{error} ({getattr(error, 'sqlite_errorname', 'unknown')})"
    fault: StoreUnavailable | StoreCorrupt
    if code in _CORRUPT:
        fault = StoreCorrupt(f"the database is damaged: {detail}")
    elif code in _UNAVAILABLE:
        fault = StoreUnavailable(_UNAVAILABLE[code], detail)
    else:
        return None
    fault.__cause__ = error
    return fault


_ERRNO: dict[int, Reason] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
}

_ADVICE = "Move the file away and restore a backup, or start with another home."


@contextmanager
def explained(path: Path, *, advice: str = _ADVICE) -> Iterator[None]:
    """Turn what goes wrong with a file into the store's errors, in words that name the file and what to do."""
    try:
        yield
    except FileExistsError:
        raise
    except SchemaTooNew as error:
        raise SchemaTooNew(
            f"{path} was written by a newer Hermes: {error}. Start that version, or restore an older backup."
        ) from error
    except StoreCorrupt as error:
        raise StoreCorrupt(f"{path}: {error}. {advice}") from error
    except sqlite3.Error as error:
        fault = fault_of(error)
        if isinstance(fault, StoreCorrupt):
            raise StoreCorrupt(f"{path}: {fault}. {advice}") from error
        if isinstance(fault, StoreUnavailable):
            raise StoreUnavailable(fault.reason, f"{path}: {error} ({error.sqlite_errorname})") from error
        raise StoreError(f"{path} cannot be opened: {error}") from error
    except OSError as error:
        raise StoreUnavailable(_ERRNO.get(error.errno or 0, "io"), f"{path}: {error.strerror}") from error
