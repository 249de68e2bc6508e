"""The Web API: one call is one request, one method's limit is nobody else's, and nothing is retried.

Source: https://docs.slack.dev/apis/web-api/ and https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote_plus

import msgspec

from hermes.errors import (
    PlatformError,
    PlatformProtocolError,
    PlatformUnavailable,
    RateLimited,
    SendUncertain,
    Unreachable,
)
from hermes.platform import HttpAnswer, HttpClient, Secret, UploadPart
from platforms.slack.faults import failure

MAX_ANSWER_BYTES = 8_388_608
MAX_WAIT_S = 86_400.0
UNNAMED_WAIT_S = 10.0  # a limit that does not say how long
MAX_LIMITS = 1000
FORM = "application/x-www-form-urlencoded; charset=utf-8"
Json = Mapping[str, Any]

_QUOTED = tuple(quote_plus(bytes((byte,))) for byte in range(256))


class Failed(Exception):
    """An answer with `ok: false`, for callers that look at Slack's word before they raise what it means."""

    def __init__(self, error: str, meaning: PlatformError) -> None:
        super().__init__(error)
        self.error = error
        self.meaning = meaning


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and the setting that it came from."""

    secret: Secret
    setting: Literal["bot_token", "app_token"]


class SlackApi:
    """The Web API over one pool of connections.

    Args:
        http: the client.
        base_url: without a slash at its end.
        clock: seconds since the epoch.
        timeout_s: for one request.
    """

    def __init__(self, http: HttpClient, base_url: str, clock: Callable[[], float], timeout_s: float) -> None:
        self.http = http
        self.base_url = base_url
        self.clock = clock
        self.timeout_s = timeout_s
        self._limits: dict[tuple[str, str, str], float] = {}

    async def call(
        self,
        method: str,
        params: Json,
        token: Token,
        *,
        shows: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Call a method; the body of its success.

        Args:
            method: such as `chat.postMessage`.
            params: values that are no text go as JSON.
            token: whose.
            shows: it shows something: an unclear end is `SendUncertain`.
            timeout_s: instead of the usual.

        Raises:
            Failed: the service said no.
            RateLimited: it asked to wait, or would.
            SendUncertain, PlatformError: no complete answer came.
        """
        key = (method, token.secret.reveal(), str(params.get("channel", "")) if method == "chat.postMessage" else "")
        self._look_at_limit(key)
        fields = {name: value if isinstance(value, str) else _encoded(value) for name, value in params.items()}
        try:
            answer = await self._request(method, fields, token, timeout_s or self.timeout_s)
        except Unreachable as error:
            if shows and error.sent:
                raise SendUncertain(str(error)) from None
            raise
        except PlatformProtocolError as error:
            if shows:
                raise SendUncertain(str(error)) from None
            raise
        return self._result(method, key, answer, token.setting, shows=shows)

    async def ask(self, method: str, params: Json, token: Token, **more: Any) -> dict[str, Any]:
        """The same for callers to whom every no is alike. Raises PlatformError."""
        try:
            return await self.call(method, params, token, **more)
        except Failed as failed:
            raise failed.meaning from None

    async def scopes(self, token: Token) -> frozenset[str]:
        """What a token may; empty where Slack does not say. Raises PlatformError."""
        answer = await self._request("auth.test", {}, token, self.timeout_s)
        return frozenset(filter(None, map(str.strip, answer.headers.get("x-oauth-scopes", "").split(","))))

    async def _request(self, method: str, fields: Mapping[str, str], token: Token, timeout_s: float) -> HttpAnswer:
        return await self.http.request(
            "POST",
            f"{self.base_url}/{method}",
            headers={"authorization": "Bearer " + token.secret.reveal(), "content-type": FORM},
            content=form(fields),
            timeout_s=timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
        )

    async def put(self, url: str, parts: tuple[UploadPart, ...], timeout_s: float) -> HttpAnswer:
        """Send a file to where Slack wants it; no token goes along. Raises PlatformUnavailable, PlatformProtocolError."""
        try:
            return await self.http.request("POST", url, parts=parts, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES)
        except Unreachable as error:  # whatever arrived, nobody sees it before the next step
            raise PlatformUnavailable(str(error)) from None

    async def respond(self, url: str, body: Json) -> HttpAnswer:
        """Send a message to a response URL; no token goes along. Raises SendUncertain, PlatformError."""
        try:
            return await self.http.request(
                "POST",
                url,
                headers={"content-type": "application/json"},
                content=_encoded(body).encode(),
                timeout_s=self.timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except Unreachable as error:
            if error.sent:
                raise SendUncertain(str(error)) from None
            raise

    def _look_at_limit(self, key: tuple[str, str, str]) -> None:
        until = self._limits.get(key)
        if until is None:
            return
        left = until - self.clock()
        if left <= 0:
            del self._limits[key]
        else:
            raise _limited(key, left)

    def _result(
        self, method: str, key: tuple[str, str, str], answer: HttpAnswer, setting: str, *, shows: bool
    ) -> dict[str, Any]:
        if answer.status == 429:
            wait = wait_of(answer)
            self._limits.pop(key, None)
            self._limits[key] = self.clock() + wait
            while len(self._limits) > MAX_LIMITS:
                del self._limits[next(iter(self._limits))]
            raise _limited(key, wait)
        body = _document(answer)
        if body is not None and isinstance(body.get("ok"), bool):
            if body["ok"]:
                return body
            raise Failed(str(body.get("error", ""))[:100], failure(method, body, setting, shows=shows))
        if answer.status >= 500 and not (shows and answer.status == 504):
            raise PlatformUnavailable(f"Slack answered {answer.status} to {method}")
        if shows:
            raise SendUncertain(f"Slack's answer ({answer.status}) to {method} cannot be read")
        raise PlatformProtocolError(
            f"the answer ({answer.status}) to {method} is not what Slack's API says: is `base_url` right, and nothing in"
            " between?",
            sample=repr(answer.body[:200]),
        )


def form(fields: Mapping[str, str]) -> bytes:
    """Names and texts as a form, as `urllib.parse.urlencode` writes it; that calls a function for each character.

    Args:
        fields: by names that need no quoting, as those of Slack's methods are.
    """
    quoted = [f"{name}={text.encode().decode('latin-1').translate(_QUOTED)}" for name, text in fields.items()]
    return "&".join(quoted).encode()


def wait_of(answer: HttpAnswer) -> float:
    """How long an answer asks to wait, in seconds."""
    asked = answer.headers.get("retry-after", "")
    wait = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else UNNAMED_WAIT_S
    return min(max(wait, 0.5), MAX_WAIT_S)


def _limited(key: tuple[str, str, str], wait_s: float) -> RateLimited:
    scope: Literal["address", "method"] = "address" if key[2] else "method"
    return RateLimited(f"Slack asks to wait {wait_s:.1f} s before {key[0]}", retry_after_s=wait_s, scope=scope)


def _document(answer: HttpAnswer) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()
