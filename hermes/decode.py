"""From a tree of plain values to checked ones, by rules: pure, collecting every mistake, never repeating a value.

A rule turns one value into what the settings hold, or says why it cannot. A reason never contains the value: anything
in a configuration may be a secret in the wrong place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hermes.errors import Problem
from hermes.settings import Secret

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:/@-]{0,63}\Z")
_TOKEN_LIKE: Final = re.compile(r"(sk|pk|rk|xox[a-z]|xapp|gh[a-z]|glpat)[-_]|(?=.*[0-9])\S{20,}", re.IGNORECASE)
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}\Z")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?\Z")
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]+)([^?#\s]*)\Z", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}\Z")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+\Z")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?\Z")


_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


def without_halves(document: bytes) -> bytes:
    """JSON in which each escaped half of a surrogate pair is U+FFFD.

    A half is no text (RFC 8259, section 8.2), and a strict decoder refuses the whole document for it.
    """
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], document)


class Wrong(ValueError):
    """A value that its rule does not take; the text says what would be right and holds nothing of the value."""


class Expanded(str):
    """Text that came from a variable, in whole or in part: it may stand for a number too, and is not shown."""

    __slots__ = ()


class Rule:
    """How one value is read: a function, whether `null` is a value, and what is right, in words.

    Args:
        read: gives the value as the settings hold it, or raises Wrong.
        says: completes "must be …".
        nullable: `null` is read as None.
    """

    __slots__ = ("_read", "nullable", "says")

    def __init__(self, read: Callable[[Any], Any], says: str, *, nullable: bool = False) -> None:
        self._read = read
        self.says = says
        self.nullable = nullable

    def read(self, value: object) -> Any:
        """The value as the settings hold it.

        Raises:
            Wrong: with a reason that does not repeat the value.
        """
        if value is None:
            if self.nullable:
                return None
            raise Wrong(f"has no value; it must be {self.says}")
        return self._read(value)

    def or_null(self) -> Rule:
        """The same rule, and `null` too."""
        return Rule(self._read, f"{self.says}, or null", nullable=True)


class Findings:
    """What reading found so far: mistakes, oddities, and keys that only hermes-agent knows."""

    __slots__ = ("foreign", "problems", "warnings")

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.foreign: list[str] = []

    def wrong(self, path: str, reason: str) -> None:
        """Note a mistake at a path."""
        self.problems.append(Problem(path, reason))


def kind_of(value: object) -> str:
    """What a person would call this value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    return "a section" if isinstance(value, Mapping) else "a list"


def segment(name: object, position: int = 0, *, known: Iterable[str] = ()) -> str:
    """A key as part of a path; one that does not look like a name is called by its position, for it may be a secret."""
    if isinstance(name, str) and name in known:
        return name
    if isinstance(name, str) and _NAME.match(name) and not _TOKEN_LIKE.match(name):
        return name
    return f"(key {position + 1})"


def join(path: str, part: str) -> str:
    """The path of a part below a path."""
    return f"{path}.{part}" if path else part


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    import difflib  # only a mistake pays for it

    names = sorted(known)
    folded = name.lower().replace("-", "_")
    if folded in names:
        return folded
    found = difflib.get_close_matches(folded, names, n=1, cutoff=0.6)
    if found:
        return found[0]
    longer = [each for each in names if each.startswith(folded + "_")]
    return longer[0] if longer else None


