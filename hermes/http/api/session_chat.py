"""One turn in a session that the client names: waited for, or followed as named events."""

from __future__ import annotations

from dataclasses import dataclass

from hermes.http.api.answers import Answer, failure_answer, failure_object, json_answer
from hermes.http.api.asking import MAX_INSTRUCTIONS, check_open, checked_model, find_session
from hermes.http.api.chat import REPLAYED
from hermes.http.api.fields import Fields, wrong_value
from hermes.http.api.request import Request, read_as, session_id
from hermes.http.api.responses_input import Input, read_input
from hermes.http.api.routing import open_sessions_of, open_store_of
from hermes.http.api.session_objects import message_object, turn_object
from hermes.http.api.stream import Batch, sse_event, stream_feed
from hermes.http.api.turn_events import named_event
from hermes.http.services import Services
from hermes.ids import new_id
from hermes.intake import Ended, Intake, Payload, TurnEnd
from hermes.store.rows import Accepted

CHAT, STREAM = "/api/sessions/{id}/chat", "/api/sessions/{id}/chat/stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Say:
    """The body of a chat request."""

    said: Input
    instructions: str | None
    model: str | None


def _read_say(fields: Fields) -> _Say:
    name = "input" if fields.data.get("message") is None and fields.data.get("input") is not None else "message"
    said = read_input(fields, name)
    if any(each.role != "user" for each in said.messages) or not said.messages:
        raise wrong_value(name, "must be what the user says: the session holds the rest")
    instructions = fields.string("instructions", most=MAX_INSTRUCTIONS)
    system = fields.string("system_message", most=MAX_INSTRUCTIONS)
    model = fields.string("model", most=256)
    return _Say(said=said, instructions=instructions if instructions is not None else system, model=model)


async def chat(request: Request, services: Services) -> Answer:
    """Say something and wait for the answer."""
    intake = await _intake(request, services, CHAT)
    async with open_sessions_of(services).attend(intake) as (feed, accepted):
        _name(request, accepted)
        end = await feed.wait_end()
    return failure_answer(end.failure) if end.failure is not None else json_answer(turn_object(end))


async def chat_stream(request: Request, services: Services) -> None:
    """Say something and follow what happens."""
    intake = await _intake(request, services, STREAM)
    async with open_sessions_of(services).attend(intake) as (feed, accepted):
        _name(request, accepted)

        def opening() -> bytes:
            return sse_event("run.started", {"session_id": accepted.session_id, "run_id": accepted.event_id})

        def refuse(end: TurnEnd) -> Answer | None:
            return None if end.failure is None else failure_answer(end.failure)

        await stream_feed(
            request, feed, _render, keepalive_s=services.config().http.keepalive_s, opening=opening, refuse=refuse
        )


def _name(request: Request, accepted: Accepted) -> None:
    request.name_session(accepted.session_id)
    if not accepted.fresh:
        request.extra[REPLAYED] = b"true"


def _render(batch: Batch) -> bytes:
    return b"".join(_end(event.end) if isinstance(event, Ended) else named_event(event) for _, event in batch)


def _end(end: TurnEnd) -> bytes:
    done = sse_event("done", {})
    if end.failure is not None:
        shown = {"session_id": end.session_id, "run_id": end.event_id, "state": end.state}
        return sse_event("error", {**shown, **failure_object(end.failure)}) + done
    turn = turn_object(end)
    message = message_object(end.message) if end.message is not None else None
    return sse_event("message.completed", {"message": message}) + sse_event("run.completed", turn) + done


async def _intake(request: Request, services: Services, path: str) -> Intake:
    named = session_id(request.path_param("id"), "id")
    request.name_session(named)
    asked = await read_as(request, services, _read_say)
    store = open_store_of(services)
    open_sessions_of(services)
    key, exists = named, True
    row = await store.sessions.get(named)
    if row is not None:
        check_open(row)
        key = row.key
    elif request.query("create") in ("1", "true"):
        exists = False
    else:
        await find_session(store, named)
    instructions = "\n\n".join(each for each in (asked.instructions or "", asked.said.system) if each)
    payload = Payload(
        messages=asked.said.messages, instructions=instructions or None, model=checked_model(services, asked.model)
    )
    return Intake(
        session_key=key, session_id=named, existing=exists, event_id=new_id("evt"), mode="attended",
        principal=request.principal, source="sessions", payload=payload, chat=request.principal, may_change=True,
        idempotency=request.idempotency(path), max_queued=services.config().sessions.max_queued,
    )  # fmt: skip
