"""What can be set of webhooks: routes, each with its secret, what of a call becomes a prompt, and where the reply goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from hermes.decode import Findings, Rule, Wrong, kind_of, read_keys
from hermes.platform import (
    Address,
    Capabilities,
    Secret,
    choice,
    flag,
    seconds,
    setting,
    text,
    texts,
    whole,
    word,
)
from platforms.webhook.template import BadTemplate, parse_path, parse_template

Scheme = Literal["github", "gitlab", "stripe", "slack", "standard", "hmac", "bearer"]
Values = tuple[str, ...]

MAX_ROUTES = 64
MAX_CONDITIONS = 32
MIN_SECRET = 8
MAX_VALUES = 64
CAPABILITIES = Capabilities(dialect="markdown", max_text=1_000_000, deduplicates=True)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path and all about it.

    Args:
        name: of the path `/hooks/<name>`.
        signature: how the caller shows that it knows `secret`.
        secret: what both know. Without one there is no route.
        header: where the signature is (`hmac`) or the token (`bearer`); empty = the usual place.
        prefix: what stands before the signature in its header (`hmac`).
        algorithm, encoding: of the signature (`hmac`).
        timestamp_header: where the time is that is signed too, as `<time>.<body>` (`hmac`); empty = no time is signed.
        id_header: where the call's own name is (`hmac`, `bearer`); empty = Idempotency-Key.
        replay_window_s: how far the signed time may be from ours, and how long a signature that holds no time is remembered.
        rate_per_minute: calls that are taken in.
        max_body_bytes: of one call.
        events: only these, as patterns such as `issues.*`; empty = all.
        when, unless: (path of a field, values as patterns): all of the first must match and none of the second.
        prompt: template of what the model reads; empty = the names of the event and the beginning of its fields.
        session: template of the conversation's name; empty = each call is a conversation of its own.
        answer: the caller waits for the reply.
        answer_timeout_s: for at most so long.
        deliver: where the reply is shown as well, or instead.
    """

    name: str
    signature: Scheme
    secret: Secret
    header: str = ""
    prefix: str = ""
    algorithm: str = "sha256"
    encoding: str = "hex"
    timestamp_header: str = ""
    id_header: str = ""
    replay_window_s: float = 300.0
    rate_per_minute: int = 120
    max_body_bytes: int = 1_048_576
    events: Values = ()
    when: tuple[tuple[str, Values], ...] = ()
    unless: tuple[tuple[str, Values], ...] = ()
    prompt: str = ""
    session: str = ""
    answer: bool = False
    answer_timeout_s: float = 120.0
    deliver: Address | None = None


def _secret() -> Rule:
    """What both sides know: it need not fit into a header, for most only sign with it."""
    inner, says = text(4096), f"text of {MIN_SECRET} to 4096 characters that nobody guesses"

    def read(value: object) -> Secret:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}; quote it")
        found: str = inner.read(value) if value else ""
        if len(found) < MIN_SECRET:
            raise Wrong(f"must be {says}")
        return Secret(found)

    return Rule(read, says)


def _template() -> Rule:
    inner = text(20_000)

    def read(value: object) -> str:
        found: str = inner.read(value)
        try:
            parse_template(found)
        except BadTemplate as error:
            raise Wrong(str(error)) from None
        return found

    return Rule(read, "text with fields such as {issue.title}")


def _header() -> Rule:
    inner = word(100)

    def read(value: object) -> str:
        found: str = inner.read(value).lower()
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", found):
            raise Wrong("must be the name of a header field")
        return found

    return Rule(read, "the name of a header field")


def _conditions() -> Rule:
    says = f"a section of at most {MAX_CONDITIONS} fields, each with a value or a list of values"
    one, several = text(500, empty=True), texts(text(500, empty=True), MAX_VALUES)

    def read(value: object) -> tuple[tuple[str, Values], ...]:
        if not isinstance(value, Mapping) or not 0 < len(value) <= MAX_CONDITIONS:
            raise Wrong(f"must be {says}")
        found = []
        for path, wanted in value.items():
            if not isinstance(path, str) or len(path) > 500:
                raise Wrong(f"must be {says}")
            try:
                parse_path(path)
            except BadTemplate as error:
                raise Wrong(str(error)) from None
            wanted = [_word_of(each) for each in wanted] if isinstance(wanted, list | tuple) else _word_of(wanted)
            found.append((path, several.read(wanted) if isinstance(wanted, list) else (one.read(wanted),)))
        return tuple(found)

    return Rule(read, says)


