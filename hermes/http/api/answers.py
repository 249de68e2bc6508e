"""Answers and errors as clients read them: JSON, and the one shape that every error has.

The error object is OpenAI's: `{"error": {"message", "type", "param", "code"}}` (API reference, "Error codes").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hermes.errors import RequestError
from hermes.intake import Failure

HeaderList = Sequence[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
CLIENT_CLOSED = 499  # a turn that was ended by request; no registered status, so clients are told 409 Conflict
STORE_RETRY_S = 5.0

encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response: status, body, and headers beside those that every response of the request carries."""

    status: int
    body: bytes = b""
    headers: HeaderList = ()


def json_answer(value: Any, status: int = 200, headers: HeaderList = ()) -> Answer:
    """An answer in JSON.

    Args:
        value: anything that msgspec encodes.
        status: 200 to 599.
        headers: beside the content type.
    """
    return Answer(status, encode_json(value), (JSON_TYPE, *headers))


def error_object(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The body of an error, also of one inside a stream."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_answer(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    retry_after_s: float | None = None,
) -> Answer:
    """An error as an answer; `retry_after_s` is rounded up to whole seconds (RFC 9110, 10.2.3)."""
    headers: HeaderList = ()
    if retry_after_s is not None:
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))),)
    return json_answer(error_object(message, kind, code, param), status, headers)


def request_error_answer(error: RequestError) -> Answer:
    """A request that is not served."""
    return error_answer(
        error.status,
        error.message,
        kind=error.kind,
        code=error.code,
        param=error.param,
        retry_after_s=error.retry_after_s,
    )


def failure_answer(failure: Failure) -> Answer:
    """A turn that did not end well: its own 4xx or 5xx, never a 200."""
    status = 409 if failure.status == CLIENT_CLOSED else failure.status
    return error_answer(
        status, failure.message, kind=failure.kind, code=failure.code, retry_after_s=failure.retry_after_s
    )


def failure_object(failure: Failure) -> dict[str, Any]:
    """The same inside a stream that has begun."""
    return error_object(failure.message, failure.kind, failure.code)
