"""What every route that starts a turn needs: the model's name checked, the session that an id names."""

from __future__ import annotations

from hermes.errors import RequestError
from hermes.http.api.models import asked_model
from hermes.http.services import Services
from hermes.messages import Usage
from hermes.store import Store
from hermes.store.rows import SessionRow

MAX_INSTRUCTIONS = 1_000_000  # characters
MAX_TITLE = 500  # characters


def checked_model(services: Services, name: str | None) -> str | None:
    """A model's name as a payload or a session keeps it; None for what is configured. Raises RequestError 404."""
    return None if name is None else asked_model(name, services.config())


def not_found(session_id: str) -> RequestError:
    """The error for an id that names no session."""
    return RequestError(404, f"there is no session {session_id!r}", code="session_not_found")


def check_open(row: SessionRow) -> None:
    """Raise RequestError 409 for a session that has been ended."""
    if row.ended_at is not None:
        raise RequestError(409, f"the session {row.id!r} has been ended; fork it to go on", code="session_ended")


async def find_session(store: Store, session_id: str) -> SessionRow:
    """The session with this id. Raises RequestError 404."""
    row = await store.sessions.get(session_id)
    if row is None:
        raise not_found(session_id)
    return row


async def mailbox(store: Store, session_id: str) -> tuple[str, bool]:
    """The key of the mailbox of a session that is named by its id, and whether the session exists.

    A session that does not exist yet is made under its id. Raises RequestError 409 when it has been ended.
    """
    row = await store.sessions.get(session_id)
    if row is None:
        return session_id, False
    check_open(row)
    return row.key, True


def usage_object(usage: Usage) -> dict[str, object]:
    """Tokens as the Responses API and our own objects show them."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
