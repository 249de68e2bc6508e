"""What a text is taken for: a command of ours, a command that is none, or words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.commands import (
    ALIASES,
    ALWAYS,
    COMMANDS,
    FOR_ADMINS,
    NAMES,
    SAYS,
    Command,
    as_typed,
    help_text,
    list_text,
    parse,
)

LINES = st.text(max_size=30) | st.from_regex(
    r"[/ ]{0,2}[A-Za-z_/@.-]{0,12}[@ \n]?[\w\u2014\u2013 -]{0,12}", fullmatch=True
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/new", Command("new")),
        ("  /NEW  trip to Rome ", Command("new", "trip to Rome")),
        ("/reset", Command("new")),
        ("/set-home", Command("sethome")),
        ("/q and then\nthe rest", Command("queue", "and then\nthe rest")),
        ("/title\nover two\nlines", Command("title", "over two\nlines")),
        ("/new@Our_Bot x", Command("new", "x")),
        ("/platform \u2014retry x\u2014y", Command("platform", "--retry x\u2014y")),
        ("/steer \u2014well", Command("steer", "\u2014well")),
        ("/unheard_of x", Command("unheard_of", "x")),
        ("/new@other", None),
        ("/new@", None),
        ("/etc/hosts", None),
        ("/new/", None),
        ("/ new", None),
        ("//new", None),
        ("/", None),
        ("/1", None),
        ("say /new", None),
        ("/" + "x" * 33, None),
        ("", None),
    ],
)
def test_what_a_text_is(text: str, found: Command | None) -> None:
    assert parse(text, "our_bot") == found


def test_a_command_with_a_name_is_nobodys_where_ours_is_not_known() -> None:
    assert parse("/stop@our_bot") is None
    assert parse("/stop") == Command("stop")


@given(LINES, st.none() | st.text(max_size=5))
def test_any_text_is_a_command_or_words(text: str, name: str | None) -> None:
    found = parse(text, name)
    if found is not None:
        assert text.strip().startswith("/")
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,31}", found.name)
        assert found.name not in ALIASES
        assert found.arguments == found.arguments.strip()
    else:
        assert text.strip().split("\n")[0].split(" ")[0].lower() not in {f"/{each.name}" for each in COMMANDS}


@given(st.sampled_from(COMMANDS), st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_what_a_command_is_given_is_kept(spec: object, arguments: str) -> None:
    name = spec.name  # type: ignore[attr-defined]
    found = parse(f"/{name} {arguments}")
    assert found is not None
    assert found.known
    if found.name in SAYS:
        assert found.arguments == arguments.strip()
    assert len(found.arguments) <= 2 * len(arguments)


def test_the_registry_is_in_order() -> None:
    names = [each.name for each in COMMANDS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]{1,32}", name) for name in names)
    assert all(0 < len(each.help) <= 100 and "\n" not in each.help for each in COMMANDS)
    assert set(ALIASES.values()) | SAYS | ALWAYS | FOR_ADMINS <= NAMES
    assert not NAMES & ALIASES.keys()
    assert not ALWAYS & FOR_ADMINS


def test_help_lists_what_may_be_used() -> None:
    assert all(f"`/{name}" in help_text() for name in NAMES)
    assert list_text(frozenset({"stop"})) == "- `/stop` End what is being answered, and what waits"


def test_commands_are_named_as_people_type_them() -> None:
    assert as_typed("- `/new` `[title]` Begin; /sessions lists them, /resume and a number.", "!") == (
        "- `!new` `[title]` Begin; !sessions lists them, !resume and a number."
    )
    assert (
        as_typed("see /newer, /etc/new, https://x/new and a/new", "!")
        == "see /newer, /etc/new, https://x/new and a/new"
    )


@given(st.text())
def test_where_a_slash_is_typed_words_stay_as_they_are(text: str) -> None:
    assert as_typed(text, "/") == text


def test_the_help_names_no_command_with_a_slash_where_another_sign_is_typed() -> None:
    assert "/" not in as_typed(help_text(), "!")
