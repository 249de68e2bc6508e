"""One event, one line: what a log line holds, and its human and JSON forms. Pure."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Literal

import msgspec
import trio

Form = Literal["human", "json"]
Value = str | int | float | bool | None

LONGEST_VALUE = 2000  # characters shown of one value
LONGEST_TAKEN = 65_536  # characters looked at; what a cut may have left of a secret is dropped with the last of them
SAFETY_MARGIN = 4096
LARGEST = 2**63 - 1  # JSON readers have 64 bits, and Python refuses to print numbers of many thousand digits
MOST_FIELDS = 40
MOST_LEAVES = 5
OUTER_FRAMES, INNER_FRAMES = 1, 8

LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
WORDS: Mapping[bool | None, str] = MappingProxyType({None: "-", True: "true", False: "false"})
RESERVED = frozenset({"time", "level", "event"})
NOT_IN_A_NAME = re.compile(r"[^\w.*-]", re.ASCII)
BARE = re.compile(r"[\w.:/@+,*()#|<>-]+", re.ASCII)
# Beyond what JSON escapes: DEL and C1 (a terminal may obey them), line separators, direction marks.
INVISIBLE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One event, with values that no other thread can change.

    Args:
        at: seconds since the epoch.
        level: the number of `logging`.
        event: the event's name, `area.what_happened`; for a library's own message, the logger's name.
        fields: name -> value.
        texts: how it is written, by form, once one of several outputs has written it; each redacts alike.
    """

    at: float
    level: int
    event: str
    fields: Mapping[str, Value]
    texts: dict[Form, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Roughly the characters that it keeps in memory."""
        size = 200 + len(self.event)
        for value in self.fields.values():
            if type(value) is str:
                size += len(value)
        return size


def plain(value: object) -> Value:
    """A value as something that cannot change any more: numbers, None and short strings stay, the rest becomes text."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= LONGEST_TAKEN else value[:LONGEST_TAKEN]  # type: ignore[arg-type, return-value, index]  # mypy does not narrow by `kind`
    if value is None or kind is bool or kind is float:
        return value  # type: ignore[return-value]
    if kind is int:
        return value if -LARGEST <= value <= LARGEST else "a number too large to write"  # type: ignore[operator, return-value]
    return str(value)[:LONGEST_TAKEN]


def error_fields(error: BaseException) -> dict[str, Value]:
    """What a line says about an exception: its text, the place, and what it came from.

    Returns:
        `error`: type and message, for a group those of its leaves; `at`: file, line and function from the innermost
        frame outwards; `because`: type and message of its causes. No source lines and no values of variables.
    """
    leaves = list(_leaves(error))
    shown = "; ".join(map(error_text, leaves[:MOST_LEAVES]))
    if len(leaves) > MOST_LEAVES:
        shown += f"; and {len(leaves) - MOST_LEAVES} more"
    found: dict[str, Value] = {"error": shown if leaves else error_text(error)}
    place = leaves[0] if leaves else error
    if frames := _frames(place.__traceback__):
        found["at"] = frames
    if causes := " <- ".join(error_text(cause) for cause in _causes(place)):
        found["because"] = causes
    return found


def error_text(error: BaseException) -> str:
    """Type and message; a message that cannot be made is said to be so."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return text if len(text) <= LONGEST_TAKEN else text[:LONGEST_TAKEN]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The leaves of a group; cancellations say nothing about what went wrong and are left out beside others."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    waiting: list[BaseException] = [error]
    while waiting:
        item = waiting.pop()
        if isinstance(item, BaseExceptionGroup):
            waiting.extend(reversed(item.exceptions))
        elif not isinstance(item, trio.Cancelled):
            yield item


def _causes(error: BaseException) -> Iterator[BaseException]:
    for _ in range(3):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None or isinstance(cause, trio.Cancelled):
            return
        yield cause
        error = cause


def _frames(trace: TracebackType | None) -> str:
    frames: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{short_path(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    if len(frames) > OUTER_FRAMES + INNER_FRAMES:
        frames[OUTER_FRAMES:-INNER_FRAMES] = ["…"]
    return " < ".join(reversed(frames))


def short_path(path: str) -> str:
    """The last three parts of a path: enough to find the file, and nobody's home directory."""
    return "/".join(path.rsplit("/", 3)[-3:])


def render(line: Line, form: Form, redact: Callable[[str], str]) -> str:
    """The line as text, without its line end.

    Args:
        line: the event.
        form: `human` (`time LEVEL event name=value …`) or `json` (one object).
        redact: takes the secrets out of a text; each value passes it before any quoting, so that no quoting hides one.

    Returns:
        text without control characters, encodable as UTF-8, at most a few times `LONGEST_VALUE` long.
    """
    items = list(line.fields.items())[:MOST_FIELDS]
    together = "\n".join([line.event, *(f"{name}\n{value}" for name, value in items)])
    if redact(together) == together:  # the usual line: one look at everything finds nothing
        redact = str
    fields = {NOT_IN_A_NAME.sub("_", redact(name)): _shown(value, redact) for name, value in items}
    event = _clean(redact(line.event))
    level = LEVELS.get(line.level, str(line.level))
    if form == "json":
        content = {"time": stamp(line.at), "level": level, "event": event}
        content |= {f"_{name}" if name in RESERVED else name: value for name, value in fields.items()}  # type: ignore[misc]
        return INVISIBLE.sub(_escape, msgspec.json.encode(content).decode())
    words = [
        stamp(line.at),
        f"{level.upper():<7}",
        _quoted(event),
        *(f"{name}={_quoted(v)}" for name, v in fields.items()),
    ]
    return " ".join(words)


def _shown(value: Value, redact: Callable[[str], str]) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        text = str(value)
        return value if redact(text) == text else "***"
    redacted = redact(value)
    if len(value) >= LONGEST_TAKEN:
        redacted = redacted[:-SAFETY_MARGIN]
    if len(redacted) > LONGEST_VALUE:
        redacted = f"{redacted[:LONGEST_VALUE]}… ({len(redacted) - LONGEST_VALUE} more)"
    return _clean(redacted)


def _clean(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _quoted(value: Value) -> str:
    if isinstance(value, str):
        return value if BARE.fullmatch(value) else INVISIBLE.sub(_escape, msgspec.json.encode(value).decode())
    if isinstance(value, float):
        return f"{value:.6g}"
    return WORDS[value] if value is None or isinstance(value, bool) else str(value)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def stamp(at: float) -> str:
    """A moment in UTC with milliseconds, as RFC 3339 writes it."""
    whole = int(at // 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((at - whole) * 1000):03d}Z"
