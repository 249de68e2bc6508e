"""Accounts: the section `platforms:` and the environment to typed values, by what each platform says of itself."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from hermes.access import EVERYBODY, AccessPolicy
from hermes.access_config import IDS, RULES, read_access
from hermes.decode import (
    Expanded,
    Findings,
    Rule,
    Wrong,
    flag,
    join,
    kind_of,
    nearest,
    read_keys,
    seconds,
    secret,
    segment,
    text,
    whole,
)
from hermes.discovery import BadPlugin, FoundPlatform
from hermes.events import Address
from hermes.platform import PlatformSpec
from hermes.settings import Secret
from hermes.variables import Variables

MAX_ACCOUNTS = 256
CORE_KEYS = ("platform", "required", "enabled", *RULES)
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
Find = Callable[[], Mapping[str, FoundPlatform]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """One configured account.

    Args:
        account: its id, the key in the file.
        spec: of its platform.
        config: the platform's own settings, an instance of `spec.config`.
        access: who may speak there.
        required: whether `/ready` fails when it does not work.
    """

    account: str
    spec: PlatformSpec[Any]
    config: Any
    access: AccessPolicy
    required: bool = True

    @property
    def command_prefix(self) -> str:
        """What people type before the name of a command: an own setting of the account, or what its service says."""
        own = getattr(self.config, "command_prefix", None)
        said: str = own if isinstance(own, str) and own else self.spec.capabilities.command_prefix
        return said


def read_accounts(
    tree: object,
    variables: Variables,
    findings: Findings,
    find: Find,
    origins: dict[str, str],
    shared: Mapping[str, object] = MappingProxyType({}),
) -> Mapping[str, AccountConfig]:
    """Every account, of the file and of the environment.

    A platform's environment variables make an account named like it only if the file has none of that platform; otherwise they
    fill what the account named like the platform leaves out.

    Args:
        tree: the section as it was written.
        variables: the environment above `.env`.
        findings: collects mistakes.
        find: which platforms there are; asked only when something needs one.
        origins: told which account came from the environment.
        shared: settings of accounts that leave them out, where their platform has them.
    """
    if tree is not None and (not isinstance(tree, Mapping) or len(tree) > MAX_ACCOUNTS):
        findings.wrong("platforms", f"must be a section of at most {MAX_ACCOUNTS} accounts, and is {kind_of(tree)}")
        return MappingProxyType({})
    sections = dict(tree) if isinstance(tree, Mapping) else {}
    known = find()
    specs = _load_named(sections, known, findings)
    _add_from_environment(sections, specs, known, variables, findings, origins)
    accounts: dict[str, AccountConfig] = {}
    for account, (path, spec) in specs.items():
        found = _read_account(account, sections[account], path, spec, findings, shared)
        if found is not None:
            accounts[account] = found
    _refuse_twins(accounts, findings)
    for account, each in accounts.items():
        for address in _addresses(each.config):
            if address.account not in accounts:
                words = f"names the address {address}, and there is no account {address.account}"
                findings.warnings.append(f"platforms.{account}: {words}")
    return MappingProxyType(accounts)


def _load_named(
    sections: dict[str, Any], known: Mapping[str, FoundPlatform], findings: Findings
) -> dict[str, tuple[str, PlatformSpec[Any]]]:
    """The spec of each account of the file, where it has one; with the account's path."""
    specs: dict[str, tuple[str, PlatformSpec[Any]]] = {}
    for position, (account, section) in enumerate(tuple(sections.items())):
        path = join("platforms", segment(account, position))
        if not isinstance(account, str) or not _ACCOUNT.match(account) or account == "http":
            findings.wrong(path, "is no name for an account: letters, digits, `_`, `.` and `-`, and not `http`")
            continue
        if section is None:
            section = sections[account] = {}
        if not isinstance(section, Mapping):
            findings.wrong(path, f"must be a section with keys, and is {kind_of(section)}")
            continue
        if section.get("enabled") is False:
            continue
        spec = _spec(section.get("platform", account), path, "platform" in section, known, findings)
        if spec is not None:
            specs[account] = (path, spec)
    return specs


def _spec(
    named: object, path: str, explicit: bool, known: Mapping[str, FoundPlatform], findings: Findings
) -> PlatformSpec[Any] | None:
    where = join(path, "platform") if explicit else path
    found = known.get(named) if isinstance(named, str) else None
    if found is None:
        meant = nearest(named, known) if isinstance(named, str) and len(named) <= 100 else None
        findings.wrong(
            where,
            "is no platform that is installed"
            + (f"; did you mean {meant}?" if meant else "")
            + f" (installed: {', '.join(sorted(known)) or 'none'})",
        )
        return None
    try:
        return found.load()
    except BadPlugin as error:
        findings.wrong(where, f"names {found.where}, which {error}")
        return None


