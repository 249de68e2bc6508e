"""Agents: what a live session keeps between turns, and how a turn is set up in it.

An agent holds its history, and never a model client: a lease spans one call. It is rebuilt from rows whenever it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import trio

from hermes.agent.calls import Deadlines, ToolDefinition
from hermes.agent.history import History
from hermes.agent.loop import Door, LoopSettings
from hermes.agent.prompt import system_prompt
from hermes.blobs import Blobs
from hermes.context import TurnContext
from hermes.errors import StoreUnavailable
from hermes.intake import ClientTool, TurnEnd
from hermes.messages import Message
from hermes.pictures import Pictures, Sight
from hermes.replies import NoReplies, Replies
from hermes.settings import Config, Endpoint
from hermes.store import Store
from hermes.store.rows import Claim, InboxRow
from hermes.toolset import Tool, resolve
from hermes.turn import Turn

MODEL_NAME = "hermes"  # the name under which the configured model, with its fallbacks, is offered


class Agent:
    """The memory of one live session: of the conversation that it had at its last turn.

    Args:
        session_id: whose messages the history is; a reset begins another conversation under the same key.
        history: they.
        sight: which pictures are in memory.
    """

    __slots__ = ("history", "session_id", "sight")

    def __init__(self, session_id: str, history: History, sight: Sight) -> None:
        self.session_id = session_id
        self.history = history
        self.sight = sight

    @property
    def size_bytes(self) -> int:
        """What the history takes."""
        return self.history.size_bytes


class Agents:
    """Sets turns up: history, tools, prompt, model; one for the gateway.

    Args:
        store: where histories come from.
        door: where models are asked.
        tools: everything that may be offered, unique names.
        config: the configuration as it is now; a turn keeps what it began with.
        on_end: told of each turn's end and how long it took, for the metrics.
        replies: how people on messaging services hear of an end.
        blobs: where the pictures are that people sent; without it there are none.
    """

    def __init__(
        self,
        store: Store,
        door: Door,
        tools: tuple[Tool, ...],
        config: Callable[[], Config],
        on_end: Callable[[TurnEnd, float], None] = lambda _end, _seconds: None,
        replies: Replies | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._pictures = Pictures(blobs) if blobs is not None else None
        self.replies: Replies = replies or NoReplies()
        self._store = store
        self._on_end = on_end
        self._door = door
        self._config = config
        self._tools: Mapping[tuple[bool, bool], Mapping[str, Tool]] = MappingProxyType(
            {
                (may, chat): MappingProxyType(
                    {tool.name: tool for tool in resolve(tools, may_change=may, in_chat=chat)}
                )
                for may in (False, True)
                for chat in (False, True)
            }
        )

    @property
    def max_turns(self) -> int:
        """Turns that may run at once."""
        return self._config().http.max_concurrent_turns

    async def run(self, turn: Turn, agent: Agent | None) -> Agent | None:
        """Run a turn in its session's agent, which is built from the rows if there is none.

        Returns: the agent, to be kept for the next turn; None if it is to be built anew.
        """
        config = self._config()
        claim = turn.claim
        kept: Agent | None = None

        async def remember() -> History:
            nonlocal kept
            kept = await self._remember(agent, claim, sees=config.model.vision)
            return kept.history

        async def see(messages: Sequence[Message]) -> Sequence[Message]:
            return await self._see(messages, kept.sight) if kept is not None else messages

        began = trio.current_time()
        end = await turn.run(
            self._settings(claim, config), remember, door=self._door, store=self._store,
            timeout_s=config.sessions.turn_timeout_s, replies=self.replies, see=see,
        )  # fmt: skip
        self._on_end(end, trio.current_time() - began)
        return None if turn.parted else kept

    async def _remember(self, agent: Agent | None, claim: Claim, *, sees: bool) -> Agent:
        """The agent with what the turn begins with; a new one where there is none, or it has no room for a new picture."""
        of_it = agent is not None and agent.session_id == claim.session.id
        if agent is not None and of_it and agent.sight.sees == sees and not agent.sight.full:
            shown = await self._see(claim.appended, agent.sight)
            if not agent.sight.full:
                agent.history.extend(shown)
                return agent
        sight = Sight(sees=sees)
        history = History(await self._see(await self._load(claim), sight))
        sight.full = False
        return Agent(claim.session.id, history, sight)

    async def _see(self, messages: Sequence[Message], sight: Sight) -> Sequence[Message]:
        return await self._pictures.show(messages, sight) if self._pictures is not None else messages

    async def _load(self, claim: Claim) -> Sequence[Message]:
        if claim.history is not None:
            return claim.history
        while True:
            try:
                return await self._store.sessions.history(claim.session.id)
            except StoreUnavailable:
                await self._store.database.wait_available()

    def _settings(self, claim: Claim, config: Config) -> LoopSettings:
        row = claim.rows[-1]
        payload = row.payload
        client_tools = {tool.name: client_definition(tool) for tool in payload.tools}
        offered = self._tools[row.may_change, row.address is not None] if payload.builtin_tools else {}
        ours = {name: tool for name, tool in offered.items() if name not in client_tools}
        return LoopSettings(
            context=_context(claim, row, config),
            system=system_prompt(
                workspace=config.workspace if ours else None,
                tools=bool(ours),
                configured=config.agent.instructions,
                session=claim.session.instructions,
                request=payload.instructions,
            ),
            tools=ours,
            client_tools=client_tools,
            options=payload.options,
            endpoint=find_endpoint(payload.model or claim.session.model, config),
            deadlines=Deadlines(
                first_byte_s=config.sessions.first_byte_timeout_s, stall_s=config.sessions.stall_timeout_s
            ),
            max_steps=config.agent.max_steps,
            max_tokens=config.agent.max_turn_tokens,
        )


def _context(claim: Claim, row: InboxRow, config: Config) -> TurnContext:
    return TurnContext(
        turn_id=claim.turn_id,
        session_id=claim.session.id,
        session_key=row.session_key,
        principal=row.principal,
        source=row.source,
        workspace=config.workspace,
        may_change=row.may_change,
        address=row.address,
    )


def client_definition(tool: ClientTool) -> ToolDefinition:
    """A client's function as the model sees it."""
    return ToolDefinition(
        name=tool.name, description=tool.description, parameters=tool.parameters or {"type": "object", "properties": {}},
        strict=tool.strict,
    )  # fmt: skip


def model_names(config: Config) -> dict[str, Endpoint | None]:
    """Every model name a client may ask for; None stands for the configured model with its fallbacks."""
    names: dict[str, Endpoint | None] = {MODEL_NAME: None, config.model.primary.model: None}
    for endpoint in config.model.fallback:
        names.setdefault(endpoint.model, endpoint)
    names.update(dict(config.model.aliases))
    return names


def find_endpoint(name: str | None, config: Config) -> Endpoint | None:
    """The endpoint of a model name; the configured one for None and for a name that is not configured any more."""
    return None if name is None else model_names(config).get(name)
