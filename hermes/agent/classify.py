"""The one classifier of model failures: what happened -> what to do. Pure; it does not import the libraries it judges.

`RULES` is the documented table (docs/reference/model-errors.md is checked against it). `EXCEPTIONS` names every
exception class of the openai SDK and of httpx2; a test fails when a version adds one that is not here.
"""

from __future__ import annotations

import enum
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from hermes.agent.clients import CallFailed, ClientsClosing, EndpointUnusable
from hermes.agent.sse import SseOverflow
from hermes.agent.wire import NotProtocol, ReplyTooLarge, RequestTooLarge, StreamCut, Unsupported, UpstreamError
from hermes.errors import ContextOverflow, ModelError, ModelProtocolError, ModelRefused, ModelUnavailable


class Action(enum.Enum):
    """What the retry loop does after a failure, as long as nothing of the reply has been passed on."""

    AGAIN = "the same endpoint once more after a backoff, then the next one"
    ELSEWHERE = "the next endpoint at once; this one again after a backoff if there is no other"
    NEXT = "the next endpoint; never this one again in this call"
    STOP = "no further request: the same would happen elsewhere"


class Rule(NamedTuple):
    """One row: the action, whether the endpoint is passed over for a while and its client retired, the error."""

    action: Action
    cools: bool
    retires: bool
    error: type[ModelError]


RULES: Mapping[str, Rule] = {
    "unauthorized": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "payment_required": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "forbidden": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "not_found": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "quota": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "redirect": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "misconfigured": Rule(Action.NEXT, cools=True, retires=False, error=ModelRefused),
    "bad_request": Rule(Action.STOP, cools=False, retires=False, error=ModelRefused),
    "content_filter": Rule(Action.STOP, cools=False, retires=False, error=ModelRefused),
    "context_overflow": Rule(Action.STOP, cools=False, retires=False, error=ContextOverflow),
    "request_timeout": Rule(Action.AGAIN, cools=True, retires=False, error=ModelUnavailable),
    "conflict": Rule(Action.AGAIN, cools=True, retires=False, error=ModelUnavailable),
    "rate_limited": Rule(Action.ELSEWHERE, cools=True, retires=False, error=ModelUnavailable),
    "server_error": Rule(Action.AGAIN, cools=True, retires=False, error=ModelUnavailable),
    "overloaded": Rule(Action.ELSEWHERE, cools=True, retires=False, error=ModelUnavailable),
    "refused": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelUnavailable),
    "dns": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelUnavailable),
    "tls": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelUnavailable),
    "proxy": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelUnavailable),
    "connect_timeout": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelUnavailable),
    "no_first_byte": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelUnavailable),
    "stalled": Rule(Action.AGAIN, cools=True, retires=True, error=ModelUnavailable),
    "cut": Rule(Action.AGAIN, cools=True, retires=True, error=ModelUnavailable),
    "garbage": Rule(Action.ELSEWHERE, cools=True, retires=True, error=ModelProtocolError),
    "too_large": Rule(Action.STOP, cools=False, retires=False, error=ModelProtocolError),
    "unsupported": Rule(Action.NEXT, cools=False, retires=False, error=ModelRefused),
    "no_client": Rule(Action.ELSEWHERE, cools=False, retires=False, error=ModelUnavailable),
    "closing": Rule(Action.STOP, cools=False, retires=False, error=ModelUnavailable),
}

# HTTP status -> kind; other 4xx are `bad_request`, other 5xx `server_error`, 3xx `redirect`.
STATUS: Mapping[int, str] = {
    401: "unauthorized",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    408: "request_timeout",
    409: "conflict",
    413: "context_overflow",
    425: "overloaded",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}

