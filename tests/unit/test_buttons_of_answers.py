"""Buttons below an answer: under its last part, where the service has buttons, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hermes.current import Current
from hermes.events import Address, Button
from hermes.messaging import Messaging
from hermes.platform import Capabilities

ROWS = ((Button("1", "/resume a"), Button("2", "/resume b")),)


def messaging(**accounts: Capabilities) -> Messaging:
    platforms: Any = {name: SimpleNamespace(spec=SimpleNamespace(capabilities=can)) for name, can in accounts.items()}
    return Messaging(cast("Current", SimpleNamespace(config=SimpleNamespace(platforms=platforms))))


@pytest.mark.parametrize(("words", "parts"), [("short", 1), ("\n\n".join(["word " * 24] * 5), 5)])
def test_the_last_part_holds_them(words: str, parts: int) -> None:
    shown = messaging(one=Capabilities(buttons=True, max_text=200)).parts(Address("one", "c"), words, ROWS)
    assert [each.buttons for each in shown] == [()] * (parts - 1) + [ROWS]


@pytest.mark.parametrize("account", ["none", "removed"])
def test_a_service_without_buttons_and_an_account_that_is_gone_show_words_alone(account: str) -> None:
    (shown,) = messaging(none=Capabilities()).parts(Address(account, "c"), "words", ROWS)
    assert (shown.text, shown.buttons) == ("words", ())
