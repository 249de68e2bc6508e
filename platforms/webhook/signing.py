"""Whether a call comes from somebody who knows the route's secret, by the rules of each service. Pure.

- GitHub: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
- GitLab: https://docs.gitlab.com/user/project/integrations/webhooks/ (a secret token; a signing token is `standard`)
- Stripe: https://docs.stripe.com/webhooks#verify-manually
- Slack: https://docs.slack.dev/authentication/verifying-requests-from-slack
- standard: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
- bearer: RFC 6750, section 2.1

Each comparison takes as long for a wrong value as for a right one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from platforms.webhook.config import Route

Headers = Mapping[str, str]

MAX_SIGNATURES: Final = 10  # in one header; while a secret is exchanged there are two
MAX_HEADER: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a good signature says.

    Args:
        id: the call's own name, where a header gives it; the same at each repetition.
        at: seconds since the epoch, signed; None where the service signs no time.
        mark: the signature itself; empty where it is the same for every call.
    """

    id: str = ""
    at: float | None = None
    mark: str = ""


def prove(route: Route, headers: Headers, body: bytes) -> Proof | None:
    """What the signature of a call says; None if it is missing or wrong.

    Args:
        headers: with lower-case names.
        body: as it came.
    """
    return _SCHEMES[route.signature](route, headers, body)


def sign(route: Route, body: bytes, *, at: float, id: str = "") -> dict[str, str]:  # noqa: A002  # its name in every service
    """The headers with which a service calls a route: for tests, and for trying a route out.

    Args:
        at: seconds since the epoch.
        id: the call's own name.
    """
    when, key = str(int(at)), _key(route)
    match route.signature:
        case "github":
            return {"x-hub-signature-256": "sha256=" + _hex(key, body), "x-github-delivery": id}
        case "gitlab":
            return {"x-gitlab-token": route.secret.reveal(), "idempotency-key": id}
        case "stripe":
            return {"stripe-signature": f"t={when},v1={_hex(key, when.encode() + b'.' + body)}"}
        case "slack":
            signature = "v0=" + _hex(key, b"v0:" + when.encode() + b":" + body)
            return {"x-slack-request-timestamp": when, "x-slack-signature": signature}
        case "standard":
            digest = _digest(_standard_key(route), f"{id}.{when}.".encode() + body)
            signature = "v1," + base64.b64encode(digest).decode()
            return {"webhook-id": id, "webhook-timestamp": when, "webhook-signature": signature}
        case "hmac":
            base = when.encode() + b"." + body if route.timestamp_header else body
            found = {route.header: route.prefix + _encoded(route, base), (route.id_header or ID_HEADER): id}
            return found | ({route.timestamp_header: when} if route.timestamp_header else {})
        case "bearer":
            token = route.secret.reveal()
            found = {"authorization": f"Bearer {token}"} if not route.header else {route.header: token}
            return found | {(route.id_header or ID_HEADER): id}


ID_HEADER: Final = "idempotency-key"


def _github(route: Route, headers: Headers, body: bytes) -> Proof | None:
    given = headers.get("x-hub-signature-256", "")
    if not _same("sha256=" + _hex(_key(route), body), given):
        return None
    return Proof(id=headers.get("x-github-delivery", ""), mark=given)


def _gitlab(route: Route, headers: Headers, _: bytes) -> Proof | None:
    if not _same(route.secret.reveal(), headers.get("x-gitlab-token", "")):
        return None
    # Since 17.4. X-Gitlab-Event-UUID is no name of a call: those that one call leads to share it.
    return Proof(id=headers.get("idempotency-key", ""))


def _stripe(route: Route, headers: Headers, body: bytes) -> Proof | None:
    pairs = [each.strip().partition("=") for each in headers.get("stripe-signature", "")[:MAX_HEADER].split(",")]
    when = next((value for name, _, value in pairs if name == "t"), "")
    at = _time(when)
    wanted = _hex(_key(route), when.encode() + b"." + body)
    signed = _any_same(wanted, (value for name, _, value in pairs if name == "v1"))
    return Proof(at=at, mark=wanted) if signed and at is not None else None


def _slack(route: Route, headers: Headers, body: bytes) -> Proof | None:
    when, given = headers.get("x-slack-request-timestamp", "")[:20], headers.get("x-slack-signature", "")
    at = _time(when)
    signed = _same("v0=" + _hex(_key(route), b"v0:" + when.encode() + b":" + body), given)
    return Proof(at=at, mark=given) if signed and at is not None else None


def _standard(route: Route, headers: Headers, body: bytes) -> Proof | None:
    own, when = headers.get("webhook-id", "")[:MAX_HEADER], headers.get("webhook-timestamp", "")[:20]
    at = _time(when)
    wanted = base64.b64encode(_digest(_standard_key(route), f"{own}.{when}.".encode() + body)).decode()
    given = headers.get("webhook-signature", "")[:MAX_HEADER].split(" ")
    signed = _any_same(wanted, (each[3:] for each in given if each.startswith("v1,")))
    return Proof(id=own, at=at, mark=wanted) if signed and at is not None else None


def _hmac(route: Route, headers: Headers, body: bytes) -> Proof | None:
    at: float | None = None
    if route.timestamp_header:
        when = headers.get(route.timestamp_header, "")[:20]
        at = _time(when)
        body = when.encode() + b"." + body
    given, wanted = headers.get(route.header, ""), route.prefix + _encoded(route, body)
    if route.encoding == "hex":  # whose letters some write large
        given = given[: len(route.prefix)] + given[len(route.prefix) :].lower()
    if not _same(wanted, given) or (route.timestamp_header and at is None):
        return None
    return Proof(id=headers.get(route.id_header or ID_HEADER, ""), at=at, mark=wanted)


def _bearer(route: Route, headers: Headers, _body: bytes) -> Proof | None:
    given = headers.get(route.header or "authorization", "")
    if not route.header:
        scheme, _, given = given.partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
    return Proof(id=headers.get(route.id_header or ID_HEADER, "")) if _same(route.secret.reveal(), given) else None


_SCHEMES: Final[Mapping[str, Callable[[Route, Headers, bytes], Proof | None]]] = {
    "github": _github, "gitlab": _gitlab, "stripe": _stripe, "slack": _slack, "standard": _standard, "hmac": _hmac,
    "bearer": _bearer,
}  # fmt: skip


def _same(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given[:MAX_HEADER].encode("utf-8", "surrogatepass"))


def _any_same(wanted: str, given: Iterable[str]) -> bool:
    found = False
    for number, each in enumerate(given):
        if number < MAX_SIGNATURES:
            found |= _same(wanted, each)
    return found


def _time(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None


def _key(route: Route) -> bytes:
    return route.secret.reveal().encode()


def _standard_key(route: Route) -> bytes:
    """`whsec_` and the key in base64; other secrets are keys as they are."""
    value = route.secret.reveal()
    if not value.startswith("whsec_"):
        return value.encode()
    try:
        return base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        return value.encode()


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _hex(key: bytes, message: bytes) -> str:
    return _digest(key, message).hex()


def _encoded(route: Route, message: bytes) -> str:
    digest = hmac.digest(_key(route), message, route.algorithm)
    return digest.hex() if route.encoding == "hex" else base64.b64encode(digest).decode()
