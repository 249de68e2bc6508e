"""The outbox as a whole: what is listed, retried, dropped, forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from hermes.events import Address, Receipt, StoredContent, StoredFile
from hermes.settings import RetentionConfig
from hermes.store import addresses, live_parts, outbox, outbox_upkeep
from hermes.store.migrations import statements
from hermes.store.outbox import Ended, Look, Part
from hermes.store.schema import MIGRATIONS

A = Address(account="one", chat="a")
TOPIC = Address(account="one", chat="a", thread="7")
B = Address(account="two", chat="b")
DAY = 86_400.0


@pytest.fixture
def con() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for migration in MIGRATIONS:
        assert isinstance(migration.change, str)
        for each in statements(migration.change):
            connection.execute(each)
    yield connection
    connection.close()


def add(con: sqlite3.Connection, address: Address, *texts: str, now: float = 0.0) -> outbox.Added:
    parts = [StoredContent(text=text) for text in texts]
    return outbox.add(con, address, parts, reply=None, source="test", turn_id=None, now=now)


def claim(con: sqlite3.Connection, address: Address, now: float = 0.0) -> Part:
    look = Look(
        boot_id="b",
        now=now,
        expire_s=DAY,
        hold=False,
        deduplicates=False,
        edits=True,
        methods=frozenset(("send", "edit")),
    )
    part = outbox.advance(con, address, look, None).part
    assert part is not None
    return part


def send(con: sqlite3.Connection, address: Address, now: float = 0.0) -> None:
    part = claim(con, address, now)
    receipt = Receipt(message_id="1", address=address)
    outbox.settle(con, Ended(part=part, how="sent", receipt=receipt), "b", now)


def states(con: sqlite3.Connection) -> list[str]:
    return [state for (state,) in con.execute("SELECT state FROM outbox ORDER BY id")]


def test_a_list_shows_what_did_not_arrive_and_nothing_else(con: sqlite3.Connection) -> None:
    add(con, A, "arrived", "rejected", "waits")
    send(con, A)
    outbox.settle(con, Ended(part=claim(con, A), how="rejected", reason="no"), "b", 1.0)
    file = StoredFile(digest="0", name="a.pdf", media_type="application/pdf", size_bytes=1)
    outbox.add(con, B, [StoredContent(file=file)], reply=None, source="test", turn_id=None, now=2.0)
    found = outbox_upkeep.listing(con, limit=10)
    assert [(each.text, each.state, each.reason) for each in found] == [
        ("a.pdf", "pending", None),
        ("waits", "pending", None),
        ("rejected", "rejected", "no"),
    ]
    assert [each.text for each in outbox_upkeep.listing(con, limit=1, account="one")] == ["waits"]
    assert outbox_upkeep.counts(con) == {"pending": 2, "rejected": 1}
    assert outbox_upkeep.state_of(con, found[2].key) == ("rejected", "no")
    assert outbox_upkeep.state_of(con, "nothing") is None


def test_what_a_newer_version_wrote_is_listed_and_held(con: sqlite3.Connection) -> None:
    add(con, A, "x")
    con.execute("UPDATE outbox SET content = '[]'")
    assert [each.text for each in outbox_upkeep.listing(con, limit=10)] == ["(unreadable)"]
    look = Look(
        boot_id="b", now=0.0, expire_s=DAY, hold=False, deduplicates=False, edits=True, methods=frozenset(("send",))
    )
    assert outbox.advance(con, A, look, None).held == ("unreadable: written by another version",)
    assert states(con) == ["held"]


def test_a_retry_believes_in_an_address_again_and_still_follows_a_chat_that_moved(con: sqlite3.Connection) -> None:
    (key,) = add(con, A, "1").keys
    outbox.settle(con, Ended(part=claim(con, A), how="gone", reason="left"), "b", 1.0)
    assert add(con, A, "2").gone == "left"
    assert outbox_upkeep.retry(con, key, 5.0) == A
    assert add(con, A, "3").gone is None
    outbox.settle(con, Ended(part=claim(con, A, 5.0), how="rejected", reason="no"), "b", 5.0)
    addresses.move(con, "one", "a", "new", 6.0)
    assert outbox_upkeep.retry(con, key, 7.0) == Address(account="one", chat="new")
    assert [each.content.text for each in (claim(con, Address(account="one", chat="new"), 7.0),)] == ["3"]


def test_something_from_a_chat_brings_all_its_threads_back(con: sqlite3.Connection) -> None:
    for address in (A, TOPIC):
        addresses.gone(con, address, "kicked", 1.0)
    addresses.address_is_back(con, A)
    assert add(con, TOPIC, "1").gone is None


def test_old_ends_are_forgotten_with_their_addresses_and_open_parts_are_not(con: sqlite3.Connection) -> None:
    add(con, A, "sent")
    send(con, A)
    add(con, B, "waits")
    add(con, TOPIC, "sent")
    send(con, TOPIC)
    addresses.gone(con, TOPIC, "closed", 0.0)
    settings = RetentionConfig(finished_rows_s=DAY)
    assert outbox_upkeep.forget(con, settings, DAY / 2) == 0
    assert (
        outbox_upkeep.forget(con, settings, 2 * DAY) == 3
    )  # two parts, one address; that it is gone is remembered longer
    assert states(con) == ["pending"]
    assert sorted(con.execute("SELECT chat, thread FROM addresses").fetchall()) == [("a", "7"), ("b", "")]
    assert outbox_upkeep.forget(con, settings, 40 * DAY) == 1
    assert con.execute("SELECT chat FROM addresses").fetchall() == [("b",)]


def test_the_open_parts_of_an_address_are_found_by_an_index(con: sqlite3.Connection) -> None:
    def plan(query: str, *values: object) -> str:
        return " ".join(row[3] for row in con.execute(f"EXPLAIN QUERY PLAN {query}", values))

    where = f"account = ? AND chat = ? AND thread = ? AND {addresses.OPEN} AND state != 'live'"
    first = plan(f"SELECT id FROM outbox WHERE {where} ORDER BY seq", "a", "b", "")
    assert "outbox_open (account=? AND chat=? AND thread=?)" in first
    assert "TEMP B-TREE" not in first
    where = f"account = ? AND (chat, thread) > (?, ?) AND {addresses.WAITING}"
    page = plan(f"SELECT DISTINCT chat, thread FROM outbox WHERE {where} ORDER BY chat, thread", "a", "", "")
    assert "outbox_open" in page
    assert "TEMP B-TREE" not in page
    live = plan(f"SELECT id FROM outbox WHERE turn_id = ? AND {addresses.OPEN} AND state = 'live' ORDER BY seq", "t")
    assert "outbox_turn (turn_id=?)" in live


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_reply_that_was_cut_ends_where_its_chat_has_moved_meanwhile(con: sqlite3.Connection, is_shown: bool) -> None:
    """What the old chat shows stays as it is; the whole reply comes to the new one, behind what waits there."""
    row = live_parts.open_live(
        con, A, StoredContent(text="draft"), reply=None, source="turn", turn_id="dead", boot_id="b", now=0.0
    )
    assert row is not None
    if is_shown:
        live_parts.shown(con, row.id, Receipt(message_id="1", address=A))
    live_parts.end_live(con, "dead", 1.0)
    there = Address(account="one", chat="c")
    add(con, there, "first")
    addresses.move(con, "one", "a", "c", 2.0)
    parts = [StoredContent(text="whole")]
    added = live_parts.finish_live(
        con, A, parts, reply=None, source="turn", turn_id="next", now=3.0, resumes="dead"
    )  # fmt: skip
    assert added.address == there
    found = con.execute("SELECT chat, state, receipt FROM outbox ORDER BY seq").fetchall()
    assert found == [("c", "pending", None), ("c", "pending", None)]
    assert claim(con, there, 4.0).content.text == "first"
