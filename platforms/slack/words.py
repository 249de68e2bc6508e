"""What somebody wrote, from Slack's mrkdwn to words. Pure.

Source: https://docs.slack.dev/messaging/formatting-message-text, "Parsing".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_ANGLE = re.compile(r"<([^<>]*)>")
_USER = re.compile(r"<@([A-Z0-9]{2,40})(?:\|[^<>]*)?>")
_COMMAND = re.compile(r"!([A-Za-z][A-Za-z0-9_-]{0,31})(?=\s|\Z)")


def plain(text: str, me: str, names: Mapping[str, str]) -> str:
    """The words as a person reads them: names for mentions, links as addresses, ours left out where it begins or ends.

    Args:
        text: as it came.
        me: our user id; empty: nothing is left out.
        names: by user id, as far as they are known.
    """
    if me:
        ours = rf"<@{me}(?:\|[^<>]*)?>"
        text = re.sub(rf"^\s*({ours}[\s,:]*)+|(\s*{ours})+\s*\Z", "", text)
    text = _ANGLE.sub(lambda found: _shown(found[1], names), text)
    return unescaped(text).strip()


def unescaped(text: str) -> str:
    """The three entities as the characters that they stand for."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _shown(inside: str, names: Mapping[str, str]) -> str:
    target, bar, label = inside.partition("|")
    if target.startswith("@"):
        return f"@{names.get(target[1:]) or label or target[1:]}"
    if target.startswith("#"):
        return f"#{label or target[1:]}"
    if target.startswith("!date^"):
        return label
    if target.startswith("!"):
        return label if bar and label else f"@{target[1:].partition('^')[0]}"
    address = target.removeprefix("mailto:")
    if not bar or not label or label in (target, address) or target.partition("://")[2].rstrip("/") == label:
        return address
    return f"{label} ({target})"


def mentioned(text: str) -> tuple[str, ...]:
    """The ids of the people whom a text names, each once."""
    return tuple(dict.fromkeys(_USER.findall(text)))


def command(text: str, known: Collection[str]) -> str:
    """A text in which `!name` at its beginning is `/name`, if that is a command of ours; Slack keeps `/` for itself."""
    found = _COMMAND.match(text)
    if found is None or found[1].lower().replace("-", "_") not in known:
        return text
    return "/" + text[1:]


def slash(name: str, text: str, known: Collection[str]) -> str:
    """A slash command as it would be typed to us.

    Args:
        name: as Slack has it: `/hermes` with the command behind it, or `/hermes-stop`, or `/stop`.
        text: what was typed after it.
        known: our commands.
    """
    bare = name.removeprefix("/").lower().replace("-", "_")
    tail = bare.partition("_")[2]
    for each in (bare, tail):
        if each in known:
            return f"/{each} {text}".rstrip()
    first, _, rest = text.strip().partition(" ")
    word = first.removeprefix("/").removeprefix("!").lower().replace("-", "_")
    if word in known:
        return f"/{word} {rest}".rstrip()
    return text.strip() or "/help"
