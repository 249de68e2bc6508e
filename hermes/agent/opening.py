"""Opening the model door without paying for it at the start: the HTTP client's libraries are loaded in a thread, after the listener."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import trio

from hermes.settings import ModelConfig

if TYPE_CHECKING:
    from hermes.agent.model import ModelDoor


@asynccontextmanager
async def open_model_door(settings: ModelConfig) -> AsyncIterator[ModelDoor]:
    """`hermes.agent.model.open_model`, its module imported off the loop; see there."""
    module = await trio.to_thread.run_sync(import_module, "hermes.agent.model")
    async with module.open_model(settings) as door:
        yield door
