"""Which file was uploaded for which part: the message that shows a file carries no metadata, and does not say its own name."""

from __future__ import annotations

import msgspec

from hermes.platform import AccountMemory

KEY = "uploads"
MAX_BYTES = 4096  # of a value of the memory

_decode = msgspec.json.Decoder(dict[str, str]).decode


class Uploads:
    """The latest uploads by the keys of their parts; committed before the file is shown.

    Args:
        memory: of the account.
    """

    def __init__(self, memory: AccountMemory) -> None:
        self._memory = memory
        self._files: dict[str, str] | None = None

    async def note(self, key: str, file: str) -> None:
        """A file was uploaded for a part; kept on return."""
        files = await self._load()
        files.pop(key, None)
        files[key] = file
        while len(value := msgspec.json.encode(files)) > MAX_BYTES:
            del files[next(iter(files))]
        await self._memory.put(KEY, value)

    async def of(self, key: str) -> str | None:
        """The file that was uploaded for a part, if that is known."""
        return (await self._load()).get(key)

    async def _load(self) -> dict[str, str]:
        if self._files is None:
            stored = await self._memory.get(KEY)
            if self._files is None:  # nobody else has done so meanwhile
                try:
                    self._files = _decode(stored or b"{}")
                except msgspec.DecodeError:
                    self._files = {}
        return self._files
