"""What is done with a file that somebody sent, by what it claims and then by what it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from hermes.events import AttachmentRef
from hermes.pictures import PICTURE_TYPES

TEXT_CHARS: Final = 65_536  # of one file, in the message itself
TEXTS_CHARS: Final = 200_000  # of all files of a message
READ_BYTES: Final = 1_048_576  # a larger file is not fetched for its text alone
MAX_NAME_BYTES: Final = 120

_TEXT_TYPES: Final = frozenset(
    {
        "", "application/octet-stream", "application/json", "application/xml", "application/yaml", "application/x-yaml",
        "application/toml", "application/csv", "application/sql", "application/javascript", "application/x-sh",
        "application/x-python", "application/x-ndjson", "application/rtf", "image/svg+xml",
    }
)  # fmt: skip
_HEARD: Final = (
    (b"OggS", "ogg", "audio/ogg"),
    (b"ID3", "mp3", "audio/mpeg"),
    (b"fLaC", "flac", "audio/flac"),
    (b"\x1aE\xdf\xa3", "webm", "audio/webm"),
)

Use = Literal["see", "hear", "read", "save"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """What can be done with files now.

    Args:
        sees: the model can see pictures.
        hears: speech can be transcribed.
        saves: files are put into the workspace for those who have tools with side effects.
    """

    sees: bool = True
    hears: bool = False
    saves: bool = True


def use_of(file: AttachmentRef, senses: Senses, *, may_change: bool) -> Use | None:
    """What a file is fetched for; None: it is not, and the model is told that it came.

    Args:
        may_change: whoever sent it has tools with side effects: what comes is put where these can work with it.
    """
    if _may_be_picture(file) and senses.sees:
        return "see"
    if is_sound(file) and senses.hears:
        return "hear"
    if may_change and senses.saves:
        return "read" if file.kind == "document" else "save"
    return "read" if _may_be_text(file) else None


def is_sound(file: AttachmentRef) -> bool:
    """Whether it is offered as speech or music."""
    return file.kind in ("voice", "audio") or (file.kind == "document" and file.media_type.startswith("audio/"))


def _may_be_picture(file: AttachmentRef) -> bool:
    return file.kind == "image" or (file.kind in ("document", "sticker") and file.media_type in PICTURE_TYPES)


def _may_be_text(file: AttachmentRef) -> bool:
    kind = file.media_type.partition(";")[0].strip().lower()
    known = kind in _TEXT_TYPES or kind.startswith("text/") or kind.endswith(("+json", "+xml"))
    return file.kind == "document" and known and (file.size_bytes is None or file.size_bytes <= READ_BYTES)


def as_text(content: bytes) -> str | None:
    """A file as words; None if it holds anything but text in UTF-8, or in UTF-16 with its mark."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    text = text.replace("\r\n", "\n")
    return None if any(ord(each) < 32 and each not in "\t\n\r\f\x1b" for each in text) else text


def quoted(name: str, text: str, digest: str, most: int) -> str:
    """The content of a file inside a message, between lines that the file itself cannot contain.

    Args:
        name: on one line.
        digest: of the content, in hexadecimal digits.
        most: characters that are shown.
    """
    mark = f"END-{digest[:16]}"
    cut = "" if len(text) <= most else f", the first {most:,} of {len(text):,} characters"
    return f"\n[content of {name or 'the file'}{cut}, until the line {mark}]\n{text[:most]}\n{mark}"


def sound_type(head: bytes) -> tuple[str, str] | None:
    """The extension and media type of speech or music by its first bytes (12 are enough); None if it is none that is known.

    Ogg: RFC 3533, 6. MP3: an ID3v2 tag or an MPEG audio frame. FLAC: RFC 9639, 6. WAVE: RIFF. MP4: ISO/IEC 14496-12, 4.3.
    WebM: EBML, RFC 8794, 8.1.
    """
    for magic, extension, media_type in _HEARD:
        if head.startswith(magic):
            return extension, media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav", "audio/wav"
    if head[4:8] == b"ftyp":
        return "m4a", "audio/mp4"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06:
        return "mp3", "audio/mpeg"
    return None


def file_name(claimed: str, kind: str) -> str:
    """A name for a file here, from one that a stranger gave: no directories, nothing hidden, nothing unprintable, and short."""
    last = claimed.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(each if each.isprintable() and each not in "[]" else "_" for each in last).strip().lstrip(".-")
    stem, dot, extension = plain.rpartition(".")
    if not dot or len(extension.encode("utf-8", "replace")) > 16:
        stem, extension = plain, ""
    room = MAX_NAME_BYTES - len(extension.encode("utf-8", "replace")) - 1
    short = stem.encode("utf-8", "ignore")[:room].decode("utf-8", "ignore")
    name = f"{short}.{extension.encode('utf-8', 'ignore').decode()}" if extension else short
    return name if name.strip(". ") else kind
