"""The outbox against a model: whatever happens in whatever order, a part ends once, in order, never two at a time."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hermes.events import Address, Receipt, StoredContent
from hermes.store import addresses, live_parts, outbox, outbox_upkeep
from hermes.store.migrations import statements
from hermes.store.outbox import Ended, Look, Part
from hermes.store.schema import MIGRATIONS

pytestmark = pytest.mark.wall_clock_s(300)

ADDRESSES = [Address(account="one", chat=chat) for chat in "abc"] + [Address(account="two", chat="a", thread="t")]
FINAL = {"sent", "rejected", "held"}
OPEN = {"live", "pending", "sending", "ambiguous"}
EXPIRE_S = 1000.0

which = st.sampled_from(ADDRESSES)


def content(text: str) -> StoredContent:
    return StoredContent(text=text)


class Outbox(RuleBasedStateMachine):
    """Lanes, turns, people, crashes, by turns."""

    @initialize()
    def opened(self) -> None:
        self.con = sqlite3.connect(":memory:", isolation_level=None)
        for migration in MIGRATIONS:
            assert isinstance(migration.change, str)
            for each in statements(migration.change):
                self.con.execute(each)
        self.now = 1000.0
        self.boot = 1
        self.made = 0  # parts that were ever added
        self.turn = 0
        self.in_hand: dict[Address, Part] = {}  # what each lane is sending, by its own belief
        self.ended: dict[int, str] = {}  # rows that are over, as they were seen
        self.may_reopen: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "con"):
            self.con.close()

    def rows(self) -> list[dict[str, Any]]:
        cursor = self.con.execute("SELECT * FROM outbox ORDER BY id")
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, each, strict=True)) for each in cursor.fetchall()]

    def at(self, address: Address) -> list[dict[str, Any]]:
        return [
            each for each in self.rows() if (each["account"], each["chat"], each["thread"]) == addresses.at(address)
        ]

    @rule(address=which, count=st.integers(1, 3))
    def add(self, address: Address, count: int) -> None:
        added = outbox.add(
            self.con, address, [content(f"{self.made + n}") for n in range(count)], reply=None, source="test",
            turn_id=None, now=self.now,
        )  # fmt: skip
        self.made += count
        assert len(set(added.keys)) == count
        states = [each["state"] for each in self.rows() if each["key"] in added.keys]
        assert states == (["pending"] if added.gone is None else ["rejected"]) * count

    @rule(address=which, hold=st.booleans(), drops=st.booleans(), edits=st.booleans())
    def claim(self, address: Address, hold: bool, drops: bool, edits: bool) -> None:
        if address in self.in_hand:
            return
        queue = [each for each in self.at(address) if each["state"] in OPEN - {"live"}]
        look = Look(
            boot_id=str(self.boot), now=self.now, expire_s=EXPIRE_S, hold=hold, deduplicates=drops, edits=edits,
            methods=frozenset(("send", "edit")),
        )  # fmt: skip
        step = outbox.advance(self.con, address, look, None)
        after = {each["id"]: each for each in self.rows()}
        if step.part is None:
            assert not [each for each in queue if after[each["id"]]["state"] not in FINAL]
            return
        first = min((each for each in queue if after[each["id"]]["state"] not in FINAL), key=lambda each: each["seq"])
        assert step.part.id == first["id"]
        assert after[step.part.id]["state"] == "sending"
        assert step.part.marked <= bool(first["doubtful"])
        if first["doubtful"] and not drops:
            assert step.part.marked
            assert not (hold and first["doubtful"] == outbox.DOUBT)
        self.in_hand[address] = step.part

    @precondition(lambda self: self.in_hand)
    @rule(
        data=st.data(),
        how=st.sampled_from(["sent", "rejected", "gone", "moved", "again", "uncertain", "bug"]),
        to=st.sampled_from("abc"),
    )
    def settle(self, data: st.DataObject, how: Any, to: str) -> None:
        address = data.draw(st.sampled_from(sorted(self.in_hand, key=str)))
        part = self.in_hand.pop(address)
        receipt = Receipt(message_id="m", address=address) if how == "sent" else None
        ended = Ended(part=part, how=how, reason="why", receipt=receipt, moved_to=to if how == "moved" else None)
        outbox.settle(self.con, ended, str(self.boot), self.now)
        (row,) = [each for each in self.rows() if each["id"] == part.id]
        assert row["state"] != "sending"
        if how == "uncertain" and part.receipt is None:
            assert (row["state"], row["doubtful"] > 0) == ("ambiguous", True)
        if how == "again":
            assert row["attempts"] == part.attempts - 1
        before = self.rows()
        outbox.settle(self.con, ended, str(self.boot), self.now)  # a second time it does nothing
        assert self.rows() == before

    @rule(address=which)
    def draft(self, address: Address) -> None:
        row = live_parts.open_live(
            self.con, address, content("draft"), reply=None, source="turn", turn_id=f"t{self.turn}",
            boot_id=str(self.boot), now=self.now,
        )  # fmt: skip
        self.made += row is not None

    @rule(doubt=st.booleans())
    def answered(self, doubt: bool) -> None:
        for each in self.rows():
            if each["state"] == "live" and each["turn_id"] == f"t{self.turn}":
                if doubt:
                    live_parts.doubt(self.con, each["id"])
                else:
                    place = addresses.of(each["account"], each["chat"], each["thread"])
                    live_parts.shown(self.con, each["id"], Receipt(message_id="m", address=place))

    @rule(address=which, count=st.integers(0, 3), resumes=st.booleans())
    def end_turn(self, address: Address, count: int, resumes: bool) -> None:
        if resumes and self.turn:
            dead = f"t{self.turn - 1}"
            self.may_reopen |= {
                each["id"] for each in self.rows() if each["turn_id"] == dead and each["reason"] == "cut"
            }
        there = {each["id"] for each in self.rows()}
        live_parts.finish_live(
            self.con, address, [content("end")] * count, reply=None, source="turn", turn_id=f"t{self.turn}", now=self.now,
            resumes=f"t{self.turn - 1}" if resumes and self.turn else None,
        )  # fmt: skip
        self.made += len([each for each in self.rows() if each["id"] not in there])
        assert not [each for each in self.rows() if each["state"] == "live" and each["turn_id"] == f"t{self.turn}"]
        moved = set(self.con.execute("SELECT account, chat, thread FROM addresses WHERE moved_to IS NOT NULL"))
        waits = [each for each in self.rows() if each["state"] == "pending" and each["turn_id"] == f"t{self.turn}"]
        assert not moved & {(each["account"], each["chat"], each["thread"]) for each in waits}, "nobody is there"
        self.turn += 1

    @rule()
    def cut_turn(self) -> None:
        live_parts.end_live(self.con, f"t{self.turn}", self.now)
        self.turn += 1

    @rule()
    def crash(self) -> None:
        self.boot += 1
        self.turn += 1
        sending = [each for each in self.rows() if each["state"] == "sending"]
        found = outbox_upkeep.recover(self.con, str(self.boot), self.now)
        self.in_hand.clear()
        assert found.doubtful + found.edits == len(sending)
        states = {each["id"]: (each["state"], each["doubtful"]) for each in self.rows()}
        for each in sending:
            state, doubtful = states[each["id"]]
            assert (state, doubtful > 0) == (("pending", False) if each["receipt"] else ("ambiguous", True))
        assert not {"sending", "live"} & {state for state, _ in states.values()}

    @rule(seconds=st.floats(1, 600))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        outbox_upkeep.expire(self.con, self.now - EXPIRE_S, self.now)
        assert not [
            each
            for each in self.rows()
            if each["state"] in ("pending", "ambiguous") and each["created_at"] <= self.now - EXPIRE_S
        ]

    @rule(address=which)
    def back(self, address: Address) -> None:
        addresses.address_is_back(self.con, address)
        added = outbox.add(self.con, address, [content("x")], reply=None, source="t", turn_id=None, now=self.now)
        self.made += 1
        assert added.gone is None

    @rule(chat=st.sampled_from("abc"), to=st.sampled_from("abc"))
    def move(self, chat: str, to: str) -> None:
        old = [
            each["id"]
            for each in self.at(Address(account="one", chat=chat))
            if each["state"] in OPEN - {"sending", "live"}
        ]
        addresses.move(self.con, "one", chat, to, self.now)
        if chat != to:
            new = {each["id"]: each["seq"] for each in self.at(Address(account="one", chat=to))}
            assert set(old) <= set(new)

    @rule()
    def remove_account(self) -> None:
        outbox_upkeep.hold_removed(self.con, ["one"], self.now)
        assert not [
            each for each in self.rows() if each["account"] == "two" and each["state"] in ("pending", "ambiguous")
        ]

    @rule(number=st.integers(0, 10))
    def retry(self, number: int) -> None:
        dead = outbox_upkeep.listing(self.con, limit=100)
        dead = [each for each in dead if each.state in ("held", "rejected")]
        if dead:
            row = dead[number % len(dead)]
            self.may_reopen |= {each["id"] for each in self.rows() if each["key"] == row.key}
            assert outbox_upkeep.retry(self.con, row.key, self.now) is not None
            assert outbox_upkeep.retry(self.con, row.key, self.now) is None

    @rule(number=st.integers(0, 10))
    def drop(self, number: int) -> None:
        rows = self.rows()
        if rows:
            row = rows[number % len(rows)]
            done = outbox_upkeep.drop(self.con, row["key"], self.now)
            dead = row["state"] == "rejected" and row["reason"] not in ("cut", "left over")
            assert done == (dead or row["state"] in ("pending", "ambiguous", "held"))
            self.made -= dead  # what was over is forgotten
            self.ended.pop(row["id"], None)

    @invariant()
    def it_holds(self) -> None:
        if not hasattr(self, "con"):
            return
        rows = self.rows()
        assert len(rows) == self.made
        seen: set[tuple[Any, ...]] = set()
        sending: set[tuple[Any, ...]] = set()
        for each in rows:
            where = (each["account"], each["chat"], each["thread"])
            assert each["state"] in OPEN | FINAL
            assert (each["finished_at"] is not None) == (each["state"] in FINAL)
            assert each["attempts"] >= 0
            assert each["state"] != "ambiguous" or each["doubtful"]
            assert each["state"] != "pending" or not each["doubtful"]
            assert each["state"] not in ("rejected", "held") or each["reason"]
            if each["state"] in OPEN:
                assert (*where, each["seq"]) not in seen
                seen.add((*where, each["seq"]))
            if each["state"] == "sending":
                assert where not in sending
                sending.add(where)
            if each["id"] in self.ended and each["id"] not in self.may_reopen:
                assert each["state"] == self.ended[each["id"]], "a part that is over ended again"
            if each["state"] in FINAL:
                self.ended[each["id"]] = each["state"]
            else:
                self.ended.pop(each["id"], None)
        self.may_reopen.clear()
        assert len(self.in_hand) == len(sending)


TestOutbox = Outbox.TestCase
TestOutbox.settings = settings(deadline=None, stateful_step_count=60, max_examples=settings().max_examples)
