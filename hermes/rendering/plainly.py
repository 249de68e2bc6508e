"""The short way: a text without markup reads the same in every dialect, and needs no parser. Pure."""

from __future__ import annotations

import re

from hermes.rendering.units import Unit, size

# What could mean something to a parser or in a dialect. A line break, a blank line, letters and most punctuation do not.
_MARKUP = re.compile(
    r"[\\*_`~|\[\]<>&#\x00]|@(?:everyone|here)|^[-+=: ]|^[0-9]{1,9}[.)]| $|\n{3,}|[^\S \n]", re.MULTILINE
)


def as_it_is(text: str, unit: Unit, room: int) -> str | None:
    """The text itself if it has no markup and fits, else None."""
    trimmed = text.strip("\n").rstrip()
    if _MARKUP.search(trimmed) or size(trimmed, unit) > room:
        return None
    return trimmed
