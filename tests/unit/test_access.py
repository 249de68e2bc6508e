"""Who may speak: closed unless opened, by ids alone; and which conversation an event belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes import commands as registry
from hermes.access import AccessPolicy, CommandPolicy, judge, still_allowed
from hermes.access_config import RULES, read_access
from hermes.decode import Findings
from hermes.events import Address, ChatKind, InboundEvent, Person
from hermes.session_keys import is_personal, is_shared, owns, session_key

IDS = st.sampled_from(["1", "2", "3", "-100", "*", "", "Owner"])
SETS = st.frozensets(IDS, max_size=3)
POLICIES = st.builds(
    AccessPolicy,
    allowed_users=SETS,
    dm_policy=st.sampled_from(["pair", "allowlist", "open", "ignore"]),
    group_policy=st.sampled_from(["allowlist", "chats", "open", "ignore"]),
    allowed_chats=SETS,
    ignored_chats=SETS,
    require_mention=st.booleans(),
    free_response_chats=SETS,
    admins=SETS,
    allow_bots=SETS,
    group_sessions_per_user=st.booleans(),
    thread_sessions_per_user=st.booleans(),
)
NAMES = st.sampled_from(["", "Owner", "1", "*", "admin\n"])
ADDRESSES = st.builds(
    Address,
    st.just("telegram"),
    st.sampled_from(["1", "-100", "a:b", "a%3Ab"]),
    st.sampled_from([None, "7", "7:8", "user 1", "user%201"]),
)
EVENTS = st.builds(
    InboundEvent,
    id=st.just("1"),
    address=ADDRESSES,
    chat_kind=st.sampled_from(["dm", "group", "channel"]),
    sender=st.builds(Person, st.sampled_from(["1", "2", "3"]), NAMES, st.booleans()),
    to_us=st.booleans(),
)


def event(sender: str = "1", kind: ChatKind = "dm", chat: str = "c", **more: Any) -> InboundEvent:
    thread = more.pop("thread", None)
    person = Person(sender, more.pop("name", ""), more.pop("bot", False))
    more["kind"] = more.pop("kind_of", "message")
    return InboundEvent(id="e", address=Address("telegram", chat, thread), chat_kind=kind, sender=person, **more)


@given(POLICIES, EVENTS, NAMES, st.booleans())
def test_a_name_decides_nothing(policy: AccessPolicy, found: InboundEvent, name: str, paired: bool) -> None:
    renamed = InboundEvent(
        id=found.id, address=found.address, chat_kind=found.chat_kind, to_us=found.to_us,
        sender=Person(found.sender.id, name, found.sender.bot),
    )  # fmt: skip
    assert judge(policy, found, paired=paired) == judge(policy, renamed, paired=paired)
    assert session_key(policy, found) == session_key(policy, renamed)


@given(EVENTS)
def test_nobody_is_answered_unless_somebody_was_let_in(found: InboundEvent) -> None:
    assert judge(AccessPolicy(), found, paired=False).kind in ("ignore", "pair")
    assert judge(AccessPolicy(dm_policy="allowlist"), found, paired=False).kind == "ignore"


@given(POLICIES, EVENTS, st.booleans())
def test_another_program_is_answered_only_by_its_id(policy: AccessPolicy, found: InboundEvent, paired: bool) -> None:
    verdict = judge(policy, found, paired=paired)
    if found.sender.bot and found.sender.id not in policy.allow_bots:
        assert verdict.kind == "ignore"


@given(POLICIES, EVENTS, st.booleans())
def test_only_what_is_meant_for_us_is_answered_in_a_group(
    policy: AccessPolicy, found: InboundEvent, paired: bool
) -> None:
    verdict = judge(policy, found, paired=paired)
    if found.chat_kind != "dm" and policy.require_mention and not found.to_us:
        assert verdict.kind != "answer" or found.address.chat in policy.free_response_chats
    assert verdict.kind != "pair" or found.chat_kind == "dm"
    assert found.address.chat not in policy.ignored_chats or verdict.kind == "ignore"


@pytest.mark.parametrize(
    ("policy", "found", "paired", "kind"),
    [
        (AccessPolicy(), event(), False, "pair"),
        (AccessPolicy(), event(), True, "answer"),
        (AccessPolicy(allowed_users=frozenset({"1"})), event(), False, "answer"),
        (AccessPolicy(allowed_users=frozenset({"*"})), event("9"), False, "answer"),
        (AccessPolicy(admins=frozenset({"1"})), event(), False, "answer"),
        (AccessPolicy(dm_policy="open"), event(), False, "answer"),
        (AccessPolicy(dm_policy="ignore"), event(), False, "ignore"),
        (AccessPolicy(allowed_users=frozenset({"1"})), event(kind="group"), False, "context"),
        (AccessPolicy(allowed_users=frozenset({"1"})), event(kind="group", to_us=True), False, "answer"),
        (AccessPolicy(), event(kind="group", to_us=True), False, "ignore"),
        (AccessPolicy(group_policy="chats", allowed_chats=frozenset({"c"})), event("9", "group", to_us=True), False, "answer"),
        (AccessPolicy(group_policy="chats"), event("9", "group", to_us=True), False, "ignore"),
        (AccessPolicy(group_policy="open", free_response_chats=frozenset({"c"})), event("9", "group"), False, "answer"),
        (AccessPolicy(admins=frozenset({"1"}), allowed_chats=frozenset({"d"})), event(kind="group", to_us=True), False, "ignore"),
        (AccessPolicy(allow_bots=frozenset({"8"})), event("8", bot=True), False, "answer"),
    ],
)  # fmt: skip
def test_who_is_answered(policy: AccessPolicy, found: InboundEvent, paired: bool, kind: str) -> None:
    assert judge(policy, found, paired=paired).kind == kind


@pytest.mark.parametrize(
    ("found", "key"),
    [
        (event(), "telegram:dm:c"),
        (event(thread="5"), "telegram:dm:c:5"),
        (event("7", "group"), "telegram:group:c:user 7"),
        (event("7", "group", thread="5"), "telegram:group:c:5"),
        (event(chat="a:b%"), "telegram:dm:a%3Ab%25"),
    ],
)
def test_a_conversation_is_named_by_its_place(found: InboundEvent, key: str) -> None:
    assert session_key(AccessPolicy(), found) == key


@pytest.mark.parametrize(
    ("groups_apart", "threads_apart", "in_group", "in_thread"),
    [
        (True, False, "telegram:group:-5:user 7", "telegram:group:-5:3"),
        (True, True, "telegram:group:-5:user 7", "telegram:group:-5:3:user 7"),
        (False, True, "telegram:group:-5", "telegram:group:-5:3"),
        (False, False, "telegram:group:-5", "telegram:group:-5:3"),
    ],
)
def test_whose_a_conversation_in_a_group_is_can_be_chosen(
    groups_apart: bool, threads_apart: bool, in_group: str, in_thread: str
) -> None:
    policy = AccessPolicy(group_sessions_per_user=groups_apart, thread_sessions_per_user=threads_apart)
    assert session_key(policy, event("7", "group", "-5")) == in_group
    assert session_key(policy, event("7", "group", "-5", thread="3")) == in_thread
    assert session_key(policy, event("7", "dm", "7", thread="3")) == "telegram:dm:7:3"


def test_a_button_is_pressed_in_a_group_without_a_mention_by_who_may_speak_alone() -> None:
    policy = AccessPolicy(allowed_users=frozenset({"7"}))
    assert judge(policy, event("7", "group", "-5", kind_of="button"), paired=False).kind == "answer"
    assert judge(policy, event("7", "group", "-5"), paired=False).kind == "context"
    assert judge(policy, event("8", "group", "-5", kind_of="button"), paired=False).kind == "ignore"


@given(POLICIES, EVENTS, EVENTS)
def test_two_places_never_share_a_conversation(policy: AccessPolicy, one: InboundEvent, other: InboundEvent) -> None:
    if session_key(policy, one) == session_key(policy, other):
        assert (one.address, one.chat_kind) == (other.address, other.chat_kind)
        assert is_shared(policy, one) or one.chat_kind == "dm" or one.sender.id == other.sender.id


def read(section: dict[str, Any]) -> tuple[AccessPolicy, Findings]:
    findings = Findings()
    return read_access(section, "platforms.telegram", findings), findings


def test_ids_are_read_as_numbers_as_text_and_from_the_environment() -> None:
    for written in ([12345, "678"], "12345,678", "12345 678"):
        policy, findings = read({"allowed_users": written})
        assert policy.allowed_users == {"12345", "678"}
        assert not findings.problems
    assert read({"allowed_users": []})[0].allowed_users == frozenset()


def test_every_mistake_is_found_at_its_place_and_no_value_is_shown() -> None:
    policy, findings = read(
        {"allowed_users": [True], "dm_policy": "everyone", "busy": 3, "allow_bots": ["*"], "token": "123:secret"}
    )
    assert [str(each).partition(" ")[0] for each in findings.problems] == [
        f"platforms.telegram.{name}:" for name in ("allowed_users", "dm_policy", "busy", "allow_bots")
    ]
    assert "everyone" not in str(findings.problems)
    assert policy.dm_policy == "pair"


def test_what_is_open_to_everybody_is_a_warning() -> None:
    assert read({"allowed_users": ["*"]})[1].warnings
    assert read({"dm_policy": "open"})[1].warnings
    assert not read({"allowed_users": [1]})[1].warnings


def test_only_an_admin_where_that_is_said_may_change_things() -> None:
    policy = AccessPolicy(admins=frozenset({"1"}), admin_tools=True)
    assert policy.may_change(Person("1"))
    assert not policy.may_change(Person("2", "1"))
    assert not replace(policy, admin_tools=False).may_change(Person("1"))


@given(
    st.sampled_from(sorted(RULES)),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)),
)
def test_no_value_makes_reading_fail(name: str, value: Any) -> None:
    policy, findings = read({name: value})
    assert findings.problems or getattr(policy, name) is not None


# --- what changed while it waited


@given(POLICIES, EVENTS, st.booleans())
def test_what_may_be_answered_is_still_allowed_while_nothing_changes(
    policy: AccessPolicy, found: InboundEvent, paired: bool
) -> None:
    allowed = still_allowed(policy, found.chat_kind, found.address.chat, found.sender.id, paired=paired)
    if judge(policy, found, paired=paired).kind in ("answer", "context"):
        assert allowed
    elif not found.sender.bot and found.sender.id not in policy.allow_bots:
        assert not allowed


def test_what_was_taken_back_holds_for_what_waits() -> None:
    policy = AccessPolicy(allowed_users=frozenset({"1"}))
    assert still_allowed(policy, "dm", "c", "1", paired=False)
    assert not still_allowed(AccessPolicy(), "dm", "c", "1", paired=False)
    assert still_allowed(AccessPolicy(), "dm", "c", "1", paired=True)
    assert not still_allowed(replace(policy, ignored_chats=frozenset({"c"})), "dm", "c", "1", paired=True)


# --- whose conversation it is


def test_no_id_of_a_thread_names_a_person() -> None:
    mine = session_key(AccessPolicy(), event("7", "group"))
    forged = session_key(AccessPolicy(), event("8", "group", thread="user 7"))
    assert mine != forged
    assert is_personal(mine)
    assert not is_personal(forged)


PLACES = st.tuples(POLICIES, EVENTS)


@given(PLACES, PLACES)
def test_a_conversation_is_seen_by_its_person_or_in_its_place_alone(
    one: tuple[AccessPolicy, InboundEvent], other: tuple[AccessPolicy, InboundEvent]
) -> None:
    (policy, mine), (other_policy, theirs) = one, other
    key, other_key = session_key(policy, mine), session_key(other_policy, theirs)
    principal, other_principal = f"telegram:{mine.sender.id}", f"telegram:{theirs.sender.id}"
    if owns(key, principal, other_key, other_principal):
        assert is_shared(policy, mine) == is_shared(other_policy, theirs)
        assert mine.sender.id == theirs.sender.id or mine.address == theirs.address
    assert owns(key, principal, key, principal)
    assert not owns(key, principal, f"work{other_key.removeprefix('telegram')}", other_principal)
    assert not owns(key, principal, "sess_1", "key:1")


# --- commands


def test_some_commands_are_for_admins_and_some_cannot_be_taken_away() -> None:
    policy, findings = read(
        {"admins": ["1"], "commands": {"admin_only": ["/Retry"], "everybody": ["platform"], "disabled": ["fork"]}}
    )
    assert not findings.problems
    assert policy.may_use("2", "retry") == "admins"
    assert policy.may_use("1", "retry") == "yes"
    assert policy.may_use("2", "platform") == "yes"
    assert policy.may_use("2", "restart") == "admins"
    assert policy.may_use("1", "branch") == "disabled"
    assert {"help", "stop", "whoami"} <= policy.usable("2")
    assert AccessPolicy().may_use("1", "restart") == "admins"


@given(
    POLICIES,
    st.frozensets(st.sampled_from(sorted(registry.NAMES))),
    st.frozensets(st.sampled_from(sorted(registry.NAMES))),
    IDS,
)
def test_everybody_who_may_speak_can_stop_and_ask_for_help(
    policy: AccessPolicy, admin_only: frozenset[str], disabled: frozenset[str], person: str
) -> None:
    closed = replace(policy, commands=CommandPolicy(admin_only=admin_only, disabled=disabled))
    assert closed.usable(person) >= registry.ALWAYS
    assert not closed.usable(person) & (disabled - registry.ALWAYS)
    if person not in policy.admins:
        assert not closed.usable(person) & ((admin_only | {"restart", "platform"}) - registry.ALWAYS)


@pytest.mark.parametrize(
    "commands",
    [
        {"disabled": ["stop"]},
        {"admin_only": ["nonsense"]},
        {"admin_only": "retry"},
        {"other": []},
        [],
        {"admin_only": ["restart"], "everybody": ["restart"]},
        {"disabled": [3]},
        None,
    ],
)
def test_a_mistake_about_commands_is_found(commands: Any) -> None:
    policy, findings = read({"commands": commands})
    assert [str(each).partition(" ")[0] for each in findings.problems] == ["platforms.telegram.commands:"]
    assert policy.commands == CommandPolicy()
