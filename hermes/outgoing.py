"""Files on their way out: copied into a blob when they are asked for, so that what arrives is what was meant.

A path is walked like those of the file tools: nothing that is in the workspace or a folder of `media.send_from` leads out of it, and
nothing leads into the home, except to its workspace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from hermes.attached import file_name
from hermes.blobs import BlobNotWritten, Blobs, BlobTooLarge
from hermes.delivery import Delivery
from hermes.errors import ToolDenied, ToolError
from hermes.events import Address, OutboundFile, StoredContent, StoredFile
from hermes.pictures import PICTURE_TYPES, picture_type
from hermes.platform import Capabilities
from hermes.settings import Config
from hermes.store.outbox import Added
from hermes.tools.workspace import Workspace

PIECE: Final = 262_144
UNKNOWN: Final = "application/octet-stream"
MAX_FILES: Final = 10
_TYPES: Final = MappingProxyType(
    {
        "csv": "text/csv", "gz": "application/gzip", "html": "text/html", "jpeg": "image/jpeg", "jpg": "image/jpeg",
        "json": "application/json", "m4a": "audio/mp4", "md": "text/markdown", "mp3": "audio/mpeg", "mp4": "video/mp4",
        "oga": "audio/ogg", "ogg": "audio/ogg", "opus": "audio/ogg", "pdf": "application/pdf", "svg": "image/svg+xml",
        "txt": "text/plain", "wav": "audio/wav", "webm": "video/webm", "xml": "application/xml", "zip": "application/zip",
    }
)  # fmt: skip

Render = Callable[[str, Capabilities], Sequence[StoredContent]]


class Outgoing:
    """Sends files.

    Args:
        blobs: where they are kept until they have arrived, and as long as other blobs.
        delivery: commits the parts.
        config: asked each time.
        capabilities: what an account's service can do; raises AccountDown for one that is not configured.
        render: markdown to parts.
    """

    def __init__(
        self, blobs: Blobs, delivery: Delivery, config: Callable[[], Config],
        capabilities: Callable[[str], Capabilities], render: Render,
    ) -> None:  # fmt: skip
        self._blobs = blobs
        self._delivery = delivery
        self._config = config
        self._capabilities = capabilities
        self._render = render

    async def send_one(self, to: Address, path: str, caption: str) -> tuple[StoredFile, Added]:
        """Send a file of the workspace or of a folder of `media.send_from`, as a tool was asked to.

        Raises as `send`.
        """
        config = self._config()
        root = next((each for each in (config.workspace, *config.media.send_from) if _inside(path, each)), None)
        if root is None:
            raise ToolDenied(f"{path}: outside the workspace and the folders that files may be sent from")
        return await self._send(to, [(root, path)], caption, source="tool")

    async def send(self, to: Address, paths: Sequence[str], text: str) -> Added:
        """Send files that the owner of the gateway named, all of them or none.

        Args:
            paths: absolute; at most `MAX_FILES`.
            text: markdown; the first file's caption, or messages of its own where it is too long for one.

        Raises:
            ToolError: a file cannot be read, is empty or too large, the service takes none, or nobody is there; ToolDenied:
                it is part of the home.
            AccountDown: the account is not configured.
            StoreUnavailable: nothing was committed.

        Cancellation: committed, or not at all.
        """
        config = self._config()
        roots = (config.workspace, *config.media.send_from, Path("/"))
        found = [(next(root for root in roots if _inside(path, root)), path) for path in paths if path.startswith("/")]
        if len(found) != len(paths) or not 0 < len(paths) <= MAX_FILES:
            raise ToolError(f"1 to {MAX_FILES} absolute paths are needed")
        return (await self._send(to, found, text, source="send"))[1]

    async def _send(
        self, to: Address, files: Sequence[tuple[Path, str]], text: str, *, source: str
    ) -> tuple[StoredFile, Added]:
        can = self._capabilities(to.account)
        if can.files <= 0:
            raise ToolError("this service takes no files")
        most = min(can.files, self._config().media.max_outbound_bytes)
        taken = [await self._take(root, path, most) for root, path in files]
        added = await self._delivery.post(to, self._parts(can, taken, text), source=source)
        if added.gone is not None:
            raise ToolError(f"nobody is there: {added.gone}")
        return taken[0], added

    async def _take(self, root: Path, path: str, most: int) -> StoredFile:
        """Copy a file into a blob. Raises ToolError."""
        home = self._config().home

        def opened() -> tuple[int, int]:
            with Workspace(root, home).place(path) as place:
                descriptor, about = place.open_file()
            return descriptor, about.st_size

        descriptor, size = await self._blobs.run(opened)
        try:
            if not 0 < size <= most:
                raise ToolError(f"{path}: is empty" if not size else f"{path}: {size} bytes, more than {most}")
            async with self._blobs.writing(most) as writer:
                while piece := await self._blobs.run(lambda: os.read(descriptor, PIECE)):
                    await writer.write(piece)
                digest = await writer.commit()
                name = file_name(PurePosixPath(path).name, "file")
                return StoredFile(
                    digest=digest, name=name, media_type=media_type(name, writer.head), size_bytes=writer.size
                )
        except (BlobTooLarge, BlobNotWritten) as error:
            raise ToolError(f"{path}: {error}") from None
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def _parts(self, can: Capabilities, files: Sequence[StoredFile], text: str) -> list[StoredContent]:
        caption = self._render(text, replace(can, max_text=can.max_caption)) if text.strip() else ()
        below = len(caption) == 1
        parts = [StoredContent(dialect=can.dialect, file=each) for each in files]
        if below:
            parts[0] = StoredContent(text=caption[0].text, dialect=caption[0].dialect, file=files[0])
        return parts if below or not caption else [*parts, *self._render(text, can)]


def _inside(path: str, root: Path) -> bool:
    """Whether a path names something in a folder, as far as its letters say."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() or pure.is_relative_to(root) or pure.is_relative_to(root.resolve())


def media_type(name: str, head: bytes) -> str:
    """What a file is sent as: a picture only if its bytes are those of one, anything else by its name."""
    picture = picture_type(head)
    named = _TYPES.get(name.rpartition(".")[2].lower(), UNKNOWN)
    return picture if picture is not None else UNKNOWN if named in PICTURE_TYPES else named


def find_in(blobs: Blobs) -> Callable[[StoredFile], OutboundFile | None]:
    """Finds the bytes of a stored file; None if they are gone."""

    def find(stored: StoredFile) -> OutboundFile | None:
        path = blobs.find(stored.digest)
        try:
            if path is None or path.stat().st_size != stored.size_bytes:
                return None
        except OSError:
            return None
        return OutboundFile(path=path, name=stored.name, media_type=stored.media_type, size_bytes=stored.size_bytes)

    return find
