"""Who may speak to the agent on a messaging service: judged by stable ids alone, exactly, and closed unless opened. Pure.

An empty list is nobody; `["*"]` is everybody, spelled out. What a person calls itself decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hermes.commands import ALWAYS, FOR_ADMINS, NAMES
from hermes.events import InboundEvent, Person

Ids = frozenset[str]
NOBODY: Ids = frozenset()
EVERYBODY = "*"

Kind = Literal["ignore", "pair", "context", "answer"]
Use = Literal["yes", "admins", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPolicy:
    """Who may use which command on one account: proper names, for aliases follow them.

    Args:
        admin_only: for admins alone, beside those that are so by default (`hermes.commands.FOR_ADMINS`).
        everybody: for everybody who may speak, of those that are for admins by default.
        disabled: for nobody, admins included.
    """

    admin_only: Ids = NOBODY
    everybody: Ids = NOBODY
    disabled: Ids = NOBODY


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
        commands: who may use which.
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
    commands: CommandPolicy = CommandPolicy()

    @property
    def listed_chats(self) -> Ids:
        """The chats that are named in any list."""
        return self.allowed_chats | self.ignored_chats | self.free_response_chats

    def names(self, person: str) -> bool:
        """Whether a person is known by the lists alone, by their id: then it is of no account whether the owner let them in."""
        return EVERYBODY in self.allowed_users or person in self.allowed_users or person in self.admins

    def may_change(self, person: Person) -> bool:
        """Whether tools with side effects are offered in this person's turns."""
        return self.may_change_id(person.id)

    def may_change_id(self, person: str) -> bool:
        """The same by the person's id."""
        return self.admin_tools and person in self.admins

    def may_use(self, person: str, command: str) -> Use:
        """Whether a person who may speak may use a command, by their id and its proper name; `admins` and `disabled` say why not."""
        rules = self.commands
        if command in ALWAYS:
            return "yes"
        if command in rules.disabled:
            return "disabled"
        reserved = command in rules.admin_only or (command in FOR_ADMINS and command not in rules.everybody)
        return "admins" if reserved and person not in self.admins else "yes"

    def usable(self, person: str) -> frozenset[str]:
        """The commands that a person may use."""
        return frozenset(name for name in NAMES if self.may_use(person, name) == "yes")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an event, and why: the reason is counted and shown to the owner, never to the person."""

    kind: Kind
    reason: str = ""


def judge(policy: AccessPolicy, event: InboundEvent, *, paired: bool, chat: str | None = None) -> Verdict:
    """Whether an event is answered.

    Args:
        policy: of the account.
        event: of any kind; a press of a button is judged like a message.
        paired: the owner approved this person.
        chat: the id by which lists know its chat, if that is another: a chat that moved is still meant by its former id.
    """
    sender, chat = event.sender, event.address.chat if chat is None else chat
    if sender.bot and sender.id not in policy.allow_bots:
        found = _ignored_chat(policy, chat)
        return found or Verdict("ignore", "a bot")
    known = _is_known(policy, sender.id, paired) or sender.bot
    refused = _refused(policy, event.chat_kind, chat, known)
    if refused is not None:
        return refused
    free = not policy.require_mention or chat in policy.free_response_chats
    if event.chat_kind == "dm" or event.to_us or event.kind == "button" or free:
        return Verdict("answer")
    return Verdict("context", "not addressed")


def still_allowed(policy: AccessPolicy, chat_kind: str, chat: str, person: str, *, paired: bool) -> bool:
    """Whether what was accepted from a person may be answered now: access may have changed while it waited.

    Args:
        policy: of the account, as it is now.
        chat_kind: as the event had it.
        chat, person: their ids; of a chat that moved, the one that lists know.
        paired: the owner approved this person, and has not taken it back.

    Whether it speaks to us was decided when it was accepted.
    """
    known = _is_known(policy, person, paired) or person in policy.allow_bots
    return _refused(policy, chat_kind, chat, known) is None


def _is_known(policy: AccessPolicy, person: str, paired: bool) -> bool:
    return paired or policy.names(person)


def _ignored_chat(policy: AccessPolicy, chat: str) -> Verdict | None:
    return Verdict("ignore", "ignored chat") if chat in policy.ignored_chats else None


def _refused(policy: AccessPolicy, chat_kind: str, chat: str, known: bool) -> Verdict | None:
    """Why somebody may not speak in a chat; None if they may."""
    if (ignored := _ignored_chat(policy, chat)) is not None:
        return ignored
    if chat_kind == "dm":
        if known or policy.dm_policy == "open":
            return None
        return Verdict("pair" if policy.dm_policy == "pair" else "ignore", "unknown person")
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
            return None
