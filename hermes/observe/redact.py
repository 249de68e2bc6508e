"""Secrets taken out of text before it is written: the values that are configured, and what looks like one. Pure.

What is found of a *configured* value: the value itself; each character percent-encoded (once or several times), as a
JSON or Python escape, in any mixture; and its base64, alone or inside other bytes (a `Basic` header). Not found: its
hash, its hexadecimal or compressed form, a value shorter than `SHORTEST_SECRET`, and a value that was cut before it
came here.

What is found without being configured is in `PATTERNS`. They ask for a context (a header's name, a URL, a vendor's
prefix), so that ordinary words stay as they are.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from hermes.settings import Secret

MASK = "***"
SHORTEST_SECRET = 6  # characters; a shorter value would take ordinary text with it
SHORTEST_IN_BASE64 = 8
MOST_SECRETS = 1000

SECRET_NAME = r"(?:api[_-]?key|access[_-]?key|private[_-]?key|token|secret|passw(?:or)?d|passphrase|credentials?)"  # noqa: S105  # a pattern of names
_QUOTE = r"\\{0,3}[\"']"
_ESCAPE = r"\\{1,16}"  # one backslash, doubled by each quoting around it; bounded, or runs of them take quadratic time
_WORD = r"[^\s\"',;\\)\]}]+"

# (what the lower-case text must have for the pattern to be tried: one word of each group; the pattern; its replacement)
PATTERNS: tuple[tuple[tuple[tuple[str, ...], ...], re.Pattern[str], str], ...] = tuple(
    (tuple(tuple(group.split()) for group in hints), re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for hints, pattern, replacement in (
        (
            ("private",),
            r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----).*?(?=-----END [A-Z0-9 ]{0,40}PRIVATE KEY|\Z)",
            rf"\1{MASK}",
        ),
        (
            ("authorization",),
            (rf"((?:proxy-)?authorization(?:{_QUOTE}\s*[,:]\s*b?{_QUOTE}|\s*[:=]\s*(?:b?{_QUOTE})?))"
            rf"((?:bearer|basic|bot|token|digest|negotiate|apikey)[ \t]+)?(?!\*\*\*){_WORD}(?:(?<!,)[ \t]+{_WORD})?"),
            rf"\1\2{MASK}",
        ),
        (("bearer",), r"\b(bearer(?:\s+|%20|\+))[\w.~+/=%-]{8,}", rf"\1{MASK}"),
        (("basic",), r"\b(basic\s+)(?=[\w+/-]{0,400}[A-Z0-9+/=])[\w+/-]{16,}={0,2}", rf"\1{MASK}"),
        (
            ("-key cookie secret token", ": ,"),
            rf"\b((?:set-)?cookie|x-[\w-]{{0,40}}(?:key|token|secret)|api-key)((?:{_QUOTE})?\s*[:,]\s*(?:b?{_QUOTE})?)[^\s\"',\\]{{4,}}",
            rf"\1\2{MASK}",
        ),
        (("://",), r"([a-z][a-z0-9+.-]{0,30}://)[^/\s\"'<>?#]{1,500}@", rf"\1{MASK}@"),
        (
            ("? & ;", "="),
            (r"([?&;](?:[\w.~-]|%5b|%5d){0,40}(?:key|token|secret|passw(?:or)?d|sig|signature|credential|auth|code|jwt)=)"
            r"[^\s&#\"'<>\\;)]+"),
            rf"\1{MASK}",
        ),
        (
            ("key token secret pass credential", "="),
            rf"((?<![a-z0-9])[\w.-]{{0,40}}{SECRET_NAME}\s?=\s?(?:b?{_QUOTE})?)(?!\d{{1,6}}\b)[^\s&#\"'<>,;)\\]{{4,}}",
            rf"\1{MASK}",
        ),
        (
            ("key token secret pass credential", "\" '"),
            rf"({_QUOTE}[\w.-]{{0,40}}{SECRET_NAME}{_QUOTE}\s*:\s*b?(?P<quote>{_QUOTE}))(?:(?!(?P=quote))(?:\\.|[^\\])){{4,}}",
            rf"\1{MASK}",
        ),
        (("sk-",), r"\bsk-(?:(?=[a-z_-]{0,80}\d)[\w-]{10,}|[\w-]{32,})", MASK),
        (("xox xapp-",), r"\b(?:xox[a-z](?:\.xox[a-z])?|xapp)-[\w-]{8,}", MASK),
        (("gh glpat-",), r"\b(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,})", MASK),
        (("aiza akia hf_",), r"\b(?:AIza[\w-]{30,}|AKIA[0-9A-Z]{16}|hf_[a-z0-9]{20,})", MASK),
        (("bot",), r"(/bot)\d{3,}(?::|%3a)[^/\s\"'<>]{3,}", rf"\1{MASK}"),
        ((": %3a",), r"(?<![\w.-])\d{6,12}(?::|%3a)[\w-]{30,}", MASK),
        (("eyj",), r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", MASK),
        (("webhooks/ services/",), r"(/webhooks/\d{5,}/|/services/T\w{5,}/B\w{5,}/)[\w-]{10,}", rf"\1{MASK}"),
        ((".",), r"\b[MNO][a-z\d_-]{22,30}\.[\w-]{6}\.[\w-]{27,}", MASK),
    )
)  # fmt: skip


class Redactor:
    """Takes configured secrets and what looks like one out of text. It may be asked from any thread.

    Args:
        secrets: the configured values.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._in_order: tuple[_Known, ...] = ()
        self._longest_first: tuple[_Known, ...] = ()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Know these values too, from now on; nothing is forgotten, because an old value may still be in use.

        Args:
            secrets: values; those shorter than `SHORTEST_SECRET` characters are passed over, and beyond `MOST_SECRETS`
                the oldest go.
        """
        values = {known.value: known for known in self._in_order}
        for secret in secrets:
            for value in (secret, secret.strip(), *secret.splitlines()):
                if len(value) >= SHORTEST_SECRET and value not in values:
                    values[value] = _Known(value)
        self._in_order = tuple(values.values())[-MOST_SECRETS:]
        self._longest_first = tuple(sorted(self._in_order, key=lambda known: -len(known.value)))

    def redact(self, text: str) -> str:
        """The text without its secrets.

        Args:
            text: anything that is about to be shown or written.

        Returns:
            the same text with each secret replaced by `***`.
        """
        for known in self._longest_first:
            text = known.taken_out_of(text)
        if len(text) < SHORTEST_SECRET:
            return text
        lower = text.lower()
        for hints, pattern, replacement in PATTERNS:
            if all(any(hint in lower for hint in group) for group in hints):
                text = pattern.sub(replacement, text)
        return text


class _Known:
    """One configured value and the forms in which it may appear."""

    __slots__ = ("_encoded", "_forms", "value")

    def __init__(self, value: str) -> None:
        self.value = value
        forms = [value, value.replace(" ", "+")]
        if len(value) >= SHORTEST_IN_BASE64:
            forms += _base64_forms(value)
        self._forms = tuple(dict.fromkeys(forms))
        self._encoded = re.compile("".join(map(_any_form, value)))

    def taken_out_of(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        if "%" in text or "\\" in text or "&#" in text:
            text = self._encoded.sub(MASK, text)
        return text


def _any_form(character: str) -> str:
    """A pattern for one character as it is, percent-encoded, or as an escape of JSON or Python."""
    try:
        encoded = character.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8; it can still be written as an escape
        encoded = b""
    code = ord(character)
    percent = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in encoded)
    units = character.encode("utf-16-be", "surrogatepass")
    escapes = "".join(rf"{_ESCAPE}u(?i:{units[i]:02x}{units[i + 1]:02x})" for i in range(0, len(units), 2))
    forms = [re.escape(character), escapes, rf"{_ESCAPE}U(?i:{code:08x})", rf"&#(?:0*{code}|(?i:x0*{code:x}));"]
    if percent:
        forms.append(percent)
    if code < 256:
        forms.append(rf"{_ESCAPE}x(?i:{code:02x})")
    if encoded and code > 127:
        forms.append("".join(rf"{_ESCAPE}x(?i:{byte:02x})" for byte in encoded))
    if character in SHORT_ESCAPES:
        forms.append(_ESCAPE + re.escape(SHORT_ESCAPES[character]))
    if character == " ":
        forms.append(r"\+")
    return f"(?:{'|'.join(forms)})"


def _base64_forms(value: str) -> Iterable[str]:
    """What the base64 of any bytes that contain the value must contain, for each of the three alignments."""
    raw = value.encode("utf-8", "surrogatepass")
    found: dict[str, None] = {}
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        whole = text[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
        found[whole] = None
        found[whole.translate(str.maketrans("+/", "-_"))] = None
    return found


# JSON, RFC 8259 section 7, and Python's repr
SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", **{sign: sign for sign in "\"'\\/"}}

SECRET_KEY = re.compile(rf"(?:^|[_.-]){SECRET_NAME}$|authorization|cookie|x-.*key|^key$|^auth$", re.IGNORECASE)


def secrets_in(value: Any) -> set[str]:
    """The secrets inside a configuration: each `Secret`, strings under a telling name, and passwords in URLs.

    Args:
        value: a frozen value, mapping or sequence, to any depth.

    Returns:
        their values, in no order.
    """
    found: set[str] = set()
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Secret):
            found.add(item.reveal())
        elif isinstance(item, str):
            if SECRET_KEY.search(name):
                found.add(item)
            if userinfo := re.match(r"[a-z][\w+.-]*://([^/\s]+)@", item, re.IGNORECASE):
                found.add(userinfo[1])
                found.add(userinfo[1].partition(":")[2])
        elif isinstance(item, Mapping):
            waiting.extend((str(key), inner) for key, inner in item.items())
        elif is_dataclass(item) and not isinstance(item, type):
            waiting.extend((each.name, getattr(item, each.name)) for each in fields(item))
        elif isinstance(item, (tuple, list, set, frozenset)):
            members = list(item)
            pair = len(members) == 2 and isinstance(item, tuple) and isinstance(members[0], str)
            waiting.extend([(members[0], members[1])] if pair else [(name, inner) for inner in members])
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}
