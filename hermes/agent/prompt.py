"""The system prompt: who the agent is, where it works, what else was asked of it; stable text first, for providers that cache."""

from __future__ import annotations

from pathlib import Path

IDENTITY = (
    "You are Hermes, an assistant that people reach through messaging services, a terminal or an API, backed by a gateway that"
    " runs for months. Answer in the language you are written to, directly and without filler."
)
TOOLS = (
    "You have tools. Use them when they get the person a better answer than your memory; call independent ones together."
    " Read a tool's error and act on it instead of repeating the call. Say plainly what you did and what did not work;"
    " never claim to have done what no tool result shows."
)
WORKSPACE = "Files live in the workspace {workspace}; paths are relative to it."


def system_prompt(
    *, workspace: Path | None, tools: bool, configured: str, session: str | None, request: str | None
) -> str:
    """The system prompt of one call.

    Args:
        workspace: where file tools work; None when none are offered.
        tools: whether any tool of ours is offered.
        configured: `agent.instructions`.
        session: instructions given when the conversation was made.
        request: instructions of this request alone.
    """
    parts = [IDENTITY]
    if tools:
        parts.append(TOOLS)
    if workspace is not None:
        parts.append(WORKSPACE.format(workspace=workspace))
    parts += [each.strip() for each in (configured, session or "", request or "") if each.strip()]
    return "\n\n".join(parts)
