"""Whether a mail is from whom it says, by what our own mail server found. Pure (RFC 8601, RFC 7489).

Anybody can write an Authentication-Results field into a mail. A server puts its own above everything that came with the mail, so
only the topmost field that bears the trusted name counts; every other one, above or below, is as if it were not there.
"""

from __future__ import annotations

import re
from email.message import Message

from platforms.email.config import ANY_FROM
from platforms.email.headers import texts

MAX_FIELD = 8192
_RESULT = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)(?:\s*/\s*\d+)?\s*=\s*([A-Za-z]+)(?=\s|\Z)(.*)\Z", re.DOTALL)
_PROPERTY = re.compile(r"([A-Za-z][A-Za-z0-9-]*)\s*\.\s*([A-Za-z][A-Za-z0-9-]*)\s*=\s*((?:\"[^\"]*\"|[^\s;\"])+)")
_SERVER = re.compile(r"\s*(\"[^\"]*\"|[^\s;\"]+)(?:\s+\d+)?\s*\Z")


def authenticated(message: Message, address: str, authserv_id: str) -> bool:
    """Whether the trusted server found that a mail is from the domain of its From address.

    Args:
        message: the mail.
        address: of its one From line.
        authserv_id: the trusted server's name; `none` trusts the From line itself.

    DMARC decides where the domain has a policy; without one, a DKIM signature or an SPF result of the very domain.
    """
    if authserv_id == ANY_FROM:
        return True
    domain = address.rpartition("@")[2].lower()
    for field in texts(message, "authentication-results"):
        server, results = _read(field)
        if server.lower() == authserv_id.lower():
            return _passes(results, domain)
    return False


def servers(message: Message) -> list[str]:
    """The names under which somebody says that they checked a mail, the topmost first: true or not."""
    return [server for field in texts(message, "authentication-results") if (server := _read(field)[0])]


def _read(field: str) -> tuple[str, list[tuple[str, str, dict[str, str]]]]:
    """The server's name and its results: method, result, properties."""
    parts = _parts(field) if len(field) <= MAX_FIELD else None
    if parts is None:
        return "", []
    first, *rest = parts
    named = _SERVER.match(first)
    if named is None:
        return "", []
    results = []
    for each in rest:
        if (found := _RESULT.match(each)) is not None:
            properties = {
                f"{kind}.{name}".lower(): value.strip('"') for kind, name, value in _PROPERTY.findall(found[3])
            }
            results.append((found[1].lower(), found[2].lower(), properties))
    return named[1].strip('"'), results


def _parts(field: str) -> list[str] | None:
    """What stands between semicolons, without comments; None where quotes or parentheses are left open."""
    parts, quoted, depth, escaped = [""], False, 0, False
    for sign in field:
        plain = not escaped
        escaped = plain and sign == "\\" and (quoted or depth > 0)
        if plain and sign == '"' and depth == 0:
            quoted = not quoted
        elif plain and sign == "(" and not quoted:
            depth += 1
            continue
        elif plain and sign == ")" and not quoted:
            depth -= 1
            if depth < 0:
                return None
            parts[-1] += " "
            continue
        elif sign == ";" and not quoted and depth == 0:
            parts.append("")
            continue
        if depth == 0:
            parts[-1] += sign
    return None if quoted or depth else parts


def _passes(results: list[tuple[str, str, dict[str, str]]], domain: str) -> bool:
    policies = [(result, found.get("header.from", domain)) for method, result, found in results if method == "dmarc"]
    if policies and any(result != "none" for result, _ in policies):
        return all(result == "pass" and _domain(of) == domain for result, of in policies)
    for method, result, found in results:
        if result != "pass":
            continue
        if method == "dkim" and _covers(_domain(found.get("header.d") or found.get("header.i", "")), domain):
            return True
        if method == "spf" and _domain(found.get("smtp.mailfrom", "")) == domain:
            return True
    return False


def _domain(of: str) -> str:
    return of.rpartition("@")[2].lower().rstrip(".")


def _covers(signed: str, domain: str) -> bool:
    """Whether whoever signs for one domain signs for the other: the same, or a parent that is more than a suffix."""
    return signed == domain or ("." in signed and domain.endswith(f".{signed}"))
