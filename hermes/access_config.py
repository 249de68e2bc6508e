"""The keys of an account's section that say who may speak, and what they take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from hermes.access import EVERYBODY, AccessPolicy, CommandPolicy, Ids
from hermes.commands import ALIASES, ALWAYS, NAMES
from hermes.decode import Findings, Rule, Wrong, choice, flag, kind_of, read_keys, texts, whole
from hermes.events import MAX_ID

MAX_IDS = 10_000


def stable_id() -> Rule:
    """An id of a person or a chat, as a service gives it; `*` stands for all."""
    says = f"an id, as a number or as text of 1 to {MAX_ID} characters"

    def read(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        found = str(value).strip()
        if not 0 < len(found) <= MAX_ID or not found.isprintable():
            raise Wrong(f"must be {says}")
        return found

    return Rule(read, says)


def _ids() -> Rule:
    inner = texts(stable_id(), MAX_IDS)

    def read(value: object) -> Ids:
        if isinstance(value, str):  # from the environment, where there are no lists
            value = [part for part in value.replace(",", " ").split() if part]
        elif isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        return frozenset(inner.read(value))

    return Rule(read, inner.says)


def _command_policy() -> Rule:
    lists = {name: texts(_command_name(), 100) for name in ("admin_only", "everybody", "disabled")}
    says = "a section with lists of commands: admin_only, everybody, disabled"

    def read(value: object) -> CommandPolicy:
        if not isinstance(value, Mapping) or not value.keys() <= lists.keys():
            raise Wrong(f"must be {says}")
        found: dict[str, Ids] = {}
        for name, rule in lists.items():
            try:
                found[name] = frozenset(rule.read(value.get(name, ())))
            except Wrong as wrong:
                raise Wrong(f"has in {name} what is wrong: {wrong}") from None
        if both := found["admin_only"] & found["everybody"]:
            raise Wrong(f"says that {', '.join(sorted(both))} is for admins and for everybody")
        return CommandPolicy(**found)

    return Rule(read, says)


def _command_name() -> Rule:
    says = "the name of a command that can be restricted, such as retry"

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        name = value.strip().lower().removeprefix("/").replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in NAMES:
            raise Wrong("is no command; the reference lists them")
        if name in ALWAYS:
            raise Wrong("is a command that everybody who may speak has")
        return name

    return Rule(read, says)


RULES: Mapping[str, Rule] = {
    "allowed_users": _ids(),
    "dm_policy": choice("pair", "allowlist", "open", "ignore"),
    "group_policy": choice("allowlist", "chats", "open", "ignore"),
    "allowed_chats": _ids(),
    "ignored_chats": _ids(),
    "require_mention": flag(),
    "free_response_chats": _ids(),
    "context_messages": whole(0, 1000),
    "admins": _ids(),
    "admin_tools": flag(),
    "allow_bots": _ids(),
    "group_sessions_per_user": flag(),
    "thread_sessions_per_user": flag(),
    "busy": choice("queue", "interrupt", "steer"),
    "commands": _command_policy(),
}
IDS = ("allowed_users", "admins", "allow_bots", "allowed_chats", "ignored_chats", "free_response_chats")
assert {field.name for field in fields(AccessPolicy)} == RULES.keys()


def read_access(
    section: Mapping[str, Any], path: str, findings: Findings, *, defaults: Mapping[str, Any] = MappingProxyType({})
) -> AccessPolicy:
    """The policy of an account's section; keys that are not about access are passed over.

    Args:
        section: as it was written.
        path: where it stands, for the findings.
        findings: collects mistakes, and what is open to everybody as a warning.
        defaults: keys that the section leaves out, by what its platform says.
    """
    own = {name: value for name, value in section.items() if name in RULES}
    written = AccessPolicy(**read_keys(own, path, RULES, findings))
    assumed = read_keys({name: defaults[name] for name in defaults.keys() - own.keys()}, path, RULES, findings)
    policy = replace(written, **assumed)
    if EVERYBODY in policy.allow_bots:
        findings.wrong(f"{path}.allow_bots", "cannot be everybody: two programs that answer each other never stop")
    if written.dm_policy == "open" or EVERYBODY in written.allowed_users:
        findings.warnings.append(f"{path}: everybody who finds this bot may talk to it, at your expense")
    return policy
