"""The toolset `files`: read, write, patch and search files of the workspace, and nothing outside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeVar

import msgspec
import trio

from hermes.context import TurnContext
from hermes.tools.patching import apply_patch
from hermes.tools.reading import read_page, read_whole, write_whole
from hermes.tools.searching import Search, search
from hermes.tools.workspace import Place, Workspace
from hermes.toolset import Tool, ToolsetHost, ToolsetSpec, tool

T = TypeVar("T")
READERS = 4  # worker threads at a time
SEARCHES = 2  # processes at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesConfig:
    """The settings of the file tools. A search that takes longer than `search_s` is ended."""

    search_s: float = 20.0


@asynccontextmanager
async def open_files(config: FilesConfig, host: ToolsetHost) -> AsyncIterator[tuple[Tool, ...]]:
    """Open the toolset `files`.

    Args:
        config: how long a search may take.
        host: the home that stays out of reach.

    Lifetime: nothing is held between calls. A call that has begun to write ends by itself, also when it is cancelled: a
        file is either as before or as it was to be. Changes are made one after the other, so that two calls of one turn
        cannot lose each other's.
    """
    reading, writing = trio.CapacityLimiter(READERS), trio.CapacityLimiter(1)
    searching = trio.CapacityLimiter(SEARCHES)

    async def at(
        context: TurnContext,
        path: str,
        work: Callable[[Place], T],
        limiter: trio.CapacityLimiter,
        *,
        create: bool = False,
    ) -> T:
        def in_thread() -> T:
            with Workspace(context.workspace, host.home).place(path, create=create) as place:
                return work(place)

        return await trio.to_thread.run_sync(in_thread, limiter=limiter)

    @tool(read_only=True)
    async def read_file(
        context: TurnContext,
        path: str,
        offset: Annotated[int, msgspec.Meta(ge=1)] = 1,
        limit: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 500,
    ) -> str:
        """Read lines of a text file in the workspace.

        Args:
            offset: First line.
            limit: Number of lines.
        """
        return await at(context, path, partial(read_page, offset=offset, limit=limit), reading)

    @tool(read_only=False)
    async def write_file(context: TurnContext, path: str, content: str) -> str:
        """Create or replace a whole file; directories are made as needed."""
        data = content.encode()
        before = await at(context, path, partial(write_whole, data=data), writing, create=True)
        return f"wrote {len(data)} bytes to {path} " + ("(new)" if before is None else f"(had {before} bytes)")

    @tool(read_only=False)
    async def patch(context: TurnContext, path: str, old: str, new: str, replace_all: bool = False) -> str:
        """Replace text in a file.

        Args:
            old: Exact text, with enough lines around it to occur once.
            replace_all: Replace every occurrence.
        """

        def change(place: Place) -> str:
            content = read_whole(place)
            patched = apply_patch(content.text, old, new, replace_all=replace_all)
            write_whole(place, patched.text.encode("utf-8", "surrogateescape"), expected=content.about)
            return f"patched {path} at line {', '.join(map(str, patched.lines[:20]))}"

        return await at(context, path, change, writing)

    @tool(read_only=True)
    async def search_files(
        context: TurnContext,
        pattern: str,
        path: str = ".",
        glob: str = "*",
        kind: Literal["content", "name"] = "content",
        limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100,
    ) -> str:
        """Search the workspace: lines of files for a regular expression, or file names for a glob.

        Args:
            pattern: Python regular expression; for kind "name" a glob, or a part of the path.
            path: Directory or file to search.
            glob: Only files like this.
        """
        wanted = Search(pattern=pattern, path=path, glob=glob, kind=kind, limit=limit)
        async with searching:
            return await search(Workspace(context.workspace, host.home), wanted, config.search_s)

    yield (read_file, write_file, patch, search_files)


FILES: ToolsetSpec[FilesConfig] = ToolsetSpec(name="files", config=FilesConfig, open=open_files)
