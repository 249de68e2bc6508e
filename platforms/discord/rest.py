"""Requests to Discord's REST API: one token, its limits, and errors as `hermes.errors` names them. Nothing is retried."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from hermes.decode import without_halves
from hermes.errors import PlatformProtocolError, PlatformUnavailable, RateLimited, SendUncertain, Unreachable
from hermes.platform import HttpAnswer, HttpClient, Secret, UploadPart
from platforms.discord.buckets import Buckets, Route, Scope
from platforms.discord.faults import failure, read_fault
from platforms.discord.wire import Fault

T = TypeVar("T")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

AGENT = "DiscordBot (https://github.com/hermes-gateway, 0.1)"  # the form that Discord asks for
MAX_ANSWER_BYTES = 8_388_608
_MAJOR = re.compile(r"/(channels|guilds|webhooks)/([0-9]{1,20})(/[^/?]{40,})?")
_REACTION = re.compile(r"/reactions/[^/]+")
_ID = re.compile(r"/[0-9]{1,20}(?=/|$)")


class Failed(Exception):
    """An error answer, for callers that look at Discord's code before they raise what it means."""

    def __init__(self, answer: HttpAnswer, fault: Fault) -> None:
        super().__init__(f"{answer.status}, {fault.code}")
        self.status = answer.status
        self.code = fault.code
        self.meaning = failure(answer, fault)


def route_of(method: str, path: str) -> Route:
    """What a request counts as.

    Args:
        method: of HTTP.
        path: below the base URL.
    """
    path = path.partition("?")[0]
    found = _MAJOR.match(path)
    major = (found[2] + (found[3] or "")) if found else ""
    scope: Scope = "address" if path.startswith("/channels/") and "/messages" in path else "method"
    name = path.replace(found[3], "/:token", 1) if found and found[3] else path
    return Route(f"{method} {_ID.sub('/:id', _REACTION.sub('/reactions/:emoji', name))}", major, scope)


class Rest:
    """The REST API, for one token.

    Args:
        client: the HTTP client.
        base_url: without a slash at its end.
        token: of the bot.
        clock: seconds since the epoch.
        timeout_s: for one request.
    """

    def __init__(
        self, client: HttpClient, base_url: str, token: Secret, clock: Callable[[], float], timeout_s: float
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._authorization = token
        self._clock = clock
        self._timeout_s = timeout_s
        self.buckets = Buckets()

    async def ask(
        self,
        method: Method,
        path: str,
        *,
        body: object = None,
        parts: tuple[UploadPart, ...] = (),
        sends: bool = False,
        token: bool = True,
        timeout_s: float | None = None,
    ) -> bytes:
        """One request; the body of its success.

        Args:
            method: of HTTP.
            path: below the base URL.
            body: sent as JSON.
            parts: instead of `body`: a form with files.
            sends: it shows something: an unclear end is `SendUncertain`.
            token: whether it needs the bot's token.
            timeout_s: instead of the usual.

        Raises:
            Failed: the service said no.
            RateLimited: it asked to wait, or would.
            SendUncertain, Unreachable: no complete answer came.
        """
        route = route_of(method, path)
        self.buckets.take(route, self._clock())
        headers, content = self._headers(token=token), None
        if body is not None and not parts:
            headers["content-type"], content = "application/json", msgspec.json.encode(body)
        try:
            answer = await self._client.request(
                method,
                self._base_url + path,
                headers=headers,
                content=content,
                parts=parts,
                timeout_s=timeout_s or self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except Unreachable as exc:
            if sends and exc.sent:
                raise SendUncertain(str(exc)) from exc
            raise
        except PlatformProtocolError as exc:
            if sends:
                raise SendUncertain(str(exc)) from exc
            raise
        self.buckets.note(route, answer.headers, self._clock())
        if 200 <= answer.status < 300:
            return answer.body
        fault = read_fault(answer)
        if answer.status == 429:
            raise self.buckets.refused(
                route, answer.headers, fault.retry_after, everywhere=fault.everywhere, now=self._clock()
            )
        raise Failed(answer, fault)

    def _headers(self, *, token: bool) -> dict[str, str]:
        headers = {"user-agent": AGENT}
        if token:
            headers["authorization"] = "Bot " + self._authorization.reveal()
        return headers

    async def read(self, path: str, kind: type[T]) -> T:
        """GET something. Raises Failed, RateLimited, Unreachable, PlatformProtocolError."""
        return decoded(await self.ask("GET", path), kind)


def decoded(body: bytes, kind: type[T]) -> T:
    """An answer as a value. Raises PlatformProtocolError."""
    try:
        return msgspec.json.decode(without_halves(body) if b"\\u" in body else body, type=kind)
    except msgspec.DecodeError as exc:
        words = f"Discord's answer is not as documented: {exc}"
        raise PlatformProtocolError(words, sample=body[:300].decode("utf-8", "replace")) from None


def unlimited(exc: RateLimited) -> PlatformUnavailable:
    """A limit where no limit may be raised: while a connection is opened."""
    return PlatformUnavailable(str(exc), retry_after_s=exc.retry_after_s)


def loose(body: bytes) -> Any:
    """An answer of which only a part is looked at; None if it is no JSON."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
