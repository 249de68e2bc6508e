"""`.env`: `NAME=value` lines, small and strict. Pure.

`export NAME=value` and comments are allowed. Single quotes keep everything, double quotes know
`\\n \\t \\" \\\\ \\$`, an unquoted value ends before ` #`. No line continues on the next, and nothing is expanded.
"""

from __future__ import annotations

import re
from typing import Final

from hermes.errors import Problem

MAX_BYTES: Final = 262_144
_LINE: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]{0,99})[ \t]*=[ \t]*(.*)\Z")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?\Z')
_SINGLE: Final = re.compile(r"'([^']*)'[ \t]*(?:#.*)?\Z")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read_dotenv(text: str) -> tuple[dict[str, str], list[Problem]]:
    """Read the lines of a `.env` file.

    Args:
        text: the file, at most MAX_BYTES characters.

    Returns:
        The variables, and every line that cannot be read, by its number and without its content.
    """
    values: dict[str, str] = {}
    problems: list[Problem] = []
    if len(text) > MAX_BYTES:
        return {}, [Problem(".env", f"is larger than {MAX_BYTES} bytes")]
    for number, raw in enumerate(re.split(r"\r\n|\n", text.removeprefix("\ufeff")), 1):
        line = raw.strip(" \t")
        if not line or line.startswith("#"):
            continue
        reason = _read_line(line, values)
        if reason:
            problems.append(Problem(f".env line {number}", reason))
    return values, problems


def _read_line(line: str, values: dict[str, str]) -> str:
    """Put one line's variable into `values`; returns why it cannot be read, or nothing."""
    if any(letter < " " and letter != "\t" for letter in line):
        return "has a control character"
    found = _LINE.match(line)
    if found is None:
        return "is not NAME=value"
    name, rest = found.groups()
    if name in values:
        return "sets a variable that a line above has set already"
    if rest[:1] in ("'", '"'):
        quoted = (_SINGLE if rest[0] == "'" else _DOUBLE).match(rest)
        if quoted is None:
            return "has a quote that is not closed, or something after it"
        value = quoted[1]
        if rest[0] == '"':
            if any(letter not in _ESCAPES for letter in _ESCAPE.findall(value)):
                return "has an unknown escape in double quotes"
            value = _ESCAPE.sub(lambda escape: _ESCAPES[escape[1]], value)
    else:
        value = re.split(r"(?:^|[ \t])#", rest, maxsplit=1)[0].rstrip(" \t")
    values[name] = value
    return ""
