"""`POST /v1/chat/completions`: a request becomes an event of a session, and the session's turn its answer."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec
from starlette.routing import Route

from hermes.errors import RequestError
from hermes.feed import Feed
from hermes.http.api.answers import Answer, failure_answer, json_answer
from hermes.http.api.asking import mailbox
from hermes.http.api.chat_answer import ChunkWriter, completion
from hermes.http.api.chat_messages import Conversation
from hermes.http.api.chat_request import ChatRequest, read_chat
from hermes.http.api.fields import wrong_value
from hermes.http.api.models import asked_model
from hermes.http.api.request import Request, read_as
from hermes.http.api.routing import open_sessions_of, open_store_of, route
from hermes.http.api.stream import stream_feed
from hermes.http.services import Services
from hermes.ids import new_id
from hermes.intake import Intake, Payload, TurnEnd
from hermes.sessions import Sessions
from hermes.store import Store
from hermes.store.rows import Accepted

PATH = "/v1/chat/completions"
SOURCE = "chat.completions"
REPLAYED = b"idempotent-replayed"


@dataclass(frozen=True, slots=True)
class _Chat:
    """The route with what it works with."""

    services: Services

    async def complete(self, request: Request) -> Answer | None:
        """Answer one request."""
        named = request.session_header()
        if named is not None:
            request.name_session(named)
        asked = await read_as(request, self.services, read_chat)
        config = self.services.config()
        model = asked_model(asked.model, config)
        store = open_store_of(self.services)
        sessions = open_sessions_of(self.services)
        intake = _intake(request, asked, model, named, config.sessions.max_queued)
        if intake.idempotency is None:  # with a key this may be a repeat, whose results the session has got already
            await _check_results(asked.conversation, named, store, sessions)
        request.name_session(intake.session_key)
        async with _attended(sessions, store, intake, named) as (feed, accepted):
            request.name_session(accepted.session_id)
            if not accepted.fresh:
                request.extra[REPLAYED] = b"true"
            if asked.stream:
                await self._stream(request, asked, feed, store.clock())
                return None
            return _whole(await feed.wait_end(), asked.model)

    async def _stream(self, request: Request, asked: ChatRequest, feed: Feed, now: float) -> None:
        names = frozenset(tool.name for tool in asked.tools)
        writer = ChunkWriter(feed.event_id, asked.model, now, names, include_usage=asked.include_usage)
        await stream_feed(
            request,
            feed,
            writer.render,
            keepalive_s=self.services.config().http.keepalive_s,
            opening=writer.opening,
            refuse=_refusal,
        )


@asynccontextmanager
async def _attended(
    sessions: Sessions, store: Store, intake: Intake, named: str | None
) -> AsyncIterator[tuple[Feed, Accepted]]:
    """Commit the request in the session that it names.

    Nearly every session's id is its mailbox's key, so that is tried first: one look into the store less for each
    request. A session with a mailbox of another name, such as a conversation's, and one that was ended, are in the way
    of that, and are looked up then.
    """
    async with AsyncExitStack() as stack:
        try:
            attended = await stack.enter_async_context(sessions.attend(intake))
        except RequestError as error:
            if named is None or error.code != "session_exists":
                raise
            key, _ = await mailbox(store, named)
            there = msgspec.structs.replace(intake, session_key=key, session_id=named, existing=True, prefix=())
            attended = await stack.enter_async_context(sessions.attend(there))
        yield attended


def _whole(end: TurnEnd, model: str) -> Answer:
    return _refusal(end) or json_answer(completion(end, model))


def _refusal(end: TurnEnd) -> Answer | None:
    """The answer to a request whose turn did not end well; None when it did."""
    if end.state == "done":
        return None
    assert end.failure is not None
    return failure_answer(end.failure)


def _intake(request: Request, asked: ChatRequest, model: str | None, named: str | None, max_queued: int) -> Intake:
    key = named if named is not None else new_id("chat")
    payload = Payload(
        messages=asked.conversation.new,
        instructions=asked.conversation.instructions,
        model=model,
        tools=asked.tools,
        options=asked.options,
    )
    return Intake(
        session_key=key,
        event_id=new_id("evt"),
        mode="attended",
        principal=request.principal,
        source=SOURCE,
        payload=payload,
        chat=request.principal,
        busy="queue",
        prefix=asked.conversation.prefix,
        ephemeral=named is None,
        may_change=True,
        idempotency=request.idempotency(PATH),
        max_queued=max_queued,
    )


async def _check_results(conversation: Conversation, named: str | None, store: Store, sessions: Sessions) -> None:
    """Refuse results of calls that nobody made, before anything is written.

    Whether a queued request's results fit is seen when its turn comes; a session that stands still is asked now.
    """
    results = [message.tool_call_id for message in conversation.new if message.role == "tool"]
    if not results:
        return
    unknown = functools.partial(wrong_value, "messages", code="unknown_tool_call")
    key = (await mailbox(store, named))[0] if named is not None else ""
    session, awaited = await store.sessions.opened(key) if key else (None, frozenset())
    if session is None or not (session.messages or session.has_prefix):
        if conversation.loose:
            raise unknown("hold the result of a call that is not in them")
        if session is None:
            return
    elif not session.messages or sessions.is_turning(session.key):
        return
    missing = set(map(str, results)) - awaited
    if missing:
        raise unknown(f"hold a result of {min(missing)!r}, for which the session does not wait")


def routes(services: Services) -> list[Route]:
    """`POST /v1/chat/completions`."""
    return [route(PATH, _Chat(services).complete, ["POST"])]
