"""The conversation that a chat holds with the gateway: which session, which model, and what a turn tells."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from hermes.cli.reach import Reach
from hermes.control_client import EventStream
from hermes.errors import ControlFailed, GatewayLeft

TITLE_CHARS: Final = 60
FIRST_BYTE_S: Final = 120.0  # the gateway sends a comment each `http.keepalive_s` from the beginning


@dataclass(frozen=True, slots=True)
class Words:
    """More words of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class Thoughts:
    """More of what the model thinks aloud."""

    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """The model is asked again, after tools."""

    number: int


@dataclass(frozen=True, slots=True)
class Started:
    """A tool begins; `arguments` is JSON text, perhaps cut."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A tool ended; `preview` is a piece of its result."""

    call_id: str
    name: str
    ok: bool
    seconds: float
    preview: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The turn ended well; `finish` says why the model stopped."""

    finish: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn did not end well; `reason` is for people."""

    reason: str


Told = Words | Thoughts | Step | Started | Finished | Completed | Failed


class Conversation:
    """One session, which is made when the first thing is said.

    Args:
        reach: the way to the gateway.
        session: the id of a session to go on with; None begins a new one.
        model: a name to ask for; None leaves it to the session and the configuration.
    """

    def __init__(self, reach: Reach, session: str | None, model: str | None) -> None:
        self.session = session
        self.model = model
        self._reach = reach

    @asynccontextmanager
    async def say(self, text: str) -> AsyncIterator[Turn]:
        """Say something; the turn's events are read inside.

        Raises:
            NoGateway: there is none, and none can be started.
            ControlFailed: the gateway refused; GatewayLeft: it left in the middle of its answer.

        Lifetime: leaving the block before the end interrupts the turn.
        """
        if self.session is None:
            made = await self._reach.ask("POST", "/api/sessions", {"title": title_of(text), **self._asked_model()})
            self.session = str(made["id"])
        body = {"message": text, **self._asked_model()}
        async with self._reach.stream(
            "POST", f"{self._path(self.session)}/chat/stream", body, first_byte_s=FIRST_BYTE_S
        ) as events:
            yield Turn(events)

    async def resume(self, session: str) -> dict[str, Any]:
        """Go on with another session; returns what the gateway knows of it."""
        found: dict[str, Any] = await self._reach.ask("GET", self._path(session))
        if found.get("ended_at") is not None:
            raise ControlFailed(f"the session {session} has been ended")
        self.session, self.model = str(found["id"]), None
        return found

    def forget(self) -> None:
        """Begin a new session with the next thing that is said."""
        self.session = None

    async def rename(self, title: str) -> None:
        """Give the session a title."""
        await self._reach.ask("PATCH", self._path(self.session or ""), {"title": title})

    async def choose(self, model: str) -> None:
        """Ask this model from now on, also when the session is gone on with later."""
        if self.session is None:
            await self._reach.ask("GET", f"/v1/models/{quote(model, safe='')}")
        else:
            await self._reach.ask("PATCH", self._path(self.session), {"model": model})
        self.model = model

    async def stop(self) -> int:
        """End what runs and waits in the session, whoever asked for it. Returns how much that was."""
        answer = await self._reach.ask("POST", f"{self._path(self.session or '')}/stop", {})
        return int(answer.get("stopped", 0))

    async def models(self) -> list[str]:
        """The names that can be asked for."""
        answer = await self._reach.ask("GET", "/v1/models")
        return [str(each["id"]) for each in answer["data"]]

    async def sessions(self, limit: int) -> list[dict[str, Any]]:
        """The newest sessions."""
        answer = await self._reach.ask("GET", f"/api/sessions?limit={limit}")
        return list(answer["data"])

    async def last_messages(self, known: int, count: int) -> list[dict[str, Any]]:
        """The last messages of the session, which holds so many."""
        path = f"{self._path(self.session or '')}/messages?limit={count}&after={max(0, known - count)}"
        return list((await self._reach.ask("GET", path))["data"])

    def _asked_model(self) -> dict[str, str]:
        return {} if self.model is None else {"model": self.model}

    @staticmethod
    def _path(session: str) -> str:
        return f"/api/sessions/{quote(session, safe='')}"


class Turn:
    """What a turn tells, to be iterated over: the last is Completed or Failed."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._over = False

    def __aiter__(self) -> Turn:
        return self

    async def __anext__(self) -> Told:
        while not self._over:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                raise GatewayLeft("the gateway ended its answer before the turn was over") from None
            told = _told(event.name, event.data)
            self._over = isinstance(told, Completed | Failed)
            if told is not None:
                return told
        raise StopAsyncIteration


def _told(name: str, data: str) -> Told | None:
    """An event of the gateway; None for those that a chat does not show."""
    try:
        value = json.loads(data)
        match name:
            case "message.delta":
                return Words(str(value["delta"]))
            case "reasoning.delta":
                return Thoughts(str(value["delta"]))
            case "step":
                return Step(int(value["number"]))
            case "tool.started":
                return Started(str(value["call_id"]), str(value["name"]), str(value["arguments"]))
            case "tool.completed":
                seconds = float(value["seconds"])
                return Finished(
                    str(value["call_id"]), str(value["name"]), bool(value["ok"]), seconds, str(value["preview"])
                )
            case "run.completed":
                return Completed(str(value["finish_reason"]))
            case "error":
                return Failed(str(value["error"]["message"]))
            case _:
                return None
    except (ValueError, TypeError, KeyError) as error:
        raise ControlFailed(f"the gateway's event {name!r} cannot be read: {error}") from None


def title_of(text: str) -> str:
    """A title for a conversation that begins with these words."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rstrip() + "…"
