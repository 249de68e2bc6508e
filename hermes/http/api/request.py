"""One request as the routes see it: headers, parameters, a bounded JSON body, and the ways to answer it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
import trio

from hermes.errors import RequestError
from hermes.http.api.answers import Answer, HeaderList
from hermes.http.api.fields import Fields
from hermes.http.listener import ClientLeft
from hermes.http.services import Services
from hermes.intake import IdempotencyKey

T = TypeVar("T")
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SESSION_ID = re.compile(r"[A-Za-z0-9._:@-]{1,200}", re.ASCII)
VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]{1,255}")
SINGLE = (b"authorization", b"idempotency-key", b"x-hermes-session-id", b"origin")  # no telling which of two is meant
INLINE_BYTES = 262_144  # larger bodies are read in a thread, so that the loop goes on
MAX_VALUES = 100_000  # in one body; decoding so many holds the interpreter for some 40 ms, in whatever thread
MAX_QUERY = 100  # parameters

_decode = msgspec.json.Decoder().decode
# One match: what stands outside of strings, then a string. Possessive, and it matches everywhere: time is linear.
_OUTSIDE = re.compile(rb'([^"]*+)(?:"[^"\\]*+(?:\\.[^"\\]*+)*+\\?+"?+)?+', re.DOTALL)


class Request:
    """A request of a caller who may make it.

    Args:
        scope, receive, send: ASGI's.
        services: the gateway's parts.
        principal: who asks: `local` on the UNIX socket, `key:…` for a key holder, empty on open routes.

    Attributes:
        extra: headers that whatever answer carries, such as the session's id; names in lower case.
        started: the head of the response has been given.
    """

    __slots__ = (
        "_fingerprint", "_headers", "_query", "_send", "extra", "principal", "receive", "scope", "services", "started",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, services: Services) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self.services = services
        self.principal = ""
        self.extra: dict[bytes, bytes] = {}
        self.started = False
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._query: dict[str, str] | None = None
        self._fingerprint = b""

    # -- what was asked -----------------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return str(self.scope["path"])

    def header(self, name: bytes) -> bytes | None:
        """A header by its name in lower case; the last one, where it was sent several times."""
        return self._headers.get(name)

    def check_single(self) -> None:
        """Raise RequestError 400 when a header that decides something was sent twice."""
        if len(self._headers) == len(self.scope["headers"]):
            return
        for name in SINGLE:
            if sum(each == name for each, _ in self.scope["headers"]) > 1:
                raise RequestError(400, f"the header {name.decode()} was sent more than once", code="duplicate_header")

    def path_param(self, name: str) -> str:
        """A part of the path that the route names."""
        return str(self.scope["path_params"][name])

    def query(self, name: str) -> str | None:
        """A parameter of the query, None where it is left out; the last one, where it was sent several times."""
        if self._query is None:
            try:
                pairs = parse_qsl(
                    self.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict",
                    max_num_fields=MAX_QUERY,
                )  # fmt: skip
            except ValueError as error:
                raise RequestError(400, f"the query cannot be read: {error}", code="invalid_query") from None
            self._query = dict(pairs)
        return self._query.get(name)

    def query_integer(self, name: str, least: int, most: int, default: int) -> int:
        """A number in the query, within bounds, both included."""
        text = self.query(name)
        if text is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) or not least <= int(text) <= most:
            raise RequestError(
                400, f"{name} must be an integer from {least} to {most}", code="invalid_value", param=name
            )
        return int(text)

    def session_header(self) -> str | None:
        """`X-Hermes-Session-Id`, checked; None where it was not sent."""
        value = self.header(b"x-hermes-session-id")
        return None if value is None else session_id(value.decode("latin-1"), "X-Hermes-Session-Id")

    def idempotency(self, route: str) -> IdempotencyKey | None:
        """`Idempotency-Key` for this route, None where it was not sent. To be asked after the body was read."""
        key = self.header(b"idempotency-key")
        if key is None:
            return None
        if not VISIBLE_ASCII.fullmatch(key):
            raise RequestError(
                400, "Idempotency-Key must have 1 to 255 visible ASCII characters", code="invalid_header",
                param="Idempotency-Key",
            )  # fmt: skip
        return IdempotencyKey(route=route, key=key.decode("ascii"), fingerprint=self._fingerprint)

    async def body(self, most: int | None = None) -> bytes:
        """The whole body.

        Args:
            most: bytes that it may have; None = as configured.

        Raises:
            RequestError: 413 it is too long, 415 it is compressed.
            ClientLeft: it did not come to its end.
        """
        encoding = self.header(b"content-encoding")
        if encoding is not None and encoding.lower() not in (b"", b"identity"):
            raise RequestError(415, "the body must not be compressed", code="unsupported_encoding")
        most = self.services.config().http.max_body_bytes if most is None else most
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft("the client left before its request was whole")
            piece = message.get("body", b"")
            size += len(piece)
            if size > most:
                raise RequestError(413, f"the body is longer than {most} bytes", code="body_too_large")
            pieces.append(piece)
            if not message.get("more_body", False):
                break
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self.header(b"idempotency-key") is not None:
            session = self.header(b"x-hermes-session-id") or b""
            self._fingerprint = hashlib.sha256(session + b"\0" + body).digest()
        return body

    # -- how it is answered -------------------------------------------------------------------------------------------

    async def answer(self, answer: Answer) -> None:
        """Send a whole response."""
        self.started = True
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body)), *self.extra.items()]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    def name_session(self, session_id: str) -> None:
        """Let the answer, whatever it is, carry the session's id."""
        self.extra[b"x-hermes-session-id"] = session_id.encode("ascii", "backslashreplace")

    async def start(self, status: int, headers: HeaderList) -> None:
        """Begin a response whose body comes in pieces; nothing is written before the first piece."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self.extra.items()]})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the body; the last one with `more=False`."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def session_id(value: str, param: str) -> str:
    """A session's id, checked. Raises RequestError 400."""
    if not SESSION_ID.fullmatch(value):
        raise RequestError(
            400,
            f"{param} must have 1 to 200 characters of A-Z a-z 0-9 . _ : @ -",
            code="invalid_session_id",
            param=param,
        )
    return value


