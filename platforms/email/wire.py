"""Lines and bytes over a stream: bounded in time and size, with TLS from the start or from the middle."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from hermes.errors import PlatformProtocolError, PlatformRefused, Unreachable
from hermes.platform import Host
from platforms.email.config import EmailConfig

PIECE = 65_536
MUCH = 262_144  # bytes that are worth a sign of life


class Wire:
    """One connection of a line protocol. Not for several tasks at once.

    Attributes:
        where: host and port, for people.
        secure: TLS is spoken.
        moved: called each time that much has been read.
    """

    def __init__(self, stream: trio.abc.Stream, where: str, timeout_s: float, *, secure: bool) -> None:
        self.where = where
        self.secure = secure
        self._stream = stream
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._read = 0
        self.moved: Callable[[], None] = lambda: None

    async def line(self, *, most: int = 65_536, within_s: float | None = None) -> bytes:
        """The next line without its end.

        Args:
            most: bytes of it.
            within_s: how long the next piece of it may take; by default as long as any read.

        Raises:
            Unreachable: the connection ended, or nothing came in time.
            PlatformProtocolError: it is longer.

        Cancellation: what has come of it is kept for the next call.
        """
        seen = 0
        while (end := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            if seen > most:
                raise PlatformProtocolError(
                    f"{self.where} sends a line without end", sample=repr(bytes(self._buffer[:200]))
                )
            self._buffer += await self._more(within_s)
        if end > most:
            raise PlatformProtocolError(f"{self.where} sends too long a line", sample=repr(bytes(self._buffer[:200])))
        found = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return found.removesuffix(b"\r")

    async def exactly(self, size: int) -> bytes:
        """So many bytes. Raises as `line` does."""
        while len(self._buffer) < size:
            self._buffer += await self._more(None)
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    async def send(self, data: bytes) -> None:
        """Write. Raises Unreachable."""
        for start in range(0, len(data), PIECE):
            try:
                with trio.fail_after(self._timeout_s):
                    await self._stream.send_all(data[start : start + PIECE])
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                raise self._lost(error) from error

    async def _more(self, within_s: float | None) -> bytes:
        until = trio.current_time() + (self._timeout_s if within_s is None else within_s)
        piece: bytes | bytearray | None = None
        try:
            while piece is None:  # no single wait is longer than a connection's close may take
                if (left_s := until - trio.current_time()) <= 0:
                    raise trio.TooSlowError
                with trio.move_on_after(min(left_s, self._timeout_s)):
                    piece = await self._stream.receive_some(PIECE)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise self._lost(error) from error
        if not piece:
            raise Unreachable(f"{self.where} closed the connection", sent=True)
        self._read += len(piece)
        if self._read >= MUCH:
            self._read = 0
            self.moved()
        return bytes(piece)

    def _lost(self, error: Exception) -> Unreachable:
        if isinstance(error, trio.TooSlowError):
            return Unreachable(f"{self.where} did not answer in time", sent=True)
        return Unreachable(f"the connection to {self.where} broke", sent=True)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from here on.

        Raises:
            PlatformProtocolError: something came before it, which nobody has signed.
            Unreachable: it failed.
        """
        if self._buffer:
            raise PlatformProtocolError(
                f"{self.where} says more than it was asked before TLS", sample=repr(bytes(self._buffer[:200]))
            )
        secured = trio.SSLStream(self._stream, context, server_hostname=host, https_compatible=True)
        try:
            with trio.fail_after(self._timeout_s):
                await secured.do_handshake()
        except (trio.TooSlowError, trio.BrokenResourceError, ssl.SSLError, OSError) as error:
            raise Unreachable(f"{self.where}: tls: {error.__cause__ or error}", sent=False) from error
        self._stream, self.secure = secured, True


@asynccontextmanager
async def open_wire(
    config: EmailConfig, host: Host, *, to: str, port: int, security: str, timeout_s: float | None = None
) -> AsyncIterator[Wire]:
    """A connection, with TLS if that comes first.

    Args:
        to: the server's name.
        port: of it.
        security: `tls`, `starttls` (which the protocol begins later) or `none`.
        timeout_s: for each connect, read and write, where it is not `config.timeout_s`.

    Lifetime: exit = its socket is closed, without a word.

    Raises:
        PlatformRefused: a password would go over a network in the clear.
        Unreachable: there is no connection.
    """
    if security == "none" and not is_here(to):
        raise PlatformRefused(f"`security: none` would send the password to {to} in the clear: use `tls` or `starttls`")
    limit_s = config.timeout_s if timeout_s is None else timeout_s
    tls = security == "tls"
    async with host.tcp(to, port, tls=tls, proxy=config.proxy, open_timeout_s=limit_s) as stream:
        yield Wire(stream, f"{to}:{port}", limit_s, secure=tls)


def is_here(host: str) -> bool:
    """Whether a name is this machine's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
