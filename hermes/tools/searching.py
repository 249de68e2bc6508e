"""Searching the workspace in a process of its own, and putting what it finds into words."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
import trio

from hermes.errors import ToolError
from hermes.tools.workspace import Workspace, files_of

SEARCHER = Path(__file__).with_name("searcher.py")
OUTPUT_BYTES = 262_144
MAX_PATTERN = 1_000  # characters
ENDED_S = 5.0  # for a killed process to be gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for.

    Args:
        pattern: a regular expression for content, a glob for names.
        path: a directory or a file of the workspace.
        glob: which files' content is looked at.
        kind: what the pattern is for.
        limit: hits at most.
    """

    pattern: str
    path: str
    glob: str
    kind: Literal["content", "name"]
    limit: int


async def search(workspace: Workspace, wanted: Search, deadline_s: float) -> str:
    """Run one search.

    Args:
        workspace: where.
        wanted: what.
        deadline_s: after this the search is ended, and what was found until then is returned.

    Raises:
        ToolError: the path or the pattern cannot be used.

    Cancellation: the process is killed and gone when this returns.
    """
    if len(wanted.pattern) > MAX_PATTERN or len(wanted.glob) > MAX_PATTERN:
        raise ToolError(f"a pattern has at most {MAX_PATTERN} characters")
    directory, request = await trio.to_thread.run_sync(_prepare, workspace, wanted, deadline_s)
    try:
        output, ended = await _run(directory, request, deadline_s)
    finally:
        os.close(directory)
    return _in_words(output, wanted, deadline_s, ended=ended)


def _prepare(workspace: Workspace, wanted: Search, deadline_s: float) -> tuple[int, bytes]:
    """Walk to where the search begins: its descriptor, which the caller closes, and the request."""
    with workspace.place(wanted.path) as place:
        if place.name is not None:
            with_file, _ = place.open_file()
            os.close(with_file)
        request = asdict(wanted) | {
            "name": place.name,
            "cpu_s": math.ceil(deadline_s) + 1,
            "home": place.forbidden.home,
            "proc": place.forbidden.proc,
            "files": sorted(files_of(workspace.home)),
        }
        return os.dup(place.directory), msgspec.json.encode(request)


async def _run(directory: int, request: bytes, deadline_s: float) -> tuple[bytes, bool]:
    """The output of the searching process, and whether it came to its end."""
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", str(SEARCHER), str(directory), request],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            pass_fds=(directory,),
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"the search could not be started: {error.strerror}") from error
    assert process.stdout is not None
    output = bytearray()
    try:
        with trio.move_on_after(deadline_s):
            while True:
                data = await process.stdout.receive_some(65_536)
                output += data
                if not data or len(output) > OUTPUT_BYTES:
                    return bytes(output), not data
        return bytes(output), False
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + ENDED_S):
            await trio.aclose_forcefully(process.stdout)
            await process.wait()


def _in_words(output: bytes, wanted: Search, deadline_s: float, *, ended: bool) -> str:
    lines = output.split(b"\n")
    whole: list[Any] = [msgspec.json.decode(line) for line in (lines if ended else lines[:-1]) if line]
    hits = [one for one in whole if isinstance(one, list)]
    summary = next((one for one in whole if isinstance(one, dict)), None)
    if summary and "error" in summary:
        raise ToolError(summary["error"])
    found = [_whole_path(wanted.path, path) + (f":{number}: {text}" if number else "") for path, number, text in hits]
    if summary is None:
        why = f"after {deadline_s:g} s" if len(output) <= OUTPUT_BYTES else f"after {OUTPUT_BYTES} bytes of results"
        found.append(f"[the search was ended {why}; the expression may be too costly, or narrow path or glob]")
    else:
        if not found:
            found.append(f"[nothing found in {summary['files']} files]")
        elif summary["full"]:
            found.append(f"[more than {len(hits)}: narrow the search, or raise limit]")
        if summary["skipped"]:
            found.append(f"[{summary['skipped']} files were too large to be searched]")
    return "\n".join(found)


def _whole_path(start: str, path: str) -> str:
    """A hit as the other tools take it: the searcher sees paths below where it starts."""
    below = PurePosixPath(start)
    return str(below if below.name == path else below / path)
