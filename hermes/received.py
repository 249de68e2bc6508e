"""Files that people sent, put where tools can work with them: `received/` in the workspace. Blocking, for worker threads.

The paths are walked like those of the file tools, so that nothing that lies in the workspace leads anywhere else.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from hermes.errors import ToolError
from hermes.tools.reading import write_whole
from hermes.tools.workspace import DIRECTORY, Workspace

FOLDER: Final = "received"
DIGITS: Final = 16  # of the digest, in the name of the file's directory
_BATCH: Final = 500


class NotSaved(Exception):
    """It cannot be put there; the text says why."""


def save(workspace: Path, home: Path, content: Path, digest: str, name: str) -> str:
    """Put a copy of a blob into the workspace.

    Args:
        workspace: the directory of the tools; made if it is not there.
        home: the gateway's home, which stays out of reach.
        content: the blob's file.
        digest: its name.
        name: how the copy is called; no path.

    Returns: the copy's path, relative to the workspace.

    Raises:
        NotSaved: the workspace does not take it.
    """
    path = f"{FOLDER}/{digest[:DIGITS]}/{name}"
    try:
        data = content.read_bytes()
        workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Workspace(workspace, home).place(path, create=True) as place:
            write_whole(place, data)
    except ToolError as error:
        raise NotSaved(str(error)) from None
    except OSError as error:
        raise NotSaved(error.strerror or type(error).__name__) from None
    return path


def forget(workspace: Path, home: Path, before: float) -> int:
    """Remove copies that nobody has changed since a time, in seconds since the epoch; a bounded batch. Returns how many."""
    gone = 0
    with suppress(ToolError, OSError):
        folder = Workspace(workspace, home).open_directory(FOLDER)
        try:
            with os.scandir(folder) as entries:
                names = [each.name for each in entries if len(each.name) == DIGITS]
            for name in names:
                if gone < _BATCH:
                    gone += _forget_in(folder, name, before)
        finally:
            os.close(folder)
    return gone


def _forget_in(folder: int, name: str, before: float) -> int:
    gone = 0
    with suppress(OSError):
        directory = os.open(name, DIRECTORY, dir_fd=folder)
        try:
            with os.scandir(directory) as entries:
                files = list(entries)
            for file in files:
                with suppress(OSError):
                    if file.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(file.name, dir_fd=directory)
                        gone += 1
        finally:
            os.close(directory)
        if gone:
            os.rmdir(name, dir_fd=folder)  # unless something is left in it
    return gone
