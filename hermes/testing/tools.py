"""For tests of toolsets: a turn to call a tool in, and a look at which processes carry a mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hermes.context import TurnContext
from hermes.toolset import Tool, ToolOutcome, run_tool


def turn_context(workspace: Path, *, may_change: bool = True) -> TurnContext:
    """The context of a turn that works in a directory, for nobody in particular."""
    return TurnContext(
        turn_id="turn-1",
        session_id="session-1",
        session_key="test",
        principal="local",
        source="test",
        workspace=workspace,
        may_change=may_change,
    )


async def call_tool(tools: tuple[Tool, ...], context: TurnContext, name: str, /, **arguments: Any) -> ToolOutcome:
    """Run the tool of this name as a turn would, its arguments written as JSON."""
    (chosen,) = (tool for tool in tools if tool.name == name)
    return await run_tool(chosen, context, msgspec.json.encode(arguments).decode())


def processes_with(text: str) -> list[int]:
    """The ids of all processes whose environment or command line holds a text, zombies not among them (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                seen = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:  # gone, or not ours
                continue
            if text.encode() in seen:
                found.append(int(entry.name))
    return found