# Library exception -> kind. `status` = judged by its status code; `cause` = judged by what caused it, `cut` if that
# says nothing. The openai SDK's classes for features that are not used here are `garbage`: they cannot come from a
# request of ours.
EXCEPTIONS: Mapping[str, str] = {
    "openai.OpenAIError": "misconfigured",
    "openai.APIError": "garbage",
    "openai.APIStatusError": "status",
    "openai.BadRequestError": "status",
    "openai.AuthenticationError": "status",
    "openai.OAuthError": "status",
    "openai.PermissionDeniedError": "status",
    "openai.NotFoundError": "status",
    "openai.ConflictError": "status",
    "openai.UnprocessableEntityError": "status",
    "openai.RateLimitError": "status",
    "openai.InternalServerError": "status",
    "openai.APIConnectionError": "cause",
    "openai.APITimeoutError": "cause",
    "openai.APIResponseValidationError": "garbage",
    "openai.LengthFinishReasonError": "garbage",
    "openai.ContentFilterFinishReasonError": "content_filter",
    "openai.InvalidWebhookSignatureError": "garbage",
    "openai.SubjectTokenProviderError": "misconfigured",
    "openai.WebSocketConnectionClosedError": "garbage",
    "openai.WebSocketQueueFullError": "garbage",
    "httpx2.HTTPError": "cut",
    "httpx2.RequestError": "cut",
    "httpx2.TransportError": "cut",
    "httpx2.TimeoutException": "stalled",
    "httpx2.ConnectTimeout": "connect_timeout",
    "httpx2.ReadTimeout": "stalled",
    "httpx2.WriteTimeout": "stalled",
    "httpx2.PoolTimeout": "overloaded",
    "httpx2.NetworkError": "cut",
    "httpx2.ConnectError": "refused",
    "httpx2.ReadError": "cut",
    "httpx2.WriteError": "cut",
    "httpx2.CloseError": "cut",
    "httpx2.ProtocolError": "garbage",
    "httpx2.LocalProtocolError": "misconfigured",
    "httpx2.RemoteProtocolError": "cut",
    "httpx2.ProxyError": "proxy",
    "httpx2.UnsupportedProtocol": "misconfigured",
    "httpx2.DecodingError": "garbage",
    "httpx2.TooManyRedirects": "redirect",
    "httpx2.HTTPStatusError": "status",
    "httpx2.InvalidURL": "misconfigured",
    "httpx2.CookieConflict": "garbage",
    "httpx2.SSEError": "garbage",
    "httpx2.StreamError": "garbage",
    "httpx2.StreamConsumed": "garbage",
    "httpx2.StreamClosed": "cut",
    "httpx2.ResponseNotRead": "garbage",
    "httpx2.RequestNotRead": "garbage",
}


class Failure(NamedTuple):
    """What happened: the kind (a key of `RULES`) and what the provider said about it."""

    kind: str
    detail: str
    status: int | None = None
    retry_after_s: float | None = None
    limit: int | None = None
    sample: str = ""

    @property
    def rule(self) -> Rule:
        """The row of the table."""
        return RULES[self.kind]


def classify(exc: BaseException) -> Failure:
    """What an exception of a model call means: ours of the wire, or the library's own inside a `CallFailed`."""
    if isinstance(exc, UpstreamError):
        return _by_status(exc.status, exc.code, str(exc), {}) if exc.status else _by_words(exc.code, str(exc))
    if isinstance(exc, NotProtocol):
        return Failure("garbage", str(exc), sample=exc.sample)
    if isinstance(exc, StreamCut):
        return Failure("cut", str(exc))
    if isinstance(exc, RequestTooLarge):
        return Failure("context_overflow", str(exc))
    if isinstance(exc, Unsupported):
        return Failure("unsupported", str(exc), status=400)
    if isinstance(exc, (ReplyTooLarge, SseOverflow)):
        return Failure("too_large", str(exc))
    if isinstance(exc, ClientsClosing):
        return Failure("closing", str(exc))
    if isinstance(exc, EndpointUnusable):
        return Failure("misconfigured", str(exc))
    if isinstance(exc, CallFailed):
        exc = exc.__cause__ or exc
    kind = _library_kind(exc)
    if kind is None:
        raise TypeError(f"{type(exc).__name__} is not a failure of a model call") from exc
    if kind == "status":
        return _status_error(exc)
    if kind == "cause":
        inner = exc.__cause__
        inner_kind = _library_kind(inner) if inner is not None else None
        kind = inner_kind if inner_kind is not None and inner_kind in RULES else "cut"
        exc = inner or exc
    return Failure(_network_kind(exc, kind), str(exc) or type(exc).__name__)


def _library_kind(exc: BaseException) -> str | None:
    for base in type(exc).__mro__:
        kind = EXCEPTIONS.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if kind is not None:
            return kind
    return "tls" if isinstance(exc, ssl.SSLError) else None


def _chain(exc: BaseException, depth: int = 0) -> Iterator[BaseException]:
    """An exception, what caused it, and the members of groups; bounded."""
    if depth > 12:
        return
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from _chain(member, depth + 1)
    following = exc.__cause__ or exc.__context__
    if following is not None:
        yield from _chain(following, depth + 1)


def _network_kind(exc: BaseException, kind: str) -> str:
    """Why connecting failed: a name that does not resolve and a bad certificate look like a refusal from afar."""
    if kind != "refused":
        return kind
    for cause in _chain(exc):
        if isinstance(cause, socket.gaierror):
            return "dns"
        if isinstance(cause, ssl.SSLError):
            return "tls"
    return kind


