"""Speech to words: one request with a recording, one answer with its text.

The request is `POST {base_url}/audio/transcriptions`, multipart/form-data with `file`, `model`, `response_format` and, where it is
known, `language` (https://platform.openai.com/docs/api-reference/audio/createTranscription).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hermes.agent.wire import NotProtocol, ReplyTooLarge
from hermes.settings import Config, Endpoint

if TYPE_CHECKING:
    import httpx2

    from hermes.agent.clients import ModelClient

PATH: Final = "/audio/transcriptions"
MAX_ANSWER_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What is to be put in words.

    Args:
        content: the whole file.
        name: with an extension that says what it is: services go by it.
        media_type: such as `audio/ogg`.
        language: what is spoken (ISO 639-1); None = not known.
    """

    content: bytes
    name: str
    media_type: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart/form-data body: fields, and a file as (name, content, media type)."""

    fields: Mapping[str, str]
    file: tuple[str, bytes, str]


def endpoint_of(config: Config) -> Endpoint | None:
    """Who transcribes; None: nobody.

    Without an address of its own it is the primary model's, with its key, proxy and headers; with one it gets none of them.
    """
    chosen, primary = config.transcription, config.model.primary
    if chosen.model is None:
        return None
    if chosen.base_url is not None:
        return Endpoint(
            model=chosen.model, base_url=chosen.base_url.rstrip("/"), api_key=chosen.api_key, proxy=chosen.proxy,
            provider="transcription",
        )  # fmt: skip
    return None if primary.api == "demo" else replace(primary, model=chosen.model)


def encode(recording: Recording, model: str) -> Form:
    """The body of the request."""
    fields = {"model": model, "response_format": "json"}
    if recording.language is not None:
        fields["language"] = recording.language
    return Form(fields, (recording.name, recording.content, recording.media_type))


async def ask(client: ModelClient, endpoint: Endpoint, recording: Recording) -> str:
    """Make the request, and read the answer.

    Raises one of `hermes.agent.exchange.FAILURES`.
    """
    async with client.post(PATH, encode(recording, endpoint.model)) as response:
        return decode(await _read(response))


async def _read(response: httpx2.Response) -> bytes:
    answer = bytearray()
    chunks = response.aiter_raw()
    async with aclosing(chunks):
        async for chunk in chunks:
            answer += chunk
            if len(answer) > MAX_ANSWER_BYTES:
                raise ReplyTooLarge(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def decode(answer: bytes) -> str:
    """The words in an answer. Raises NotProtocol."""
    try:
        text = json.loads(answer)["text"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotProtocol("the answer holds no text", answer) from None
    if not isinstance(text, str):
        raise NotProtocol("the answer's text is none", answer)
    return text.encode("utf-8", "replace").decode().strip()
