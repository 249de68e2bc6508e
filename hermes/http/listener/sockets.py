"""Listening sockets: bound all together or not at all, gone at the end together with the file of a UNIX socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from types import TracebackType

import trio

from hermes.http.listener.transport import Address

# A client that vanished without a word is noticed within two minutes, also while a handler works and nothing is sent.
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
# An address of a host name, such as ::1 of localhost, on a machine without that family.
NOT_HERE = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


class Bound:
    """Listening sockets that are ours; a plain context manager, as closing them needs no wait.

    Attributes:
        listeners: the sockets, listening.
        addresses: where, in the same order.
    """

    def __init__(self) -> None:
        self.listeners: list[trio.SocketListener] = []
        self.addresses: tuple[Address, ...] = ()
        self._files: list[tuple[Path, tuple[int, int]]] = []

    def __enter__(self) -> Bound:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files that are still ours and close the sockets; once more does nothing.

        The files go first: as long as our socket is open nobody else's can have its inode number.
        """
        while self._files:
            path, identity = self._files.pop()
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    path.unlink()
        while self.listeners:
            self.listeners.pop().socket.close()

    def add_tcp(self, listener: trio.SocketListener) -> None:
        """Take over a listening TCP socket; what it accepts inherits its keep-alive."""
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in KEEP_ALIVE.items():
            if hasattr(socket, name):
                listener.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
        self.listeners.append(listener)
        bound_to = listener.socket.getsockname()
        self.addresses += ((bound_to[0], bound_to[1]),)

    def add_unix(self, path: Path, backlog: int) -> None:
        """Bind a UNIX socket that only its owner can connect to.

        The mode is set before `listen`: until then nobody can connect, whatever the umask was.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(os.fspath(path))
            self._files.append((path, _identity(path)))
            path.chmod(0o600)
            sock.listen(backlog)
            self.listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
        except BaseException:
            sock.close()
            raise
        self.addresses += ((os.fspath(path), None),)


def _identity(path: Path) -> tuple[int, int]:
    about = path.lstat()
    return about.st_dev, about.st_ino


async def bind(host: str | None, port: int, unix_path: Path | None, *, backlog: int) -> Bound:
    """Bind everything, or raise the OSError of what could not be bound and leave nothing."""
    bound = Bound()
    try:
        if host is not None:
            await _bind_tcp(bound, host, port, backlog)
        if unix_path is not None:
            bound.add_unix(unix_path, backlog)
    except BaseException:
        bound.close()
        raise
    return bound


async def _bind_tcp(bound: Bound, host: str, port: int, backlog: int) -> None:
    """All addresses of a host on one port; one that this machine does not have is left out if there is another."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    missing: OSError | None = None
    for address in dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found):
        try:
            listeners = await trio.open_tcp_listeners(port, host=address, backlog=backlog)
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            missing = error
            continue
        for listener in listeners:
            bound.add_tcp(listener)
            port = listener.socket.getsockname()[1]
    if missing is not None and not bound.listeners:
        raise missing
