"""The file that a message carries. Pure (https://core.telegram.org/bots/api#message)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes.events import AttachmentKind, AttachmentRef

Json = Mapping[str, Any]

MAX_REF, MAX_NAME, MAX_TYPE = 512, 256, 100
_FIELDS: tuple[tuple[str, AttachmentKind, str], ...] = (
    ("animation", "video", "video/mp4"),  # before `document`, which such a message has as well
    ("video", "video", "video/mp4"),
    ("video_note", "video", "video/mp4"),
    ("voice", "voice", "audio/ogg"),
    ("audio", "audio", ""),
    ("document", "document", ""),
)


def attachments_of(message: Json) -> tuple[AttachmentRef, ...]:
    """At most one: of a photo its largest size. The parts of an album are messages of their own."""
    photos = message.get("photo")
    if isinstance(photos, list) and (sizes := [each for each in photos if isinstance(each, dict)]):
        return _file(max(sizes, key=_area), "image", "image/jpeg")
    if isinstance(sticker := message.get("sticker"), dict):
        return _file(sticker, "sticker", _sticker_type(sticker))
    for name, kind, media_type in _FIELDS:
        if isinstance(found := message.get(name), dict):
            return _file(found, kind, media_type)
    return ()


def _sticker_type(sticker: Json) -> str:
    if sticker.get("is_animated") is True:
        return "application/x-tgsticker"
    return "video/webm" if sticker.get("is_video") is True else "image/webp"


def _area(size: Json) -> int:
    width, height = size.get("width"), size.get("height")
    return width * height if isinstance(width, int) and isinstance(height, int) else 0


def _file(file: Json, kind: AttachmentKind, media_type: str) -> tuple[AttachmentRef, ...]:
    ref, size, name, claimed = (file.get(each) for each in ("file_id", "file_size", "file_name", "mime_type"))
    if not isinstance(ref, str) or not 0 < len(ref) <= MAX_REF:
        return ()
    return (
        AttachmentRef(
            kind=kind,
            ref=ref,
            name=name[:MAX_NAME] if isinstance(name, str) else "",
            media_type=claimed[:MAX_TYPE] if isinstance(claimed, str) else media_type,
            size_bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        ),
    )