async def read_as(request: Request, services: Services, parse: Callable[[Fields], T]) -> T:
    """The body as a JSON object, made into something by a plain function; both in a thread when the body is large.

    Fields that nobody asked for, at any depth that was read, are counted in `services.counts["unknown_fields"]`.

    Raises:
        RequestError: 400 it is not a JSON object in UTF-8, or is nested or divided beyond measure; 413; 415; and what
            `parse` raises.
    """
    body = await request.body()

    def work() -> tuple[T, int]:
        fields = decode_object(body)
        parsed = parse(fields)
        return parsed, fields.unknown()

    parsed, unknown = work() if len(body) <= INLINE_BYTES else await trio.to_thread.run_sync(work)
    if unknown:
        services.counts["unknown_fields"] += unknown
    return parsed


def decode_object(body: bytes) -> Fields:
    """The JSON object that these bytes are. Raises RequestError 400."""
    if body.count(b",") + body.count(b"{") + body.count(b"[") > MAX_VALUES and _values(body) > MAX_VALUES:
        raise RequestError(400, f"the body holds more than {MAX_VALUES} values", code="too_many_values")
    try:
        value = _decode(body)
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply", code="invalid_json") from None
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8", code="invalid_json") from None
    except msgspec.MsgspecError as error:
        raise RequestError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if type(value) is not dict:
        raise RequestError(400, "the body must be a JSON object", code="invalid_json")
    return Fields(value)


def _values(body: bytes) -> int:
    """How many values there are at least, not counting what only looks like some inside of strings.

    Counted up to the bound. The time goes into calls that are short even for the largest body: each holds the
    interpreter, and the loop with it, in whatever thread it is made.
    """
    found = 0
    for match in _OUTSIDE.finditer(body):
        outside = match[1]
        found += outside.count(b",") + outside.count(b"{") + outside.count(b"[")
        if found > MAX_VALUES:
            break
    return found