def _word_of(value: object) -> object:
    """A value of YAML as a field of JSON would be compared: `true`, `null`, `5`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if isinstance(value, int | float) else value


def _address() -> Rule:
    says = "an address, account:chat or account:chat:thread, such as telegram:12345"

    def read(value: object) -> Address:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        account, colon, rest = value.strip().partition(":")
        chat, more, thread = rest.partition(":")
        if (
            not account
            or not colon
            or not chat
            or (more and not thread)
            or len(value) > 1100
            or not value.isprintable()
        ):
            raise Wrong(f"must be {says}")
        return Address(account, chat, thread or None)

    return Rule(read, says)


RULES: Mapping[str, Rule] = {
    "signature": choice("github", "gitlab", "stripe", "slack", "standard", "hmac", "bearer"),
    "secret": _secret(),
    "header": _header(),
    "prefix": text(50, empty=True),
    "algorithm": choice("sha256", "sha512", "sha1"),
    "encoding": choice("hex", "base64"),
    "timestamp_header": _header(),
    "id_header": _header(),
    "replay_window_s": seconds(86_400),
    "rate_per_minute": whole(1, 100_000),
    "max_body_bytes": whole(1, 26_214_400),
    "events": texts(text(200), 200),
    "when": _conditions(),
    "unless": _conditions(),
    "prompt": _template(),
    "session": _template(),
    "answer": flag(),
    "answer_timeout_s": seconds(3600),
    "deliver": _address(),
}
assert {"name", *RULES} == {each.name for each in fields(Route)}
_OF_HMAC = ("prefix", "algorithm", "encoding", "timestamp_header")


def _routes() -> Rule:
    says = f"a section of 1 to {MAX_ROUTES} routes, each with `signature` and `secret`"

    def read(value: object) -> tuple[Route, ...]:
        if not isinstance(value, Mapping) or not 0 < len(value) <= MAX_ROUTES:
            raise Wrong(f"must be {says}" + (f", and is {kind_of(value)}" if not isinstance(value, Mapping) else ""))
        found, wrong = [], []
        for position, (name, section) in enumerate(value.items()):
            if not isinstance(name, str) or not _NAME.match(name):
                wrong.append(f"route {position + 1} has a name that no path can have: letters, digits, `_` and `-`")
                continue
            try:
                found.append(read_route(name, section))
            except Wrong as error:
                wrong.append(f"{name} {error}")
        if wrong:
            raise Wrong(f"cannot be served: {'; '.join(wrong)}")
        return tuple(found)

    return Rule(read, says)


def read_route(name: str, section: object) -> Route:
    """One route as it was written.

    Raises:
        Wrong: what is missing or cannot be; nothing of its values is repeated.
    """
    findings = Findings()
    values: dict[str, Any] = read_keys(section, "", RULES, findings)
    wrong = [f"{each.path or 'it'} {each.reason}" for each in findings.problems]
    given = section if isinstance(section, Mapping) else {}
    if "secret" not in given:
        wrong.append("secret is missing: without one anybody could call it, so there is no route")
    if "signature" not in given:
        wrong.append("signature is missing: github, gitlab, stripe, slack, standard, hmac or bearer")
    checks: tuple[tuple[bool, str], ...] = (
        (
            not values.get("answer") and "deliver" not in given,
            "its reply goes nowhere: say `answer: true`, or `deliver: ACCOUNT:CHAT`, or both",
        ),
        (
            values.get("signature") == "hmac" and "header" not in given,
            "header is missing: where the signature of `hmac` is",
        ),
        (
            values.get("signature") not in ("hmac", None) and any(key in given for key in _OF_HMAC),
            f"{', '.join(_OF_HMAC)} are for `signature: hmac` alone",
        ),
        (
            values.get("signature") not in ("hmac", "bearer", None) and bool({"header", "id_header"} & given.keys()),
            "header and id_header are for `hmac` and `bearer`: the others have theirs",
        ),
    )
    wrong += [words for holds, words in checks if holds]
    if wrong:
        raise Wrong("is no route: " + ", and ".join(wrong))
    return Route(name=name, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """`platforms.<account>:` of webhooks."""

    routes: tuple[Route, ...] = setting(
        rule=_routes(), about="name of a path -> its `signature`, `secret`, `prompt`, and where its reply goes"
    )
