"""The Bot API: one call is one request, and what its answers mean (https://core.telegram.org/bots/api#making-requests)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

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
CONFLICT_S = 60.0  # the server holds a poll of somebody else for at most about this long
MAX_WAIT_S = 86_400.0

# What a description says of a chat that is not there for us any more.
GONE = (
    "chat not found",
    "bot was blocked",
    "bot was kicked",
    "user is deactivated",
    "bot is not a member",
    "peer_id_invalid",
    "can't initiate conversation",
    "group chat was deactivated",
    "chat_write_forbidden",
    "topic_deleted",
    "topic_closed",
    "message thread not found",
    "group chat was upgraded",
    "can't send messages to bots",
    "have no rights to send",
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
    ) -> Any:
        """Call a method and return its `result`.

        Args:
            method: such as `getMe`.
            params: as JSON can hold them.
            parts: files to upload; the parameters then go as form fields.
            timeout_s: for everything together.

        Raises:
            PlatformError: what `failure` says; Unreachable as it came.
        """
        url = self._methods + method
        if parts:
            fields = tuple(UploadPart(name=name, content=_field(value)) for name, value in params.items())
            answer = await self._http.request("POST", url, parts=(*fields, *parts), timeout_s=max(timeout_s, UPLOAD_S))
        else:
            answer = await self._http.request(
                "POST", url, content=_encode(params), headers={"content-type": "application/json"}, timeout_s=timeout_s
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
        except PlatformProtocolError as error:
            raise SendUncertain(str(error)) from None

    def file_url(self, path: str) -> str:
        """Where the bytes of a file are (https://core.telegram.org/bots/api#getfile)."""
        return self._files + path


def _field(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else _encode(value)


def result(answer: HttpAnswer) -> Any:
    """The result that an answer holds. Raises what its error means."""
    try:
        body = _decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("ok"), bool):
        if answer.status >= 500:
            raise PlatformUnavailable(f"Telegram answers {answer.status}")
        if answer.status in (401, 404):
            raise _refused(answer.status)
        raise PlatformProtocolError(
            f"Telegram's answer ({answer.status}) is not what its API says", sample=repr(answer.body[:200])
        )
    if body["ok"]:
        return body.get("result")
    raise failure(answer.status, body)


def failure(status: int, body: Mapping[str, Any]) -> PlatformError:
    """What an error answer means (https://core.telegram.org/bots/api#responseparameters).

    Args:
        status: of the HTTP answer; `error_code` says the same.
        body: with `description` and perhaps `parameters`.
    """
    code = body.get("error_code", status)
    described = str(body.get("description", ""))[:300]
    parameters = body.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    moved = parameters.get("migrate_to_chat_id")
    if code in (401, 404):
        return _refused(code)
    if code == 409:
        return PlatformConflict(
            f"somebody else receives the updates of this bot ({described}): end the other one, or give it another token",
            retry_after_s=CONFLICT_S,
        )
    if code == 429:
        return RateLimited(f"Telegram asks to wait: {described}", retry_after_s=_wait(parameters.get("retry_after")))
    if moved is not None:
        return AddressGone("the group has become a supergroup", moved_to=str(moved))
    if isinstance(code, int) and code >= 500:
        return PlatformUnavailable(f"Telegram answers {code}: {described}")
    if any(words in described.lower() for words in GONE) or (code == 403 and "rights" not in described.lower()):
        return AddressGone(described or "forbidden")
    return SendRejected(f"{code}: {described}")


def _refused(code: object) -> PlatformRefused:
    return PlatformRefused(
        f"Telegram does not know this bot token ({code}): copy it again from @BotFather (/mybots, API Token) into `token`"
    )


def _wait(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_WAIT_S:
        return 5.0
    return float(seconds)
