"""`/v1/runs`: work that goes on whether anybody follows or not, through restarts too; start, look, follow, stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from hermes.errors import RequestError
from hermes.http.api.answers import Answer, error_object, json_answer
from hermes.http.api.asking import MAX_INSTRUCTIONS, checked_model, mailbox, usage_object
from hermes.http.api.chat import REPLAYED
from hermes.http.api.fields import Fields, wrong_value
from hermes.http.api.request import Request, read_as, session_id
from hermes.http.api.responses_input import Input, check_new, continue_with, read_input, split_history
from hermes.http.api.routing import open_sessions_of, open_store_of, route
from hermes.http.api.run_events import follow, last_seen
from hermes.http.services import Services
from hermes.ids import new_id
from hermes.intake import FINAL_ROW_STATES, Intake, Payload
from hermes.store import Store
from hermes.store.rows import RunRow

PATH = "/v1/runs"
MAX_OPEN = 1000  # runs that wait or run

_STATUS = {
    "pending": "queued", "live": "running", "stopped": "cancelled", "superseded": "cancelled", "merged": "cancelled",
    "interrupted": "interrupted",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """The body of `POST /v1/runs`."""

    input: Input
    instructions: str | None
    model: str | None
    session_id: str | None


def _read_start(fields: Fields) -> _Start:
    fields.known("metadata", "user")
    for name in ("tools", "previous_response_id", "conversation"):
        if fields.value(name) not in (None, []):
            reason = "cannot be used with a run: nobody waits to answer" if name == "tools" else "is not served here"
            raise wrong_value(name, reason, "unsupported_parameter")
    named = fields.string("session_id")
    return _Start(
        input=read_input(fields), instructions=fields.string("instructions", most=MAX_INSTRUCTIONS),
        model=fields.string("model", most=256), session_id=None if named is None else session_id(named, "session_id"),
    )  # fmt: skip


def routes(services: Services) -> list[Route]:
    """`POST /v1/runs`, `GET /v1/runs/{id}`, `GET …/events`, `POST …/stop`."""

    async def start(request: Request) -> Answer:
        asked = await read_as(request, services, _read_start)
        store, sessions = open_store_of(services), open_sessions_of(services)
        if await store.turns.open_runs() >= MAX_OPEN:
            raise RequestError(
                429, f"{MAX_OPEN} runs wait or run already", code="rate_limit_exceeded", kind="rate_limit_error",
                retry_after_s=5,
            )  # fmt: skip
        accepted = await sessions.accept(await _intake(request, services, store, asked))
        request.name_session(accepted.session_id)
        if not accepted.fresh:
            request.extra[REPLAYED] = b"true"
        run = await store.turns.run(accepted.event_id)
        return json_answer(run_object(_found(run, accepted.event_id)), 202)

    async def get(request: Request) -> Answer:
        run = await _find(open_store_of(services), request.path_param("id"))
        request.name_session(run.session_id)
        return json_answer(run_object(run))

    async def events(request: Request) -> None:
        store, sessions = open_store_of(services), open_sessions_of(services)
        run_id, after = request.path_param("id"), last_seen(request)
        run = await _find(store, run_id)
        request.name_session(run.session_id)
        await follow(
            request, store, sessions, run, after, keepalive_s=services.config().http.keepalive_s, show=run_object
        )

    async def stop(request: Request) -> Answer:
        store, sessions = open_store_of(services), open_sessions_of(services)
        run = await _find(store, request.path_param("id"))
        request.name_session(run.session_id)
        await sessions.stop_event(run.event_id, run.session_key)
        shown = run_object(await _find(store, run.event_id))
        if shown["status"] == "running":
            shown["status"] = "stopping"
        return json_answer(shown)

    return [
        route(PATH, start, ["POST"]),
        route("/v1/runs/{id}", get),
        route("/v1/runs/{id}/events", events),
        route("/v1/runs/{id}/stop", stop, ["POST"]),
    ]


async def _find(store: Store, run_id: str) -> RunRow:
    return _found(await store.turns.run(run_id), run_id)


def _found(run: RunRow | None, run_id: str) -> RunRow:
    if run is None:
        raise RequestError(404, f"there is no run {run_id[:300]!r}", code="run_not_found")
    return run


async def _intake(request: Request, services: Services, store: Store, asked: _Start) -> Intake:
    header = request.session_header()
    if header is not None and asked.session_id not in (None, header):
        raise wrong_value("session_id", "is not the session that X-Hermes-Session-Id names")
    named = asked.session_id or header
    place, messages = await _place(store, named, asked.input)
    instructions = "\n\n".join(each for each in (asked.instructions or "", asked.input.system) if each)
    payload = Payload(messages=messages, instructions=instructions or None, model=checked_model(services, asked.model))
    return Intake(
        event_id=new_id("run"), mode="detached", principal=request.principal, source="runs", payload=payload,
        chat=request.principal, may_change=True, idempotency=request.idempotency(PATH),
        max_queued=services.config().sessions.max_queued, **place,
    )  # fmt: skip


async def _place(store: Store, named: str | None, said: Input) -> tuple[dict[str, Any], Any]:
    """The session a run belongs to, and what is new to it: in one that exists, what follows the assistant's last word."""
    prefix, new = split_history(said.messages)
    made = {"session_key": named or new_id("sess"), "prefix": prefix}
    if named is None:
        check_new(said.messages)
        return made, new
    key, exists = await mailbox(store, named)
    if not exists:
        check_new(said.messages)
        return made, new
    _, awaited = await store.sessions.opened(key)
    return {"session_key": key, "session_id": named, "existing": True}, continue_with(new, awaited, None)


def run_object(run: RunRow) -> dict[str, Any]:
    """A run as its client sees it."""
    over = run.state in FINAL_ROW_STATES
    # A row that was set aside or refused was not ended by its last turn; that one's end is an older story.
    end = run.end if over and run.state not in ("quarantined", "refused") else None
    status = _status(run)
    error = None
    if over and status != "completed":
        failure = end.failure if end is not None else None
        if failure is not None:
            error = error_object(failure.message, failure.kind, failure.code)["error"]
        else:
            error = error_object(_why(run), "server_error", run.state)["error"]
    message = end.message if end is not None else None
    return {
        "run_id": run.event_id, "object": "run", "session_id": run.session_id, "status": status,
        "created_at": run.accepted_at, "started_at": run.started_at, "completed_at": run.ended_at if over else None,
        "output": message.text if message is not None else None,
        "finish_reason": end.finish_reason if message is not None and end is not None else None,
        "model": end.model or None if end is not None else None,
        "usage": usage_object(end.usage) if end is not None and error is None else None,
        "error": error,
    }  # fmt: skip


def _status(run: RunRow) -> str:
    if run.state == "answered":
        return "completed" if run.turn_state in ("done", None) else "failed"
    return _STATUS.get(run.state, "failed")


def _why(run: RunRow) -> str:
    """Why a run ended without a turn of its own, in words."""
    if run.state == "stopped":
        return "stopped before it began"
    return run.reason or run.state