def _status_error(exc: BaseException) -> Failure:
    response: Any = getattr(exc, "response", None)
    status = int(getattr(exc, "status_code", 0) or getattr(response, "status_code", 0))
    body: Any = getattr(exc, "body", None)
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, list) and error and isinstance(error[0], dict):  # Gemini wraps its errors in an array
        error = error[0].get("error", error[0])
    words, message = "", ""
    if isinstance(error, dict):
        words = " ".join(str(error[key]) for key in ("code", "type", "status") if error.get(key) is not None)
        message = str(error.get("message") or "")
        for key in ("n_ctx", "max_context_length"):
            if isinstance(error.get(key), int):
                message += f" ({key}: {error[key]})"
    elif isinstance(error, str):
        message = error
    headers = getattr(response, "headers", {})
    message = message[:2000].encode("utf-8", "replace").decode()  # the SDK lets half surrogate pairs pass
    return _by_status(status, words, message or f"HTTP status {status}", headers)


_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|model_context_window_exceeded|string_above_max_length"
    r"|maximum context length|context (?:window|length|size)|prompt is too long|input is too long|input token count"
    r"|too many (?:input )?tokens|reduce the length of|exceeds? the (?:max|model).{0,40}tokens|request too large for",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:maximum context length|context (?:window|length|size)|n_ctx|max_context_length|limit)[^0-9]{0,40}?(\d{3,9})"
    r"|> ?(\d{3,9}) ?(?:tokens )?max|maximum(?: allowed)?(?: number of tokens)?[^0-9]{0,25}(\d{3,9})",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content_filter|content_policy|responsibleaipolicy|content management policy|safety system", re.IGNORECASE
)
_QUOTA = re.compile(
    r"insufficient_quota|billing_hard_limit|credit balance|exceeded your current quota|out of credits", re.IGNORECASE
)
_TRANSIENT = re.compile(
    r"overloaded|rate.?limit|server_error|temporar|try again|unavailable|capacity|timeout", re.IGNORECASE
)


def _limit(message: str) -> int | None:
    found = _LIMIT.search(message)
    return int(next(group for group in found.groups() if group)) if found else None


def _by_status(status: int, words: str, message: str, headers: Mapping[str, str]) -> Failure:
    kind = STATUS.get(status)
    if kind is None:
        kind = "server_error" if status >= 500 else "bad_request" if status >= 400 else "redirect"
    said = f"{words} {message}"
    if kind in ("bad_request", "context_overflow", "server_error") and _OVERFLOW.search(said):
        # llama.cpp and others say it with a 500
        return Failure("context_overflow", message, status, limit=_limit(message))
    if kind in ("bad_request", "forbidden") and _FILTER.search(said):
        kind = "content_filter"
    elif kind == "rate_limited" and _QUOTA.search(said):
        kind = "quota"
    return Failure(kind, message, status, retry_after_s=retry_after(headers))


def _by_words(words: str, message: str) -> Failure:
    """An error object without a status, in the middle of a stream."""
    said = f"{words} {message}"
    if _OVERFLOW.search(said):
        return Failure("context_overflow", message, limit=_limit(message))
    if _FILTER.search(said):
        return Failure("content_filter", message)
    if _QUOTA.search(said):
        return Failure("quota", message)
    if re.search(r"rate.?limit", said, re.IGNORECASE):
        return Failure("rate_limited", message)
    if re.search("invalid_request|invalid_prompt|invalid_image", said) and not _TRANSIENT.search(said):
        return Failure("bad_request", message)
    return Failure("server_error", message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait (RFC 9110, section 10.2.3, and `retry-after-ms`); None if it says nothing.

    A date is measured against the answer's own Date header, so that our clock does not matter.
    """
    value = headers.get("retry-after-ms")
    try:
        if value is not None:
            return _seconds(float(value) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return _seconds(float(value))
        except ValueError:
            now = parsedate_to_datetime(headers["date"])
            return _seconds((parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _seconds(value: float) -> float | None:
    return value if 0 <= value < 1e9 else None


def error_of(failure: Failure, *, endpoint: str, attempts: int, passed_on: bool) -> ModelError:
    """The failure as the error that the agent loop sees; its text holds no secret if `failure.detail` holds none."""
    text = f"{endpoint}: {failure.kind.replace('_', ' ')}: {failure.detail}"
    if attempts > 1:
        text += f" ({attempts} attempts)"
    kind = failure.rule.error
    if kind is ContextOverflow and not passed_on:
        return ContextOverflow(text, limit=failure.limit, status=failure.status, endpoint=endpoint)
    if kind is ModelProtocolError:
        return ModelProtocolError(text, sample=failure.sample, endpoint=endpoint, content_passed_on=passed_on)
    if kind is ModelRefused:
        return ModelRefused(text, status=failure.status, endpoint=endpoint, content_passed_on=passed_on)
    return ModelUnavailable(
        text,
        retry_after_s=failure.retry_after_s,
        status=failure.status,
        endpoint=endpoint,
        content_passed_on=passed_on,
    )