def read_keys(
    tree: object,
    path: str,
    rules: Mapping[str, Rule],
    findings: Findings,
    *,
    foreign: Mapping[str, str] | None = None,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """Read one section by its rules; what is wrong goes to the findings and is left out of the result.

    Args:
        tree: the section as it was written; None counts as an empty one.
        path: where it stands, for the findings.
        rules: the section's keys.
        findings: collects mistakes.
        foreign: keys of hermes-agent that mean nothing here, with what to use instead (or nothing).
        also: keys that the caller reads by itself.

    Returns:
        The keys that are there and right.
    """
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        findings.wrong(path, f"must be a section with keys, and is {kind_of(tree)}")
        return {}
    values: dict[str, Any] = {}
    for position, (name, value) in enumerate(tree.items()):
        if name in also:
            continue
        rule = rules.get(name)
        if rule is None:
            unknown_key(name, position, path, (*rules, *also), findings, foreign or {})
            continue
        try:
            values[name] = rule.read(value)
        except Wrong as wrong:
            findings.wrong(join(path, name), str(wrong))
    return values


def unknown_key(
    name: object, position: int, path: str, known: Sequence[str], findings: Findings, foreign: Mapping[str, str]
) -> None:
    """Note a key that is not one of ours: a warning when hermes-agent has it, else a mistake with the nearest name."""
    where = join(path, segment(name, position, known=foreign))
    if name in foreign:
        instead = foreign[str(name)]
        findings.foreign.append(f"{where} (here: {instead})" if instead else where)
        return
    meant = nearest(name, known) if isinstance(name, str) and len(name) <= 100 else None
    findings.wrong(where, "is not a known key" + (f"; did you mean {meant}?" if meant else ""))


def whole(low: int, high: int, unit: str = "") -> Rule:
    """A whole number from `low` to `high`."""
    says = f"a whole number from {low} to {high}" + (f" ({unit})" if unit else "")

    def read(value: object) -> int:
        if isinstance(value, Expanded) and _INTEGER.match(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        if not low <= value <= high:
            raise Wrong(f"must be {says}")
        return value

    return Rule(read, says)


def seconds(high: float, *, zero: bool = False) -> Rule:
    """A duration in seconds above zero (or from zero) and at most `high`."""
    says = f"seconds, {'0 or more' if zero else 'more than 0'} and at most {high:g}"

    def read(value: object) -> float:
        if isinstance(value, Expanded) and _DECIMAL.match(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        if not math.isfinite(value) or not 0 <= value <= high or (value == 0 and not zero):
            raise Wrong(f"must be {says}")
        return float(value)

    return Rule(read, says)


def choice(*names: str) -> Rule:
    """One of a few words, in any case."""
    says = "one of " + ", ".join(names)

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        if value.lower() not in names:
            raise Wrong(f"must be {says}")
        return value.lower()

    return Rule(read, says)


def text(longest: int, *, empty: bool = False) -> Rule:
    """Text of bounded length without NUL that UTF-8 can carry."""
    says = f"text of {0 if empty else 1} to {longest} characters"

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        if len(value) > longest or not (value or empty):
            raise Wrong(f"must be {says}")
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Wrong("has characters that no text may have (NUL or half of a surrogate pair)")
        return str(value)

    return Rule(read, says)


def word(longest: int) -> Rule:
    """Text without blanks or control characters, such as a model's name."""
    inner = text(longest)
    says = f"a name of 1 to {longest} characters without blanks"

    def read(value: object) -> str:
        name: str = inner.read(value)
        if not name.isprintable() or any(letter.isspace() for letter in name):
            raise Wrong(f"must be {says}")
        return name

    return Rule(read, says)


def secret(longest: int = 4096) -> Rule:
    """A key or token: visible ASCII, because it goes into a header."""
    says = f"a key of 1 to {longest} visible ASCII characters"

    def read(value: object) -> Secret:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}; quote it")
        if not value:
            raise Wrong("is empty; leave it out where none is needed")
        if len(value) > longest or not _VISIBLE.match(value):
            raise Wrong(f"must be {says}")
        return Secret(str(value))

    return Rule(read, says)


def folder() -> Rule:
    """The absolute path of a directory, which need not be there yet."""
    says = "an absolute path of at most 4096 characters"

    def read(value: object) -> Path:
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value or len(value) > 4096:
            raise Wrong(f"must be {says}" + ("" if isinstance(value, str) else f", and is {kind_of(value)}"))
        return Path(value)

    return Rule(read, says)


def texts(each: Rule, most: int) -> Rule:
    """A list of at most `most` entries, each by its own rule."""
    says = f"a list of at most {most} entries, each {each.says}"

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        if len(value) > most:
            raise Wrong(f"must be {says}")
        entries = []
        for position, entry in enumerate(value):
            try:
                entries.append(each.read(entry))
            except Wrong as wrong:
                raise Wrong(f"entry {position + 1} {wrong}") from None
        return tuple(entries)

    return Rule(read, says)


def url(*schemes: str, login: bool = False) -> Rule:
    """An absolute URL with one of the schemes and a host, without query and fragment.

    Args:
        schemes: which are allowed.
        login: whether a user name and password may stand in it.
    """
    says = "a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        parts = _URL.match(value) if len(value) <= 2048 and value.isascii() and value.isprintable() else None
        if parts is None or parts[1].lower() not in schemes:
            raise Wrong(f"must be {says}, without query, fragment or blanks")
        user, at, host = parts[2].rpartition("@")
        if at and (not login or not user):
            raise Wrong("must not hold a user name or password; api_key and headers are the places for secrets")
        _check_host(host)
        return str(value)

    return Rule(read, says)


def _check_host(host: str) -> None:
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not is_address(name):
            raise Wrong("has a host that is no IPv6 address in brackets")
    else:
        name, colon, port = host.partition(":")
        rest = colon + port
        if not re.match(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})\Z", name):
            raise Wrong("has no proper host name")
    if rest and not (rest[1:].isdigit() and len(rest) <= 6 and 0 < int(rest[1:]) <= 65535):
        raise Wrong("has a port that is not a number from 1 to 65535")


def is_address(name: str) -> bool:
    """Whether this is an IP address."""
    import ipaddress  # the usual start never needs it

    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_name() -> Rule:
    """A host name or an address to listen on."""
    says = "a host name or an IP address, without port or brackets"

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        plain = re.match(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})\Z", value)
        if not plain and not (len(value) <= 64 and is_address(value)):
            raise Wrong(f"must be {says}")
        return str(value)

    return Rule(read, says)


