"""From what a row holds to what a platform is asked to show. Pure but for the look at a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hermes.events import Content, OutboundFile, StoredContent, StoredFile

FindFile = Callable[[StoredFile], OutboundFile | None]

MARK: Final = "(may be a duplicate)"
MARK_ROOM: Final = 32  # what rendering leaves free in each part, in any unit, so that the mark fits


def to_content(stored: StoredContent, find: FindFile, *, marked: bool, final: bool = True) -> Content | None:
    """What is sent for a part; None if its file is not there any more.

    Args:
        find: where a file's bytes are.
        marked: its text begins with words that say it may be a duplicate.
        final: it is no draft.
    """
    file: OutboundFile | None = None
    if stored.file is not None and (file := find(stored.file)) is None:
        return None
    text = stored.text
    if marked:
        text = f"{_mark(stored.dialect)}\n{text}" if text else _mark(stored.dialect)
    return Content(
        text=text, dialect=stored.dialect, buttons=stored.buttons, file=file, silent=stored.silent, final=final,
        failed=stored.failed,
    )  # fmt: skip


def _mark(dialect: str) -> str:
    match dialect:
        case "telegram_html":
            return f"<i>{MARK}</i>"
        case "slack":
            return f"_{MARK}_"
        case "markdown" | "discord":
            return f"*{MARK}*"
        case _:
            return MARK
