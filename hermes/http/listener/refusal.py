"""Requests that the listener itself answers: why, with which status, in which bytes."""

from __future__ import annotations

import json
from http import HTTPStatus


class Refused(Exception):
    """This request is answered by the listener with an error, and the connection is closed after it.

    Args:
        status: 400 to 599.
        reason: one sentence for a person; never holds what the client sent.
        retry_after_s: whole seconds for a Retry-After header.
    """

    def __init__(self, status: int, reason: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


def refusal_bytes(refusal: Refused, date_line: bytes, *, head_only: bool = False) -> bytes:
    """The whole answer to a request that is refused.

    Args:
        refusal: what is wrong.
        date_line: a complete Date header line, or nothing.
        head_only: the request was HEAD, so the body is left out (RFC 9110, 9.3.2).

    Returns:
        status line, headers and a small JSON body.
    """
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    error = {"message": refusal.reason, "type": kind, "param": None, "code": None}
    body = json.dumps({"error": error}).encode("ascii")
    head = [
        b"HTTP/1.1 %d %s\r\n" % (refusal.status, HTTPStatus(refusal.status).phrase.encode("ascii")),
        date_line,
        b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body),
    ]
    if refusal.retry_after_s is not None:
        head.append(b"retry-after: %d\r\n" % refusal.retry_after_s)
    head.append(b"\r\n")
    if not head_only:
        head.append(body)
    return b"".join(head)
