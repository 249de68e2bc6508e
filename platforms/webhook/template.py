"""Fields of a payload picked into words: `{issue.title}`, `{commits.0.message|200}`. Pure.

A field that is not there is empty. What stands between braces is a path, never code, and nothing that a caller sends is read as a
template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

Path = tuple[str, ...]

MAX_FIELD: Final = 8000  # characters of one field, where the template says nothing
MAX_WORDS: Final = 100_000  # characters of everything
CUT: Final = "… (cut)"
_FIELD = re.compile(r"(@?[\w$-]{1,100}(?:\.[\w$ -]{1,100}){0,30})(?:\|([1-9][0-9]{0,5}))?\Z")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class BadTemplate(ValueError):
    """A template that is none; the text says where, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field, and how much of it is wanted."""

    path: Path
    most: int = MAX_FIELD


Template = tuple[str | Field, ...]


def parse_path(path: str) -> Path:
    """A path such as `issue.labels.0.name`. Raises BadTemplate."""
    found = _FIELD.match(path)
    if found is None or found[2] is not None:
        raise BadTemplate("has a field that is none: names and numbers with points between them, such as issue.title")
    return tuple(found[1].split("."))


def parse_template(template: str) -> Template:
    """A template as pieces; `{{` and `}}` are braces. Raises BadTemplate."""
    pieces: list[str | Field] = []
    at = 0
    for found in _PIECE.finditer(template):
        pieces.append(template[at : found.start()])
        at = found.end()
        if found[0] in ("{{", "}}"):
            pieces.append(found[0][0])
            continue
        field = _FIELD.match((found[1] or "").strip())
        if field is None:
            raise BadTemplate(
                f"has at character {found.start() + 1} a brace that begins no field such as {{issue.title}} or"
                " {issue.body|500}; a brace itself is written twice"
            )
        pieces.append(Field(tuple(field[1].split(".")), int(field[2] or MAX_FIELD)))
    return (*(each for each in pieces if each != ""), *((template[at:],) if at < len(template) else ()))


def render(template: Template, payload: Any) -> str:
    """The words that a template makes of a payload, at most `MAX_WORDS` characters of them."""
    words: list[str] = []
    room = MAX_WORDS
    for piece in template:
        said = piece if isinstance(piece, str) else cut(as_text(pick(payload, piece.path)), piece.most)
        words.append(said if len(said) <= room else cut(said, room))
        room -= len(words[-1])
        if room <= 0:
            break
    return "".join(words)


def pick(payload: Any, path: Path) -> Any:
    """The value at a path; None where there is none."""
    here = payload
    for name in path:
        if isinstance(here, dict):
            here = here.get(name)
        elif (
            isinstance(here, list) and name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < len(here)
        ):
            here = here[int(name)]
        else:
            return None
    return here


def as_text(value: Any) -> str:
    """A value in words: text as it is, nothing for null, everything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError, RecursionError):
        return ""


def cut(text: str, most: int) -> str:
    """At most so many characters, and a sign that there were more."""
    return text if len(text) <= most else text[: max(0, most - len(CUT))] + CUT[: max(0, most)]
