"""Loopback ports that behave badly in a known way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusing_port() -> Iterator[int]:
    """A TCP port on 127.0.0.1 that refuses connections and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_port(*, backlog: int = 128) -> Iterator[int]:
    """A TCP port on 127.0.0.1 that accepts connections (up to the kernel's backlog) and never says a word.

    Also the port of "address already in use".
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        yield listening.getsockname()[1]
