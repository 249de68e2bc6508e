"""What an account remembers: over a restart, bounded, of its own alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from hermes.errors import PlatformProtocolError
from hermes.store import cursors
from hermes.store.schema import M001, M002


@pytest.fixture
def con() -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(":memory:")
    found.executescript(M001 + M002)
    yield found
    found.close()


def test_a_cursor_moves_and_belongs_to_its_account(con: sqlite3.Connection) -> None:
    cursors.move(con, "a", {"offset": b"1", "other": b"x"}, 1.0)
    cursors.move(con, "b", {"offset": b"9"}, 1.0)
    cursors.move(con, "a", {"offset": b"2"}, 2.0)
    assert cursors.cursors(con, "a") == {"offset": b"2", "other": b"x"}
    assert cursors.cursors(con, "b") == {"offset": b"9"}


def test_the_cursors_moved_longest_ago_go_first(con: sqlite3.Connection) -> None:
    for number in range(cursors.MAX_CURSORS + 10):
        cursors.move(con, "a", {f"chat {number}": b"1"}, float(number))
    cursors.move(con, "a", {"chat 11": b"2"}, 1e6)
    left = cursors.cursors(con, "a")
    assert len(left) == cursors.MAX_CURSORS
    assert "chat 9" not in left
    assert left["chat 11"] == b"2"


@pytest.mark.parametrize(("name", "value"), [("", b""), ("x" * 101, b""), ("x", b"y" * 4097)])
def test_what_is_too_long_is_no_cursor_and_no_memory(con: sqlite3.Connection, name: str, value: bytes) -> None:
    with pytest.raises(PlatformProtocolError):
        cursors.move(con, "a", {name: value}, 1.0)
    with pytest.raises(PlatformProtocolError):
        cursors.keep(con, "a", name, value, 1.0)
    assert cursors.cursors(con, "a") == {}


def test_memory_is_kept_replaced_forgotten_and_bounded(con: sqlite3.Connection) -> None:
    cursors.keep(con, "a", "digest", b"1", 1.0)
    cursors.keep(con, "a", "digest", b"2", 2.0)
    assert cursors.recall(con, "a", "digest") == b"2"
    assert cursors.recall(con, "b", "digest") is None
    cursors.keep(con, "a", "digest", None, 3.0)
    assert cursors.recall(con, "a", "digest") is None
    for number in range(cursors.MAX_KEYS + 1):
        cursors.keep(con, "a", f"k{number}", b"x", float(number))
    assert cursors.recall(con, "a", "k0") is None
    assert cursors.recall(con, "a", "k1") == b"x"
