"""The pure parts of delivery: what an error means, what waits for what, how a doubtful part looks."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.backoff import RETRY_AFTER_MOST_S as LONGEST_S
from hermes.delivery.content import MARK, MARK_ROOM, to_content
from hermes.delivery.limits import MOST_PAUSED, SHORTEST_S, Limits
from hermes.delivery.outcomes import judge, retry_after
from hermes.errors import (
    AddressGone,
    LeaseEnded,
    PlatformConflict,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    Unreachable,
    WebSocketClosed,
)
from hermes.events import Address, Button, OutboundFile, StoredContent, StoredFile

A = Address(account="one", chat="a")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def limits(clock: Clock, first: float = 1.0, longest: float = 60.0) -> Limits:
    return Limits(clock, lambda: (first, longest), random.Random(0))


def limited(seconds: float, scope: str = "address") -> RateLimited:
    return RateLimited("slowly", retry_after_s=seconds, scope=scope)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (SendRejected("no"), "rejected"),
        (AddressGone("left"), "gone"),
        (AddressGone("upgraded", moved_to="b"), "moved"),
        (limited(1), "again"),
        (PlatformUnavailable("502"), "again"),
        (PlatformConflict("two"), "again"),
        (PlatformRefused("401"), "again"),
        (Unreachable("no route", sent=False), "again"),
        (Unreachable("cut", sent=True), "uncertain"),
        (WebSocketClosed(1006), "uncertain"),
        (SendUncertain("cut"), "uncertain"),
        (PlatformProtocolError("garbage"), "uncertain"),
        (PlatformError("what?"), "uncertain"),
        (LeaseEnded("one"), "uncertain"),
        (KeyError("x"), "bug"),
        (ExceptionGroup("", [SendRejected("no"), SendUncertain("cut")]), "uncertain"),
        (ExceptionGroup("", [limited(1), KeyError("x")]), "bug"),
    ],
)
def test_every_error_has_its_verdict(error: Exception, how: str) -> None:
    found = judge(error)
    assert found.how == how
    assert found.reason
    assert (found.moved_to is not None) == (how == "moved")


def test_the_longest_wait_that_a_service_asks_for() -> None:
    both = ExceptionGroup("", [PlatformUnavailable("a", retry_after_s=3), PlatformConflict("b", retry_after_s=5)])
    assert retry_after(both) == 5
    assert retry_after(SendUncertain("cut")) is None


@given(st.floats(), st.sampled_from(["address", "method", "account"]))
def test_a_limit_pauses_what_it_names_and_nothing_else(seconds: float, scope: str) -> None:
    clock = Clock()
    found = limits(clock)
    until = found.limit(A, "send", limited(seconds, scope))
    assert SHORTEST_S <= until - clock.now <= LONGEST_S
    thread = Address(account="one", chat="a", thread="t")
    other = Address(account="one", chat="b")
    stranger = Address(account="two", chat="a")
    assert not found.is_free(A, "send")
    assert not found.is_free(thread, "send")
    assert found.is_free(A, "edit") == (scope == "method")
    assert found.is_free(other, "send") == (scope == "address")
    assert found.is_free(other, "edit") == (scope != "account")
    assert found.is_free(stranger, "send")
    clock.now = until
    assert found.is_free(A, "send")


@given(st.integers(1, 200), st.one_of(st.none(), st.floats()))
def test_backing_off_is_bounded_and_grows(failures: int, asked: float | None) -> None:
    clock = Clock()
    found = limits(clock)
    for number in range(failures):
        until = found.failed(A)
        assert clock.now <= until <= clock.now + min(60.0, 2.0**number)
    until = found.failed(A, asked)
    if asked is not None and not math.isnan(asked):
        assert until - clock.now >= min(max(asked, 0.0), LONGEST_S) - 1e-6
    assert until - clock.now <= LONGEST_S
    found.succeeded(A)
    assert found.is_free(A)


def test_too_many_paused_chats_pause_their_account_and_no_other() -> None:
    clock = Clock()
    found = limits(clock)
    for number in range(MOST_PAUSED + 1):
        found.limit(Address(account="one", chat=str(number)), "send", limited(100 + number))
    assert found.account_free_at("one") == clock.now + 100 + MOST_PAUSED
    assert not found.is_free(Address(account="one", chat="another"))
    assert found.is_free(Address(account="two", chat="1"))
    for number in range(3 * MOST_PAUSED):  # those that are over make room
        clock.now += 1
        found.limit(Address(account="two", chat=str(number)), "send", limited(10))
        found.failed(Address(account="two", chat=str(number)))
    assert found.account_free_at("two") == 0.0


@given(
    st.sampled_from(["plain", "telegram_html", "discord", "markdown", "slack"]),
    st.text(min_size=1, max_size=50),
    st.booleans(),
)
def test_a_mark_goes_before_the_text_and_changes_nothing_of_it(dialect: str, text: str, silent: bool) -> None:
    buttons = ((Button("yes", "y"),),)
    stored = StoredContent(text=text, dialect=dialect, buttons=buttons, silent=silent)
    plain = to_content(stored, lambda _: None, marked=False)
    marked = to_content(stored, lambda _: None, marked=True)
    assert plain is not None
    assert marked is not None
    assert plain.text == text
    assert marked.text.endswith(f"\n{text}")
    assert MARK in marked.text[: -len(text)]
    assert len(marked.text) - len(text) <= MARK_ROOM
    assert (marked.dialect, marked.buttons, marked.silent, marked.final) == (dialect, buttons, silent, True)


def test_a_file_is_looked_for_by_what_the_row_knows_of_it() -> None:
    file = StoredFile(digest="ab", name="a.png", media_type="image/png", size_bytes=3)
    found = OutboundFile(path=Path("ab"), name="a.png", media_type="image/png", size_bytes=3)
    stored = StoredContent(file=file)
    content = to_content(stored, lambda asked: found if asked == file else None, marked=True)
    assert content is not None
    assert content.file is found
    assert content.text == MARK
    assert to_content(stored, lambda _: None, marked=False) is None
