"""`/v1/responses`: create (streamed or not), retrieve, delete.

A response of its own is a session of its own; one that goes on from another lives in the same session, or in a fork of
it when that has gone on since. The object is kept by the turn's own last transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from hermes.agents import MODEL_NAME
from hermes.errors import RequestError
from hermes.feed import Feed
from hermes.http.api.answers import Answer, failure_answer, json_answer
from hermes.http.api.asking import checked_model, mailbox
from hermes.http.api.chat import REPLAYED
from hermes.http.api.request import Request, read_as
from hermes.http.api.responses_input import check_new, continue_with, split_history
from hermes.http.api.responses_object import finished, skeleton
from hermes.http.api.responses_request import Create, read_create
from hermes.http.api.responses_stream import ResponseEvents
from hermes.http.api.routing import open_sessions_of, open_store_of, route
from hermes.http.api.stream import stream_feed
from hermes.http.services import Services
from hermes.ids import new_id
from hermes.intake import Intake, Payload, ResponseRecord, TurnEnd
from hermes.messages import Message
from hermes.store import Store
from hermes.store.responses import StoredResponse
from hermes.store.rows import Accepted

ROUTE = "/v1/responses"
MOVED = "session_moved"


def routes(services: Services) -> list[Route]:
    """`POST /v1/responses`, `GET` and `DELETE /v1/responses/{id}`."""

    async def create(request: Request) -> Answer | None:
        if (named := request.session_header()) is not None:
            request.name_session(named)
        asked = await read_as(request, services, read_create)
        return await _Creation(request, services, asked).answer()

    async def retrieve(request: Request) -> Answer:
        stored = await _find(open_store_of(services), request.path_param("id"), request.principal)
        request.name_session(stored.session_id)
        return json_answer(finished(stored.record.request, stored.end))

    async def delete(request: Request) -> Answer:
        response_id = request.path_param("id")
        if not await open_store_of(services).responses.delete(response_id, request.principal):
            raise _not_found(response_id)
        return json_answer({"id": response_id, "object": "response", "deleted": True})

    return [
        route(ROUTE, create, ["POST"]),
        route("/v1/responses/{id}", retrieve),
        route("/v1/responses/{id}", delete, ["DELETE"]),
    ]


def _not_found(response_id: str) -> RequestError:
    return RequestError(404, f"there is no response {response_id[:300]!r}", code="response_not_found")


async def _find(store: Store, response_id: str, principal: str) -> StoredResponse:
    stored = await store.responses.get(response_id, principal)
    if stored is None:
        raise _not_found(response_id)
    return stored


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a response is made: what its intake says of the session, and the messages that are new to it."""

    session: dict[str, Any]
    messages: tuple[Message, ...]
    carried: str = ""  # words of system and developer messages of the responses before


