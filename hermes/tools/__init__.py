"""The built-in toolsets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from hermes.errors import ConfigError, Problem
from hermes.settings import TOOLSETS, Config
from hermes.toolset import OnConflict, Tool, ToolsetHost, combine, refuse_conflict


@asynccontextmanager
async def open_builtin(
    config: Config, environment: Mapping[str, str], *, on_conflict: OnConflict = refuse_conflict
) -> AsyncIterator[tuple[Tool, ...]]:
    """Open the built-in toolsets that `agent.tools` names, in that order; `sending` comes with the accounts.

    Args:
        config: names and settings.
        environment: the environment as the configuration read it.
        on_conflict: as for `combine`.

    Raises:
        ConfigError: a name that is none of a built-in toolset.

    Lifetime: enter = their tools can be called; exit = nothing of them is left.
    """
    from hermes.tools.files import FILES, FilesConfig
    from hermes.tools.terminal import TERMINAL

    host = ToolsetHost(home=config.home, environment=environment)
    openers = {
        "terminal": lambda: TERMINAL.open(config.terminal, host),
        "files": lambda: FILES.open(FilesConfig(), host),
    }
    if unknown := [name for name in config.agent.tools if name not in TOOLSETS]:
        known = ", ".join(TOOLSETS)
        raise ConfigError(
            *(Problem("agent.tools", f"no toolset is named {name}; there are {known}") for name in unknown)
        )
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(openers[name]())
            for name in dict.fromkeys(config.agent.tools)
            if name in openers
        ]
        yield combine(*groups, on_conflict=on_conflict)
