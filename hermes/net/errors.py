"""What goes wrong with HTTP: httpcore2's exceptions as httpx2's, and which of them using a client may raise."""

from __future__ import annotations

import ssl

import httpcore2
import httpx2

# httpcore2's exceptions as httpx2's; a test fails when a version adds one that is not here.
ERRORS: dict[type[Exception], type[httpx2.TransportError]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.ReadTimeout: httpx2.ReadTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.PoolTimeout: httpx2.PoolTimeout,
    httpcore2.TimeoutException: httpx2.TimeoutException,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.ReadError: httpx2.ReadError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.NetworkError: httpx2.NetworkError,
    httpcore2.LocalProtocolError: httpx2.LocalProtocolError,
    httpcore2.RemoteProtocolError: httpx2.RemoteProtocolError,
    httpcore2.ProtocolError: httpx2.ProtocolError,
    httpcore2.ProxyError: httpx2.ProxyError,
    httpcore2.UnsupportedProtocol: httpx2.UnsupportedProtocol,
}
CAUGHT = tuple(ERRORS)

# Everything that using a client may raise besides cancellation.
HTTP_ERRORS: tuple[type[Exception], ...] = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, ssl.SSLError)


def translated(exc: Exception) -> Exception:
    """One of httpcore2's exceptions as httpx2's; any other as it is."""
    for kind in type(exc).__mro__:
        if kind in ERRORS:
            return ERRORS[kind](str(exc))
    return exc
