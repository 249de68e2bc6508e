"""Who asks, and from where: the key, the UNIX socket, and what a browser may do.

The socket is 0600 in the home: who can open it is the owner. On TCP every route but `/health`, `/ready` and `/hooks/…` wants the key.
A page in a browser can reach loopback too; it has no key, but a gateway must not depend on that alone, so what changes
something is refused to every origin that is not configured (WHATWG Fetch, 3.2 "Origin" and "CORS protocol").
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

from hermes.errors import RequestError
from hermes.http.api.answers import Answer
from hermes.http.api.request import Request

OPEN_PATHS = frozenset(("/health", "/ready"))
HOOKS = "/hooks/"  # whoever mounted one knows its service by a secret of its own
LOCAL = "local"
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_EXPOSED = b"x-hermes-session-id, idempotent-replayed, retry-after"
_ALLOWED = b"authorization, content-type, idempotency-key, last-event-id, x-hermes-session-id"
_PREFLIGHT_S = b"600"


def on_socket(request: Request) -> bool:
    """Whether the request came over the UNIX socket."""
    server = request.scope.get("server")
    return server is not None and server[1] is None


def on_loopback(request: Request) -> bool:
    """Whether the other end is this machine itself and no proxy says that it speaks for somebody else."""
    client = request.scope.get("client")
    if client is None or request.header(b"x-forwarded-for") is not None or request.header(b"forwarded") is not None:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def principal_of(request: Request, key: str) -> str:
    """Who asks: `local` on the socket, `key:` and a digest for the holder of the key, empty for anybody else.

    The comparison takes the same time whatever is sent; without a configured key nobody holds it.
    """
    if on_socket(request):
        return LOCAL
    sent = request.header(b"authorization")
    if sent is None or not key:
        return ""
    scheme, _, token = sent.partition(b" ")
    wanted = key.encode("utf-8")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(b" "), wanted):
        return ""
    return f"key:{hashlib.sha256(wanted).hexdigest()[:16]}"


def admit(request: Request) -> Answer | None:
    """Let a request in, with its principal and what a browser must be told; or the answer to a preflight.

    Raises:
        RequestError: 401 no key, 403 a page that may not, 404 the control routes over TCP.
    """
    request.check_single()
    preflight = _check_origin(request)
    if preflight is not None:
        return preflight
    request.principal = principal_of(request, request.services.key())
    if request.path == "/control" or request.path.startswith("/control/"):
        if not on_socket(request):
            raise RequestError(404, "there is no such route", code="not_found")
    elif not request.principal and request.path not in OPEN_PATHS and not request.path.startswith(HOOKS):
        request.extra[b"www-authenticate"] = b"Bearer"
        raise RequestError(401, "this needs the gateway's API key: Authorization: Bearer KEY", code="invalid_api_key")
    return None


def _check_origin(request: Request) -> Answer | None:
    """Judge a request that a browser made for a page."""
    origin = request.header(b"origin")
    if origin is None:
        return None
    allowed = request.services.config().http.cors_origins
    named = origin.decode("latin-1") in allowed
    if not named and "*" not in allowed:
        if request.method in _SAFE:
            return None  # without CORS headers the page cannot read the answer
        raise RequestError(
            403, "pages of this origin may not call the gateway; see http.cors_origins", code="origin_not_allowed"
        )
    request.extra[b"access-control-allow-origin"] = origin if named else b"*"
    request.extra[b"vary"] = b"origin"
    if request.method == "OPTIONS" and request.header(b"access-control-request-method") is not None:
        return Answer(
            204,
            b"",
            (
                (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE"),
                (b"access-control-allow-headers", _ALLOWED),
                (b"access-control-max-age", _PREFLIGHT_S),
            ),
        )
    request.extra[b"access-control-expose-headers"] = _EXPOSED
    return None
