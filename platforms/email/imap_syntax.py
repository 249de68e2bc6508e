"""What an IMAP server says, as values. Pure (RFC 9051, sections 7 and 9; RFC 3501 for those that know no newer).

Atoms are `str`, strings and literals `bytes`, NIL is None, parentheses are lists.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hermes.errors import PlatformProtocolError

MAX_DEPTH = 32
_LITERAL = re.compile(rb"\{(\d{1,10})\+?\}\Z")
_STATUS = re.compile(r"(OK|NO|BAD|BYE|PREAUTH)(?:\s+|\Z)(?:\[([^\]]*)\]\s?)?(.*)\Z", re.IGNORECASE | re.DOTALL)
_ATOM = re.compile(rb"[^\s()\"\[{]*(?:(?:\[[^\]]{0,1000}\]|[\[{])[^\s()\"\[{]*)*")
_DATE = re.compile(r"\s?(\d{1,2})-(\w{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\Z")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Status:
    """`OK`, `NO`, `BAD`, `BYE` or `PREAUTH`, with its response code and its words."""

    kind: str
    code: str = ""
    text: str = ""

    @property
    def code_name(self) -> str:
        """The code's first word in upper case."""
        return self.code.partition(" ")[0].upper()


def literal_size(line: bytes) -> int | None:
    """How many bytes of a literal follow a line; None if none does."""
    found = _LITERAL.search(line[-16:])
    return int(found[1]) if found else None


def status(line: bytes) -> Status | None:
    """A status without its tag; None if the line says something else."""
    found = _STATUS.match(line.decode("utf-8", "replace"))
    return Status(found[1].upper(), found[2] or "", found[3][:300]) if found else None


def values(parts: Sequence[bytes]) -> list[Any]:
    """The values of a response.

    Args:
        parts: lines and literals in turn, beginning and ending with a line.

    Raises:
        PlatformProtocolError: it is none.
    """
    reader = _Reader()
    for number, part in enumerate(parts):
        if number % 2:
            reader.put(part)
        else:
            line = part if number + 1 == len(parts) else _LITERAL.sub(b"", part)
            reader.read(line)
    return reader.end(parts[0])


class _Reader:
    """Puts values together, nested as their parentheses are."""

    def __init__(self) -> None:
        self._top: list[Any] = []
        self._open = [self._top]

    def put(self, value: Any) -> None:
        self._open[-1].append(value)

    def read(self, line: bytes) -> None:
        at = 0
        while at < len(line):
            sign = line[at : at + 1]
            if sign in b" \t":
                at += 1
            elif sign == b"(":
                inner: list[Any] = []
                self.put(inner)
                self._open.append(inner)
                if len(self._open) > MAX_DEPTH:
                    raise _strange(line)
                at += 1
            elif sign == b")":
                if len(self._open) == 1:
                    raise _strange(line)
                self._open.pop()
                at += 1
            elif sign == b'"':
                at = self._quoted(line, at + 1)
            else:
                found = _ATOM.match(line, at)
                if found is None or found.end() == at:
                    raise _strange(line)
                atom = found[0].decode("utf-8", "replace")
                self.put(None if atom.upper() == "NIL" else atom)
                at = found.end()

    def _quoted(self, line: bytes, at: int) -> int:
        text = bytearray()
        while at < len(line):
            sign = line[at]
            if sign == ord('"'):
                self.put(bytes(text))
                return at + 1
            if sign == ord("\\"):
                at += 1
            text += line[at : at + 1]
            at += 1
        raise _strange(line)

    def end(self, first: bytes) -> list[Any]:
        if len(self._open) != 1:
            raise _strange(first)
        return self._top


def _strange(line: bytes) -> PlatformProtocolError:
    return PlatformProtocolError("the IMAP server says something that is not IMAP", sample=repr(line[:200]))


def quoted(text: str) -> bytes:
    """A string as an argument (RFC 9051, section 4.3); what a quoted string cannot hold is left out."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "").replace("\0", "")
    return b'"' + safe.encode("utf-8", "replace") + b'"'


def mailbox_name(name: str) -> bytes:
    """A mailbox's name as an argument, in the modified UTF-7 of RFC 3501, section 5.1.3."""
    out, waiting = [], ""

    def flush() -> None:
        if waiting:
            coded = base64.b64encode(waiting.encode("utf-16-be")).decode("ascii")
            out.append("&" + coded.rstrip("=").replace("/", ",") + "-")

    for letter in name:
        if " " <= letter <= "~":
            flush()
            waiting = ""
            out.append("&-" if letter == "&" else letter)
        else:
            waiting += letter
    flush()
    return quoted("".join(out))


def decoded_name(name: str) -> str:
    """A mailbox's name out of modified UTF-7; as it came, if it is in UTF-8 already."""
    parts = name.split("&")
    out = [parts[0]]
    for part in parts[1:]:
        coded, dash, rest = part.partition("-")
        if not dash:
            return name
        try:
            padded = coded.replace(",", "/") + "=" * (-len(coded) % 4)
            out.append((base64.b64decode(padded, validate=True).decode("utf-16-be") if coded else "&") + rest)
        except (ValueError, UnicodeDecodeError):
            return name
    return "".join(out)


def moment(text: object) -> float | None:
    """An INTERNALDATE as seconds since the epoch; None if it is none."""
    if not isinstance(text, bytes):
        return None
    found = _DATE.match(text.decode("ascii", "replace"))
    if found is None or found[2].capitalize() not in MONTHS:
        return None
    day, _, year, hour, minute, second, sign, zone_h, zone_m = found.groups()
    away = timedelta(hours=int(zone_h), minutes=int(zone_m))
    try:
        zone = timezone(-away if sign == "-" else away)
        month = MONTHS.index(found[2].capitalize()) + 1
        return datetime(
            int(year), month, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=zone
        ).timestamp()
    except (ValueError, OverflowError):
        return None


def day(at: float) -> str:
    """A day as SEARCH wants it."""
    when = datetime.fromtimestamp(at, UTC)
    return f"{when.day}-{MONTHS[when.month - 1]}-{when.year}"
