"""Pictures that people sent, as a model sees them: from the digests that are stored to `data:` URLs, in memory alone.

The newest come first: what does not fit into the bound, is gone or cannot be seen is put in words.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

import msgspec

from hermes.blobs import Blobs
from hermes.messages import Image, Message, Part, Text

BLOB: Final = "blob:"  # stands before the digest in the URL of a stored picture
SHOWN_BYTES: Final = 25_165_824  # of all the pictures in one history
UNSEEN: Final = "[image: the model that is configured cannot see it]"
GONE: Final = "[image: not kept any more]"
LEFT_OUT: Final = "[image: left out, newer ones take the room there is]"

_KINDS: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
PICTURE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def picture_type(head: bytes) -> str | None:
    """What a file is by its first bytes (12 are enough): one of `PICTURE_TYPES`, or None.

    JPEG: ITU-T T.81 annex B (SOI and a marker). PNG: RFC 2083, 3.1. GIF: its 87a and 89a headers. WebP: RFC 9649, 2.4.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _KINDS if head.startswith(magic)), None)


@dataclass(slots=True)
class Sight:
    """What a history may still show.

    Args:
        sees: whether the model can see.
        left: bytes of pictures that still fit.
        full: something did not fit.
    """

    sees: bool
    left: int = SHOWN_BYTES
    full: bool = False


class Pictures:
    """Puts pictures into messages.

    Args:
        blobs: where they are.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def show(self, messages: Sequence[Message], sight: Sight) -> Sequence[Message]:
        """The messages as a model is to see them; what was used of the bound is taken from `sight`."""
        digests = [digest for message in messages for digest in _digests(message)]
        if not digests:
            return messages
        if sight.sees:
            newest_first = await self._blobs.run(lambda: self._load(digests[::-1], sight))
        else:
            newest_first = [UNSEEN] * len(digests)
        shown = iter(newest_first[::-1])
        return [_with(message, shown) for message in messages]

    def _load(self, digests: Sequence[str], sight: Sight) -> list[str]:
        """For each picture its `data:` URL, or the words that stand in for it; once it is full, the rest is left out."""
        return [LEFT_OUT if sight.full else self._one(digest, sight) for digest in digests]

    def _one(self, digest: str, sight: Sight) -> str:
        content = self._blobs.read_now(digest, SHOWN_BYTES)
        media_type = picture_type(content) if content is not None else None
        if content is None or media_type is None:
            return GONE
        if len(content) > sight.left:
            sight.full = True
            return LEFT_OUT
        sight.left -= len(content)
        return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _digests(message: Message) -> list[str]:
    return [part.url.removeprefix(BLOB) for part in message.parts if _is_ours(part)]


def _is_ours(part: Part) -> TypeGuard[Image]:
    return isinstance(part, Image) and part.url.startswith(BLOB)


def _with(message: Message, shown: Iterator[str]) -> Message:
    if not any(map(_is_ours, message.parts)):
        return message
    parts = tuple(_shown(part, next(shown)) if _is_ours(part) else part for part in message.parts)
    return msgspec.structs.replace(message, parts=parts)


def _shown(part: Image, found: str) -> Part:
    return Image(found, part.detail) if found.startswith("data:") else Text("\n" + found)
