"""One markdown to what a service shows: parsed once, written in its dialect, split by its own measure. Pure.

`render` is all that delivery needs. The parser is imported with the first text that has any markup.
"""

from __future__ import annotations

from hermes.platform import Capabilities
from hermes.rendering.plainly import as_it_is
from hermes.rendering.units import is_visible, well_formed

__all__ = ["MIN_ROOM", "plain_text", "render"]

MIN_ROOM = 160  # units: less does not hold a fence with its quotes and a word; no service has less


def render(markdown: str, capabilities: Capabilities, *, suffix_room: int = 0) -> tuple[str, ...]:
    """A markdown text as messages in the dialect of a service. Linear in its length; the same text, the same parts.

    Args:
        markdown: CommonMark with tables, ~~strikethrough~~, ||spoilers|| and task lists; HTML is text like any other.
        capabilities: `dialect`, and `max_text` in `unit`s for each part. In `telegram_html` that counts the text after its
            entities are parsed, as the service does; the part itself has at most 32,768 bytes.
        suffix_room: units of each part to leave free, for what the caller adds.

    Returns:
        The parts in order, each correct by itself; at least one, unless there is nothing visible to show: then none.

    Raises:
        ValueError: fewer than `MIN_ROOM` units are left for a part.
    """
    room = capabilities.max_text - suffix_room
    if room < MIN_ROOM:
        raise ValueError(f"a part needs room for {MIN_ROOM} units at least, not {room}")
    text = well_formed(markdown)
    if not is_visible(text):
        return ()
    whole = as_it_is(text, capabilities.unit, room)
    if whole is not None:
        return (whole,)
    from hermes.rendering.splitting import split

    return split(text, capabilities.dialect, capabilities.unit, room)


def plain_text(markdown: str) -> str:
    """The words of a markdown text, as `plain` shows them, in one piece.

    Args:
        markdown: as for `render`.

    Returns:
        Its text without markup; empty if nothing of it is visible.
    """
    text = well_formed(markdown)
    if not is_visible(text):
        return ""
    # Every character may become a few by indentation and addresses, never this many.
    room = 1000 * len(text) + MIN_ROOM
    return "\n".join(render(text, Capabilities(dialect="plain", max_text=room)))
