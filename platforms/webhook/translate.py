"""A call whose signature is good, as the event that it is: what it says, whether it is wanted, what the model reads. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from hermes.events import MAX_ID, event_key
from hermes.platform import Address, InboundEvent, Person, ReplyRef
from platforms.webhook.config import Route
from platforms.webhook.signing import Proof
from platforms.webhook.template import Template, as_text, cut, parse_path, parse_template, pick, render

MAX_FIELDS: Final = 1000  # of a form
MAX_SESSION: Final = 200
MAX_SHOWN: Final = 4000  # characters of the fields, where there is no template
MAX_KEY: Final = 400  # characters of the call's own name
_FORM: Final = "application/x-www-form-urlencoded"
# Where each service names the event: headers, then fields.
_EVENT_HEADERS: Final = ("x-github-event", "x-gitlab-event", "x-event-type")
_EVENT_FIELDS: Final = (("object_kind",), ("event", "type"), ("type",), ("command",), ("event",))


class Unreadable(ValueError):
    """A body that is neither JSON nor a form; the text is for whoever called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a call says.

    Args:
        payload: its fields.
        names: of its event, such as `issues` and `issues.opened`.
        id: its own name; empty if it has none.
    """

    payload: Any
    names: tuple[str, ...]
    id: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A route, and its templates as pieces."""

    route: Route
    prompt: Template
    session: Template

    @classmethod
    def of(cls, route: Route) -> Plan:
        """The plan of a route, whose templates were checked with the configuration."""
        return cls(route, parse_template(route.prompt), parse_template(route.session))


def read_call(route: Route, headers: Mapping[str, str], body: bytes, proof: Proof) -> Call:
    """What a call says.

    Raises:
        Unreadable: it says nothing that can be read.
    """
    payload = _payload(headers.get("content-type", ""), body)
    header = next((headers[name] for name in _EVENT_HEADERS if headers.get(name)), "")
    names = [header] if header else []
    found = (pick(payload, path) for path in _EVENT_FIELDS)
    names += [each for each in found if isinstance(each, str) and 0 < len(each) <= MAX_SESSION]
    action = pick(payload, ("action",))
    if isinstance(action, str) and names:
        names.append(f"{names[0]}.{action[:100]}")
    return Call(payload=payload, names=tuple(dict.fromkeys(names)), id=_own_id(route, proof, payload, body))


def is_wanted(route: Route, call: Call) -> bool:
    """Whether its filters let a call through."""
    if route.events and not any(is_like(name, each) for name in call.names for each in route.events):
        return False
    if not route.events and "ping" in call.names and route.signature == "github":
        return False  # GitHub tries a new webhook out
    return all(_matches(call, *each) for each in route.when) and not any(_matches(call, *each) for each in route.unless)


def to_event(plan: Plan, call: Call, proof: Proof, *, account: str, fresh: str) -> InboundEvent:
    """The event that a call is.

    Args:
        account: whose.
        fresh: the call's name if it has none of its own.
    """
    route = plan.route
    own = call.id or fresh
    known = {"@event": call.names[-1] if call.names else "", "@id": own, "@route": route.name, "@payload": call.payload}
    fields = {**call.payload, **known} if isinstance(call.payload, dict) else {"items": call.payload, **known}
    session = render(plan.session, fields).strip() if route.session else own
    return InboundEvent(
        id=own,
        address=Address(account, route.name, _bounded(session or own, MAX_SESSION)),
        chat_kind="dm",
        sender=Person(route.name, route.name),
        text=_prompt(plan, call, fields),
        to_us=True,
        reply=ReplyRef(token=event_key(account, route.name, "message", own)) if route.answer else None,
        at=proof.at,
        attended=route.answer and route.deliver is None,
    )


def _prompt(plan: Plan, call: Call, fields: dict[str, Any]) -> str:
    if plan.prompt:
        words = render(plan.prompt, fields).strip()
    else:
        what = ", ".join(call.names) or "no name"
        words = f"A webhook came to {plan.route.name} ({what}):\n\n{cut(as_text(call.payload), MAX_SHOWN)}"
    if not words or words.startswith("/"):  # a command is for people to give
        words = f"{plan.route.name}: {words}"
    return words


def _payload(media_type: str, body: bytes) -> Any:
    try:
        if media_type.partition(";")[0].strip().lower() == _FORM:
            fields = dict(
                parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, strict_parsing=True)
            )
            # GitHub's and Slack's forms have the JSON in a field.
            return _json(fields["payload"].encode()) if "payload" in fields else fields
        return _json(body)
    except (ValueError, RecursionError, msgspec.DecodeError):
        raise Unreadable("the body must be JSON or a form") from None


def _json(body: bytes) -> Any:
    found = msgspec.json.decode(body)
    if not isinstance(found, dict | list):
        raise ValueError("neither an object nor a list")
    return found


def _own_id(route: Route, proof: Proof, payload: Any, body: bytes) -> str:
    """The same at each repetition: by a header, by a field that the service signs, by the signature, which holds the time."""
    field = {"stripe": ("id",), "slack": ("event_id",)}.get(route.signature)
    named = pick(payload, field) if field is not None else proof.id
    own = named if isinstance(named, str) and named else proof.mark
    if not own and route.signature == "gitlab":  # before 17.4 it gave no name; a repetition has the same fields
        own = hashlib.sha256(body).hexdigest()
    return _bounded(own, MAX_KEY)


def _bounded(name: str, most: int) -> str:
    """A name as it is, where it can be an id, or by a hash of it."""
    name = name.encode("utf-8", "replace").decode()
    if len(name) <= min(most, MAX_ID) and name.isprintable():
        return name
    return hashlib.sha256(name.encode()).hexdigest()


def is_like(text: str, pattern: str) -> bool:
    """Whether a text is what a pattern says: `*` stands for anything, everything else for itself. Linear."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    last = others.pop()
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for each in others:
        found = text.find(each, at, end)
        if found < 0:
            return False
        at = found + len(each)
    return True


def _matches(call: Call, path: str, values: tuple[str, ...]) -> bool:
    found = pick(call.payload, parse_path(path))
    said = "null" if found is None else as_text(found)[:500]
    return any(is_like(said, each) for each in values)
