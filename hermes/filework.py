"""What is made of a file that was fetched: a picture for the model, words, a transcript, a copy that tools can work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hermes.agent.transcription import Recording
from hermes.attached import READ_BYTES, Senses, Use, as_text, file_name, quoted, sound_type, use_of
from hermes.blobs import Blobs
from hermes.errors import ModelError, ModelRefused
from hermes.events import AttachmentRef
from hermes.inbound import MAX_NAME, flat
from hermes.messages import Image, Part, Text
from hermes.observe.logs import get_log
from hermes.pictures import BLOB, picture_type
from hermes.received import NotSaved, save
from hermes.store.attachments import Unfetched

log = get_log(__name__)

HEARD_CHARS: Final = 50_000
NO_SOUND: Final = "it is no recording of a kind that is known"
NOT_KEPT: Final = "it was not kept"

Hear = Callable[[Recording], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file as a blob: its digest, its first bytes, its size."""

    digest: str
    head: bytes
    size: int


@dataclass(frozen=True, slots=True)
class FileWork:
    """What can be made of files.

    Args:
        blobs: where their bytes are.
        senses: what can be done with files now.
        hear: puts a recording in words, within its own deadline; raises ModelError.
        folders: the workspace and the home, as they are now; None: nothing is saved.
    """

    blobs: Blobs
    senses: Callable[[], Senses] = Senses
    hear: Hear | None = None
    folders: Callable[[], tuple[Path, Path]] | None = None

    def use_of(self, file: AttachmentRef, of: Unfetched) -> Use | None:
        """What a file of a message is fetched for; None: for nothing."""
        return use_of(file, self.senses(), may_change=self.saves(of))

    def saves(self, of: Unfetched) -> bool:
        """Whether files of a message are put into the workspace."""
        return of.may_change and self.folders is not None and self.senses().saves

    async def parts(self, of: Unfetched, file: AttachmentRef, use: Use, kept: Kept, share: int) -> list[Part]:
        """What the model is to see of a file.

        Args:
            share: characters of text at most.
        """
        parts: list[Part] = []
        seen = picture_type(kept.head) is not None and self.senses().sees
        if use == "see" or (use == "read" and seen):
            parts.append(Image(BLOB + kept.digest))
        elif use == "hear":
            parts.append(Text(f"\n{await self._heard(file, kept)}"))
        elif use == "read" and (text := await self._text(kept)) is not None:
            name = flat(file.name, MAX_NAME)
            parts.append(Text(quoted(name, text, kept.digest, share)))
        elif use == "read" and not self.saves(of):
            parts.append(Text(f"\n[{file.kind}: it is no text, and cannot be read]"))
        if self.saves(of):
            parts.append(Text(f"\n{await self._saved(file, kept)}"))
        return parts

    async def _text(self, kept: Kept) -> str | None:
        content = await self.blobs.read(kept.digest, READ_BYTES)
        return as_text(content) if content is not None else None

    async def _heard(self, file: AttachmentRef, kept: Kept) -> str:
        found = sound_type(kept.head)
        if found is None or self.hear is None:
            return f"[{file.kind}: could not be transcribed: {NO_SOUND}]"
        content = await self.blobs.read(kept.digest, kept.size)
        if content is None:
            return f"[{file.kind}: could not be transcribed: {NOT_KEPT}]"
        extension, media_type = found
        try:
            words = await self.hear(Recording(content=content, name=f"{file.kind}.{extension}", media_type=media_type))
        except ModelError as error:
            log.warning("media.not_heard", error=error)
            why = "it was refused" if isinstance(error, ModelRefused) else "it did not work in time"
            return f"[{file.kind}: could not be transcribed: {why}]"
        if not words:
            return f"[{file.kind}: nothing was said in it]"
        return f"[{file.kind}, transcribed:] {words[:HEARD_CHARS]}"

    async def _saved(self, file: AttachmentRef, kept: Kept) -> str:
        assert self.folders is not None
        source, name = self.blobs.find(kept.digest), file_name(file.name, _with_extension(file, kept))
        assert source is not None
        workspace, home = self.folders()
        try:
            path = await self.blobs.run(lambda: save(workspace, home, source, kept.digest, name))
        except NotSaved as error:
            log.warning("media.not_saved", error=error)
            return f"[{file.kind}: could not be saved in the workspace]"
        return f"[{file.kind} saved in the workspace as {path}]"


def _with_extension(file: AttachmentRef, kept: Kept) -> str:
    """How a file without a name is called."""
    picture, sound = picture_type(kept.head), sound_type(kept.head)
    extension = picture.partition("/")[2] if picture is not None else sound[0] if sound is not None else "bin"
    return f"{file.kind}.{extension}"


def in_words(file: AttachmentRef, why: str) -> Text:
    """What a model reads instead of a file that did not come."""
    return Text(f"\n[{file.kind}: could not be fetched: {why}]")
