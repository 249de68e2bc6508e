"""How much a client may ask of the listener, and how many clients fit into the process."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass, fields

SANE_DESCRIPTORS = 65_536
MACOS_DESCRIPTORS = 10_240  # OPEN_MAX: setrlimit refuses more there, whatever the hard limit says


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one server; every one of them is greater than zero.

    Args:
        header_timeout_s: from the first byte of a request to the end of its head (408), and from the opening of a
            connection to its first byte (closed).
        idle_timeout_s: how long a connection may wait for its next request (closed).
        body_timeout_s: how long the application may wait for more of a body (408).
        body_bytes_per_s: the slowest upload: waiting for a body costs at most `body_timeout_s` plus one second for each
            so many bytes of it (408).
        send_timeout_s: how long a client may accept no byte of its response; then it counts as gone.
        linger_s: how long a connection that is closed with input unread goes on reading, so that the client sees the
            answer instead of a reset.
        drain_s: how long requests in flight may go on when the server is left, unless `Server.drain_by` says otherwise.
        max_head_bytes: request line and headers together (431).
        max_url_bytes: the request target (414).
        max_headers: header lines (431).
        max_body_bytes: a request's body, decoded (413).
        max_pipelined_bytes: input held for a connection, that is, the next requests and body not yet taken by the
            application; then reading stops. Not below `max_head_bytes`.
        max_discarded_bytes: body left unread by the application that is read away to keep the connection.
        max_linger_bytes: input read away before a close.
        max_connections: connections served at once. One more closes the longest idle one; if none is idle, it is
            answered 503.
        max_turned_away: connections being answered 503 at once; more are closed without an answer.
        backlog: connections the kernel holds for a listening socket.

    Raises:
        ValueError: a bound that is not positive, or `max_pipelined_bytes` below `max_head_bytes`.
    """

    header_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    body_timeout_s: float = 30.0
    body_bytes_per_s: int = 1024
    send_timeout_s: float = 30.0
    linger_s: float = 2.0
    drain_s: float = 10.0
    max_head_bytes: int = 32_768
    max_url_bytes: int = 8_192
    max_headers: int = 100
    max_body_bytes: int = 10_485_760
    max_pipelined_bytes: int = 65_536
    max_discarded_bytes: int = 65_536
    max_linger_bytes: int = 33_554_432
    max_connections: int = 512
    max_turned_away: int = 32
    backlog: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be greater than zero")
        if self.max_pipelined_bytes < self.max_head_bytes:
            raise ValueError("max_pipelined_bytes must hold a whole head: not below max_head_bytes")


def raise_descriptor_limit(at_most: int = SANE_DESCRIPTORS) -> tuple[int, int]:
    """Raise the soft limit of open descriptors to the hard one, within `at_most`.

    Args:
        at_most: descriptors (>= 1); a soft limit that is already higher is left alone.

    Returns:
        (soft, hard) as they are afterwards; a refusal by the system leaves them as they were.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = at_most if hard == resource.RLIM_INFINITY else min(hard, at_most)
    for wanted in (highest, min(highest, MACOS_DESCRIPTORS)):
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)