def _add_from_environment(
    sections: dict[str, Any],
    specs: dict[str, tuple[str, PlatformSpec[Any]]],
    known: Mapping[str, FoundPlatform],
    variables: Variables,
    findings: Findings,
    origins: dict[str, str],
) -> None:
    for name, found in known.items():
        if not variables.any_starts_with(name.upper().replace("-", "_") + "_"):
            continue
        used = [spec for _, spec in specs.values() if spec.name == name]
        named = specs.get(name)
        if (used and (named is None or named[1].name != name)) or (name in sections and named is None):
            continue
        try:
            spec = used[0] if used else found.load()
        except BadPlugin as error:
            findings.warnings.append(f"{found.where} {error}")
            continue
        values = {key: (variable, variables.get(variable)) for variable, key in spec.environment.items()}
        given = {key: Expanded(value) for key, (_, value) in values.items() if value is not None}
        if not used and not (given and all(key in given for key in spec.secrets or _needed(spec))):
            continue
        written = sections.get(name) or {}
        sections[name] = {**given, **written}
        specs[name] = (join("platforms", name), spec)
        for key in given.keys() - written.keys():
            origins[f"platforms.{name}.{key}"] = variables.origin(values[key][0])


def _needed(spec: PlatformSpec[Any]) -> list[str]:
    """The settings without a default."""
    return [each.name for each in fields(spec.config) if each.default is MISSING and each.default_factory is MISSING]


def _read_account(
    account: str,
    section: Mapping[str, Any],
    path: str,
    spec: PlatformSpec[Any],
    findings: Findings,
    shared: Mapping[str, object],
) -> AccountConfig | None:
    before = len(findings.problems)
    own = {each.name: shared[each.name] for each in fields(spec.config) if each.name in shared}
    own |= {name: value for name, value in section.items() if name not in CORE_KEYS}
    rules = setting_rules(spec)
    values = read_keys(own, path, rules, findings, also=CORE_KEYS)
    for each in fields(spec.config):
        if each.name in _needed(spec) and each.name not in section:
            findings.wrong(join(path, each.name), f"is missing: {each.metadata.get('about', 'it is needed')}")
    core = {name: section[name] for name in ("required", "enabled") if name in section}
    access = read_access(section, path, findings, defaults=spec.access)
    required = read_keys(core, path, {"required": flag(), "enabled": flag()}, findings).get("required", True)
    if len(findings.problems) > before:
        return None
    found = AccountConfig(account=account, spec=spec, config=spec.config(**values), access=access, required=required)
    for key, words in _mistakes(found):
        findings.wrong(join(path, key), words)
    return found if len(findings.problems) == before else None


def _mistakes(account: AccountConfig) -> list[tuple[str, str]]:
    """What the platform says is wrong with a section as a whole."""
    if account.spec.mistakes is None:
        return []
    ids = {name: frozenset(getattr(account.access, name)) - {EVERYBODY} for name in IDS}
    try:
        return [(str(key), str(words)) for key, words in account.spec.mistakes(account.config, ids)]
    except Exception as error:  # noqa: BLE001  # a plugin's hook
        return [("platform", f"cannot say whether this section is right: {type(error).__name__}")]


def setting_rules(spec: PlatformSpec[Any]) -> Mapping[str, Rule]:
    """What each field of a platform's configuration takes."""
    kinds = typing.get_type_hints(spec.config)
    return {each.name: each.metadata.get("rule") or _rule(kinds[each.name]) for each in fields(spec.config)}


def _rule(kind: object) -> Rule:
    rules: Mapping[object, Callable[[], Rule]] = {
        Secret: secret,
        bool: flag,
        int: lambda: whole(0, 1_000_000_000),
        float: lambda: seconds(31_536_000.0, zero=True),
        str: lambda: text(4096),
    }
    make = rules.get(kind)
    if make is None:
        raise Wrong(f"a setting of the type {kind} needs a rule")
    return make()


def _refuse_twins(accounts: Mapping[str, AccountConfig], findings: Findings) -> None:
    """Two accounts with one token would take each other's messages."""
    seen: dict[tuple[str, str, object], str] = {}
    for account, found in accounts.items():
        for key in found.spec.secrets:
            value = getattr(found.config, key)
            first = seen.setdefault((found.spec.name, key, value), account)
            if first != account:
                findings.wrong(f"platforms.{account}.{key}", f"is the same as that of the account {first}")


def _addresses(value: object) -> Iterator[Address]:
    """Where an account's settings send something, such as the routes of webhooks."""
    if isinstance(value, Address):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _addresses(each)
    elif is_dataclass(value):
        for named in fields(value):
            yield from _addresses(getattr(value, named.name))
