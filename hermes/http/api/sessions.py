"""`/api/sessions`: the conversations themselves, and turns in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from hermes.errors import RequestError
from hermes.http.api.answers import Answer, json_answer
from hermes.http.api.asking import MAX_INSTRUCTIONS, MAX_TITLE, checked_model, find_session
from hermes.http.api.fields import Fields, wrong_value
from hermes.http.api.request import Request, decode_object, session_id
from hermes.http.api.routing import open_sessions_of, open_store_of, route
from hermes.http.api.session_chat import CHAT, STREAM, chat, chat_stream
from hermes.http.api.session_objects import session_object, stored_object
from hermes.http.services import Services
from hermes.ids import new_id
from hermes.store.rows import SessionRow

PATH = "/api/sessions"
MAX_LISTED = 200
MAX_MESSAGES = 1000
MAX_PLACE = 2**53 - 1


@dataclass(frozen=True, slots=True)
class _Sessions:
    """The routes with what they work with."""

    services: Services

    async def listing(self, request: Request) -> Answer:
        """`GET /api/sessions`."""
        limit = request.query_integer("limit", 1, MAX_LISTED, 50)
        offset = request.query_integer("offset", 0, MAX_PLACE, 0)
        ephemeral = request.query("include_ephemeral") in ("1", "true")
        store = open_store_of(self.services)
        rows, more = await store.sessions.listing(
            limit=limit, offset=offset, source=request.query("source"), ephemeral=ephemeral
        )
        shown = [self._shown(row) for row in rows]
        return json_answer({"object": "list", "data": shown, "has_more": more, "limit": limit, "offset": offset})

    async def create(self, request: Request) -> Answer:
        """`POST /api/sessions`."""
        body = await self._body(request)
        named = body.string("id")
        made = session_id(named, "id") if named is not None else new_id("sess")
        fields = self._read(body)
        self._count(body)
        row = await open_store_of(self.services).sessions.create(
            session_id=made, source="sessions", principal=request.principal, title=fields.get("title"),
            model=fields.get("model"), instructions=fields.get("instructions"),
        )  # fmt: skip
        return self._answer(request, row, 201)

    async def get(self, request: Request) -> Answer:
        """`GET /api/sessions/{id}`."""
        return self._answer(request, await self._find(request))

    async def patch(self, request: Request) -> Answer:
        """`PATCH /api/sessions/{id}`."""
        body = await self._body(request)
        changes = self._read(body)
        reason = body.string("end_reason", most=MAX_TITLE)
        self._count(body)
        if "end_reason" in body.data and not reason:
            raise wrong_value("end_reason", "must say why the session ends; an ended one is gone on with by a fork")
        if not changes and reason is None:
            raise RequestError(400, "nothing to change: title, model, instructions or end_reason", code="empty_request")
        store, row = open_store_of(self.services), await self._find(request)
        if reason is not None:
            changes["end_reason"] = reason
            if row.ended_at is None:
                await open_sessions_of(self.services).quiet(row.key, new_id("end"))
                changes["ended_at"] = store.clock()
        row = await store.sessions.update(row.id, **changes)
        if reason is not None:
            self._forget(row.key)
        return self._answer(request, row)

    async def delete(self, request: Request) -> Answer:
        """`DELETE /api/sessions/{id}`: its turn is ended first."""
        row = await self._find(request)
        if row.ended_at is None:
            await open_sessions_of(self.services).quiet(row.key, new_id("delete"))
        await open_store_of(self.services).sessions.delete(row.id)
        if row.ended_at is None:
            self._forget(row.key)
        return json_answer({"id": row.id, "object": "session", "deleted": True})

    async def messages(self, request: Request) -> Answer:
        """`GET /api/sessions/{id}/messages`."""
        limit = request.query_integer("limit", 1, MAX_MESSAGES, 200)
        after = None if request.query("after") is None else request.query_integer("after", -MAX_PLACE, MAX_PLACE, 0)
        row = await self._find(request)
        request.name_session(row.id)
        found = await open_store_of(self.services).sessions.messages(row.id, after=after, limit=limit + 1)
        shown = [stored_object(each) for each in found[:limit]]
        return json_answer({"object": "list", "data": shown, "has_more": len(found) > limit})

    async def fork(self, request: Request) -> Answer:
        """`POST /api/sessions/{id}/fork`."""
        body = await self._body(request)
        named, title = body.string("id"), body.string("title", most=MAX_TITLE)
        made = session_id(named, "id") if named is not None else new_id("sess")
        upto = body.integer("upto", 0, MAX_PLACE)
        self._count(body)
        row = await self._find(request)
        fork = await open_store_of(self.services).sessions.fork(row.id, made, title=title, upto=upto)
        return self._answer(request, fork, 201)

    async def stop(self, request: Request) -> Answer:
        """`POST /api/sessions/{id}/stop`: the turn, and what was accepted before now."""
        row = await self._find(request)
        stopped = 0
        if row.ended_at is None:
            stopped = await open_sessions_of(self.services).stop(row.key, new_id("stop"))
        request.name_session(row.id)
        return json_answer({"session_id": row.id, "object": "session.stop", "stopped": stopped})

    async def chat(self, request: Request) -> Answer:
        """`POST /api/sessions/{id}/chat`."""
        return await chat(request, self.services)

    async def stream(self, request: Request) -> None:
        """`POST /api/sessions/{id}/chat/stream`."""
        await chat_stream(request, self.services)

    async def _find(self, request: Request) -> SessionRow:
        return await find_session(open_store_of(self.services), request.path_param("id"))

    async def _body(self, request: Request) -> Fields:
        """The body as an object; nothing at all is an empty one."""
        body = await request.body()
        return decode_object(body) if body else Fields({})

    def _read(self, body: Fields) -> dict[str, Any]:
        """What a session can be told to be; null takes it back."""
        title, model = body.string("title", most=MAX_TITLE), body.string("model", most=256)
        instructions = body.string("instructions", most=MAX_INSTRUCTIONS)
        system = body.string("system_prompt", most=MAX_INSTRUCTIONS)
        found: dict[str, Any] = {
            "title": title, "model": checked_model(self.services, model),
            "instructions": instructions if instructions is not None else system,
        }  # fmt: skip
        given = set(body.data) | ({"instructions"} if "system_prompt" in body.data else set())
        return {name: value for name, value in found.items() if name in given}

    def _count(self, body: Fields) -> None:
        self.services.counts["unknown_fields"] += body.unknown()

    def _forget(self, key: str) -> None:
        if self.services.sessions is not None:
            self.services.sessions.forget(key)

    def _shown(self, row: SessionRow) -> dict[str, Any]:
        sessions = self.services.sessions
        turning = sessions is not None and row.ended_at is None and sessions.is_turning(row.key)
        return session_object(row, turning=turning)

    def _answer(self, request: Request, row: SessionRow, status: int = 200) -> Answer:
        request.name_session(row.id)
        return json_answer(self._shown(row), status)


def routes(services: Services) -> list[Route]:
    """Every route below `/api/sessions`."""
    these = _Sessions(services)
    return [
        route(PATH, these.listing),
        route(PATH, these.create, ["POST"]),
        route("/api/sessions/{id}", these.get),
        route("/api/sessions/{id}", these.patch, ["PATCH"]),
        route("/api/sessions/{id}", these.delete, ["DELETE"]),
        route("/api/sessions/{id}/messages", these.messages),
        route("/api/sessions/{id}/fork", these.fork, ["POST"]),
        route("/api/sessions/{id}/stop", these.stop, ["POST"]),
        route(CHAT, these.chat, ["POST"]),
        route(STREAM, these.stream, ["POST"]),
    ]
