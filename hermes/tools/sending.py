"""The toolset `sending`: a file to the person whose conversation this is, on a messaging service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from hermes.context import TurnContext
from hermes.errors import ToolError
from hermes.events import Address
from hermes.toolset import Tool, tool

MAX_CAPTION = 10_000

SendFile = Callable[[Address, str, str], Awaitable[str]]


def sending_tools(send: SendFile) -> tuple[Tool, ...]:
    """The tools of the toolset.

    Args:
        send: commits a file of an address; returns what is said of it, or raises ToolError.

    A call that is cancelled has sent the file or not; what was committed arrives, whatever happens to the turn.
    """

    @tool(read_only=False, for_chats=True)
    async def send_file(
        context: TurnContext, path: str, caption: Annotated[str, msgspec.Meta(max_length=MAX_CAPTION)] = ""
    ) -> str:
        """Send a file of the workspace into this chat.

        Args:
            caption: Words beside it, as markdown.
        """
        if context.address is None:
            raise ToolError("nobody is there to send a file to: this is no conversation on a messaging service")
        return await send(context.address, path, caption)

    return (send_file,)
