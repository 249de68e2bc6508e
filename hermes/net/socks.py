"""The client's half of SOCKS5 (RFC 1928) with user name and password (RFC 1929), over any trio stream.

Written here because a proxy has to be dialled by our own backend: it sets TCP keepalive on the connection to the proxy
and closes the socket when the handshake fails or is cancelled, which the ready-made path does not do.
"""

from __future__ import annotations

import ipaddress

import trio

REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}
_NO_AUTH, _PASSWORD, _NONE_FITS = 0, 2, 255


class SocksError(Exception):
    """The proxy refused, or what it said is not SOCKS5."""


async def _exactly(stream: trio.abc.Stream, count: int) -> bytes:
    """The next `count` bytes (never more: what follows belongs to the tunnel)."""
    data = b""
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        if not piece:
            raise SocksError("the proxy closed the connection during the SOCKS handshake")
        data += piece
    return data


async def _authenticate(stream: trio.abc.Stream, auth: tuple[bytes, bytes]) -> None:
    user, password = auth
    await stream.send_all(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
    if (await _exactly(stream, 2))[1] != 0:
        raise SocksError("the proxy refused the user name or password")


def _address(host: str) -> bytes:
    """The destination as SOCKS5 writes it: an IP address, or a name for the proxy to resolve."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna") if not host.isascii() else host.encode("ascii")
        if not 0 < len(name) < 256:
            raise SocksError("the host name is too long for SOCKS5") from None
        return b"\x03" + bytes([len(name)]) + name
    return (b"\x01" if ip.version == 4 else b"\x04") + ip.packed


async def socks5_connect(stream: trio.abc.Stream, host: str, port: int, auth: tuple[bytes, bytes] | None) -> None:
    """Ask the proxy at the other end of `stream` to connect to `host`; afterwards the stream leads there.

    Args:
        stream: connected to the proxy; left as it is on failure, for the caller to close.
        host: a name (resolved by the proxy) or an IP address.
        port: 1 to 65535.
        auth: user name and password, each 1 to 255 bytes; None offers only the method without.

    Raises:
        SocksError: the proxy refused, or does not speak SOCKS5.
    """
    methods = bytes([_NO_AUTH]) if auth is None else bytes([_NO_AUTH, _PASSWORD])
    await stream.send_all(b"\x05" + bytes([len(methods)]) + methods)
    version, method = await _exactly(stream, 2)
    if version != 5:
        raise SocksError("the proxy does not speak SOCKS5")
    if method == _PASSWORD and auth is not None:
        await _authenticate(stream, auth)
    elif method != _NO_AUTH:
        raise SocksError("the proxy accepts none of the offered ways to authenticate")
    await stream.send_all(b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"))
    _, reply, _, kind = await _exactly(stream, 4)
    if reply != 0:
        raise SocksError(f"the proxy could not connect: {REPLIES.get(reply, f'code {reply}')}")
    if kind == 3:
        rest = (await _exactly(stream, 1))[0]
    elif kind in (1, 4):
        rest = 4 if kind == 1 else 16
    else:
        raise SocksError("the proxy answered with an unknown kind of address")
    await _exactly(stream, rest + 2)
