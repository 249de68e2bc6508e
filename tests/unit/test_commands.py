"""How a command is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.commands import COMMANDS, Command, help_text, parse, unknown_text


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/help", Command("help")),
        ("/START", Command("help")),
        ("/reset ", Command("new")),
        ("/title  a long name\nof two lines", Command("title", "a long name\nof two lines")),
        ("/no-such_thing x", Command("no_such_thing", "x")),
        ("/etc/hosts", None),
        ("/ help", None),
        ("//", None),
        ("help", None),
        ("", None),
        ("/9", None),
    ],
)
def test_what_is_a_command(text: str, command: Command | None) -> None:
    assert parse(text) == command


@given(st.text())
def test_no_text_makes_reading_fail(text: str) -> None:
    found = parse("/" + text)
    if found is not None:
        assert found.name == found.name.lower()
        assert len(found.name) <= 32
        assert found.name in unknown_text(found)


def test_every_command_is_in_the_help_and_can_be_registered() -> None:
    for each in COMMANDS:
        assert f"`/{each.name}" in help_text()
        assert each.name.replace("_", "").isalnum()
        assert 0 < len(each.help) <= 256
        assert parse(f"/{each.name}") == Command(each.name)