def origin() -> Rule:
    """An origin as a browser sends it, or `*`."""
    inner = url("http", "https")
    says = "an origin such as https://example.org, or *"

    def read(value: object) -> str:
        if value == "*":
            return "*"
        try:
            found: str = inner.read(value)
        except Wrong:
            raise Wrong(f"must be {says}") from None
        if "/" in found.partition("://")[2]:
            raise Wrong(f"must be {says}, without a path or a slash at its end")
        return found

    return Rule(read, says)


def headers(most: int = 32) -> Rule:
    """HTTP header fields to send along (RFC 9110, section 5); none of those that frame a message."""
    says = f"a section of at most {most} header names with text values"
    framing = frozenset({"host", "content-length", "transfer-encoding", "connection"})

    def read(value: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, Mapping) or len(value) > most:
            raise Wrong(f"must be {says}")
        pairs = []
        for name, content in value.items():
            if not isinstance(name, str) or not _HEADER_NAME.match(name) or name.lower() in framing:
                raise Wrong("has a name that is no header field that may be set here")
            if not isinstance(content, str) or len(content) > 4096 or not _HEADER_VALUE.match(content):
                raise Wrong("has a value that is not 1 to 4096 printable ASCII characters; quote it")
            pairs.append((name, str(content)))
        return tuple(pairs)

    return Rule(read, says)


def variable_name() -> Rule:
    """The name of an environment variable."""
    says = "the name of an environment variable"

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.match(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z", value):
            raise Wrong(f"must be {says}")
        return str(value)

    return Rule(read, says)


def flag() -> Rule:
    """True or false; from the environment also as a word."""
    says = "true or false"

    def read(value: object) -> bool:
        if isinstance(value, Expanded) and value.lower() in ("true", "false", "yes", "no", "1", "0"):
            return value.lower() in ("true", "yes", "1")
        if not isinstance(value, bool):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        return value

    return Rule(read, says)
