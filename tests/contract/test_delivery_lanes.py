"""What delivery promises, through a real database and a service that can be in any mood, on virtual time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.delivery.content import MARK
from hermes.errors import (
    AddressGone,
    PlatformConflict,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    StoreUnavailable,
    Unreachable,
    WebSocketClosed,
)
from hermes.events import Address, ReplyRef, StoredContent, StoredFile
from hermes.platform import Capabilities
from hermes.store import addresses
from hermes.store.outbox import Ended
from hermes.testing.delivering import EPOCH, open_delivering, say
from hermes.testing.fake_platform import Call, FakeConnections, FakePlatform, Mood, refuses, shows_and_raises

A = Address(account="one", chat="a")
B = Address(account="one", chat="b")
OTHER = Address(account="two", chat="a")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def can(**changes: Any) -> Capabilities:
    return Capabilities(**changes)


# --- in order, once


async def test_parts_are_shown_in_order_and_once(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        await place.post("1", "2", "3")
        await place.post("4")
        await place.until(*["sent"] * 4)
        assert place.platform.texts("a") == ["1", "2", "3", "4"]
        assert place.platform.most_at_once == 1
        keys = [key for (key,) in await place.rows("key")]
        assert len(set(keys)) == 4
        assert keys == sorted(keys)
        assert all(1 <= len(key) <= 25 and key.isalnum() and key.islower() for key in keys)
        receipts = [receipt for (receipt,) in await place.rows("receipt")]
        assert all(b'"message_id":"m' in receipt for receipt in receipts)


async def test_an_idle_address_has_no_task(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        before = trio.lowlevel.current_statistics().tasks_living
        await place.post("1")
        await place.until("sent")
        while place.delivery.statistics().running:  # noqa: ASYNC110  # the row is over a little before its lane
            await trio.sleep(0.01)
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_one_part_in_two_transactions(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        await trio.sleep(1)  # the first sweep is over
        await place.store.outbox.add(A, say("1", "2", "3"), reply=None, source="test")
        before = place.store.database.statistics().transactions
        place.delivery.wake(A)
        while place.platform.texts("a") != ["1", "2", "3"] or place.delivery.statistics().running:
            await trio.lowlevel.checkpoint()
        assert place.store.database.statistics().transactions - before == 4  # one more than parts
        assert await place.states() == ["sent"] * 3


async def test_each_part_takes_one_lease_and_what_comes_meanwhile_waits_for_no_sweep(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_delivering(tmp_path, clock, sweep_s=3600) as place:
        settle, late = place.store.outbox.settle, ["3", "4"]

        async def settling(ended: Ended) -> Sequence[Address]:
            if late:  # after the last look, before and after the end is written
                await place.post(late.pop(0))
            moved = await settle(ended)
            if late:
                await place.post(late.pop(0))
            return moved

        monkeypatch.setattr(place.store.outbox, "settle", settling)
        await place.post("1", "2")
        await place.until(*["sent"] * 4)
        assert place.platform.texts("a") == ["1", "2", "3", "4"]
        assert place.connections.leases == 4


async def test_only_the_first_part_answers_a_message_and_a_void_right_is_not_used(
    tmp_path: Path, clock: MockClock
) -> None:
    now = EPOCH + trio.current_time()
    async with open_delivering(tmp_path, clock) as place:
        await place.delivery.post(A, say("1", "2"), reply=ReplyRef(message_id="7"), source="test")
        await place.delivery.post(
            A, say("3", "4"), reply=ReplyRef(token="t", message_id="8", until=now + 900), source="test"
        )
        await place.delivery.post(A, say("5"), reply=ReplyRef(token="t", message_id="9", until=now - 1), source="test")
        await place.until(*["sent"] * 5)
        assert [each.reply for each in place.platform.messages.values()] == [
            ReplyRef(message_id="7"),
            None,
            ReplyRef(message_id="8", token="t", until=now + 900),
            ReplyRef(token="t", until=now + 900),
            ReplyRef(message_id="9"),
        ]


async def test_a_lost_hint_costs_a_sweep(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, sweep_s=30) as place:
        await trio.sleep(1)
        await place.store.outbox.add(A, say("1"), reply=None, source="test")
        await place.until("sent")
        assert 1 < trio.current_time() < 32


# --- what an outcome does


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SendRejected("too strange"), "rejected", "too strange"),
        (AddressGone("blocked"), "rejected", "blocked"),
    ],
)
async def test_a_definite_no_ends_the_part(
    tmp_path: Path, clock: MockClock, error: Exception, state: str, reason: str
) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(error))
        await place.post("1")
        await place.until(state)
        assert await place.rows() == [(state, reason)]
        assert len(place.platform.asked("a")) == 1


@pytest.mark.parametrize(
    "error",
    [
        PlatformUnavailable("502"),
        PlatformConflict("somebody else"),
        PlatformRefused("revoked"),
        Unreachable("no route", sent=False),
        RateLimited("slowly", retry_after_s=3),
        ExceptionGroup("both", [RateLimited("slowly", retry_after_s=3)]),
    ],
)
async def test_a_definite_failure_spends_nothing_and_is_tried_until_it_works(
    tmp_path: Path, clock: MockClock, error: Exception
) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", *[refuses(error)] * 20)
        await place.post("1", "2")
        await place.until("sent", "sent")
        assert place.platform.texts("a") == ["1", "2"]
        assert await place.rows("attempts, doubtful") == [(1, 0), (1, 0)]
        assert len(place.platform.asked("a")) == 22


async def test_a_service_that_says_when_is_not_asked_before(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(PlatformUnavailable("503", retry_after_s=100)))
        await place.post("1")
        await place.until("sent")
        first, second = place.platform.asked("a")
        assert second - first >= 100


DOUBTFUL = [
    SendUncertain("cut"),
    Unreachable("timeout", sent=True),
    WebSocketClosed(1006),
    PlatformProtocolError("an answer of garbage"),
]


@pytest.mark.parametrize("error", DOUBTFUL)
@pytest.mark.parametrize("shown", [True, False])
async def test_a_doubtful_part_comes_again_marked(
    tmp_path: Path, clock: MockClock, error: Exception, shown: bool
) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", shows_and_raises(error) if shown else refuses(error))
        await place.post("1", "2")
        await place.until("sent", "sent")
        assert place.platform.texts("a") == ["1"] * shown + [f"{MARK}\n1", "2"]


@pytest.mark.parametrize("error", DOUBTFUL)
async def test_a_doubtful_part_is_held_where_that_is_wanted(tmp_path: Path, clock: MockClock, error: Exception) -> None:
    async with open_delivering(tmp_path, clock, ambiguous="hold") as place:
        place.platform.next("a", shows_and_raises(error))
        await place.post("1", "2")
        await place.until("held", "sent")
        assert place.platform.texts("a") == ["1", "2"]
        (row,) = await place.store.outbox.listing()
        assert (row.state, row.reason, row.text) == ("held", "uncertain: it may have been shown", "1")
        # A person decides to have it sent: it is, with its mark.
        assert await place.delivery.retry(row.key)
        await place.until("sent", "sent")
        assert place.platform.texts("a") == ["1", "2", f"{MARK}\n1"]
        assert not await place.delivery.retry(row.key)


@pytest.mark.parametrize("error", DOUBTFUL)
@pytest.mark.parametrize("shown", [True, False])
async def test_a_service_that_drops_repeats_gets_the_same_key(
    tmp_path: Path, clock: MockClock, error: Exception, shown: bool
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=can(deduplicates=True), ambiguous="hold") as place:
        place.platform.next("a", shows_and_raises(error) if shown else refuses(error))
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1"]
        assert len({each.key for each in place.platform.calls}) == 1
        assert len(place.platform.calls) == 2


async def test_after_its_window_a_service_drops_no_repeats(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=can(deduplicates=True)) as place:
        place.platform.next(
            "a", shows_and_raises(SendUncertain("cut")), refuses(PlatformUnavailable("no", retry_after_s=400))
        )
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1", f"{MARK}\n1"]


async def test_a_doubt_outlives_definite_failures_that_follow_it(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        moods = [shows_and_raises(SendUncertain("cut")), *[refuses(PlatformUnavailable("502"))] * 3]
        place.platform.next("a", *moods)
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1", f"{MARK}\n1"]


async def test_a_marked_part_that_is_rejected_is_held(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(SendUncertain("cut")), refuses(SendRejected("too long")))
        await place.post("1")
        await place.until("held")
        assert "too long" in (await place.rows())[0][1]


async def test_a_plugin_s_bug_is_tried_three_times_and_harms_nobody_else(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", *[refuses(KeyError("ok"))] * 3)
        await place.post("1", "2")
        await place.until("held", "sent")
        assert (await place.rows())[0] == ("held", "bug: KeyError: 'ok'")
        assert place.platform.texts("a") == ["2"]


async def test_a_file_that_is_gone_is_said(tmp_path: Path, clock: MockClock) -> None:
    file = StoredFile(digest="0" * 64, name="a.txt", media_type="text/plain", size_bytes=1)
    async with open_delivering(tmp_path, clock) as place:
        await place.delivery.post(A, [StoredContent(file=file)], source="test")
        await place.until("rejected")
        assert await place.rows() == [("rejected", "its file is not there any more")]
        assert place.platform.calls == []


# --- addresses that are gone or moved


async def test_a_gone_address_is_remembered_until_something_comes_from_there(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(AddressGone("blocked")))
        await place.post("1", "2")
        await place.until("rejected", "rejected")
        await place.post("3")
        assert await place.states() == ["rejected"] * 3
        assert len(place.platform.calls) == 1
        await place.store.database.write(lambda con: addresses.address_is_back(con, A))
        await place.post("4")
        await place.until("rejected", "rejected", "rejected", "sent")


async def test_what_was_asked_where_a_chat_was_is_answered_where_it_is_without_a_sweep(
    tmp_path: Path, clock: MockClock
) -> None:
    """A turn is begun before its chat moves: its end goes to the new chat, and wakes the lane of the former one."""
    async with open_delivering(tmp_path, clock, sweep_s=3600) as place:
        await trio.sleep(1)  # the first sweep is over
        for chat, to in (("a", "b"), ("b", "c")):
            now = place.store.clock()
            await place.store.database.write(partial(addresses.move, account="one", chat=chat, to=to, now=now))
        await place.store.outbox.add(A, say("1"), reply=None, source="test")
        place.delivery.wake(A)
        await place.until("sent")
        assert place.platform.texts("c") == ["1"]
        assert trio.current_time() < 60


async def test_a_chat_that_moved_is_followed_by_what_waits_and_what_comes(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(AddressGone("upgraded", moved_to="new")))
        await place.post("1", "2", "3")
        await place.until("sent", "sent", "sent")
        await place.post("4")
        await place.until(*["sent"] * 4)
        assert place.platform.texts("new") == ["1", "2", "3", "4"]
        assert len(place.platform.asked("a")) == 1


async def test_a_hint_for_where_a_chat_was_finds_what_followed_it(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, sweep_s=3600) as place:
        await trio.sleep(1)  # the first sweep is over
        await place.store.database.write(lambda con: addresses.move(con, "one", "a", "new", EPOCH))
        await place.store.outbox.add(A, say("1"), reply=None, source="test")
        place.delivery.wake(A)  # as the end of a turn does that was asked for before the chat moved
        with trio.fail_after(10):
            await place.until("sent")
        assert place.platform.texts("new") == ["1"]


async def test_chats_that_move_in_a_circle_end(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.mood = lambda call: refuses(
            AddressGone("moved", moved_to={"a": "b", "b": "a"}[call.address.chat])
        )
        await place.post("1")
        await place.until("rejected")
        assert len(place.platform.calls) < 20


# --- limits


async def test_a_limited_chat_is_left_alone_and_no_other_waits(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(RateLimited("flood", retry_after_s=30)))
        await place.post("1", "2")
        await place.post("x", at=B)
        await place.until("pending", "pending", "sent")
        assert trio.current_time() < 1
        threads = [Address(account="one", chat="a", thread=str(number)) for number in range(3)]
        for thread in threads:  # the limit is the chat's
            await place.post("t", at=thread)
        await place.until(*["sent"] * 6)
        first, *later = place.platform.asked("a")
        assert len(later) == 5
        assert all(each - first >= 30 for each in later)


async def test_a_limit_of_the_account_stops_all_its_chats_and_no_other_account(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", refuses(RateLimited("flood", retry_after_s=30, scope="account")))
        await place.post("1")
        await place.until("pending")
        for number in range(50):
            await place.post("x", at=Address(account="one", chat=f"c{number}"))
        await place.post("y", at=OTHER)
        await trio.sleep(29)
        assert len(place.platform.calls) == 1
        assert place.connections.platforms["two"].texts("a") == ["y"]
        await place.until(*["sent"] * 52)
        assert 30 <= trio.current_time() < 31
        assert len(place.platform.calls) == 52


async def test_a_limit_of_the_account_stops_every_kind_of_request(tmp_path: Path, clock: MockClock) -> None:
    every = can(typing_every_s=4, drafts=True, edits=True, reactions=True)
    async with open_delivering(tmp_path, clock, capabilities=every) as place:
        place.set(receipts="reaction")
        async with place.delivery.open_live(B, turn_id="t") as live, place.delivery.open_typing(B):
            live.update("it is")
            await place.until_shown("it is", chat=B.chat)
            place.platform.next("a", refuses(RateLimited("flood", retry_after_s=30, scope="account")))
            await place.post("1")
            began = trio.current_time()
            await trio.sleep(0.01)
            asked = len(place.platform.calls)
            live.update("it is being written")
            await place.accept("7")
            await trio.sleep(28)
            assert len(place.platform.calls) == asked
            await place.until_shown("it is being written", chat=B.chat)
            await place.until("live", "sent")
        assert trio.current_time() - began >= 30


async def test_a_limit_of_one_method_leaves_the_others(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=can(edits=True, drafts=True)) as place:
        async with place.delivery.open_live(B, turn_id="t") as live:
            live.update("draft")
            await place.until_shown("draft", chat="b")
        place.platform.next("a", refuses(RateLimited("flood", retry_after_s=30, scope="method")))
        await place.post("1")
        await trio.sleep(1)
        await place.finish(B, "t", "all of it", "and more")
        await trio.sleep(1)
        assert place.platform.texts("b") == ["all of it"]  # an edit; the part that must be sent waits
        assert place.platform.texts("a") == []
        await place.until(*["sent"] * 3)
        assert trio.current_time() >= 30
        assert len(place.platform.asked("a", "send")) == 2
        assert len(place.platform.asked("b", "send")) == 2


async def test_a_slow_chat_makes_no_other_wait(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        hangs = trio.Event()
        place.platform.next("a", Mood(gate=hangs))
        await place.post("1")
        for number in range(100):
            await place.post("x", at=Address(account="one", chat=f"c{number}"))
        await place.until("sending", *["sent"] * 100)
        assert trio.current_time() < 1
        hangs.set()
        await place.until(*["sent"] * 101)
        assert len(place.platform.calls) == 101


async def test_thousands_of_addresses_share_a_bounded_number_of_tasks(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:

        def fill(con: Any) -> None:
            from hermes.store import outbox

            for number in range(2000):
                outbox.add(
                    con,
                    Address(account="one", chat=f"c{number}"),
                    say("x"),
                    reply=None,
                    source="t",
                    turn_id=None,
                    now=EPOCH,
                )

        await place.store.database.write(fill)
        most = 0

        def look(_: Call) -> Mood:
            nonlocal most
            most = max(most, place.delivery.statistics().running)
            return Mood()

        place.platform.mood = look
        place.delivery.wake(A)
        await place.until(*["sent"] * 2000)
        assert most == 32
        assert trio.current_time() < 31


# --- connections


async def test_an_account_that_is_down_is_waited_for_through_a_restart(tmp_path: Path, clock: MockClock) -> None:
    platform = FakePlatform()
    connections = FakeConnections(one=platform)
    connections.down("one")
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        await place.post("1", "2")
        await trio.sleep(300)
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        await trio.sleep(300)
        assert place.platform.calls == []
        assert await place.states() == ["pending", "pending"]
        connections.back("one")
        await place.until("sent", "sent")
        assert platform.texts("a") == ["1", "2"]
        assert trio.current_time() < 605


async def test_a_generation_that_ends_leaves_what_was_being_sent_in_doubt(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", Mood(gate=trio.Event()))
        await place.post("1", "2")
        await place.until_shown("1")
        place.connections.down("one")
        await place.until("ambiguous", "pending")
        place.connections.back("one")
        await place.until("sent", "sent")
        assert place.platform.texts("a") == ["1", f"{MARK}\n1", "2"]


async def test_an_account_that_comes_and_goes_is_not_asked_in_a_hot_loop(tmp_path: Path, clock: MockClock) -> None:
    class Flapping(FakeConnections):
        async def wait_connected(self, account: str) -> None:
            await trio.lowlevel.checkpoint()

    connections = Flapping(one=FakePlatform())
    connections.down("one")
    asked = 0
    lease = connections.lease

    def counted(account: str) -> Any:
        nonlocal asked
        asked += 1
        return lease(account)

    connections.lease = counted  # type: ignore[method-assign]
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        await place.post("1")
        await trio.sleep(600)
        assert 3 < asked < 60


async def test_what_waits_too_long_is_held(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, expire_s=3600) as place:
        place.connections.down("one")
        await place.post("1")
        await trio.sleep(3500)
        assert await place.states() == ["pending"]
        await place.until("held")
        assert await place.rows() == [("held", "expired")]
        place.connections.back("one")
        (row,) = await place.store.outbox.listing()
        assert await place.delivery.retry(row.key)
        await place.until("sent")


async def test_what_waits_for_an_account_that_was_removed_is_held(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, accounts=["one"]) as place:
        await place.post("1", at=Address(account="gone", chat="a"))
        await place.until("held")
        assert await place.rows() == [("held", "account removed")]
        assert await place.store.outbox.counts() == {"held": 1}


async def test_dropping_ends_a_part_that_waits(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.connections.down("one")
        await place.post("1")
        (row,) = await place.store.outbox.listing()
        assert await place.store.outbox.drop(row.key)
        assert not await place.store.outbox.drop(row.key + "x")
        place.connections.back("one")
        assert await place.rows() == [("rejected", "dropped by a person")]
        assert await place.store.outbox.drop(row.key)  # what is over is forgotten
        assert await place.rows() == []
        assert not await place.store.outbox.drop(row.key)


async def test_a_store_that_is_away_loses_and_repeats_nothing(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_delivering(tmp_path, clock) as place:
        table, away = type(place.store.outbox), 0

        def sometimes(method: Any) -> Any:
            async def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal away
                away += 1
                await trio.sleep(0.1)
                if away % 3:
                    raise StoreUnavailable("full")
                return await method(*args, **kwargs)

            return call

        for name in ("advance", "settle", "open_accounts", "keep_up"):
            monkeypatch.setattr(table, name, sometimes(getattr(table, name)))
        place.platform.next("a", refuses(RateLimited("slowly", retry_after_s=1)))
        await place.post("1", "2", "3")
        await place.until("sent", "sent", "sent")
        assert place.platform.texts("a") == ["1", "2", "3"]
        assert len(place.platform.calls) == 4
        assert away > 10


# --- the end, and death


async def test_the_exit_sends_what_can_be_sent_and_writes_down_what_cannot(tmp_path: Path, clock: MockClock) -> None:
    platform, other = FakePlatform(), FakePlatform()
    connections = FakeConnections(one=platform, two=other)
    connections.down("two")
    async with open_delivering(tmp_path, clock, connections=connections, flush_s=10) as place:
        platform.next("b", Mood(gate=trio.Event()))
        platform.next("c", refuses(RateLimited("flood", retry_after_s=5)))
        platform.next("d", refuses(RateLimited("flood", retry_after_s=50)))
        for chat in "abcd":
            await place.post("1", "2", at=Address(account="one", chat=chat))
        await place.post("1", at=OTHER)
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(10)
    connections = FakeConnections()
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform, two=other)) as place:
        pass
    assert platform.texts("a") == platform.texts("c") == ["1", "2"]
    assert platform.texts("b") == ["1"]
    assert platform.texts("d") == other.texts("a") == []


async def test_the_exit_waits_for_nothing_that_cannot_be_sent(tmp_path: Path, clock: MockClock) -> None:
    connections = FakeConnections(one=FakePlatform())
    connections.down("one")
    async with open_delivering(tmp_path, clock, connections=connections, flush_s=10) as place:
        await place.post("1")
        await trio.sleep(1)
        began = trio.current_time()
    assert trio.current_time() - began < 1


async def test_a_process_that_died_while_it_sent_leaves_a_doubt(tmp_path: Path, clock: MockClock) -> None:
    platform = FakePlatform()
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform)) as place:
        await place.store.outbox.add(A, say("1", "2"), reply=None, source="test")
        step = await place.store.outbox.advance(A, None, deduplicates=False, edits=False, methods=frozenset(("send",)))
        assert step.part is not None
        assert await place.states() == ["sending", "pending"]
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform)) as place:
        assert place.delivery.recovered.doubtful == 1
        await place.until("sent", "sent")
        assert platform.texts("a") == [f"{MARK}\n1", "2"]


# --- typing


async def test_typing_is_repeated_and_ends_with_its_block(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=can(typing_every_s=4)) as place:
        async with place.delivery.open_typing(A):
            await trio.sleep(10)
        assert place.platform.asked("a", "signal") == pytest.approx([0.3, 4.3, 8.3], abs=0.1)
        await trio.sleep(60)
        assert len(place.platform.calls) == 3


async def test_typing_suffers_everything_and_disturbs_nobody(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=can(typing_every_s=4)) as place:
        moods = iter([refuses(KeyError("bug")), Mood(gate=trio.Event()), refuses(RateLimited("no", retry_after_s=40))])
        place.platform.mood = lambda call: next(moods, Mood()) if call.method == "signal" else Mood()
        async with place.delivery.open_typing(A):
            await trio.sleep(5)
            await place.post("1")
            await trio.sleep(25)
            place.connections.down("one")
            await trio.sleep(60)
        asked = place.platform.asked("a", "signal")
        assert asked == pytest.approx([0.3, 4.3, 13.3], abs=0.1)
        assert await place.states() == ["sent"]
        assert not math.isinf(trio.current_time())
