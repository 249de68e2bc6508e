"""One table from an error to what its caller is told: HTTP status, code, words. Pure."""

from __future__ import annotations

from hermes.agent.validate import HistoryTooLong
from hermes.errors import (
    ContextOverflow,
    ModelError,
    ModelProtocolError,
    ModelRefused,
    ModelUnavailable,
    RequestError,
    StoreUnavailable,
)
from hermes.intake import Failure
from hermes.store.steps import TurnGone

REQUEST_FAULTS = frozenset({400, 413, 415, 422})  # statuses with which a provider says that the request is wrong


def describe(error: BaseException) -> Failure:
    """What the person or client is told of an error that ended a turn.

    An upstream's refusal of our key or model is our configuration's fault (502), not the client's; only what the provider
    blames on the request itself is passed on as a 4xx.
    """
    match error:
        case RequestError():
            return Failure(
                status=error.status, code=error.code or "invalid_request", message=error.message, kind=error.kind,
                retry_after_s=error.retry_after_s,
            )  # fmt: skip
        case ContextOverflow() | HistoryTooLong():
            return Failure(status=400, code="context_length_exceeded", message=str(error), kind="invalid_request_error")
        case ModelRefused():
            if error.status in REQUEST_FAULTS:
                return Failure(status=400, code="upstream_rejected", message=str(error), kind="invalid_request_error")
            return Failure(status=502, code="upstream_refused", message=str(error), kind="upstream_error")
        case ModelUnavailable():
            if error.status == 429:
                return Failure(
                    status=429, code="rate_limit_exceeded", message=str(error), kind="rate_limit_error",
                    retry_after_s=error.retry_after_s,
                )  # fmt: skip
            return Failure(
                status=502, code="upstream_unavailable", message=str(error), kind="upstream_error",
                retry_after_s=error.retry_after_s,
            )  # fmt: skip
        case ModelProtocolError():
            return Failure(status=502, code="upstream_protocol", message=str(error), kind="upstream_error")
        case ModelError():
            return Failure(status=502, code="upstream_error", message=str(error), kind="upstream_error")
        case TurnGone():
            words = "the session was deleted while this ran"
            return Failure(status=409, code="session_deleted", message=words, kind="invalid_request_error")
        case StoreUnavailable():
            return Failure(status=503, code="store_unavailable", message=str(error), retry_after_s=5)
        case _:
            return Failure(
                status=500,
                code="internal_error",
                message=f"internal error ({type(error).__name__}); the log has the details",
            )
