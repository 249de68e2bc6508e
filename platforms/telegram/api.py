"""The Bot API: one call is one request, and what its answers mean (https://core.telegram.org/bots/api#making-requests)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from hermes.decode import without_halves
from hermes.errors import (
    AddressGone,
    PlatformConflict,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    Unreachable,
)
from hermes.platform import HttpAnswer, HttpClient, UploadPart
from platforms.telegram.config import TelegramConfig

CALL_S = 20.0
UPLOAD_S = 300.0
MAX_ANSWER = 16_777_216
CONFLICT_S = 60.0  # the server holds a poll of somebody else for at most 50 s
MAX_WAIT_S = 86_400.0
WAIT_S = 5.0  # where a limit does not say how long

# What a description says of a chat that is not there for us any more; of tdlib/telegram-bot-api, Client.cpp.
GONE = (
    "chat not found",
    "bot was blocked",
    "bot was kicked",
    "bot is not a member",
    "user is deactivated",
    "group chat was deleted",
    "group chat was deactivated",
    "group chat was upgraded",
    "message thread not found",
    "can't initiate conversation",
    "can't send messages to bots",
    "peer_id_invalid",
    "topic_deleted",
)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class TelegramApi:
    """Calls of one bot.

    Args:
        http: where they go through.
        config: token and base URL.
    """

    def __init__(self, http: HttpClient, config: TelegramConfig) -> None:
        self._http = http
        base, bot = config.base_url.rstrip("/"), "bot" + config.token.reveal()
        self._methods = "/".join((base, bot, ""))
        self._files = "/".join((base, "file", bot, ""))

    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        parts: tuple[UploadPart, ...] = (),
        timeout_s: float = CALL_S,
        max_bytes: int = MAX_ANSWER,
    ) -> Any:
        """Call a method and return its `result`.

        Args:
            method: such as `getMe`.
            params: as JSON can hold them.
            parts: files to upload; the parameters then go as form fields.
            timeout_s: for everything together.
            max_bytes: of the answer, where no files are uploaded.

        Raises:
            PlatformError: what `failure` says; Unreachable as it came.
        """
        url = self._methods + method
        if parts:
            fields = tuple(UploadPart(name=name, content=_field(value)) for name, value in params.items())
            answer = await self._http.request("POST", url, parts=(*fields, *parts), timeout_s=max(timeout_s, UPLOAD_S))
        else:
            answer = await self._http.request(
                "POST",
                url,
                content=_encode(params),
                headers={"content-type": "application/json"},
                timeout_s=timeout_s,
                max_bytes=max_bytes,
            )
        return result(answer)

    async def show(self, method: str, params: Mapping[str, Any], *, parts: tuple[UploadPart, ...] = ()) -> Any:
        """Call a method that shows something: no complete answer means that it may have been shown.

        Raises:
            SendUncertain: as above.
            PlatformError: as `call` does.
        """
        try:
            return await self.call(method, params, parts=parts)
        except Unreachable as error:
            if error.sent:
                raise SendUncertain(str(error)) from None
            raise
        except (PlatformProtocolError, GaveUp) as error:
            raise SendUncertain(str(error)) from None

    def file_url(self, path: str) -> str:
        """Where the bytes of a file are (https://core.telegram.org/bots/api#getfile)."""
        return self._files + quote(path)


class GaveUp(PlatformUnavailable):
    """Something before the service waited for it in vain: unlike with its own errors, the call may have had its effect."""


def _field(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else _encode(value)


def result(answer: HttpAnswer) -> Any:
    """The result that an answer holds. Raises what its error means."""
    try:
        body = _decode(without_halves(answer.body) if b"\\u" in answer.body else answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("ok"), bool):
        raise _foreign(answer)
    if body["ok"]:
        return body.get("result")
    raise failure(answer.status, body)


def _foreign(answer: HttpAnswer) -> PlatformError:
    """What an answer means that is not the API's: of a proxy, a load balancer, the network of a hotel."""
    asked = answer.headers.get("retry-after", "")
    wait_s = _wait(int(asked)) if asked.isascii() and asked.isdigit() and len(asked) < 10 else None
    match answer.status:
        case 413:
            return SendRejected("413: the file is too large")
        case 429:
            return RateLimited("Telegram asks to wait (429)", retry_after_s=WAIT_S if wait_s is None else wait_s)
        case 504:
            return GaveUp("Telegram answers 504", retry_after_s=wait_s)
        case status if status >= 500:
            return PlatformUnavailable(f"Telegram answers {status}", retry_after_s=wait_s)
        case status:
            return PlatformProtocolError(
                f"the answer ({status}) is not what Telegram's API says: is `base_url` right, and nothing in between?",
                sample=repr(answer.body[:200]),
            )


def failure(status: int, body: Mapping[str, Any]) -> PlatformError:
    """What an error answer means (https://core.telegram.org/bots/api#responseparameters).

    Args:
        status: of the HTTP answer; `error_code` says the same.
        body: with `description` and perhaps `parameters`.
    """
    code = body.get("error_code")
    code = code if isinstance(code, int) and not isinstance(code, bool) else status
    described = str(body.get("description", ""))[:300]
    parameters = body.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    moved = parameters.get("migrate_to_chat_id")
    if code == 401 or (code == 404 and "method" not in described):
        return PlatformRefused(
            f"Telegram does not know this bot token ({code} {described}): copy it again from @BotFather (/mybots, API Token)"
            " into `token`; who has no bot yet makes one there with /newbot"
        )
    if code == 421:
        return PlatformRefused(f"this Bot API server does not serve this bot: {described}")
    if code == 409:
        return PlatformConflict(
            f"somebody else receives the updates of this bot ({described}): end the other one, or give it another token",
            retry_after_s=CONFLICT_S,
        )
    if code == 429:
        return RateLimited(f"Telegram asks to wait: {described}", retry_after_s=_wait(parameters.get("retry_after")))
    if code >= 500:
        return PlatformUnavailable(f"Telegram answers {code}: {described}")
    if isinstance(moved, int) and not isinstance(moved, bool):
        return AddressGone("the group has become a supergroup", moved_to=str(moved))
    if any(words in described.lower() for words in GONE) or (code == 403 and "rights" not in described.lower()):
        return AddressGone(described or "forbidden")
    return SendRejected(f"{code}: {described}")


def _wait(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        return WAIT_S
    return float(min(seconds, MAX_WAIT_S))
