"""Who may speak to the agent on a messaging service: judged by stable ids alone, exactly, and closed unless opened. Pure.

An empty list is nobody; `["*"]` is everybody, spelled out. What a person calls itself decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from hermes.decode import Findings, Rule, Wrong, choice, flag, kind_of, read_keys, texts, whole
from hermes.events import InboundEvent, Person

Ids = frozenset[str]
NOBODY: Ids = frozenset()
EVERYBODY = "*"
MAX_IDS = 10_000

Kind = Literal["ignore", "pair", "context", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """Who may speak on one account, and where.

    Args:
        allowed_users: ids of people who may, everywhere.
        dm_policy: what becomes of a direct message of anybody else: `pair` = a code, which the owner can approve;
            `allowlist` and `ignore` = nothing; `open` = everybody may.
        group_policy: who may in groups and channels: `allowlist` = allowed people, in any chat; `chats` = everybody, in
            allowed chats; `open` = everybody; `ignore` = nobody.
        allowed_chats: ids of chats for `chats`; where it is not empty, other groups are ignored under `allowlist` too.
        ignored_chats: ids of chats where nothing is read.
        require_mention: in groups only what speaks to us is answered; the rest is context.
        free_response_chats: ids of chats where everything allowed is answered, mentioned or not.
        context_messages: how much of what was said to others is kept for the next answer, in messages of a chat.
        admins: ids of people who may use every command.
        admin_tools: admins may use tools with side effects.
        allow_bots: ids of other programs that may speak; each of them is a loop that can only be broken by hand.
        group_sessions_per_user: in a group each person has a conversation of its own.
        thread_sessions_per_user: in a thread, too.
        busy: what a new message does to a turn that runs; None = `sessions.busy`.
    """

    allowed_users: Ids = NOBODY
    dm_policy: Literal["pair", "allowlist", "open", "ignore"] = "pair"
    group_policy: Literal["allowlist", "chats", "open", "ignore"] = "allowlist"
    allowed_chats: Ids = NOBODY
    ignored_chats: Ids = NOBODY
    require_mention: bool = True
    free_response_chats: Ids = NOBODY
    context_messages: int = 50
    admins: Ids = NOBODY
    admin_tools: bool = False
    allow_bots: Ids = NOBODY
    group_sessions_per_user: bool = True
    thread_sessions_per_user: bool = False
    busy: Literal["queue", "interrupt", "steer"] | None = None

    def may_change(self, person: Person) -> bool:
        """Whether tools with side effects are offered in this person's turns."""
        return self.admin_tools and person.id in self.admins


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an event, and why: the reason is counted and shown to the owner, never to the person."""

    kind: Kind
    reason: str = ""


def judge(policy: AccessPolicy, event: InboundEvent, *, paired: bool) -> Verdict:
    """Whether an event is answered.

    Args:
        policy: of the account.
        event: of any kind; a press of a button is judged like a message.
        paired: the owner approved this person.
    """
    chat, sender = event.address.chat, event.sender
    if chat in policy.ignored_chats:
        return Verdict("ignore", "ignored chat")
    if sender.bot and sender.id not in policy.allow_bots:
        return Verdict("ignore", "a bot")
    known = (
        paired or EVERYBODY in policy.allowed_users or sender.id in policy.allowed_users or sender.id in policy.admins
    )
    known = known or sender.bot
    if event.chat_kind == "dm":
        if known or policy.dm_policy == "open":
            return Verdict("answer")
        return Verdict("pair" if policy.dm_policy == "pair" else "ignore", "unknown person")
    return _in_group(policy, event, known)


def _in_group(policy: AccessPolicy, event: InboundEvent, known: bool) -> Verdict:
    chat = event.address.chat
    listed = EVERYBODY in policy.allowed_chats or chat in policy.allowed_chats
    match policy.group_policy:
        case "ignore":
            return Verdict("ignore", "groups are ignored")
        case "chats" if not listed:
            return Verdict("ignore", "chat is not allowed")
        case "allowlist" if policy.allowed_chats and not listed:
            return Verdict("ignore", "chat is not allowed")
        case "allowlist" if not known:
            return Verdict("ignore", "unknown person")
        case _:
            pass
    if event.to_us or event.kind == "button" or not policy.require_mention or chat in policy.free_response_chats:
        return Verdict("answer")
    return Verdict("context", "not addressed")


def session_key(policy: AccessPolicy, event: InboundEvent) -> str:
    """The mailbox of an event: `account:type:chat[:thread][:person]`, the parts escaped, so that no two places share one."""
    address = event.address
    parts = [address.account, event.chat_kind, address.chat]
    if address.thread is not None:
        parts.append(address.thread)
    per_person = policy.thread_sessions_per_user if address.thread is not None else policy.group_sessions_per_user
    if event.chat_kind != "dm" and per_person:
        parts.append("user " + event.sender.id)
    return ":".join(map(escaped, parts))


def escaped(part: str) -> str:
    """A part of a session's key, without the sign that separates them."""
    return part.replace("%", "%25").replace(":", "%3A")


def is_shared(policy: AccessPolicy, event: InboundEvent) -> bool:
    """Whether several people speak in the conversation of this event, so that each must be named to the model."""
    if event.chat_kind == "dm":
        return False
    return not (policy.thread_sessions_per_user if event.address.thread is not None else policy.group_sessions_per_user)


def stable_id() -> Rule:
    """An id of a person or a chat, as a service gives it; `*` stands for all."""
    says = "an id, as a number or as text of 1 to 512 characters"

    def read(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Wrong(f"must be {says}, and is {kind_of(value)}")
        found = str(value).strip()
        if not 0 < len(found) <= 512 or not found.isprintable():
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
}
assert {field.name for field in fields(AccessPolicy)} == RULES.keys()


def read_access(section: Mapping[str, Any], path: str, findings: Findings) -> AccessPolicy:
    """The policy of an account's section; keys that are not about access are passed over.

    Args:
        section: as it was written.
        path: where it stands, for the findings.
        findings: collects mistakes, and what is open to everybody as a warning.
    """
    own = {name: value for name, value in section.items() if name in RULES}
    policy = AccessPolicy(**read_keys(own, path, RULES, findings))
    if EVERYBODY in policy.allow_bots:
        findings.wrong(f"{path}.allow_bots", "cannot be everybody: two programs that answer each other never stop")
    if policy.dm_policy == "open" or EVERYBODY in policy.allowed_users:
        findings.warnings.append(f"{path}: everybody who finds this bot may talk to it, at your expense")
    return policy