class _Creation:
    """One `POST /v1/responses`."""

    def __init__(self, request: Request, services: Services, asked: Create) -> None:
        self._request = request
        self._services = services
        self._asked = asked
        self._store = open_store_of(services)
        self._sessions = open_sessions_of(services)
        self._model = checked_model(services, asked.model)
        self._id = new_id("resp")
        self._base = skeleton(self._id, asked.echo, model=asked.model or MODEL_NAME, created_at=self._store.clock())

    async def answer(self) -> Answer | None:
        """Run the turn and answer the request."""
        async with self._attended() as (feed, accepted):
            self._request.name_session(accepted.session_id)
            if not accepted.fresh:
                self._request.extra[REPLAYED] = b"true"
            base = await self._base_of(accepted)
            if self._asked.stream:
                await self._stream(feed, base, replayed=accepted.end is not None)
                return None
            end = await feed.wait_end()
        return failure_answer(end.failure) if end.failure is not None else json_answer(finished(base, end))

    async def _base_of(self, accepted: Accepted) -> dict[str, Any]:
        """The object as it begins; of the first request, where this one repeats it."""
        if accepted.fresh:
            return self._base
        if accepted.end is not None:
            stored = await self._store.responses.get(accepted.event_id, self._request.principal)
            if stored is not None:
                return stored.record.request
            return {**self._base, "id": accepted.event_id, "created_at": int(accepted.end.created_at)}
        return {**self._base, "id": accepted.event_id}

    async def _stream(self, feed: Feed, base: dict[str, Any], *, replayed: bool) -> None:
        events = ResponseEvents(base, {tool.name for tool in self._asked.tools}, whole=replayed)

        def refuse(end: TurnEnd) -> Answer | None:
            return None if end.failure is None else failure_answer(end.failure)

        await stream_feed(
            self._request, feed, events.render, keepalive_s=self._services.config().http.keepalive_s, refuse=refuse,
            opening=events.opening,
        )  # fmt: skip

    @asynccontextmanager
    async def _attended(self) -> AsyncIterator[tuple[Feed, Accepted]]:
        """Commit the request in its place; in a fork of it, when the conversation has gone on since."""
        place, previous = await self._place()
        async with AsyncExitStack() as stack:
            try:
                attended = await stack.enter_async_context(self._sessions.attend(self._intake(place)))
            except RequestError as error:
                if previous is None or error.code not in (MOVED, "session_not_found"):
                    raise
                forked = self._intake(await self._fork(previous))
                attended = await stack.enter_async_context(self._sessions.attend(forked))
            yield attended

    async def _place(self) -> tuple[_Place, StoredResponse | None]:
        asked, named = self._asked, self._request.session_header()
        if named is not None and (asked.previous is not None or asked.conversation is not None):
            raise RequestError(
                400, "X-Hermes-Session-Id cannot be used together with previous_response_id or conversation",
                code="invalid_request", param="X-Hermes-Session-Id",
            )  # fmt: skip
        if asked.previous is not None:
            return await self._after(asked.previous)
        if asked.conversation is not None:
            return await self._in_mailbox(f"conversation:{self._request.principal}:{asked.conversation}"), None
        if named is not None:
            key, _ = await mailbox(self._store, named)
            return await self._in_mailbox(key, named, history=True), None
        prefix, new = split_history(asked.input.messages)
        check_new(asked.input.messages)
        session_id = new_id("sess")
        return _Place(session={"session_key": session_id, "prefix": prefix, "ephemeral": True}, messages=new), None

    async def _after(self, response_id: str) -> tuple[_Place, StoredResponse]:
        """Behind a remembered response."""
        previous = await self._store.responses.get(response_id, self._request.principal)
        if previous is None:
            raise RequestError(
                404, f"there is no response {response_id!r} to go on from", code="previous_response_not_found",
                param="previous_response_id",
            )  # fmt: skip
        session = {
            "session_key": previous.session_key, "session_id": previous.session_id, "existing": True,
            "after": previous.upto,
        }  # fmt: skip
        return self._continued(previous, session, None), previous

    async def _fork(self, previous: StoredResponse) -> _Place:
        """In a copy of its conversation, as it was then."""
        fork = await self._store.sessions.fork(previous.session_id, new_id("sess"), upto=previous.upto, ephemeral=True)
        return self._continued(previous, {"session_key": fork.id, "existing": True}, previous.end.message)

    def _continued(self, previous: StoredResponse, session: dict[str, Any], message: Message | None) -> _Place:
        calls = previous.end.message.tool_calls if previous.end.message is not None else ()
        awaited = frozenset(call.id for call in calls)
        messages = continue_with(self._asked.input.messages, awaited, message)
        return _Place(session=session, messages=messages, carried=previous.record.instructions or "")

    async def _in_mailbox(self, key: str, session_id: str = "", *, history: bool = False) -> _Place:
        """In a conversation that goes on under its name; the first request makes it.

        Args:
            history: the request may repeat what was said; what follows the assistant's last word is new.
        """
        session, awaited = await self._store.sessions.opened(key)
        messages = self._asked.input.messages
        prefix, new = split_history(messages)
        if session is None:
            check_new(messages)
            place: dict[str, Any] = {"session_key": key, "session_id": session_id or new_id("sess"), "prefix": prefix}
            return _Place(session=place, messages=new)
        place = {"session_key": key, "session_id": session.id, "existing": True}
        if not (session.messages or session.has_prefix):
            check_new(messages)
            return _Place(session=place, messages=messages)
        if self._request.idempotency(ROUTE) is not None or self._sessions.is_turning(key):
            awaited |= self._asked.input.unmatched  # of a repeat, or of a turn before it in the queue: seen at its turn
        return _Place(session=place, messages=continue_with(new if history else messages, awaited, None))

    def _intake(self, place: _Place) -> Intake:
        asked = self._asked
        system = "\n\n".join(each for each in (place.carried, asked.input.system) if each)
        instructions = "\n\n".join(each for each in (asked.instructions or "", system) if each)
        record = ResponseRecord(
            id=self._id, conversation=asked.conversation, previous_id=asked.previous, instructions=system or None,
            request=self._base,
        )  # fmt: skip
        payload = Payload(
            messages=place.messages, instructions=instructions or None, model=self._model, tools=asked.tools,
            options=asked.options, response=record if asked.store else None,
        )  # fmt: skip
        return Intake(
            event_id=self._id, mode="attended", principal=self._request.principal, source="responses", payload=payload,
            chat=self._request.principal, may_change=True, idempotency=self._request.idempotency(ROUTE),
            max_queued=self._services.config().sessions.max_queued, **place.session,
        )  # fmt: skip
