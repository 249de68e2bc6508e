"""The bytes of a file that somebody sent (https://core.telegram.org/bots/api#getfile)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hermes.errors import PlatformUnavailable, SendRejected
from hermes.platform import ByteStream, HttpClient
from platforms.telegram.api import CALL_S, TelegramApi

# Said of errors behind the server, limits included; of an id that is none it says `invalid file_id`; of tdlib/telegram-bot-api.
NOT_NOW = "temporarily unavailable"


class _Bounded:
    """Bytes up to a bound."""

    def __init__(self, pieces: ByteStream, most: int) -> None:
        self._pieces = pieces
        self._left = most

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.__anext__()
        self._left -= len(piece)
        if self._left < 0:
            raise SendRejected("the file is larger than what is taken")
        return piece


@asynccontextmanager
async def open_file(api: TelegramApi, http: HttpClient, file_id: str, max_bytes: int) -> AsyncIterator[ByteStream]:
    """A file's bytes as they come; Telegram keeps the path that it gives out for an hour, and gives files of up to 20 MB.

    Raises:
        SendRejected: it is not there, or too large: for the service, or for `max_bytes`.
        PlatformError: the connection itself, or the service cannot get it now.
    """
    try:
        found = await api.call("getFile", {"file_id": file_id})
    except SendRejected as error:
        if NOT_NOW in str(error):
            raise PlatformUnavailable(f"Telegram cannot get the file now: {error}") from None
        raise
    path = found.get("file_path") if isinstance(found, dict) else None
    size = found.get("file_size") if isinstance(found, dict) else None
    if not isinstance(path, str) or not path or ".." in path.split("/"):
        raise SendRejected("the file is not there")
    if path.startswith("/"):
        raise SendRejected("the Bot API server runs with --local, and gives out paths on its own disk instead of files")
    if isinstance(size, int) and size > max_bytes:
        raise SendRejected(f"the file has {size} bytes, more than the {max_bytes} that are taken")
    async with http.stream("GET", api.file_url(path), timeout_s=CALL_S) as (answer, pieces):
        if answer.status == 429 or answer.status >= 500:
            raise PlatformUnavailable(f"Telegram answers {answer.status} instead of the file")
        if answer.status != 200:
            raise SendRejected(f"the file is not there ({answer.status})")
        yield _Bounded(pieces, max_bytes)
